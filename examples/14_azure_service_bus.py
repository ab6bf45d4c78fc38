"""Azure Service Bus: a queue for each handler, sessions for order by key, retries and dead letters of the service.

It runs against the server of the distribution servicebus-test-server, in this process, and needs no account. With the
connection string of a namespace in `SERVICEBUS_CONNECTION_STRING`, whose key has the right Manage, it runs there. It
creates what it needs and leaves it there: a topic, two subscriptions and three queues, all beginning with
`diator-example.`. The tier must be Standard or Premium.
"""

import asyncio
import contextlib
import os
from collections.abc import Generator
from dataclasses import dataclass

from diator_azure_servicebus import ServiceBusBroker
from diator_azure_servicebus.testing import ServerTopology
from servicebus_test_server import ServiceBusServer

from diator import Context, Diator, Hooks, NotificationEvent, Reject, Retry, contract
from diator.brokers import Ack, MoveToDeadLetters
from diator.hooks import Settled


@contract("bank.money-moved", key="account")
@dataclass(frozen=True)
class MoneyMoved(NotificationEvent):
    account: str
    amount: int


MOVES = [MoneyMoved("ann", 50), MoneyMoved("bob", 10), MoneyMoved("ann", -20)]
PREFIX = "diator-example."


@contextlib.contextmanager
def open_broker() -> Generator[ServiceBusBroker]:
    """Give a broker on Azure, or on a server of our own."""
    if connection_string := os.environ.get("SERVICEBUS_CONNECTION_STRING"):
        yield ServiceBusBroker(connection_string, prefix=PREFIX)
        return
    with ServiceBusServer() as server:
        yield ServiceBusBroker(server.connection_string, prefix=PREFIX, topology=ServerTopology(server))


class Counting(Hooks):
    """Waits until both handlers have done with all messages."""

    def __init__(self) -> None:
        self.left = 2 * len(MOVES)
        self.all_done = asyncio.Event()

    def settled(self, details: Settled) -> None:
        self.left -= isinstance(details.outcome, (Ack, MoveToDeadLetters))
        if not self.left:
            self.all_done.set()


def make_app(broker: ServiceBusBroker, hooks: Hooks) -> Diator:
    app = Diator("bank", broker=broker, retry=Retry(attempts=3, delay=0.1), hooks=[hooks])
    app.publishes(MoneyMoved)

    @app.on_event(subscription="bank.book", concurrency=10)  # the event has a key: in order for each account
    async def book(event: MoneyMoved, context: Context) -> None:
        if event.amount == 50 and context.attempt == 1:
            print(f"book: {event.account} {event.amount:+} fails once, and what follows of {event.account} waits")
            raise ConnectionError("the ledger is away")
        print(f"book: {event.account} {event.amount:+}")

    @app.on_event(subscription="bank.mail", ordered=False)  # a queue without sessions: in any order, and faster
    async def mail(event: MoneyMoved) -> None:
        if event.account == "bob":
            raise Reject("bob has no address")  # a dead letter at once
        print(f"mail: {event.account} {event.amount:+}")

    return app


async def main() -> None:
    counting = Counting()
    with open_broker() as broker:
        app = make_app(broker, counting)
        async with app, app.operations() as operations:
            async with app.worker():  # creates the entities, then takes what comes
                await app.publish(*MOVES)
                await asyncio.wait_for(counting.all_done.wait(), 60)
            for config, status in await operations.status():
                print(f"queue {PREFIX}{config.name}: {status.backlog} wait, {status.dead_letters} dead letters")
            async for letter in operations.dead_letters():
                print(f"{letter.config.name}: a dead letter: {letter.dead.failure.error}")
                await operations.purge(letter)


if __name__ == "__main__":
    asyncio.run(main())
