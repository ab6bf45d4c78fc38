"""What Diator costs over NATS JetStream, against nats-py by hand: ``python -m benchmarks.nats``.

It prints a table and writes RESULTS-nats.md; it ends with 1 where a target is missed.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import nats
from diator_nats import NatsBroker
from diator_nats.testing import NatsServer

from benchmarks.contest import Match, compete, conclude, options_of, peer, run, system
from benchmarks.redis.message import BATCH, PAUSE, Counter, Joined, Moved, Spent, Watch, decode, document, joined, moved
from diator import Diator

RESULTS = Path(__file__).parent / "RESULTS-nats.md"
ROUNDS = 5
HEAD = """\
# Results over NATS

Written by `python -m benchmarks.nats`, on {system}, NATS {server}, {packages}. The
[README](README.md#over-nats) says how each figure comes about."""
STREAM, SUBJECT, DURABLE = "raw", "raw.joined", "raw"
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


# By hand


# Any: the types of nats-py are partly unknown.
@contextlib.asynccontextmanager
async def stream_of(url: str) -> AsyncGenerator[Any]:
    """Open a connection with a new stream in files, and a durable consumer."""
    client: Any = await nats.connect(url)  # pyright: ignore[reportUnknownMemberType]  # nats-py's
    stream = client.jetstream()
    await stream.add_stream(name=STREAM, subjects=[SUBJECT], storage="file")
    try:
        await stream.add_consumer(STREAM, durable_name=DURABLE, ack_policy="explicit", max_ack_pending=-1)
        yield stream
    finally:
        await stream.delete_stream(STREAM)
        await client.close()


async def store(stream: Any, event: Joined) -> None:
    """Publish one, in the way of nats-py that is the fastest, and wait for its answer."""
    await (await stream.publish_async(SUBJECT, document(event)))


async def raw_fill(stream: Any, count: int) -> None:
    """Publish in batches."""
    for first in range(0, count, BATCH):
        batch = [await stream.publish_async(SUBJECT, document(joined(first + at))) for at in range(BATCH)]
        await asyncio.gather(*batch)


async def read(stream: Any, counter: Counter, limit: int) -> None:
    """Handle until nothing is left: fetch some, acknowledge each, and wait for the answer to the last."""
    reader = await stream.pull_subscribe_bind(durable=DURABLE, stream=STREAM)
    while counter.left > 0:
        messages = await reader.fetch(min(limit, counter.left), timeout=5)
        for message in messages:
            await counter.handle(decode(message.data).data)
            if message is not messages[-1]:
                await message.ack()
        await messages[-1].ack_sync()


async def raw_batches(url: str, count: int) -> Spent:
    """Give the seconds that a message takes."""
    async with stream_of(url) as stream:
        watch = Watch()
        await raw_fill(stream, count)
        return watch.spent(count)


async def raw_tasks(url: str, count: int) -> Spent:
    """Give the seconds that a message takes."""
    async with stream_of(url) as stream:
        return await from_tasks(count, lambda event: store(stream, event))


async def raw_consume(url: str, count: int) -> Spent:
    """Give the seconds that a message takes of those that wait."""
    counter = Counter()
    counter.expect(count)
    async with stream_of(url) as stream:
        await raw_fill(stream, count)
        watch = Watch()
        await read(stream, counter, BATCH)
        return watch.spent(count)


async def raw_in_flight(url: str, count: int) -> Spent:
    """Give the median of the seconds from publishing to the handler, which waits again before the next message."""
    flight = Flight()
    flight.expect(count)
    async with stream_of(url) as stream, stream_reader(url) as other:
        reading = asyncio.ensure_future(read(other, flight, 1))
        spent = await flight.times(count, lambda event: store(stream, event))
        await reading
        return spent


@contextlib.asynccontextmanager
async def stream_reader(url: str) -> AsyncGenerator[Any]:
    """Open a second connection."""
    client: Any = await nats.connect(url)  # pyright: ignore[reportUnknownMemberType]  # nats-py's
    yield client.jetstream()
    await client.close()


# With Diator


@contextlib.asynccontextmanager
async def app_for(url: str, counter: Counter, event: type[Event], *, concurrency: int = 1) -> AsyncGenerator[Diator]:
    """Open an app whose one subscription is empty."""
    broker = NatsBroker(url)
    app = Diator("bench", broker=broker, concurrency=concurrency)

    async def handle(event: Event) -> None:
        await counter.handle(event)

    handle.__annotations__["event"] = event
    app.on_event(subscription="bench.handle")(handle)
    app.publishes(event)
    async with app:
        async with app.worker():
            pass  # creates the subscription
        yield app
        await broker.remove_subscription("bench.handle")


async def _fill(app: Diator, count: int, make: Callable[[int], Joined | Moved] = joined) -> None:
    for first in range(0, count, BATCH):
        await app.publish(*[make(number) for number in range(first, first + BATCH)])


async def publish_batches(url: str, count: int) -> Spent:
    """Give the seconds that a message takes."""
    async with app_for(url, Counter(), Joined) as app:
        watch = Watch()
        await _fill(app, count)
        return watch.spent(count)


async def publish_tasks(url: str, count: int) -> Spent:
    """Give the seconds that a message takes."""
    async with app_for(url, Counter(), Joined) as app:
        return await from_tasks(count, app.publish)


async def consume(url: str, count: int) -> Spent:
    """Give the seconds that a message takes of those that wait, the start and the end of the worker included."""
    return await _consume(url, count, Joined, joined, 1)


async def consume_ordered(url: str, count: int) -> Spent:
    """The same with keys, ten messages at a time."""
    return await _consume(url, count, Moved, moved, 10)


async def _consume(
    url: str, count: int, event: type[Event], make: Callable[[int], Joined | Moved], concurrency: int
) -> Spent:
    counter = Counter()
    counter.expect(count)
    async with app_for(url, counter, event, concurrency=concurrency) as app:
        await _fill(app, count, make)
        watch = Watch()
        async with app.worker():
            await counter.done.wait()
            spent = watch.spent(count)
        await _prove(url)
        return spent


async def _prove(url: str) -> None:
    """See that all was acknowledged: a consumer that does not would win."""
    async with stream_reader(url) as reader:
        info = await reader.stream_info("diator_events")
        if info.state.messages:
            raise RuntimeError(f"{info.state.messages} messages were handled and not acknowledged")


async def one_in_flight(url: str, count: int) -> Spent:
    """Give the median of the seconds from publishing to the handler, which waits again before the next message."""
    flight = Flight()
    flight.expect(count)
    async with app_for(url, flight, Joined) as app, app.worker():
        return await flight.times(count, app.publish)


# Who is measured against whom

_FETCH = "fetch of 100, each acknowledged"
MATCHES = (
    Match(
        "publish batches of 100",
        "100 publish_async, awaited together",
        run(publish_batches),
        run(raw_batches),
        limit=None,
    ),
    Match(
        "publish from 100 tasks, each call confirmed",
        "publish_async from 100 tasks",
        run(publish_tasks),
        run(raw_tasks),
        limit=0.6,
    ),
    Match("handle, one at a time", _FETCH, run(consume), run(raw_consume), limit=0.4),
    Match(
        "handle ordered by key, ten at a time",
        f"{_FETCH}, without keys",
        run(consume_ordered),
        run(raw_consume),
        limit=0.15,
    ),
    Match(
        "publish to handler, one in flight, latency",
        "publish_async to fetch of one, that waits",
        run(one_in_flight),
        run(raw_in_flight),
        limit=2,
        count=1_000,
        is_latency=True,
    ),
    Match(
        "handle, one at a time",
        "FastStream 0.7.8, a pull subscriber",
        run(consume),
        peer("faststream[nats]==0.7.8", "nats_faststream", "nats-py==2.16.0"),
        limit=None,
        their_count=2_000,
        rounds=3,
    ),
)


def main() -> int:
    """Run from the command line."""
    options = options_of("benchmarks.nats", __doc__)
    matches = [match for match in MATCHES if options.only in f"{match.what} / {match.against}"]
    with NatsServer() as server:
        compete(matches, server.url, options, ROUNDS, quick_count=200)
        version_of_server = asyncio.run(_version(server.url))
    packages = f"nats-py {version('nats-py')}"
    return conclude(
        matches, HEAD.format(system=system(), server=version_of_server, packages=packages), options, RESULTS
    )


async def _version(url: str) -> str:
    client: Any = await nats.connect(url)  # pyright: ignore[reportUnknownMemberType]  # nats-py's
    found = client.connected_server_version
    await client.close()
    return f"{found.major}.{found.minor}.{found.patch}"


if __name__ == "__main__":
    sys.exit(main())
