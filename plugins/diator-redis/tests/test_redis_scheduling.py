"""Scheduled messages: crashes of the server and of the publisher, who moves them, order, and full memory."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
import redis
from diator_redis import RedisBroker
from diator_redis.testing import RedisServer

from diator import Diator, NotificationEvent, contract
from diator.brokers import ACK, Delivery, OutgoingMessage, Receiver, Subscription, Topic
from diator.brokers.envelope import Envelope, parse_envelope
from diator.errors import NotPublishedError

TOPIC = Topic("orders", ("placed",))
OTHER = Topic("bills", ("billed",))
ORDERED = Subscription("app.ordered", (TOPIC,), ordered=True)
PLAIN = Subscription("app.plain", (TOPIC,))
BOTH = pytest.mark.parametrize("subscription", [PLAIN, ORDERED], ids=["plain", "ordered"])
DUE, SCHEDULED = "diator:{orders}:due", "diator:{orders}:scheduled"


@pytest.fixture(scope="module", name="server")
def _server() -> Iterator[RedisServer]:
    with RedisServer(durable=True) as server:
        yield server


@pytest.fixture(name="client")
def _client(server: RedisServer) -> Iterator[Any]:
    make: Any = redis.Redis
    with make(port=server.port) as client:
        client.flushall()
        client.config_set("maxmemory", 0)
        yield client


@asynccontextmanager
async def connected(
    server: RedisServer, *subscriptions: Subscription, lease: float = 1.0
) -> AsyncGenerator[RedisBroker]:
    broker = RedisBroker(server.url, lease=lease)
    await broker.connect()
    try:
        await broker.apply(subscriptions)
        yield broker
    finally:
        await broker.aclose()


def message(number: int, seconds: float, key: str | None = None, topic: str = "orders") -> OutgoingMessage:
    envelope = Envelope(
        specversion="1.0", id=str(number), source="test", type="placed", partitionkey=key, data=msgspec.Raw(b"1")
    )
    return OutgoingMessage(topic, envelope, due=datetime.now(timezone.utc) + timedelta(seconds=seconds))


def numbers(deliveries: Sequence[Delivery]) -> list[int]:
    return [int(parse_envelope(delivery.headers, delivery.body).id) for delivery in deliveries]


async def take(receiver: Receiver, count: int) -> list[int]:
    """Receive and acknowledge so many, and see that no more come."""
    came: list[int] = []
    while len(came) < count:
        some = await asyncio.wait_for(receiver.receive(100), 10)
        assert not await receiver.settle([(delivery, ACK) for delivery in some])
        came += numbers(some)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(receiver.receive(1), 0.2)
    return came


async def until(happened: Callable[[], bool]) -> None:
    for _ in range(1000):
        if happened():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not happen")


@BOTH
async def test_scheduled_messages_survive_a_killed_server(
    server: RedisServer, client: Any, subscription: Subscription
) -> None:
    """One is due while the server is down, and one after that; publisher and worker stay connected all the time."""
    async with connected(server, subscription) as broker, connected(server, subscription) as worker:
        receiver = await worker.subscribe(subscription)
        await broker.publish([message(1, 0.3, "a"), message(2, 1.5, "a"), message(3, 0.3)], timeout=5)
        server.kill()
        await asyncio.sleep(0.5)
        await asyncio.to_thread(server.start)
        came = await take(receiver, 3)
        assert sorted(came) == [1, 2, 3]
        assert came.index(1) < came.index(2)
    assert not client.exists(DUE, SCHEDULED)


PUBLISHER = """
import asyncio, sys
from datetime import datetime, timedelta, timezone
import msgspec
from diator.brokers import OutgoingMessage
from diator.brokers.envelope import Envelope
from diator_redis import RedisBroker

