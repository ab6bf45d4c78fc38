"""What Diator costs over RabbitMQ, against aio-pika by hand: ``python -m benchmarks.rabbitmq``.

It prints a table and writes RESULTS-rabbitmq.md; it ends with 1 where a target is missed.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import aio_pika
from diator_rabbitmq import RabbitBroker
from diator_rabbitmq.testing import RabbitServer

from benchmarks.contest import Match, compete, conclude, options_of, peer, run, system
from benchmarks.nats import Flight, from_tasks
from benchmarks.redis.message import BATCH, Counter, Joined, Moved, Spent, Watch, decode, document, joined, moved
from diator import Diator

RESULTS = Path(__file__).parent / "RESULTS-rabbitmq.md"
ROUNDS = 5
HEAD = """\
# Results over RabbitMQ

Written by `python -m benchmarks.rabbitmq`, on {system}, RabbitMQ {server}, {packages}. The
[README](README.md#over-rabbitmq) says how each figure comes about."""
PREFETCH = 200
Event = TypeVar("Event", Joined, Moved)


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
async def app_for(url: str, counter: Counter, event: type[Event], *, concurrency: int = 1) -> AsyncGenerator[Diator]:
    """Open an app whose one subscription is empty."""
    app = Diator("bench", broker=RabbitBroker(url), concurrency=concurrency)
    name = f"bench.{event.__name__.lower()}"

    async def handle(event: Event) -> None:
        await counter.handle(event)

    handle.__annotations__["event"] = event
    app.on_event(subscription=name, ordered=event is Moved)(handle)
    app.publishes(event)
    async with app:
        async with app.worker():
            pass  # creates the subscription, which the first time takes a second
        await _sizes(url, purge=True)
        yield app


QUEUES = ("diator:queue:bench.joined", *(f"diator:part{number}:bench.moved" for number in range(8)))


async def _sizes(url: str, *, purge: bool) -> int:
    """Count what is in the queues, and delete it if wanted."""
    size = 0
    async with connection_of(url) as connection:
        for name in QUEUES:
            with contextlib.suppress(aio_pika.exceptions.ChannelClosed):  # it does not exist yet
                channel = await connection.channel()
                queue = await channel.declare_queue(name, passive=True)
                size += queue.declaration_result.message_count or 0
                await (queue.purge() if purge else channel.close())
    return size


async def _fill(app: Diator, count: int, make: Callable[[int], Any] = joined) -> None:
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
    """Give the seconds that a message takes of those that wait, the start of the worker included."""
    return await _consume(url, count, Joined, joined, 1)


async def consume_ordered(url: str, count: int) -> Spent:
    """The same with keys, ten messages at a time."""
    return await _consume(url, count, Moved, moved, 10)


async def _consume(url: str, count: int, event: type[Event], make: Callable[[int], Any], concurrency: int) -> Spent:
    counter = Counter()
    counter.expect(count)
    async with app_for(url, counter, event, concurrency=concurrency) as app:
        await _fill(app, count, make)
        watch = Watch()
        async with app.worker():
            await counter.done.wait()
            spent = watch.spent(count)
        if left := await _sizes(url, purge=False):  # a consumer that does not acknowledge would win
            raise RuntimeError(f"{left} messages were handled and not acknowledged")
        return spent


async def one_in_flight(url: str, count: int) -> Spent:
    """Give the median of the seconds from publishing to the handler, which waits again before the next message."""
    flight = Flight()
    flight.expect(count)
    async with app_for(url, flight, Joined) as app, app.worker():
        return await flight.times(count, app.publish)


# Who is measured against whom

_CONSUME = f"consume with a prefetch of {PREFETCH}, each acknowledged"
MATCHES = (
    Match(
        "publish batches of 100",
        "100 publish, awaited together",
        run(publish_batches),
        run(raw_batches),
        limit=None,
    ),
    Match(
        "publish from 100 tasks, each call confirmed",
        "publish from 100 tasks",
        run(publish_tasks),
        run(raw_tasks),
        limit=0.6,
    ),
    Match("handle, one at a time", _CONSUME, run(consume), run(raw_consume), limit=0.4),
    Match(
        "handle ordered by key, ten at a time",
        f"{_CONSUME}, without keys",
        run(consume_ordered),
        run(raw_consume),
        limit=0.15,
    ),
    Match(
        "publish to handler, one in flight, latency",
        "publish to consume",
        run(one_in_flight),
        run(raw_in_flight),
        limit=2,
        count=1_000,
        is_latency=True,
    ),
    Match(
        "handle, one at a time",
        "FastStream 0.7.8, a subscriber",
        run(consume),
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
