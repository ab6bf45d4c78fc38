"""What Diator costs over NATS JetStream, against nats-py by hand: ``python -m benchmarks.nats``.

It prints a table and writes RESULTS-nats.md; it ends with 1 where a target is missed.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nats
from diator_nats import NatsBroker
from diator_nats.testing import NatsServer

from benchmarks.brokered import Flight, Ours, from_tasks
from benchmarks.contest import Match, compete, conclude, options_of, peer, run, system
from benchmarks.redis.message import BATCH, Counter, Joined, Spent, Watch, decode, document, joined

RESULTS = Path(__file__).parent / "RESULTS-nats.md"
ROUNDS = 5
HEAD = """\
# Results over NATS

Written by `python -m benchmarks.nats`, on {system}, NATS {server}, {packages}. The
[README](README.md#over-nats) says how each figure comes about."""
STREAM, SUBJECT, DURABLE = "raw", "raw.joined", "raw"


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


async def _empty(url: str) -> None:
    broker = NatsBroker(url)
    await broker.connect()
    for name in ("bench.joined", "bench.moved"):
        await broker.remove_subscription(name)
    await broker.aclose()


async def _left(url: str) -> int:
    async with stream_reader(url) as reader:
        info = await reader.stream_info("diator_events")
        return int(info.state.messages)


OURS = Ours(_empty, _left)

# Who is measured against whom

_FETCH = "fetch of 100, each acknowledged"
MATCHES = (
    Match(
        "publish batches of 100",
        "100 publish_async, awaited together",
        run(OURS.publish_batches),
        run(raw_batches),
        limit=None,
    ),
    Match(
        "publish from 100 tasks, each call confirmed",
        "publish_async from 100 tasks",
        run(OURS.publish_tasks),
        run(raw_tasks),
        limit=0.6,
    ),
    Match("handle, one at a time", _FETCH, run(OURS.consume), run(raw_consume), limit=0.4),
    Match(
        "handle ordered by key, ten at a time",
        f"{_FETCH}, without keys",
        run(OURS.consume_ordered),
        run(raw_consume),
        limit=0.15,
    ),
    Match(
        "publish to handler, one in flight, latency",
        "publish_async to fetch of one, that waits",
        run(OURS.one_in_flight),
        run(raw_in_flight),
        limit=2,
        count=1_000,
        is_latency=True,
    ),
    Match(
        "handle, one at a time",
        "FastStream 0.7.8, a pull subscriber",
        run(OURS.consume),
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
