"""The same work with Diator."""

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from statistics import median

from diator_redis import RedisBroker
from dishka import AsyncContainer, Provider, Scope, make_async_container

from benchmarks.brokered import Flight, from_tasks, publish_all
from benchmarks.redis.message import Counter, Joined, Moved, Spent, Watch, joined, moved
from benchmarks.redis.raw import client_of
from diator import Diator


class Connection:
    """What a container makes for each message, and closes after it."""


async def open_connection() -> AsyncGenerator[Connection]:
    yield Connection()


def _container() -> AsyncContainer:
    provider = Provider(scope=Scope.REQUEST)
    provider.provide(open_connection)
    return make_async_container(provider)


@asynccontextmanager
async def _app_for(url: str, counter: Counter) -> AsyncGenerator[Diator]:
    async with client_of(url) as client:
        await client.flushall()
    app = Diator("bench", broker=RedisBroker(url), concurrency=1)

    @app.on_event(subscription="bench.handle")
    async def handle(event: Joined) -> None:
        await counter.handle(event)

    app.publishes(Joined)
    async with app:
        async with app.worker():
            pass  # creates the subscription
        yield app


async def publish_batches(url: str, count: int) -> Spent:
    """Give the seconds that a message takes."""
    async with _app_for(url, Counter()) as app:
        watch = Watch()
        await publish_all(app, count)
        return watch.spent(count)


async def publish_at_the_same_time(url: str, count: int) -> Spent:
    """Give the seconds that a message takes: 100 tasks, each of which publishes one message after the other."""
    async with _app_for(url, Counter()) as app:
        return await from_tasks(count, app.publish)


async def publish_alone(url: str, count: int) -> Spent:
    """Give the median of the seconds that one call takes."""
    async with _app_for(url, Counter()) as app:
        return await _times(app, count)


async def _times(app: Diator, count: int) -> Spent:
    times: list[float] = []
    watch = Watch()
    for number in range(count):
        event = joined(number)
        began = time.perf_counter()
        await app.publish(event)
        times.append(time.perf_counter() - began)
    return watch.spent(count, median(times))


async def consume(url: str, count: int) -> Spent:
    """Give the seconds that a message takes of those that wait, the start of the worker included."""
    counter = Counter()
    counter.expect(count)
    async with _app_for(url, counter) as app:
        await publish_all(app, count)
        spent = await _run_worker(app, counter, count)
        await _prove(url, "diator:{bench.joined}:events")
        return spent


async def consume_ordered(url: str, count: int) -> Spent:
    """The same with keys, ten messages at a time, and for each a scope with a resource in it."""
    async with client_of(url) as client:
        await client.flushall()
    counter = Counter()
    counter.expect(count)
    app = Diator("bench", broker=RedisBroker(url), concurrency=10, container=_container())

    @app.on_event(subscription="bench.handle")
    async def handle(event: Moved, connection: Connection) -> None:  # noqa: ARG001 - that it is made is measured
        await counter.handle(event)

    app.publishes(Moved)
    async with app:
        async with app.worker():
            pass
        await publish_all(app, count, moved)
        return await _run_worker(app, counter, count)


async def _run_worker(app: Diator, counter: Counter, count: int) -> Spent:
    watch = Watch()
    async with app.worker():
        await counter.done.wait()
        return watch.spent(count)


async def _prove(url: str, stream: str) -> None:
    """See that all was acknowledged: a consumer that does not would win."""
    async with client_of(url) as client:
        (group,) = await client.xinfo_groups(stream)
        (last,) = await client.xrevrange(stream, count=1)
        if group["pending"] or group["last-delivered-id"] != last[0]:
            raise RuntimeError(f"not everything was read and acknowledged: {group}")


async def both(url: str, count: int) -> Spent:
    """Give the seconds that a message takes where one task publishes and the worker handles."""
    counter = Counter()
    counter.expect(count)
    async with _app_for(url, counter) as app, app.worker():
        watch = Watch()
        await publish_all(app, count)
        await counter.done.wait()
        return watch.spent(count)


async def one_in_flight(url: str, count: int) -> Spent:
    """Give the median of the seconds from publishing to the handler, which waits again before the next message."""
    flight = Flight()
    flight.expect(count)
    async with _app_for(url, flight) as app, app.worker():
        return await flight.times(count, app.publish)


async def publish_to_channel(url: str, count: int) -> Spent:
    """Give the seconds that a message takes, one publish after the other, over Pub/Sub."""
    app = Diator("bench", broker=f"redis+pubsub{url.removeprefix('redis')}")
    app.publishes(Joined)
    async with app:
        watch = Watch()
        for number in range(count):
            await app.publish(joined(number))
        return watch.spent(count)
