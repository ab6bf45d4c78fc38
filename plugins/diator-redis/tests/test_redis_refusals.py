"""Servers and clients that refuse: what passes is waited for, what does not is an error with the server's own text."""

import asyncio
import re
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis.exceptions
from diator_redis import RedisBroker, RedisPubSubBroker
from diator_redis._errors import translate
from diator_redis.testing import RedisServer
from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster

from diator import (
    BrokerError,
    BrokerUnavailableError,
    ConfigurationError,
    Diator,
    NotificationEvent,
    NotPublishedError,
    PublishError,
    Reject,
    Retry,
    contract,
)
from diator.brokers import Envelope, OutgoingMessage, Subscription, Topic

PLAIN = Subscription("app.plain", (Topic("orders", ("placed",)),))


@contract("refusals.placed")
@dataclass(frozen=True)
class Placed(NotificationEvent):
    number: int


@contract("refusals.moved", key="who")
@dataclass(frozen=True)
class Moved(NotificationEvent):
    who: str
    number: int


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as one:
        yield one


def redis_at(url: str, **options: object) -> Any:
    """Give a client, untyped: what redis-py says of its types is not always so."""
    make: Any = Redis
    return make.from_url(url, **options)


def message(key: str | None = None) -> OutgoingMessage:
    return OutgoingMessage(
        "orders", Envelope(specversion="1.0", id="1", source="test", type="placed", partitionkey=key)
    )


async def until(holds: Callable[[], object], seconds: float = 15.0) -> None:
    loop = asyncio.get_running_loop()
    ends = loop.time() + seconds
    while not holds() and loop.time() < ends:  # noqa: ASYNC110 - looked at from outside
        await asyncio.sleep(0.02)
    assert holds()


# A first start on a server that refuses.


async def fill_memory(client: Any) -> None:
    await client.config_set("maxmemory", 1)


async def free_memory(client: Any) -> None:
    await client.config_set("maxmemory", 0)


async def make_replica(client: Any) -> None:
    await client.replicaof("127.0.0.1", 1)


async def make_master(client: Any) -> None:
    await client.replicaof("NO", "ONE")


async def ask_for_replicas(client: Any) -> None:
    await client.config_set("min-replicas-to-write", 1)


async def ask_for_none(client: Any) -> None:
    await client.config_set("min-replicas-to-write", 0)


PASSING: dict[str, tuple[Callable[[Any], Awaitable[None]], Callable[[Any], Awaitable[None]]]] = {
    "full memory": (fill_memory, free_memory),
    "a read-only replica": (make_replica, make_master),
    "too few replicas": (ask_for_replicas, ask_for_none),
}


@pytest.mark.parametrize("why", PASSING)
async def test_a_first_start_waits_for_what_passes(why: str, server: RedisServer) -> None:
    refuse, accept = PASSING[why]
    app, handled = Diator("app", broker=server.url), list[int]()

    @app.on_event
    async def plain(event: Placed) -> None:
        handled.append(event.number)

    @app.on_event
    async def keyed(event: Moved) -> None:
        handled.append(event.number)

    async with redis_at(server.url) as client:
        await refuse(client)
        async with app, app.worker() as worker:
            await asyncio.sleep(0.3)
            assert not worker.is_ready
            assert "create subscriptions" in worker.not_ready_reasons[0]
            await accept(client)
            await until(lambda: worker.is_ready)
            await app.publish(Placed(1), Moved("a", 2))
            await until(lambda: sorted(handled) == [1, 2])


async def test_a_worker_starts_again_while_memory_is_full(server: RedisServer) -> None:
    """What it handles is what makes room."""
    app, handled = Diator("app", broker=server.url), list[int]()

    @app.on_event
    async def plain(event: Placed) -> None:
        handled.append(event.number)

    async with redis_at(server.url) as client, app:
        async with app.worker():
            pass
        await app.publish(Placed(1))
        await client.config_set("maxmemory", 1)
        async with app.worker() as worker:
            await until(lambda: worker.is_ready)
            await until(lambda: handled == [1])


