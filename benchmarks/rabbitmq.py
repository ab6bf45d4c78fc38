"""What Diator costs over RabbitMQ, against aio-pika by hand: ``python -m benchmarks.rabbitmq``.

It prints a table and writes RESULTS-rabbitmq.md; it ends with 1 where a target is missed.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import aio_pika
from diator_rabbitmq.testing import RabbitServer

from benchmarks.brokered import Flight, Ours, from_tasks
from benchmarks.contest import Match, compete, conclude, options_of, peer, run, system
from benchmarks.redis.message import BATCH, Counter, Joined, Spent, Watch, decode, document, joined

RESULTS = Path(__file__).parent / "RESULTS-rabbitmq.md"
ROUNDS = 5
HEAD = """\
# Results over RabbitMQ

Written by `python -m benchmarks.rabbitmq`, on {system}, RabbitMQ {server}, {packages}. The
[README](README.md#over-rabbitmq) says how each figure comes about."""
PREFETCH = 200


# By hand


class Raw(NamedTuple):
    """An exchange with a quorum queue, on a channel with publisher confirms."""

    exchange: Any
    queue: Any

    async def store(self, event: Joined) -> None:
        """Publish one, and wait until it is confirmed."""
        body = document(event)
        message = aio_pika.Message(body, delivery_mode=2, content_type="application/cloudevents+json")
        await self.exchange.publish(message, "0")

    async def fill(self, count: int) -> None:
        """Publish in batches."""
        for first in range(0, count, BATCH):
            await asyncio.gather(*[self.store(joined(first + at)) for at in range(BATCH)])

    async def read(self, counter: Counter) -> None:
        """Handle what comes, and acknowledge each."""

        async def on_message(message: Any) -> None:
            await counter.handle(decode(message.body).data)
            await message.ack()

        await self.queue.consume(on_message)


# Any: the types of aio-pika are partly unknown.
@contextlib.asynccontextmanager
async def connection_of(url: str) -> AsyncGenerator[Any]:
    """Open a connection of the kind that does not connect again by itself."""
    connection: Any = await aio_pika.connect(url)  # pyright: ignore[reportUnknownMemberType]  # aio-pika's
    async with connection:
        yield connection


@contextlib.asynccontextmanager
async def raw_of(url: str) -> AsyncGenerator[Raw]:
    """Open a connection with a new queue."""
    async with connection_of(url) as connection:
        channel = await connection.channel(publisher_confirms=True)
        await channel.set_qos(prefetch_count=PREFETCH)
        exchange = await channel.declare_exchange("raw", "topic", durable=True)
        queue = await channel.declare_queue("raw", durable=True, arguments={"x-queue-type": "quorum"})
        await queue.bind(exchange, "#")
        yield Raw(exchange, queue)
        await channel.close()  # first, or the client would warn of a consumer whose queue is gone
        await (await connection.channel()).queue_delete("raw")


async def raw_batches(url: str, count: int) -> Spent:
    """Give the seconds that a message takes."""
    async with raw_of(url) as raw:
        watch = Watch()
        await raw.fill(count)
        return watch.spent(count)


async def raw_tasks(url: str, count: int) -> Spent:
    """Give the seconds that a message takes."""
    async with raw_of(url) as raw:
        return await from_tasks(count, raw.store)


async def raw_consume(url: str, count: int) -> Spent:
    """Give the seconds that a message takes of those that wait."""
    counter = Counter()
    counter.expect(count)
    async with raw_of(url) as raw:
        await raw.fill(count)
        watch = Watch()
        await raw.read(counter)
        await counter.done.wait()
        return watch.spent(count)


async def raw_in_flight(url: str, count: int) -> Spent:
    """Give the median of the seconds from publishing to the handler, which waits again before the next message."""
    flight = Flight()
    flight.expect(count)
    async with raw_of(url) as raw:
        await raw.read(flight)
        return await flight.times(count, raw.store)


# With Diator


@contextlib.asynccontextmanager
async def _queues(url: str) -> AsyncGenerator[list[Any]]:
    """Open the queues of the subscriptions that exist."""
    found: list[Any] = []
    async with connection_of(url) as connection:
        for name in ("queue:bench.joined", *(f"part{number}:bench.moved" for number in range(8))):
            with contextlib.suppress(aio_pika.exceptions.ChannelClosed):  # it does not exist yet
                channel = await connection.channel()
                found.append(await channel.declare_queue(f"diator:{name}", passive=True))
        yield found


async def _empty(url: str) -> None:
    async with _queues(url) as queues:
        for queue in queues:
            await queue.purge()


async def _left(url: str) -> int:
    async with _queues(url) as queues:
        return sum(queue.declaration_result.message_count or 0 for queue in queues)


OURS = Ours(_empty, _left)

# Who is measured against whom

_CONSUME = f"consume with a prefetch of {PREFETCH}, each acknowledged"
MATCHES = (
    Match(
        "publish batches of 100",
        "100 publish, awaited together",
        run(OURS.publish_batches),
        run(raw_batches),
        limit=None,
    ),
    Match(
        "publish from 100 tasks, each call confirmed",
        "publish from 100 tasks",
        run(OURS.publish_tasks),
        run(raw_tasks),
        limit=0.6,
    ),
    Match("handle, one at a time", _CONSUME, run(OURS.consume), run(raw_consume), limit=0.4),
    Match(
        "handle ordered by key, ten at a time",
        f"{_CONSUME}, without keys",
        run(OURS.consume_ordered),
        run(raw_consume),
        limit=0.15,
    ),
    Match(
        "publish to handler, one in flight, latency",
        "publish to consume",
        run(OURS.one_in_flight),
        run(raw_in_flight),
        limit=2,
        count=1_000,
        is_latency=True,
    ),
    Match(
        "handle, one at a time",
        "FastStream 0.7.8, a subscriber",
        run(OURS.consume),
        peer("faststream[rabbit]==0.7.8", "rabbitmq_faststream", "aio-pika==10.2.1"),
        limit=None,
        their_count=2_000,
        rounds=3,
    ),
)


def main() -> int:
    """Run from the command line."""
    options = options_of("benchmarks.rabbitmq", __doc__)
    matches = [match for match in MATCHES if options.only in f"{match.what} / {match.against}"]
    with RabbitServer() as server:
        compete(matches, server.url, options, ROUNDS, quick_count=200)
        version_of_server = asyncio.run(_version(server.url))
    packages = f"aio-pika {version('aio-pika')}"
    return conclude(
        matches, HEAD.format(system=system(), server=version_of_server, packages=packages), options, RESULTS
    )


async def _version(url: str) -> str:
    async with connection_of(url) as connection:
        properties: dict[str, Any] = connection.transport.connection.server_properties
        return str(properties["version"])


if __name__ == "__main__":
    sys.exit(main())
