"""The same work by hand, as redis-py does it best: hiredis, bytes, one connection for each side, batches of 100."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from statistics import median
from typing import Any

from redis.asyncio import Redis

from benchmarks.brokered import Flight
from benchmarks.redis.message import BATCH, Counter, Spent, Watch, decode, document, joined

STREAM, GROUP = b"raw", b"raw"
FIELD = b"e"


@asynccontextmanager
async def client_of(url: str, **options: Any) -> AsyncGenerator[Any]:
    """Open a client of one connection, with the time-outs that redis-py has unless told otherwise."""
    cls: Any = Redis  # the types of redis-py are partly unknown
    async with cls.from_url(url, single_connection_client=True, protocol=2, **options) as client:
        await client.ping()
        yield client


async def fill(client: Any, count: int) -> None:
    """Publish in batches."""
    for first in range(0, count, BATCH):
        pipeline = client.pipeline(transaction=False)
        for number in range(first, first + BATCH):
            pipeline.xadd(STREAM, {FIELD: document(joined(number))})
        await pipeline.execute()


async def read(client: Any, counter: Counter) -> None:
    """Handle until nothing is left: read 100, acknowledge 100."""
    while counter.left > 0:
        for _, entries in await client.xreadgroup(GROUP, b"raw", {STREAM: b">"}, count=BATCH, block=1000):
            ids: list[bytes] = []
            for id_, fields in entries:
                await counter.handle(decode(fields[FIELD]).data)
                ids.append(id_)
            await client.xack(STREAM, GROUP, *ids)


async def publish_batches(url: str, count: int) -> Spent:
    """Give the seconds that a message takes."""
    async with client_of(url) as client:
        await make_group(client)
        watch = Watch()
        await fill(client, count)
        return watch.spent(count)


async def publish_one_by_one(url: str, count: int) -> Spent:
    """Give the seconds that a message takes."""
    async with client_of(url) as client:
        await make_group(client)
        watch = Watch()
        for number in range(count):
            await client.xadd(STREAM, {FIELD: document(joined(number))})
        return watch.spent(count)


async def publish_alone(url: str, count: int) -> Spent:
    """Give the median of the seconds that one call takes."""
    async with client_of(url) as client:
        await make_group(client)
        times: list[float] = []
        watch = Watch()
        for number in range(count):
            event = joined(number)
            began = time.perf_counter()
            await client.xadd(STREAM, {FIELD: document(event)})
            times.append(time.perf_counter() - began)
        return watch.spent(count, median(times))


async def consume_without_timeouts(url: str, count: int) -> Spent:
    """Do what `consume` does, with a client that waits for ever where a server hangs."""
    return await consume(url, count, socket_timeout=None)


async def consume(url: str, count: int, **options: Any) -> Spent:
    """Give the seconds that a message takes of those that wait in the stream."""
    async with client_of(url, **options) as client:
        await make_group(client)
        await fill(client, count)
        counter = Counter()
        counter.expect(count)
        watch = Watch()
        await read(client, counter)
        return watch.spent(count)


async def both(url: str, count: int) -> Spent:
    """Give the seconds that a message takes where one task publishes and another one reads."""
    async with client_of(url) as writer, client_of(url) as reader:
        await make_group(writer)
        counter = Counter()
        counter.expect(count)
        watch = Watch()
        await asyncio.gather(fill(writer, count), read(reader, counter))
        return watch.spent(count)


async def one_in_flight(url: str, count: int) -> Spent:
    """Give the median of the seconds from publishing to the handler, which waits again before the next message."""
    async with client_of(url) as writer, client_of(url) as reader:
        await make_group(writer)
        flight = Flight()
        flight.expect(count)
        reading = asyncio.ensure_future(read(reader, flight))
        spent = await flight.times(count, lambda event: writer.xadd(STREAM, {FIELD: document(event)}))
        await reading
        return spent


async def publish_to_channel(url: str, count: int) -> Spent:
    """Give the seconds that a message takes: one PUBLISH each."""
    async with client_of(url) as client:
        watch = Watch()
        for number in range(count):
            await client.publish(b"raw", document(joined(number)))
        return watch.spent(count)


async def make_group(client: Any) -> None:
    """Start with an empty server and one group."""
    await client.flushall()
    await client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