async def test_a_first_start_without_permission_fails_with_the_servers_text(server: RedisServer) -> None:
    app = Diator("app", broker=f"redis://guest:pw@127.0.0.1:{server.port}")

    @app.on_event
    async def plain(event: Placed) -> None: ...

    async with redis_at(server.url) as admin:
        await admin.execute_command("ACL", "SETUSER", "guest", "on", ">pw", "~*", "+@read", "+ping")
    async with app:
        with pytest.raises(BrokerError, match=r"no permissions to run the 'xgroup(\|create)?' command") as raised:
            async with app.worker():
                pass
        assert not isinstance(raised.value, BrokerUnavailableError)


SUFFICIENT = "~shop:* resetchannels &shop:* +@connection +@read +@write +@scripting +@stream +@pubsub +time"


async def test_the_user_that_the_readme_names_may_do_all_that_is_needed(server: RedisServer) -> None:
    page = (Path(__file__).parents[1] / "README.md").read_text()
    assert SUFFICIENT in page
    url = f"redis://shop:secret@127.0.0.1:{server.port}"
    broker = RedisBroker(url, prefix="shop", lease=1)
    app = Diator("app", broker=broker, retry=Retry(attempts=2, delay=0.05, jitter=0.0))
    attempts, parked = list[int](), list[str]()

    @app.on_event
    async def plain(event: Placed) -> None:
        attempts.append(event.number)
        if attempts.count(event.number) == 1:
            raise ValueError("once more")

    @app.on_event
    async def keyed(event: Moved) -> None:
        attempts.append(event.number)
        await asyncio.sleep(1.5 if event.number == 5 else 0)  # renewed meanwhile
        if event.number == 6 and not parked:
            parked.append(event.who)
            raise Reject("not this one")

    async with redis_at(server.url) as admin:
        await admin.execute_command("ACL", "SETUSER", "shop", "on", ">secret", *SUFFICIENT.split())
        async with app:
            async with app.worker() as worker:
                await app.publish(Placed(1), Moved("a", 5), Moved("a", 6))
                await until(lambda: attempts.count(1) == 2 and parked)
                await broker.trim()
                async with app.operations() as operations:
                    letters = [letter async for letter in operations.dead_letters()]
                    assert len(letters) == 1
                    assert await operations.replay(letters[0])
                    await operations.status()
                await until(lambda: attempts.count(6) == 2)
                assert worker.is_ready
        hints = Diator("hints", broker=f"{url.replace('redis:', 'redis+pubsub:')}?prefix=shop")
        heard = list[int]()

        @hints.on_event(delivery="at-most-once")
        async def hint(event: Placed) -> None:
            heard.append(event.number)

        async with hints, hints.worker() as worker:
            await until(lambda: worker.is_ready)
            await hints.publish(Placed(1))
            await until(lambda: heard)
        refused = [entry for entry in await admin.execute_command("ACL", "LOG") if entry]
        assert refused == []


# A server that has nothing.


@pytest.mark.parametrize("seconds", [0.3, 1.5])
@pytest.mark.parametrize("runs", [False, True])
async def test_what_is_published_to_an_empty_server_is_handled(seconds: float, runs: bool) -> None:
    """It comes after the app (``runs``: again, without what it had), and nothing that it confirms is lost."""
    confirmed, handled = list[int](), list[int]()
    with RedisServer() as server:
        app = Diator("app", broker=RedisBroker(server.url, lease=2, timeout=0.5))

        @app.on_event
        async def plain(event: Placed) -> None:
            handled.append(event.number)

        @app.on_event
        async def keyed(event: Moved) -> None:
            handled.append(event.number)

        async def publish() -> None:
            number = 0
            while True:
                number += 1
                try:
                    await app.publish(Placed(number) if number % 2 else Moved(str(number % 7), number))
                except PublishError:
                    await asyncio.sleep(0.01)
                else:
                    confirmed.append(number)
                    await asyncio.sleep(0.001)

        if not runs:
            server.kill()
        async with app, app.worker() as worker:
            if runs:
                await app.publish(Placed(-1), Moved("a", -2))
                await until(lambda: sorted(handled) == [-2, -1])
                server.kill()
            publishing = asyncio.ensure_future(publish())
            await asyncio.sleep(seconds)
            await asyncio.to_thread(server.start)
            await until(lambda: worker.is_ready and len(confirmed) > 50)
            publishing.cancel()
            await asyncio.gather(publishing, return_exceptions=True)
            await until(lambda: set(confirmed) <= set(handled))


