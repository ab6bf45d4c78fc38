"""RabbitMQ: a quorum queue for each handler, order by key in partitions, retries and dead letters.

It starts a private server, which needs Debian's package rabbitmq-server. With an address in `RABBITMQ_URL`, it runs
there, and leaves its exchanges and queues there, whose names begin with `example:`.
"""

import asyncio
import contextlib
import os
from collections.abc import Generator
from dataclasses import dataclass

from diator_rabbitmq import RabbitBroker
from diator_rabbitmq.testing import RabbitServer

from diator import Context, Diator, Hooks, NotificationEvent, Reject, Retry, contract
from diator.brokers import Ack, MoveToDeadLetters
from diator.hooks import Settled


@contract("bank.money-moved", key="account")
@dataclass(frozen=True)
class MoneyMoved(NotificationEvent):
    account: str
    amount: int


MOVES = [MoneyMoved("ann", 50), MoneyMoved("bob", 10), MoneyMoved("ann", -20)]


@contextlib.contextmanager
def open_broker() -> Generator[RabbitBroker]:
    """Give a broker on the server of an address, or on one of our own."""
    if url := os.environ.get("RABBITMQ_URL"):
        yield RabbitBroker(url, prefix="example")
        return
    with RabbitServer() as server:
        yield RabbitBroker(server.url, prefix="example")


class Counting(Hooks):
    """Waits until both handlers have done with all messages."""

    def __init__(self) -> None:
        self.left = 2 * len(MOVES)
        self.all_done = asyncio.Event()

    def settled(self, details: Settled) -> None:
        self.left -= isinstance(details.outcome, (Ack, MoveToDeadLetters))
        if not self.left:
            self.all_done.set()


def make_app(broker: RabbitBroker, hooks: Hooks) -> Diator:
    app = Diator("bank", broker=broker, retry=Retry(attempts=3, delay=0.1), hooks=[hooks])
    app.publishes(MoneyMoved)

    @app.on_event(subscription="bank.book", concurrency=10)  # the event has a key: in order for each account
    async def book(event: MoneyMoved, context: Context) -> None:
        if event.amount == 50 and context.attempt == 1:
            print(f"book: {event.account} {event.amount:+} fails once, and what follows of {event.account} waits")
            raise ConnectionError("the ledger is away")
        print(f"book: {event.account} {event.amount:+}")

    @app.on_event(subscription="bank.mail", ordered=False)  # one queue, in any order, for any number of workers
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
            async with app.worker():  # creates exchanges and queues, then takes what comes
                await app.publish(*MOVES)
                await asyncio.wait_for(counting.all_done.wait(), 60)
            async for letter in operations.dead_letters():
                print(f"{letter.config.name}: a dead letter: {letter.dead.failure.error}")
                await operations.purge(letter)


if __name__ == "__main__":
    asyncio.run(main())
