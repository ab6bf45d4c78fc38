"""What brokers are measured with: latencies, publishing from tasks, and Diator's side where it is the same for all."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from statistics import median
from typing import NamedTuple, TypeVar

from benchmarks.redis.message import BATCH, PAUSE, Counter, Joined, Moved, Spent, Watch, joined, moved
from diator import Diator

TASKS = 100
Event = TypeVar("Event", Joined, Moved)


class Flight(Counter):
    """Notes when a message arrives."""

    def __init__(self) -> None:
        super().__init__()
        self.at = 0.0
        self.landed = asyncio.Event()

    async def handle(self, event: object) -> None:
        self.at = time.perf_counter()
        self.landed.set()
        await super().handle(event)

    async def times(self, count: int, publish: Callable[[Joined], Awaitable[object]]) -> Spent:
        """Publish one after the other, each when the handler has had the last; the median counts."""
        times: list[float] = []
        watch = Watch()
        for number in range(count):
            event = joined(number)
            self.landed.clear()
            began = time.perf_counter()
            await publish(event)
            await self.landed.wait()
            times.append(self.at - began)
            await asyncio.sleep(PAUSE)
        return watch.spent(count, median(times))


async def from_tasks(count: int, publish: Callable[[Joined], Awaitable[object]]) -> Spent:
    """Publish from 100 tasks, each of which awaits one call after the other."""
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await publish(joined(number))

    watch = Watch()
    await asyncio.gather(*[work() for _ in range(TASKS)])
    return watch.spent(count)


async def publish_all(app: Diator, count: int, make: Callable[[int], Joined | Moved] = joined) -> None:
    """Publish in batches."""
    for first in range(0, count, BATCH):
        await app.publish(*[make(number) for number in range(first, first + BATCH)])


class Ours(NamedTuple):
    """What Diator does over a broker, each against a call by hand; all give the seconds that a message takes."""

    empty: Callable[[str], Awaitable[None]]
    """Deletes what the subscriptions have of the last time, at a server with this address."""
    left: Callable[[str], Awaitable[int]]
    """Counts what the server has of them."""

    @contextlib.asynccontextmanager
    async def _app(self, url: str, counter: Counter, event: type[Event], concurrency: int) -> AsyncGenerator[Diator]:
        """Open an app whose one subscription is empty."""
        await self.empty(url)
        app = Diator("bench", broker=url, concurrency=concurrency)

        async def handle(event: Event) -> None:
            await counter.handle(event)

        handle.__annotations__["event"] = event
        app.on_event(subscription=f"bench.{event.__name__.lower()}")(handle)
        app.publishes(event)
        async with app:
            async with app.worker():
                pass  # creates the subscription
            yield app

    async def publish_batches(self, url: str, count: int) -> Spent:
        async with self._app(url, Counter(), Joined, 1) as app:
            watch = Watch()
            await publish_all(app, count)
            return watch.spent(count)

    async def publish_tasks(self, url: str, count: int) -> Spent:
        async with self._app(url, Counter(), Joined, 1) as app:
            return await from_tasks(count, app.publish)

    async def consume(self, url: str, count: int) -> Spent:
        """Handle what waits, the start of the worker included."""
        return await self._consume(url, count, Joined, joined, 1)

    async def consume_ordered(self, url: str, count: int) -> Spent:
        """The same with keys, ten messages at a time."""
        return await self._consume(url, count, Moved, moved, 10)

    async def _consume(
        self, url: str, count: int, event: type[Event], make: Callable[[int], Joined | Moved], concurrency: int
    ) -> Spent:
        counter = Counter()
        counter.expect(count)
        async with self._app(url, counter, event, concurrency) as app:
            await publish_all(app, count, make)
            watch = Watch()
            async with app.worker():
                await counter.done.wait()
                spent = watch.spent(count)
            if left := await self.left(url):  # a consumer that does not acknowledge would win
                raise RuntimeError(f"{left} messages were handled and not acknowledged")
        return spent

    async def one_in_flight(self, url: str, count: int) -> Spent:
        """Give the median of the seconds from publishing to the handler, which waits again before the next message."""
        flight = Flight()
        flight.expect(count)
        async with self._app(url, flight, Joined, 1) as app, app.worker():
            return await flight.times(count, app.publish)
