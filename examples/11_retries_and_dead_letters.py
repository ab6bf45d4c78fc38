"""Retries and dead letters: what happens when a handler of a brokered event fails.

A message is acknowledged when its handler has succeeded, and no earlier. After a failure it is delivered again, to
this handler alone, with growing delays; when that is of no use it becomes a dead letter, which keeps the message, the
reason and the traceback. Dead letters are read and replayed with `diator dead-letters list|show|replay|purge
module:app`, or, as here, with `app.operations()`.
"""

import asyncio
from dataclasses import dataclass

from diator import Context, Diator, Hooks, NotificationEvent, Reject, Retry
from diator.brokers import MoveToDeadLetters
from diator.hooks import Settled


class Parking(Hooks):
    """Hooks are told what happens; this one waits for two dead letters."""

    left = 2

    def settled(self, details: Settled) -> None:
        if isinstance(details.outcome, MoveToDeadLetters):
            self.left -= 1
            if not self.left:
                both_failed.set()


app = Diator("shop", broker="memory://", hooks=[Parking()])
mail_server_is_up = asyncio.Event()
both_failed = asyncio.Event()
sent = asyncio.Event()


@dataclass(frozen=True)
class OrderPlaced(NotificationEvent):
    order_id: int
    email: str


app.publishes(OrderPlaced)  # from outside of any handler: see `main`


@app.on_event(subscription="shop.confirm", retry=Retry(attempts=3, delay=0.05))
async def confirm(event: OrderPlaced, context: Context) -> None:
    if "@" not in event.email:
        raise Reject(f"{event.email!r} is no address")  # trying again is of no use
    if not mail_server_is_up.is_set():
        print(f"confirm: order {event.order_id}, attempt {context.attempt}: the mail server is away")
        raise ConnectionError("the mail server is away")
    print(f"confirm: order {event.order_id}, attempt {context.attempt}: sent")
    sent.set()


@app.on_event(subscription="shop.count")
async def count(event: OrderPlaced) -> None:
    print(f"count: order {event.order_id}")  # once: the failures of `confirm` are none of its business


async def main() -> None:
    async with app, app.worker(), app.operations() as operations:
        await app.publish(OrderPlaced(1, "ann@example.org"), OrderPlaced(2, "nobody"))
        await both_failed.wait()
        mail_server_is_up.set()
        async for letter in operations.dead_letters():
            print(f"dead letter: {letter.dead.failure.reason} ({letter.dead.failure.error})")
            if letter.dead.failure.attempts > 1:
                await operations.replay(letter)
        await sent.wait()


if __name__ == "__main__":
    asyncio.run(main())
