"""Retries and dead letters: what happens when a handler of a brokered event fails.

A message is acknowledged when its handler has succeeded, and no earlier. After a failure it is delivered again, to this
handler alone, with growing delays; when that is of no use it becomes a dead letter, which keeps the message, the reason
and the traceback. Dead letters are read and replayed with `diator dead-letters list|show|replay|purge module:app`, or, as
here, through the broker.
"""

import asyncio
from dataclasses import dataclass

from diator import Context, Diator, NotificationEvent, Reject, Retry
from diator.brokers import MemoryBroker, Subscription, Topic

broker = MemoryBroker()
app = Diator("shop", broker=broker)
mail_server_is_up = False
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
    if not mail_server_is_up:
        print(f"confirm: order {event.order_id}, attempt {context.attempt}: the mail server is away")
        raise ConnectionError("the mail server is away")
    print(f"confirm: order {event.order_id}, attempt {context.attempt}: sent")
    sent.set()


@app.on_event(subscription="shop.count")
async def count(event: OrderPlaced) -> None:
    print(f"count: order {event.order_id}")  # once: the failures of `confirm` are none of its business


async def dead_letters(number: int) -> None:
    """Wait for so many dead letters, tell them, and have those replayed that were tried more than once."""
    confirm_orders = Subscription("shop.confirm", (Topic("OrderPlaced", keyed=False, types=("OrderPlaced",)),))
    while (await broker.status([confirm_orders]))[0].dead_letters != number:
        await asyncio.sleep(0.01)
    async for letter in broker.dead_letters(confirm_orders):
        print(f"dead letter: {letter.why.reason} ({letter.why.error})")
        if letter.why.attempts > 1:
            await broker.replay(confirm_orders, letter)


async def main() -> None:
    global mail_server_is_up
    async with app, app.worker():
        await app.publish(OrderPlaced(1, "ann@example.org"), OrderPlaced(2, "nobody"))
        await asyncio.sleep(0)
        mail_server_is_up = await dead_letters(2) is None
        await sent.wait()


if __name__ == "__main__":
    asyncio.run(main())
