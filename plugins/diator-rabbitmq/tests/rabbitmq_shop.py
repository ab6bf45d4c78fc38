"""The app that `test_rabbitmq_workers.py` runs in processes of its own: it notes what it does in a file."""

import asyncio
import os
import time
from dataclasses import dataclass

from diator_rabbitmq import RabbitBroker

from diator import Context, Diator, NotificationEvent, Retry, contract

HEARTBEAT = 2
BROKER = RabbitBroker(os.environ["SHOP_RABBITMQ"], heartbeat=HEARTBEAT)
_notes = os.open(f"{os.environ['SHOP_NOTES']}/{os.getpid()}.notes", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

# Each lost connection counts as a delivery of what was on its way, of which there are many here.
app = Diator("shop", broker=BROKER, retry=Retry(attempts=3, delay=0.1), concurrency=5, max_deliveries=1_000)


@contract("shop.sold", key="customer")
@dataclass(frozen=True)
class Sold(NotificationEvent):
    """Something was sold. Each fiftieth can't be handled, each twentieth not at once."""

    number: int
    customer: int


app.publishes(Sold)


def _note(handler: str, event: Sold, how: str) -> None:
    os.write(_notes, f"{time.monotonic_ns()} {handler} {event.number} {event.customer} {how}\n".encode())


async def _handle(handler: str, event: Sold, context: Context) -> None:
    _note(handler, event, "began")
    await asyncio.sleep(0.02)
    if event.number % 50 == 7 or (event.number % 20 == 3 and context.attempt == 1):
        raise ValueError("there is no such customer")
    _note(handler, event, "ended")


@app.on_event(ordered=False, subscription="shop.mail")
async def mail(event: Sold, context: Context) -> None:
    """Handle in any order."""
    await _handle("mail", event, context)


@app.on_event(subscription="shop.book")
async def book(event: Sold, context: Context) -> None:
    """Handle in order by customer."""
    await _handle("book", event, context)
