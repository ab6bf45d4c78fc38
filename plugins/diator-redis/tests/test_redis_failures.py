"""Servers that die, hang, refuse and forget."""

import asyncio
import inspect
import logging
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import redis.exceptions
from diator_redis import RedisBroker, RedisPubSubBroker
from diator_redis._errors import is_temporary, translate
from diator_redis.testing import Proxy, RedisServer
from redis.asyncio import Redis

from diator import BrokerError, BrokerUnavailableError, NotPublishedError
from diator.brokers import (
    ACK,
    Delivery,
    Envelope,
    OutgoingMessage,
    Receiver,
    RetryAfter,
    Subscription,
    Topic,
    parse_envelope,
)

TOPIC = Topic("orders", ("placed",))
PLAIN = Subscription("app.plain", (TOPIC,))
ORDERED = Subscription("app.ordered", (TOPIC,), ordered=True)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as one:
        yield one


def redis_at(url: str, **options: object) -> Any:
    """Give a client, untyped: what redis-py says of its types is not always so."""
    make: Any = Redis
    return make.from_url(url, **options)


def message(number: int, key: str | None = None, size: int = 10) -> OutgoingMessage:
    envelope = Envelope(
        specversion="1.0",
        id=str(number),
        source="test",
        type="placed",
        partitionkey=key,
        data=msgspec.Raw(b'"%b"' % (b"x" * size)),
    )
    return OutgoingMessage("orders", envelope)


def numbers(deliveries: list[Delivery]) -> list[int]:
    return [int(parse_envelope(delivery.headers, delivery.body).id) for delivery in deliveries]


@asynccontextmanager
async def connected(url: str, *subscriptions: Subscription, **settings: float) -> AsyncGenerator[RedisBroker]:
    broker = RedisBroker(url, **{"timeout": 0.5, **settings})  # type: ignore[arg-type]  # numbers only
    await broker.connect()
    try:
        await broker.apply(subscriptions)
        yield broker
    finally:
        await broker.aclose()


async def take(receiver: Receiver, count: int, patience: float = 10.0) -> list[Delivery]:
    """Receive so many, riding out what passes."""
    taken: list[Delivery] = []
    loop = asyncio.get_running_loop()
    ends = loop.time() + patience
    while len(taken) < count:
        try:
            taken += await asyncio.wait_for(receiver.receive(count - len(taken)), ends - loop.time())
        except BrokerUnavailableError:
            await asyncio.sleep(0.05)
    return taken


# The table of errors.

BY_CLASS = {
    "RedisError": False,
    "ConnectionError": True,
    "TimeoutError": True,
    "AuthenticationError": False,
    "AuthorizationError": False,
    "BusyLoadingError": True,
    "InvalidResponse": False,
    "ResponseError": False,
    "DataError": False,
    "PubSubError": False,
    "WatchError": False,
    "NoScriptError": True,
    "OutOfMemoryError": True,
    "ExecAbortError": False,
    "ReadOnlyError": True,
    "NoPermissionError": False,
    "ModuleError": False,
    "NoSuchFieldsetError": False,
    "LockError": False,
    "LockNotOwnedError": False,
    "ChildDeadlockedError": False,
    "AuthenticationWrongNumberOfArgsError": False,
    "RedisClusterException": False,
    "ClusterError": False,
    "ClusterDownError": False,
    "AskError": False,
    "TryAgainError": False,
    "ClusterCrossSlotError": False,
    "MovedError": False,
    "MasterDownError": True,
    "SlotNotCoveredError": False,
    "MaxConnectionsError": False,
    "CrossSlotTransactionError": False,
    "InvalidPipelineStack": False,
    "ExternalAuthProviderError": False,
    "IncorrectPolicyType": False,
}


