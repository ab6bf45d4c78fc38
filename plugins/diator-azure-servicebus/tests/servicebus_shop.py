"""The app that `test_servicebus_workers.py` runs in processes of its own: it notes what it does in a file."""

import asyncio
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from diator_azure_servicebus import ServiceBusBroker

from diator import Diator, NotificationEvent, Retry, contract

LEASE = 2.0
NOTES = Path(os.environ.get("SHOP_NOTES", "."))
BROKER = ServiceBusBroker(os.environ["SHOP_SERVICEBUS"], lease=LEASE, duplicate_window=600.0)

app = Diator("shop", broker=BROKER, retry=Retry(attempts=3, delay=0.1), concurrency=5)


@contract("shop.sold", key="customer")
@dataclass(frozen=True)
class Sold(NotificationEvent):
    """Something was sold. Each fiftieth can't be handled, each twentieth not at once."""

    number: int
    customer: int


app.publishes(Sold)


def _note(handler: str, event: Sold, how: str) -> None:
    with (NOTES / f"{os.getpid()}.notes").open("a") as file:
        file.write(json.dumps([time.time(), handler, event.number, event.customer, how]) + "\n")


async def _handle(handler: str, event: Sold) -> None:
    _note(handler, event, "began")
    await asyncio.sleep(0.02)
    if event.number % 50 == 7:
        raise ValueError("there is no such customer")
    _note(handler, event, "ended")


@app.on_event(ordered=False)
async def mail(event: Sold) -> None:
    """Handle in any order."""
    await _handle("mail", event)


@app.on_event
async def book(event: Sold) -> None:
    """Handle in order by customer."""
    await _handle("book", event)
