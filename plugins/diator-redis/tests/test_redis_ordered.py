"""What is particular about ordered subscriptions: their queues, events of other programs, clocks, and full memory."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import redis
from diator_redis import RedisBroker
from diator_redis.testing import RedisServer

from diator.brokers import (
    ACK,
    RELEASE,
    Delivery,
    MoveToDeadLetters,
    Outcome,
    OutgoingMessage,
    Receiver,
    RetryAfter,
    Subscription,
    Topic,
)
from diator.brokers.envelope import Envelope, parse_envelope
from diator.errors import BrokerError

TOPIC = Topic("orders", ("placed",))
ORDERED = Subscription("app.ordered", (TOPIC,), ordered=True)
PLAIN = Subscription("app.plain", (TOPIC,))
BOTH = pytest.mark.parametrize("subscription", [PLAIN, ORDERED], ids=["plain", "ordered"])
STATE = "diator:{app.ordered}"


@pytest.fixture(scope="module", name="server")
def _server() -> Iterator[RedisServer]:
    with RedisServer() as server:
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
    server: RedisServer, *subscriptions: Subscription, lease: float = 30.0
) -> AsyncGenerator[RedisBroker]:
    broker = RedisBroker(server.url, lease=lease)
    await broker.connect()
    try:
        await broker.apply(subscriptions)
        yield broker
    finally:
        await broker.aclose()


def message(number: int, key: str | None = None, topic: str = "orders", data: bytes = b"1") -> OutgoingMessage:
    envelope = Envelope(
        specversion="1.0", id=str(number), source="test", type="placed", partitionkey=key, data=msgspec.Raw(data)
    )
    return OutgoingMessage(topic, envelope)


def numbers(deliveries: Sequence[Delivery]) -> list[int]:
    return [int(parse_envelope(delivery.headers, delivery.body).id) for delivery in deliveries]


async def take(receiver: Receiver, count: int, *, limit: int = 100) -> list[Delivery]:
    """Receive and acknowledge so many."""
    came: list[Delivery] = []
    while len(came) < count:
        some = await asyncio.wait_for(receiver.receive(limit), 5)
        assert not await receiver.settle([(delivery, ACK) for delivery in some])
        came += some
    return came


# Events of other programs.


@pytest.mark.parametrize("field", [True, False], ids=["k", "partitionkey"])
async def test_keyed_events_of_other_programs_are_handled_in_order(
    server: RedisServer, client: Any, field: bool
) -> None:
    """With the key in a field or only within the event, by one worker at a time."""
    async with connected(server, ORDERED) as broker:
        receivers = [await broker.subscribe(ORDERED) for _ in range(2)]
        order: list[int] = []
        running: set[str] = set()

        async def work(receiver: Receiver) -> None:
            while came := await receiver.receive(3):
                keys = {parse_envelope(one.headers, one.body).partitionkey or "" for one in came}
                assert not keys & running, "two workers have events of one key"
                running.update(keys)
                await asyncio.sleep(0.002)
                order.extend(numbers(came))
                running.difference_update(keys)
                await receiver.settle([(one, ACK) for one in came])

        working = [asyncio.ensure_future(work(receiver)) for receiver in receivers]
        for number in range(60):
            key = f"k{number % 2} \u00e9"
            event = {"specversion": "1.0", "id": str(number), "source": "/x", "type": "placed", "partitionkey": key}
            fields = {"e": json.dumps(event), **({"k": key} if field else {})}
            client.xadd("diator:{orders}:events", fields)
        await until(lambda: len(order) == 60)
        for receiver in receivers:
            await receiver.aclose()
        await asyncio.gather(*working)
    assert [one for one in order if one % 2] == list(range(1, 60, 2))
    assert [one for one in order if not one % 2] == list(range(0, 60, 2))


async def test_odd_entries_of_other_programs_stop_nothing(server: RedisServer, client: Any) -> None:
    odd = [
        "",
        "{",
        '"partitionkey"',
        '{"partitionkey": 5}',
        '{"partitionkey": "\\ud800"}',
        "[" * 2000 + '"partitionkey"',
    ]
    async with connected(server, ORDERED) as broker:
        receiver = await broker.subscribe(ORDERED)
        for event in odd:
            client.xadd("diator:{orders}:events", {"e": event})
        client.xadd("diator:{orders}:events", {"k": "a"})
        client.xadd("diator:{orders}:events", {"e": '{"id": "1"}', "k": b"\xff\x00"})
        assert len(await take(receiver, len(odd) + 2)) == len(odd) + 2


async def test_one_behind_the_first_waits_for_its_retry(server: RedisServer, client: Any) -> None:
    """Those before it come at once, those behind it with it."""
    async with connected(server, ORDERED) as broker:
        receiver = await broker.subscribe(ORDERED)
        await broker.publish([message(at, "a") for at in range(3)], timeout=5)
        first, second, third = await receiver.receive(3)
        assert not await receiver.settle([(first, RELEASE), (second, RetryAfter(0.3)), (third, RELEASE)])
        assert numbers(await take(receiver, 1)) == [0]
        assert numbers(await take(receiver, 2)) == [1, 2]


# What is left to others.


async def test_a_script_that_fails_half_way_strands_nothing(server: RedisServer, client: Any) -> None:
    """Some entries were read, and not all of them are in their queues."""
    async with connected(server, ORDERED) as broker:
        client.set(f"{STATE}:queue:kb", "no list")
        await broker.publish([message(at, "abc"[at % 3]) for at in range(30)], timeout=5)
        receiver = await broker.subscribe(ORDERED)
        with pytest.raises(BrokerError, match="WRONGTYPE"):
            await receiver.receive(10)
        client.delete(f"{STATE}:queue:kb")
        came = numbers(await take(receiver, 30))
        assert sorted(came) == list(range(30))
        assert all([at for at in came if at % 3 == key] == list(range(key, 30, 3)) for key in range(3))


async def test_queues_that_were_deleted_are_made_again(server: RedisServer, client: Any) -> None:
    """From what is pending in the streams."""
    async with connected(server, ORDERED) as broker:
        await broker.publish([message(at, f"k{at % 7}") for at in range(50)], timeout=5)
        receiver = await broker.subscribe(ORDERED)
        held = await receiver.receive(5)
        client.delete(*client.keys(f"{STATE}:*"))
        assert len(await receiver.settle([(one, ACK) for one in held])) == len(held)
        assert sorted(numbers(await take(receiver, 50))) == list(range(50))


async def test_a_topic_that_was_left_out_holds_up_no_other(server: RedisServer, client: Any) -> None:
    """What was read of it before is for workers that know it."""
    both = ORDERED._replace(topics=(TOPIC, Topic("bills", ("billed",))))
    async with connected(server, both) as broker:
        await broker.publish([message(at, f"b{at}", "bills") for at in range(150)], timeout=5)
        receiver = await broker.subscribe(both)
        await receiver.receive(1)
        await receiver.aclose()
        receiver = await broker.subscribe(ORDERED)
        await broker.publish([message(1000, "a")], timeout=5)
        assert numbers(await take(receiver, 1, limit=10)) == [1000]
        await receiver.aclose()
        assert sorted(numbers(await take(await broker.subscribe(both), 150))) == list(range(150))


async def test_what_waited_before_a_subscription_was_ordered_comes(server: RedisServer, client: Any) -> None:
    plain = ORDERED._replace(ordered=False)
    async with connected(server, plain, lease=0.5) as broker:
        await broker.publish([message(at, "a") for at in range(3)], timeout=5)
        receiver = await broker.subscribe(plain)
        some = await receiver.receive(1)
        await receiver.settle([(some[0], RetryAfter(0.3))])
        await receiver.aclose()
        await broker.apply([ORDERED])
        assert sorted(numbers(await take(await broker.subscribe(ORDERED), 3))) == [0, 1, 2]


@BOTH
async def test_workers_that_left_are_in_no_stream(server: RedisServer, client: Any, subscription: Subscription) -> None:
    async with connected(server, subscription) as broker:
        for at in range(5):
            receiver = await broker.subscribe(subscription)
            await broker.publish([message(at, "a"), message(at, "b"), message(at)], timeout=5)
            await take(receiver, 3)
            await receiver.aclose()
        consumers = [
            one["name"]
            for name in client.keys("diator:*")
            if client.type(name) == b"stream" and client.xinfo_groups(name)
            for one in client.xinfo_consumers(name, subscription.name)
        ]
        assert {*consumers} <= {b"queues"}


# Full memory, and clocks.


@pytest.mark.parametrize(
    "outcome", [ACK, RELEASE, RetryAfter(0.1), MoveToDeadLetters("rejected")], ids=lambda one: type(one).__name__
)
@BOTH
async def test_workers_go_on_at_full_memory(
    server: RedisServer, client: Any, subscription: Subscription, outcome: Outcome
) -> None:
    """Settling is what makes room."""
    async with connected(server, subscription, lease=0.6) as broker:
        receiver = await broker.subscribe(subscription)
        await broker.publish([message(at, f"k{at % 5}") for at in range(50)], timeout=5)
        held = await receiver.receive(5)
        client.config_set("maxmemory", client.info("memory")["used_memory"] // 2)
        try:
            await asyncio.sleep(0.3)
            assert not await receiver.renew(held)
            assert not await receiver.settle([(one, outcome) for one in held])
            left = 50 - (len(held) if outcome == ACK or isinstance(outcome, MoveToDeadLetters) else 0)
            assert len(await take(receiver, left, limit=10)) == left
        finally:
            client.config_set("maxmemory", 0)


@BOTH
async def test_the_leases_of_the_dead_end_though_the_clock_went_back(
    server: RedisServer, client: Any, subscription: Subscription
) -> None:
    """An hour, which is here what they believe the time was."""
    state = f"diator:{{{subscription.name}}}"
    async with connected(server, subscription, lease=0.5) as broker:
        await broker.publish([message(1, "a"), message(2, "b")], timeout=5)
        dead = await broker.subscribe(subscription)
        held = await dead.receive(10)
        assert len(held) == 2
        await dead.settle([(held[0], RetryAfter(0.2))])
        hour = 3_600_000
        client.hincrby(f"{state}:meta", "wall", hour)
        for name in ("leases", "delayed"):
            for key in client.zrange(f"{state}:{name}", 0, -1):
                client.zincrby(f"{state}:{name}", hour, key)
        for ref, counts in client.hgetall(f"{state}:counts").items():
            failures, deliveries, due = counts.split()
            client.hset(f"{state}:counts", ref, b"%b %b %d" % (failures, deliveries, int(due) + hour))
        assert sorted(numbers(await take(await broker.subscribe(subscription), 2))) == [1, 2]


async def until(happened: Any) -> None:
    for _ in range(1000):
        if happened():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not happen")