def test_every_error_of_redis_is_known() -> None:
    """None was forgotten: neither of this version of redis-py nor by this table."""
    classes = {
        name: one
        for name, one in inspect.getmembers(redis.exceptions, inspect.isclass)
        if issubclass(one, Exception) and one.__module__ == "redis.exceptions"
    }
    assert classes.keys() <= BY_CLASS.keys()
    for name, one in classes.items():
        error = one("1 here:1") if name in {"AskError", "MovedError"} else one("text")
        assert is_temporary(error) is BY_CLASS[name], name
        translated = translate(error)
        assert isinstance(translated, BrokerUnavailableError) is BY_CLASS[name]
        assert "Redis" in str(translated)


@pytest.mark.parametrize(
    "text", ["MISCONF no disk", "NOREPLICAS Not enough", "BUSY Redis is busy", "OOM x", "LOADING x"]
)
def test_replies_that_pass_are_known_by_their_text(text: str) -> None:
    assert isinstance(translate(redis.exceptions.ResponseError(text)), BrokerUnavailableError)


def test_errors_of_ours_stay_as_they_are() -> None:
    error = BrokerError("x")
    assert translate(error) is error


# Refusals.


async def test_a_wrong_password_is_refused_for_good() -> None:
    with RedisServer(requirepass="secret") as server:
        for password in ("", ":wrong@"):
            broker = RedisBroker(f"redis://{password}127.0.0.1:{server.port}")
            with pytest.raises(BrokerError) as raised:
                await broker.connect()
            assert not isinstance(raised.value, BrokerUnavailableError)
            assert isinstance(raised.value.__cause__, redis.exceptions.RedisError)
            await broker.aclose()
        async with connected(f"redis://:secret@127.0.0.1:{server.port}", PLAIN):
            pass


async def test_nobody_at_the_address() -> None:
    with pytest.raises(BrokerUnavailableError):
        await RedisBroker("redis://127.0.0.1:1", timeout=0.5).connect()


async def test_a_user_without_permission_is_refused_for_good(server: RedisServer) -> None:
    async with connected(server.url, PLAIN), redis_at(server.url) as admin:
        await admin.execute_command("ACL", "SETUSER", "guest", "on", ">pw", "~*", "+ping")
        async with connected(f"redis://guest:pw@127.0.0.1:{server.port}") as guest:
            with pytest.raises(NotPublishedError) as raised:
                await guest.publish([message(1)], timeout=5)
            assert len(raised.value.unsent) == 1
            assert not isinstance(raised.value.__cause__, BrokerUnavailableError)


async def test_a_receiver_may_lack_the_permission_to_unblock(server: RedisServer) -> None:
    """Then its connection is cut; what it had is given back all the same."""
    async with redis_at(server.url) as admin:
        await admin.execute_command("ACL", "SETUSER", "most", "on", ">pw", "~*", "+@all", "-client")
        async with connected(f"redis://most:pw@127.0.0.1:{server.port}", PLAIN) as broker:
            receiver = await broker.subscribe(PLAIN)
            waiting = asyncio.ensure_future(receiver.receive(1))
            await asyncio.sleep(0.1)
            await receiver.aclose()
            assert not await waiting
            await broker.publish([message(1)], timeout=5)
            assert numbers(await take(await broker.subscribe(PLAIN), 1)) == [1]


async def test_a_key_of_another_type_is_refused_for_good(server: RedisServer) -> None:
    async with connected(server.url) as broker, redis_at(server.url) as client:
        await client.set("diator:{orders}:events", "mine")
        elsewhere = OutgoingMessage("bills", message(3).envelope)
        for messages in ([message(1)], [message(2, "a"), elsewhere]):
            with pytest.raises(NotPublishedError) as raised:
                await broker.publish(messages, timeout=5)
            assert [one.id for one in raised.value.unsent] == [messages[0].id]
            assert not isinstance(raised.value.__cause__, BrokerUnavailableError)


