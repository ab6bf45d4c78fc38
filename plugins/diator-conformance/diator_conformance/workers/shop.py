"""The app of the worker processes. It writes down when each run of a handler begins and ends."""

import asyncio
import os
import time
from dataclasses import dataclass
from pathlib import Path

from diator import Context, Diator, NotificationEvent, Retry, contract

ADDRESS, FOLDER, MAX_DELIVERIES = "DIATOR_PROOF_ADDRESS", "DIATOR_PROOF_FOLDER", "DIATOR_PROOF_MAX_DELIVERIES"
"""The environment variables that tell a worker its broker, where it writes, and its limit of deliveries."""
UNORDERED, ORDERED = SUBSCRIPTIONS = ("shop.mail", "shop.book")
ERROR = "there is no such customer"
_CUSTOMERS = 12
_ATTEMPTS = 3
_WORK = 0.02
"""Seconds that a run of a handler takes."""


@contract("shop.sold", key="customer")
@dataclass(frozen=True)
class Sold(NotificationEvent):
    """Something was sold."""

    number: int
    customer: int


def sold(number: int) -> Sold:
    """Return the event with this number."""
    return Sold(number, customer_of(number))


def customer_of(number: int) -> int:
    """Return the key of an event."""
    return number % _CUSTOMERS


def fails_always(number: int) -> bool:
    """Return whether an event becomes a dead letter: each fiftieth."""
    return number % 50 == 7


def attempts_of(number: int) -> int:
    """Return how many attempts an event takes if no worker dies: each twentieth fails at first."""
    return _ATTEMPTS if fails_always(number) else 2 if number % 20 == 3 else 1


def make_app() -> Diator:
    """Make the app of a worker, from its environment."""
    return app_at(os.environ[ADDRESS], Path(os.environ[FOLDER]), int(os.environ[MAX_DELIVERIES]))


def app_at(address: str, folder: Path, max_deliveries: int) -> Diator:
    """Make the app, which writes into a folder."""
    retry = Retry(attempts=_ATTEMPTS, delay=0.1)
    app = Diator("shop", broker=address, retry=retry, concurrency=5, max_deliveries=max_deliveries)
    app.publishes(Sold)
    written = folder / f"{os.getpid()}.runs"

    def write(subscription: str, number: int, how: str) -> None:
        with written.open("a") as file:  # which writes the line in one go
            file.write(f"{time.monotonic_ns()} {subscription} {number} {how}\n")

    async def handle(event: Sold, context: Context) -> None:
        subscription = str(context.subscription)
        write(subscription, event.number, "began")
        await asyncio.sleep(_WORK)
        if fails_always(event.number) or context.attempt < attempts_of(event.number):
            raise ValueError(ERROR)
        write(subscription, event.number, "ended")

    @app.on_event(ordered=False, subscription=UNORDERED)
    async def mail(event: Sold, context: Context) -> None:
        await handle(event, context)

    @app.on_event(subscription=ORDERED)
    async def book(event: Sold, context: Context) -> None:
        await handle(event, context)

    return app