# Topics without a subscription.


@pytest.mark.parametrize("scheme", ["redis", "redis+pubsub"])
async def test_a_topic_without_a_subscription_is_told_once(
    scheme: str, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    app = Diator("app", broker=server.url.replace("redis", scheme))
    app.publishes(Moved)

    @app.on_event(delivery="at-most-once")
    async def hint(event: Placed) -> None: ...

    def told() -> list[str]:
        return [one.getMessage() for one in caplog.records if "no subscription" in one.getMessage()]

    async with app:
        await app.publish(Moved("a", 1))
        await app.publish(Moved("a", 2))
        (text,) = told()
        assert "'refusals.moved'" in text
        async with app.worker() as worker:
            await until(lambda: worker.is_ready)
            await app.publish(Placed(1), Moved("a", 3))
            await app.publish(Placed(1))
            assert told() == [text]


async def test_a_user_who_may_only_publish_is_not_bothered(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    app = Diator("app", broker=f"redis://writer:pw@127.0.0.1:{server.port}")
    app.publishes(Placed)
    rules = ("on", ">pw", "~*", "+xadd", "+ping", "+hget", "+evalsha", "+eval", "+hset")
    async with redis_at(server.url) as admin:
        await admin.execute_command("ACL", "SETUSER", "writer", *rules)
    async with app:
        await app.publish(Placed(1))
        await app.publish(Placed(2))
    assert [one.getMessage() for one in caplog.records] == []


# What is said of messages that a server refused.


@asynccontextmanager
async def server_that_says(text: str) -> AsyncGenerator[str]:
    """Answer PING and HELLO, and refuse everything else with a text."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while count := await reader.readline():
            words: list[bytes] = []
            for _ in range(int(count[1:])):
                size = int((await reader.readline())[1:])
                words.append((await reader.readexactly(size + 2))[:-2])
            known = {b"PING": b"+PONG\r\n", b"CLIENT": b"+OK\r\n", b"HELLO": b"-ERR unknown command\r\n"}
            writer.write(known.get(words[0].upper(), f"-{text}\r\n".encode()))
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}?protocol=2"
    finally:
        server.close()


@pytest.mark.parametrize("make", [RedisBroker, RedisPubSubBroker])
@pytest.mark.parametrize("key", [None, "a"])
@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("LOADING Redis is loading the dataset in memory", True),
        ("ERR max number of clients reached", True),
        ("MISCONF Redis is configured to save RDB snapshots", True),
        ("NOAUTH Authentication required.", False),
        ("NOPERM this user has no permissions", False),
        ("MOVED 1 127.0.0.1:7000", False),
        ("SURPRISE", False),
    ],
)
async def test_what_the_server_refused_is_unsent(make: Any, key: str | None, text: str, passes: bool) -> None:
    async with server_that_says(text) as url:
        broker = make(url)
        await broker.connect()
        with pytest.raises(NotPublishedError) as raised:
            await broker.publish([message(key)], timeout=5)
        await broker.aclose()
    assert len(raised.value.unsent) == 1
    assert not raised.value.unknown
    assert isinstance(raised.value.__cause__, BrokerUnavailableError) is passes
    assert text.partition(" ")[2] in str(raised.value)


# Clusters.


async def test_a_node_of_a_cluster_is_refused_by_name() -> None:
    with RedisServer(cluster_enabled="yes") as server:
        app = Diator("app", broker=server.url)
        with pytest.raises(BrokerError, match="Redis Cluster is not supported") as raised:
            async with app:
                pass
        assert not isinstance(raised.value, BrokerUnavailableError)
        server.kill()
        broker = RedisBroker(server.url, timeout=0.5)
        with pytest.raises(BrokerUnavailableError):
            await broker.connect()
        await asyncio.to_thread(server.start)
        with pytest.raises(BrokerError, match="Redis Cluster is not supported"):
            await broker.apply([PLAIN])
        with pytest.raises(NotPublishedError, match="Redis Cluster is not supported"):
            await broker.publish([message()], timeout=5)
        await broker.aclose()


@pytest.mark.parametrize("make", [RedisBroker, RedisPubSubBroker])
def test_a_client_of_a_cluster_is_refused_by_name(make: Any) -> None:
    with pytest.raises(ConfigurationError, match="Redis Cluster"):
        make(RedisCluster(host="127.0.0.1", port=1))


# Pools of connections.


async def test_too_small_a_pool_is_told_with_what_it_needs(server: RedisServer) -> None:
    blocking: Any = BlockingConnectionPool
    for client in (
        redis_at(server.url, max_connections=1),
        Redis(connection_pool=blocking.from_url(server.url, max_connections=1)),
    ):
        broker = RedisBroker(client, timeout=0.5)
        await broker.connect()
        await broker.apply([PLAIN])
        connection = await client.connection_pool.get_connection()  # as a receiver has one while it waits
        with pytest.raises(NotPublishedError, match="max_connections") as raised:
            await broker.publish([message()], timeout=2)
        assert not isinstance(raised.value.__cause__, BrokerUnavailableError)
        assert len(raised.value.unsent) == 1
        await client.connection_pool.release(connection)
        await broker.aclose()
        await client.aclose()
        await client.connection_pool.aclose()


async def test_the_connections_that_the_readme_asks_for_are_enough(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    page = (Path(__file__).parents[1] / "README.md").read_text()
    assert re.search(r"4 connections for the app and 6 for each\s+subscription", page)
    client = redis_at(server.url, max_connections=4 + 6 + 6)
    app = Diator("app", broker=RedisBroker(client, lease=0.6), retry=Retry(attempts=2, delay=0.01))
    handled = list[int]()

    @app.on_event(concurrency=20)
    async def plain(event: Placed) -> None:
        await asyncio.sleep(0.1)
        handled.append(event.number)

    @app.on_event(concurrency=20)
    async def keyed(event: Moved) -> None:
        await asyncio.sleep(0.1)
        handled.append(event.number)

    async with app, app.worker():
        for turn in range(10):
            events = (Moved(str(number), number) if number % 2 else Placed(number) for number in range(50))
            await asyncio.gather(*(app.publish(event) for event in events))
            await until(lambda: len(handled) == (turn + 1) * 50)  # noqa: B023 - awaited here
    await client.aclose()
    assert "max_connections" not in caplog.text


# What is not known to pass is permanent.


@pytest.mark.parametrize("make", [ValueError, TypeError, AttributeError, KeyError, RuntimeError, PermissionError])
def test_an_unknown_error_is_permanent(make: type[Exception]) -> None:
    wrapped = redis.exceptions.ConnectionError("x")
    wrapped.__cause__ = make("x")
    for error in (make("LOADING x"), wrapped, redis.exceptions.ResponseError("SURPRISE x"), make()):
        translated = translate(error)
        assert not isinstance(translated, BrokerUnavailableError)
        assert not str(translated).endswith(": ")


def failed_while_handling(handled: OSError, text: str) -> BaseException:
    """Give an error of redis-py that has another one as its context, as there is for an error of the socket."""
    error = redis.exceptions.ConnectionError(text)
    error.__context__ = handled
    return error


def test_a_certificate_that_is_refused_is_permanent() -> None:
    origin = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error = failed_while_handling(origin, "Error 1 connecting to localhost:6379. certificate verify failed.")
    assert not isinstance(translate(error), BrokerUnavailableError)


def test_what_the_caller_handles_says_nothing_of_a_connection() -> None:
    error = failed_while_handling(PermissionError(13, "the caller's own"), "Connection closed by server.")
    assert isinstance(translate(error), BrokerUnavailableError)


async def test_publishing_says_that_trying_again_is_of_no_use(server: RedisServer) -> None:
    app = Diator("app", broker=server.url)
    app.publishes(Placed)
    async with app, redis_at(server.url) as client:
        await client.set("diator:{refusals.placed}:events", "mine")
        with pytest.raises(PublishError, match="WRONGTYPE") as raised:
            await app.publish(Placed(1))
        assert raised.value.permanent


# Entries that somebody deletes.


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("outcome", ["reject", "renewed", "retry", "exhausted", "given back"])
async def test_a_dead_letter_that_is_announced_is_kept(
    keyed: bool, outcome: str, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    attempts = 1 if outcome == "exhausted" else 3
    broker = RedisBroker(server.url, lease=3 if outcome == "renewed" else 30)
    app = Diator("app", broker=broker, retry=Retry(attempts=attempts, delay=0.2, jitter=0.0))
    runs = list[int]()
    deleted = asyncio.Event()

    async def handle(number: int) -> None:
        runs.append(number)
        await (asyncio.sleep(60) if outcome == "given back" else deleted.wait())
        await asyncio.sleep(1.5 if outcome == "renewed" else 0)
        raise Reject("not this one") if outcome in ("reject", "renewed") else ValueError("not now")

    if keyed:

        @app.on_event
        async def moved(event: Moved) -> None:
            await handle(event.number)
    else:

        @app.on_event
        async def placed(event: Placed) -> None:
            await handle(event.number)

    async with redis_at(server.url) as client, app:
        async with app.worker(grace=0):
            await app.publish(Moved("a", 1) if keyed else Placed(1))
            await until(lambda: runs)
            for name in await client.keys("*:events"):
                for id_, _ in await client.xrange(name):
                    await client.xdel(name, id_)
            deleted.set()
            if outcome != "given back":
                await until(lambda: "becomes a dead letter" in caplog.text)
        async with app.worker():
            await until(lambda: "becomes a dead letter" in caplog.text)
            await asyncio.sleep(0.3)
        async with app.operations() as operations:
            letters = [letter async for letter in operations.dead_letters()]
    assert len(letters) == 1
    assert runs == [1]
    assert caplog.text.count("becomes a dead letter") == 1


HALF = "no such file: caf\udce9.txt"  # as os.fsdecode returns a name that is not UTF-8


class Wordless(Exception):
    def __str__(self) -> str:
        raise SystemExit


ODD_ERRORS: list[BaseException] = [
    ValueError(HALF),
    Reject(HALF),
    ValueError("before\0after"),
    ValueError("x" * 2_000_000),
    Wordless(),
    type("Odd", (Exception,), {"__qualname__": HALF, "__module__": HALF})(),
    GeneratorExit(),
]


@pytest.mark.parametrize("ordered", [False, True])
async def test_whatever_a_handler_raises_runs_once_and_is_one_dead_letter(ordered: bool, server: RedisServer) -> None:
    app, runs = Diator("app", broker=server.url, retry=Retry(attempts=1)), list[int]()

    @app.on_event(ordered=ordered)
    async def handle(event: Moved) -> None:
        runs.append(event.number)
        if event.number < len(ODD_ERRORS):
            raise ODD_ERRORS[event.number]

    count = len(ODD_ERRORS) + 3
    async with app, app.worker() as worker:
        await app.publish(*(Moved("a", number) for number in range(count)))
        await until(lambda: len(runs) >= count)
        await asyncio.sleep(0.5)
        assert runs == [*range(count)]
        assert worker.is_ready
        async with app.operations() as operations:
            letters = [letter.dead async for letter in operations.dead_letters()]
            ((_, status),) = await operations.status()
    assert len(letters) == len(ODD_ERRORS)
    assert (status.backlog, status.dead_letters) == (0, len(ODD_ERRORS))
    assert letters[1].failure.reason == "rejected: no such file: caf\\udce9.txt"
    assert {letter.failure.reason for letter in letters if letter is not letters[1]} == {"exhausted after 1 attempt"}