async def main():
    broker = RedisBroker(sys.argv[1])
    await broker.connect()
    envelope = Envelope(specversion="1.0", id="1", source="test", type="placed", data=msgspec.Raw(b"1"))
    due = datetime.now(timezone.utc) + timedelta(seconds=float(sys.argv[2]))
    await broker.publish([OutgoingMessage("orders", envelope, due=due)], timeout=5)
    print("published", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("when", ["before", "after"])
async def test_scheduled_messages_survive_their_publisher(server: RedisServer, client: Any, when: str) -> None:
    """It is killed before they are due; a worker that runs, or one that comes long after, delivers them."""
    async with connected(server, PLAIN) as broker:
        receiver = await broker.subscribe(PLAIN) if when == "before" else None
        process = subprocess.Popen(  # noqa: ASYNC220 - it takes a moment
            [sys.executable, "-c", PUBLISHER, server.url, "0.5"], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == b"published\n"
        process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(process.communicate)
        assert client.zcard(DUE) == client.hlen(SCHEDULED) == 1
        if receiver is None:
            await asyncio.sleep(0.7)
            receiver = await broker.subscribe(PLAIN)
        assert await take(receiver, 1) == [1]


async def test_the_publisher_moves_what_is_due_while_no_worker_runs(server: RedisServer, client: Any) -> None:
    """Promptly, though the maintenance is far away."""
    async with connected(server, PLAIN, lease=300.0) as broker:
        await broker.publish([message(0, 0.0)], timeout=5)
        await broker.publish([message(1, 30.0)], timeout=5)
        await broker.publish([message(2, 0.2)], timeout=5)
        await until(lambda: client.xlen("diator:{orders}:events") == 2)
        assert client.zcard(DUE) == client.hlen(SCHEDULED) == 1
        assert sorted(await take(await broker.subscribe(PLAIN), 2)) == [0, 2]


async def test_each_is_delivered_once_though_many_processes_move_them(server: RedisServer, client: Any) -> None:
    async with connected(server, PLAIN) as first, connected(server, PLAIN) as second, connected(server) as third:
        receivers = [await first.subscribe(PLAIN), await second.subscribe(PLAIN)]
        for batch in range(10):
            await asyncio.gather(
                *(
                    broker.publish([message(batch * 90 + at * 30 + n, 0.2) for n in range(30)], timeout=5)
                    for at, broker in enumerate((first, second, third))
                )
            )
        came: list[int] = []

        async def work(receiver: Receiver) -> None:
            while some := await receiver.receive(50):
                assert not await receiver.settle([(delivery, ACK) for delivery in some])
                came.extend(numbers(some))

        working = [asyncio.ensure_future(work(receiver)) for receiver in receivers]
        await until(lambda: len(came) >= 900)
        await asyncio.sleep(0.2)
        for receiver in receivers:
            await receiver.aclose()
        await asyncio.gather(*working)
        assert sorted(came) == list(range(900))


async def test_messages_that_are_due_together_keep_their_order(server: RedisServer, client: Any) -> None:
    """Due at the same time: as they were published. Half a millisecond apart: by that."""
    when = datetime.now(timezone.utc) + timedelta(seconds=0.5)
    async with connected(server, ORDERED) as broker:
        receiver = await broker.subscribe(ORDERED)
        same = [OutgoingMessage("orders", message(n, 0, "k").envelope, due=when) for n in range(20)]
        await broker.publish(same[:10], timeout=5)
        await broker.publish(same[10:], timeout=5)
        micro = [
            OutgoingMessage("orders", message(n, 0, "m").envelope, due=when + timedelta(microseconds=500 * (40 - n)))
            for n in range(20, 40)
        ]
        await broker.publish(micro, timeout=5)
        came = await take(receiver, 40)
        assert [n for n in came if n < 20] == list(range(20))
        assert [n for n in came if n >= 20] == list(range(39, 19, -1))


async def test_full_memory_refuses_new_ones_and_delivers_what_is_due(server: RedisServer, client: Any) -> None:
    async with connected(server, PLAIN) as broker:
        receiver = await broker.subscribe(PLAIN)
        await broker.publish([message(1, 0.3)], timeout=5)
        client.config_set("maxmemory", client.info("memory")["used_memory"] // 2)
        try:
            late = message(2, 60.0)
            with pytest.raises(NotPublishedError) as raised:
                await broker.publish([late], timeout=5)
            assert raised.value.unsent == (late,)
            assert await take(receiver, 1) == [1]
        finally:
            client.config_set("maxmemory", 0)


async def test_a_topic_that_is_broken_stops_no_other(
    server: RedisServer, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    both = Subscription("app.both", (OTHER, TOPIC))
    async with connected(server, both) as broker:
        receiver = await broker.subscribe(both)
        await broker.publish([message(1, 0.3, topic="bills"), message(2, 0.3)], timeout=5)
        client.rename("diator:{bills}:events", "mine")
        client.set("diator:{bills}:events", "not a stream")
        await until(lambda: client.xlen("diator:{orders}:events") == 1)
        await until(lambda: "scheduled messages" in caplog.text)
        client.rename("mine", "diator:{bills}:events")
        assert sorted(await take(receiver, 2)) == [1, 2]


@contract("orders.reminder", key="customer")
@dataclass(frozen=True)
class Reminder(NotificationEvent):
    customer: str
    n: int


async def test_an_app_publishes_with_a_delay(server: RedisServer, client: Any) -> None:
    app = Diator("orders", broker=RedisBroker(server.url))
    came: list[tuple[int, float]] = []
    done = asyncio.Event()
    loop = asyncio.get_running_loop()

    @app.on_event
    async def remind(event: Reminder) -> None:
        came.append((event.n, loop.time()))
        if len(came) == 3:
            done.set()

    async with app, app.worker():
        began = loop.time()
        await app.publish(Reminder("a", 1), after=timedelta(seconds=0.6))
        await app.publish(Reminder("a", 2), after=0.3)
        await app.publish(Reminder("a", 3))
        await asyncio.wait_for(done.wait(), 10)
    assert [n for n, _ in came] == [3, 2, 1]
    assert came[1][1] - began >= 0.3
    assert 0.6 <= came[2][1] - began < 2.5, "it is not left to the maintenance, which comes every three seconds"