@pytest.mark.parametrize("key", [None, "a"])
async def test_a_server_without_memory(server: RedisServer, key: str | None) -> None:
    """What it refuses is unsent, and can be published when there is room."""
    async with connected(server.url, PLAIN) as broker, redis_at(server.url) as client:
        receiver = await broker.subscribe(PLAIN)
        used = (await client.info("memory"))["used_memory"]
        await client.config_set("maxmemory", used // 2)
        for batch in ([message(1, key)], [message(1, key), message(2, key)]):
            with pytest.raises(NotPublishedError) as raised:
                await broker.publish(batch, timeout=5)
            assert list(raised.value.unsent) == batch
            assert isinstance(raised.value.__cause__, BrokerUnavailableError)
        await client.config_set("maxmemory", 0)
        await broker.publish([message(3, key)], timeout=5)
        assert numbers(await take(receiver, 1)) == [3]


async def test_a_server_that_became_a_replica(server: RedisServer) -> None:
    async with connected(server.url, PLAIN) as broker, redis_at(server.url) as client:
        receiver = await broker.subscribe(PLAIN)
        await client.replicaof("127.0.0.1", 1)
        with pytest.raises(NotPublishedError) as raised:
            await broker.publish([message(1)], timeout=5)
        assert len(raised.value.unsent) == 1
        assert isinstance(raised.value.__cause__, BrokerUnavailableError)
        await client.replicaof("NO", "ONE")
        await broker.publish([message(2)], timeout=5)
        assert numbers(await take(receiver, 1)) == [2]


# Away.


@pytest.mark.parametrize("subscription", [PLAIN, ORDERED], ids=["plain", "ordered"])
async def test_a_restart_is_ridden_out(subscription: Subscription) -> None:
    """Nothing is lost, counts included, and nobody has to do anything."""
    with RedisServer(durable=True) as server:
        async with connected(server.url, subscription, lease=1.0) as broker:
            receiver = await broker.subscribe(subscription)
            await broker.publish([message(at, "a") for at in range(4)], timeout=5)
            first = (await take(receiver, 1))[0]
            assert not await receiver.settle([(first, RetryAfter(0.2))])
            server.kill()
            with pytest.raises(NotPublishedError):
                await broker.publish([message(9, "a")], timeout=0.3)
            with pytest.raises(BrokerUnavailableError):
                while True:
                    await asyncio.wait_for(receiver.receive(1), 5)
            await asyncio.to_thread(server.start)
            came = await take(receiver, 4)
            assert sorted(numbers(came)) == [0, 1, 2, 3]
            assert {delivery.failures for delivery in came if numbers([delivery]) == [0]} == {1}
            if subscription.ordered:
                assert numbers(came) == [0, 1, 2, 3]


async def test_a_server_that_hangs(server: RedisServer) -> None:
    """Each call ends within its time; what was on the way is unknown, what waited for it is unsent."""
    async with connected(server.url, PLAIN, timeout=0.4) as broker:
        receiver = await broker.subscribe(PLAIN)
        await broker.publish([message(0)], timeout=5)
        held = await take(receiver, 1)
        server.pause()
        try:
            loop = asyncio.get_running_loop()
            began = loop.time()
            calls = [asyncio.ensure_future(broker.publish([message(1)], timeout=0.3))]
            await asyncio.sleep(0.05)
            calls.append(asyncio.ensure_future(broker.publish([message(2)], timeout=0.3)))
            await asyncio.wait(calls)
            assert loop.time() - began < 1.5
            errors = [call.exception() for call in calls]
            assert isinstance(errors[0], NotPublishedError)
            assert isinstance(errors[1], NotPublishedError)
            assert (len(errors[0].unknown), len(errors[1].unsent)) == (1, 1)
            with pytest.raises(BrokerUnavailableError):
                await receiver.settle([(held[0], ACK)])
        finally:
            server.resume()
        assert not await receiver.settle([(held[0], ACK)])
        await broker.publish([message(5)], timeout=5)
        assert 5 in numbers(await take(receiver, 1)) + numbers(await take(receiver, 1))


@pytest.mark.parametrize("subscription", [PLAIN, ORDERED], ids=["plain", "ordered"])
async def test_what_was_in_a_lost_reply_is_delivered_at_once(server: RedisServer, subscription: Subscription) -> None:
    """And nothing that was received before it."""
    with Proxy(server.port) as proxy:
        async with connected(proxy.url, subscription, timeout=0.3) as broker:
            receiver = await broker.subscribe(subscription)
            await broker.publish([message(at, str(at)) for at in range(6)], timeout=5)
            held = list(await receiver.receive(2))
            proxy.swallows_replies = True
            for _ in range(2):
                with pytest.raises(BrokerUnavailableError):
                    await receiver.receive(3)
            proxy.swallows_replies = False
            left = 6 - len(held)
            assert sorted(numbers(held + await take(receiver, left))) == list(range(6))
            assert not await receiver.settle([(one, ACK) for one in held])


async def test_a_cut_while_publishing_tells_what_is_unknown(server: RedisServer) -> None:
    """Nothing that is told to be unsent was stored, and all that is not told of was."""
    with Proxy(server.port) as proxy:
        async with connected(proxy.url) as broker, redis_at(server.url) as client:
            for at in range(20):
                await client.flushall()
                await broker.publish([message(1000)], timeout=5)
                proxy.cut_after(200 + 733 * at)
                batches = [
                    [message(100 * at + n, None if n % 2 else "k", 300) for n in range(b, b + 5)] for b in (0, 5, 10)
                ]
                calls = [asyncio.ensure_future(broker.publish(batch, timeout=2)) for batch in batches]
                await asyncio.wait(calls)
                failures = [error for call in calls if (error := call.exception()) is not None]
                unsent, unknown = set[str](), set[str]()
                for error in failures:
                    assert isinstance(error, NotPublishedError)
                    unsent |= {one.id for one in error.unsent}
                    unknown |= {one.id for one in error.unknown}
                stored = {parse_envelope({}, fields[b"e"]).id for fields in await entries(client)}
                sent = {one.id for batch in batches for one in batch}
                assert not unsent & stored
                assert sent - unsent - unknown <= stored
                proxy.cut_after(10**9)


async def until(happened: Callable[[], bool]) -> None:
    for _ in range(1000):
        if happened():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not happen")


async def entries(client: Any) -> list[dict[bytes, bytes]]:
    found: list[dict[bytes, bytes]] = []
    async for name in client.scan_iter("diator:*:events*"):
        found += [fields for _, fields in await client.xrange(name)]
    return found


# Forgetting.


@pytest.mark.parametrize("subscription", [PLAIN, ORDERED], ids=["plain", "ordered"])
async def test_a_flush_creates_the_groups_again(
    server: RedisServer, subscription: Subscription, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(server.url, subscription, lease=1.0) as broker, redis_at(server.url) as client:
        receiver = await broker.subscribe(subscription)
        await broker.publish([message(1, "a")], timeout=5)
        held = await take(receiver, 1)
        with caplog.at_level(logging.WARNING, "diator.redis"):
            await client.flushall()
            await receiver.settle([(held[0], RetryAfter(0.0))])
            await broker.publish([message(2, "a"), message(3)], timeout=5)
            assert sorted(numbers(await take(receiver, 2))) == [2, 3]
        assert "was missing in Redis" in caplog.text


@pytest.mark.parametrize("subscription", [PLAIN, ORDERED], ids=["plain", "ordered"])
async def test_scripts_may_be_flushed(server: RedisServer, subscription: Subscription) -> None:
    async with connected(server.url, subscription) as broker, redis_at(server.url) as client:
        receiver = await broker.subscribe(subscription)
        for at in range(5):
            await client.script_flush()
            await asyncio.gather(*(broker.publish([message(10 * at + n, "a")], timeout=5) for n in range(5)))
            await client.script_flush()
            came = await take(receiver, 5)
            assert numbers(came) == [10 * at + n for n in range(5)]
            await client.script_flush()
            assert not await receiver.settle([(delivery, ACK) for delivery in came])


# Fencing.

SLEEPER = """
import asyncio, os, signal, sys
from diator.brokers import ACK, Subscription, Topic
from diator_redis import RedisBroker

async def main():
    broker = RedisBroker(sys.argv[1], lease=0.5)
    await broker.connect()
    topic = Topic("orders", ("placed",))
    subscription = Subscription(sys.argv[2], (topic,), ordered=sys.argv[2] == "app.ordered")
    receiver = await broker.subscribe(subscription)
    held = list(await receiver.receive(1))
    print("has", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
    lost = await receiver.settle([(held[0], ACK)])
    print("lost", len(lost), flush=True)
    await broker.aclose()

asyncio.run(main())
"""


@pytest.mark.parametrize("subscription", [PLAIN, ORDERED], ids=["plain", "ordered"])
async def test_who_was_stopped_past_its_lease_changes_nothing(server: RedisServer, subscription: Subscription) -> None:
    async with connected(server.url, subscription, lease=0.5) as broker:
        await broker.publish([message(1, "a"), message(2, "a")], timeout=5)
        sleeper = subprocess.Popen(  # noqa: ASYNC220 - starting it takes no time
            [sys.executable, "-c", SLEEPER, server.url, subscription.name], stdout=subprocess.PIPE, text=True
        )
        assert sleeper.stdout is not None
        try:
            assert await asyncio.to_thread(sleeper.stdout.readline) == "has\n"
            receiver = await broker.subscribe(subscription)
            came = await take(receiver, 1)
            while numbers(came) != [1]:
                assert not await receiver.settle([(came[0], ACK)])
                came = await take(receiver, 1)
            assert came[0].deliveries == 2
            os.kill(sleeper.pid, signal.SIGCONT)
            line = asyncio.ensure_future(asyncio.to_thread(sleeper.stdout.readline))
            while not line.done():
                assert not await receiver.renew(came)
                await asyncio.wait({line}, timeout=0.1)
            assert line.result() == "lost 1\n"
            assert not await receiver.settle([(one, ACK) for one in came])
        finally:
            sleeper.kill()
            sleeper.communicate()


# Pub/Sub.


async def test_a_subscriber_comes_back_and_tells_of_the_gap(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    subscription = Subscription("app.live", (TOPIC,), at_most_once=True)
    with Proxy(server.port) as proxy:
        broker = RedisPubSubBroker(proxy.url, timeout=0.5)
        await broker.connect()
        receiver = await broker.subscribe(subscription)
        await broker.publish([message(1)], timeout=5)
        assert numbers(list(await receiver.receive(10))) == [1]
        proxy.cut()
        with pytest.raises(BrokerUnavailableError):
            await receiver.receive(1)
        waiting = asyncio.ensure_future(receiver.receive(1))
        with caplog.at_level(logging.WARNING, "diator.redis"):
            await until(lambda: "did not listen" in caplog.text)
        await broker.publish([message(2)], timeout=5)
        assert numbers(list(await waiting)) == [2]
        await broker.aclose()


async def test_a_silent_server_is_noticed_by_a_subscriber(server: RedisServer) -> None:
    subscription = Subscription("app.live", (TOPIC,), at_most_once=True)
    broker = RedisPubSubBroker(server.url, timeout=0.3)
    await broker.connect()
    receiver = await broker.subscribe(subscription)
    server.pause()
    try:
        with pytest.raises(BrokerUnavailableError):
            await asyncio.wait_for(receiver.receive(1), 5)
    finally:
        server.resume()
    await broker.aclose()


def test_the_server_for_tests_takes_another_port_if_its_bus_port_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = int(other.getsockname()[1]) - 10_000
        ports = iter([taken, *random.sample(range(15_000, 22_000), 50)])

        def next_port(*_: int) -> int:
            return next(ports)

        monkeypatch.setattr(random, "randrange", next_port)
        with RedisServer(cluster_enabled="yes") as server:
            assert server.port != taken
