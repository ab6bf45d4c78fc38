"""The application under test in `test_redis_workers.py`, as a worker (``diator run``) or as a publisher.

Whatever happens is noted in a file of the process, one line for each ``os.write``, which no SIGKILL tears apart.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256

from diator import (
    Context,
    Diator,
    ECSTEvent,
    Event,
    Hooks,
    NotificationEvent,
    Publish,
    PublishError,
    Reject,
    Retry,
    contract,
)
from diator.hooks import Published, Settled

ACCOUNTS = 30
BURST = 100
"""So many of each kind are published in one go, then there is a pause."""
POISON = 40
"""The number of the message that kills its worker each time, in the subscriptions that ``SHOP_POISONED`` names."""
POISONED = os.environ.get("SHOP_POISONED", "").split()
FOLDER = os.environ.get("SHOP_NOTES")
_notes = os.open(f"{FOLDER}/{os.getpid()}.notes" if FOLDER else os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def note(*words: object) -> None:
    os.write(_notes, f"{time.monotonic_ns()} {' '.join(map(str, words))}\n".encode())


class Notes(Hooks):
    def settled(self, details: Settled) -> None:
        delivery = details.delivery
        what = f"{details.subscription} {details.message_id} {delivery.failures + 1}"
        unexplained = delivery.deliveries - delivery.failures - 1
        note("settled", what, type(details.outcome).__name__, int(details.lease_lost), unexplained)

    def published(self, details: Published) -> None:
        for message in details.messages:
            note("published", message.topic, message.id, sha256(message.structured).hexdigest())


@contextmanager
def noted(context: Context, n: int) -> Generator[None]:
    """Note a run of a handler; a run without an end was cut off by the death of its process."""
    what = f"{context.subscription} {context.message_id} {context.attempt} {n}"
    note("began", what)
    try:
        yield
    except asyncio.CancelledError:
        note("cancelled", what)
        raise
    except BaseException:
        note("failed", what)
        raise
    note("ended", what)


def die_of_poison(context: Context, n: int) -> None:
    if n == POISON and context.subscription in POISONED:
        os.kill(os.getpid(), signal.SIGKILL)


@contract("shop.placed")
@dataclass(frozen=True)
class Placed(NotificationEvent):
    n: int


@contract("shop.shipped")
@dataclass(frozen=True)
class Shipped(NotificationEvent):
    n: int


@contract("shop.balance", key="account")
@dataclass(frozen=True)
class Balance(ECSTEvent):
    account: int
    n: int
    text: str = "state that comes with the event"


app = Diator(
    "shop",
    broker=os.environ.get("SHOP_BROKER", "memory://"),
    retry=Retry(attempts=3, delay=0.1, jitter=0.1),
    concurrency=10,
    max_deliveries=int(os.environ.get("SHOP_MAX_DELIVERIES", "5")),
    publish_timeout=5.0,
    hooks=[Notes()],
)


@app.on_event(subscription="shop.ship")
async def ship(event: Placed, context: Context, publish: Publish[Shipped]) -> None:
    """Publishes a follow-up."""
    with noted(context, event.n):
        await asyncio.sleep(event.n % 130 / 1000)
        publish(Shipped(event.n))


@app.on_event(subscription="shop.notify")
async def notify(event: Shipped, context: Context) -> None:
    with noted(context, event.n):
        await asyncio.sleep(event.n % 20 / 1000)


@app.on_event(subscription="shop.bill")
async def bill(event: Placed, context: Context) -> None:
    """Fails on some messages, on some of them always."""
    with noted(context, event.n):
        await asyncio.sleep(event.n % 150 / 1000)
        die_of_poison(context, event.n)
        if event.n % 100 == 7 and context.attempt < 3:
            raise ConnectionError("the bank is busy")
        if event.n % 200 == 11:
            raise ConnectionError("the bank is closed")
        if event.n % 200 == 13:
            raise Reject("there is no such customer")


@app.on_event(subscription="shop.project")
async def project(event: Balance, context: Context) -> None:
    """Ordered by account. Fails on some messages, on some of them always."""
    with noted(context, event.n):
        await asyncio.sleep(event.n % 60 / 1000)
        die_of_poison(context, event.n)
        if event.n % 100 == 17 and context.attempt < 2:
            raise ConnectionError("the database is busy")
        if event.n % 300 == 23:
            raise ConnectionError("the database is broken")


app.publishes(Placed, Balance)


async def publish(pause: float, most: int) -> None:
    """Publish batches until SIGTERM, or until there were so many of each kind; what did not leave is sent again."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    n = 0
    async with app:
        note("publishing")
        while not stopping.is_set() and n < most:
            numbers = range(n, n + 10)
            await send([Placed(n) for n in numbers])
            await send([Balance(n % ACCOUNTS, n) for n in numbers])
            n += 10
            note("sent", n)
            if n % BURST == 0:
                await asyncio.sleep(pause)


async def send(events: Sequence[Event]) -> None:
    while events:
        try:
            await app.publish(*events)
        except PublishError as error:
            again = {*error.unsent, *error.unknown}
            note("unpublished", len(error.unsent), len(error.unknown))
            left: list[Event] = [event for event in events if event in again]  # in order
            events = left
            await asyncio.sleep(0.1)
        else:
            return


async def work() -> None:
    """What ``diator run`` does, where the command line is not installed."""
    async with app, app.worker() as worker:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
        await worker.wait()


if __name__ == "__main__":
    if sys.argv[1] == "work":
        asyncio.run(work())
    else:
        asyncio.run(publish(float(sys.argv[2]), int(sys.argv[3])))
