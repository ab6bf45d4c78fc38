"""What is particular about Streams: entries by hand, trimming, abandoned groups, settings."""

import asyncio
import inspect
import logging
import traceback
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

import diator_redis
import hypothesis
import msgspec
import pytest
from diator_redis import RedisBroker, RedisPubSubBroker
from diator_redis._client import as_mapping
from diator_redis._entries import body_of, find_read_error
from diator_redis._keys import KeyNames
from diator_redis.testing import RedisServer
from hypothesis import strategies
from redis.asyncio import Redis

from diator import ConfigurationError
from diator.brokers import (
    ACK,
    RELEASE,
    Delivery,
    Envelope,
    MoveToDeadLetters,
    Outcome,
    OutgoingMessage,
    Receiver,
    RetryAfter,
    Subscription,
    Topic,
    dead_letters_of,
    parse_envelope,
)

TOPIC = Topic("orders", ("placed",))
PLAIN = Subscription("app.plain", (TOPIC,))
ORDERED = Subscription("app.ordered", (TOPIC,), ordered=True)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as one:
        yield one


def redis_at(url: str, **options: object) -> Any:
    """Give a client, untyped: what redis-py says of its types is not always so."""
    make: Any = Redis
    return make.from_url(url, **options)


@pytest.fixture
async def client(server: RedisServer) -> AsyncGenerator[Any]:
    async with redis_at(server.url) as one:
        await one.flushall()
        yield one


def message(number: int, key: str | None = None) -> OutgoingMessage:
    envelope = Envelope(
        specversion="1.0", id=str(number), source="test", type="placed", partitionkey=key, data=msgspec.Raw(b"1")
    )
    return OutgoingMessage("orders", envelope)


def numbers(deliveries: list[Delivery]) -> list[int]:
    return [int(parse_envelope(delivery.headers, delivery.body).id) for delivery in deliveries]


@asynccontextmanager
async def connected(broker: RedisBroker, *subscriptions: Subscription) -> AsyncGenerator[RedisBroker]:
    await broker.connect()
    try:
        await broker.apply(subscriptions)
        yield broker
    finally:
        await broker.aclose()


# Entries.


@hypothesis.given(
    fields=strategies.none()
    | strategies.lists(
        strategies.sampled_from([b"e", b"k", b"f", b"d", b"n", b"x"]) | strategies.binary(max_size=5), max_size=9
    ),
    own=strategies.booleans(),
)
def test_any_fields_have_a_body_or_are_damaged(fields: list[bytes] | None, own: bool) -> None:
    """With their event, or with what is wrong with them."""
    values = as_mapping(fields or [])
    assert isinstance(body_of(values), bytes)
    if b"e" not in values:
        assert find_read_error(values, own)


@pytest.mark.parametrize("subscription", [PLAIN, ORDERED], ids=["plain", "ordered"])
@pytest.mark.parametrize(
    "fields",
    [
        {b"e": b"\xff\xfe"},
        {b"\x00": b"\xff" * 100},
        {b"e": b"1", b"k": b"\xff\xfe", b"n": b"soon", b"f": b"-1", b"d": b"many"},
        {b"e": b"1", b"f": b"9" * 400, b"d": b"1e99"},
        {b"k": b"a", b"x": b"\xc3\x28"},
        {b"%d" % at: b"value" for at in range(3000)},
    ],
    ids=range(6),
)
async def test_entries_by_hand_are_handed_out(
    server: RedisServer, client: Any, subscription: Subscription, fields: dict[bytes, bytes]
) -> None:
    """Wherever they stand, and whatever becomes of them; what comes after them is not held up."""
    async with connected(RedisBroker(server.url, lease=1.0), subscription) as broker:
        receiver = await broker.subscribe(subscription)
        for stream in ("{orders}:events", "{orders}:events", f"{{{subscription.name}}}:redelivery"):
            await client.xadd(f"diator:{stream}", fields)
        for outcome in (RetryAfter(0.0), RELEASE, MoveToDeadLetters("undecodable")):
            came: list[Delivery] = []
            while len(came) < 3:
                came += await asyncio.wait_for(receiver.receive(10), 5)
            assert not await receiver.settle([(delivery, outcome) for delivery in came])
        letters = [letter async for letter in dead_letters_of(broker, subscription)]
        assert len(letters) == 3
        for letter in letters:
            assert await broker.replay(subscription, [letter.id])
        await broker.publish([message(1), message(2, "a")], timeout=5)
        came = []
        while len(came) < 5:
            came += await asyncio.wait_for(receiver.receive(10), 5)
        assert not await receiver.settle([(delivery, ACK) for delivery in came])


async def test_an_entry_that_was_deleted_is_handed_out_as_damaged(server: RedisServer, client: Any) -> None:
    """So that its loss is seen."""
    async with connected(RedisBroker(server.url, lease=0.3), PLAIN) as broker:
        first = await broker.subscribe(PLAIN)
        await broker.publish([message(1)], timeout=5)
        await first.receive(1)
        await client.xtrim("diator:{orders}:events", maxlen=0)
        (delivery,) = await asyncio.wait_for(first.receive(1), 5)
        assert delivery.read_error == "its entry was deleted from the stream"
        assert not await first.settle([(delivery, MoveToDeadLetters("undecodable"))])


# Trimming.


async def test_old_entries_go_but_never_what_is_still_needed(server: RedisServer, client: Any) -> None:
    slow = Subscription("app.slow", (TOPIC,))
    async with connected(RedisBroker(server.url, max_length=100), PLAIN, slow) as broker:
        receiver, other = await broker.subscribe(PLAIN), await broker.subscribe(slow)
        name = "diator:{orders}:events"
        for first in range(0, 1500, 500):
            await broker.publish([message(at) for at in range(first, first + 500)], timeout=5)
        await settle_all(receiver, 1499)
        last = await receiver.receive(1)  # so that both subscriptions still need something
        await settle_all(other, 300)
        held = await other.receive(1)
        await settle_all(other, 400)
        await broker.trim()
        left = await client.xlen(name)
        assert 1200 <= left <= 1400, "what is not settled stays, and a little more"
        oldest = (await client.xrange(name, count=1))[0][1]
        assert int(parse_envelope({}, oldest[b"e"]).id) <= 300
        assert not await receiver.settle([(delivery, ACK) for delivery in last])
        assert not await other.settle([(delivery, ACK) for delivery in held])
        await settle_all(other, 799)
        await broker.trim()
        assert await client.xlen(name) <= 200


async def settle_all(receiver: Receiver, count: int) -> list[Delivery]:
    done: list[Delivery] = []
    while len(done) < count:
        came = list(await asyncio.wait_for(receiver.receive(count - len(done)), 5))
        assert not await receiver.settle([(delivery, ACK) for delivery in came])
        done += came
    return done


async def sizes(client: Any) -> dict[str, int]:
    """How many things the stored structures have, of those that have any."""
    of = {b"stream": client.xlen, b"list": client.llen, b"zset": client.zcard, b"hash": client.hlen}
    names = [name async for name in client.scan_iter() if await client.type(name) in of]
    found = {name.decode().rpartition("}:")[2]: await of[await client.type(name)](name) for name in names}
    return {name: size for name, size in found.items() if size}


@pytest.mark.parametrize("subscription", [PLAIN, ORDERED], ids=["plain", "ordered"])
async def test_what_was_settled_leaves_nothing_behind(
    server: RedisServer, client: Any, subscription: Subscription
) -> None:
    """But for its entry, until it is trimmed."""
    async with connected(RedisBroker(server.url, lease=30.0), subscription) as broker:
        await broker.publish([message(at, f"k{at % 4}") for at in range(12)], timeout=5)
        soon = OutgoingMessage(
            "orders", message(12, "k0").envelope, due=datetime.now(timezone.utc) + timedelta(seconds=0.1)
        )
        await broker.publish([soon], timeout=5)
        receiver = await broker.subscribe(subscription)
        some: list[Outcome] = [RELEASE, RetryAfter(0.01), RetryAfter(0.0), MoveToDeadLetters("no")]
        parked: list[int] = []  # what has failed may come again before it, or after
        for outcome in some * 2:
            (delivery,) = await asyncio.wait_for(receiver.receive(1), 5)
            await receiver.settle([(delivery, outcome)])
            parked += [delivery.deliveries] if isinstance(outcome, MoveToDeadLetters) else []
        async for letter in dead_letters_of(broker, subscription):
            assert letter.deliveries == parked.pop(0)
            assert await broker.replay(subscription, [letter.id])
        await settle_all(receiver, 13)
        await receiver.aclose()
        left = await sizes(client)
        assert left.pop("events") == 13
        assert left.pop("meta", 0) < 10
        assert left.pop("wakeup", 0) <= 10
        assert not left
        assert (await client.xpending("diator:{orders}:events", subscription.name))["pending"] == 0


@pytest.mark.parametrize("subscription", [PLAIN, ORDERED], ids=["plain", "ordered"])
@pytest.mark.parametrize(
    "outcome", [ACK, RetryAfter(0.01), MoveToDeadLetters("no")], ids=lambda one: type(one).__name__
)
async def test_an_outcome_that_is_reported_again_changes_nothing(
    server: RedisServer, client: Any, subscription: Subscription, outcome: Outcome
) -> None:
    """As a worker does that was cut off before it was answered. With order it may be told as lost."""
    async with connected(RedisBroker(server.url), subscription) as broker:
        await broker.publish([message(at, "a") for at in range(3)], timeout=5)
        receiver = await broker.subscribe(subscription)
        (delivery,) = await asyncio.wait_for(receiver.receive(1), 5)
        assert not await receiver.renew([delivery])
        for _ in range(2):
            lost = await receiver.settle([(delivery, outcome)])
            assert subscription.ordered or not lost
        rest = await settle_all(receiver, 3 if isinstance(outcome, RetryAfter) else 2)
        assert {*numbers(rest)} >= {1, 2}
        dead = [letter async for letter in dead_letters_of(broker, subscription)]
        assert len(dead) == isinstance(outcome, MoveToDeadLetters)


@pytest.mark.parametrize("subscription", [PLAIN, ORDERED], ids=["plain", "ordered"])
async def test_a_receiver_gives_all_back_however_much_it_is(
    server: RedisServer, client: Any, subscription: Subscription
) -> None:
    async with connected(RedisBroker(server.url), subscription) as broker:
        await broker.publish([message(at) for at in range(250)], timeout=5)
        receiver, held = await broker.subscribe(subscription), 0
        while held < 250:
            held += len(await asyncio.wait_for(receiver.receive(250), 5))
        await receiver.aclose()
        assert sorted(numbers(await settle_all(await broker.subscribe(subscription), 250))) == list(range(250))


@pytest.mark.parametrize("subscription", [PLAIN, ORDERED], ids=["plain", "ordered"])
async def test_a_receiver_that_leaves_gives_back_its_own_and_settles_nothing_after(
    server: RedisServer, client: Any, subscription: Subscription
) -> None:
    async with connected(RedisBroker(server.url), subscription) as broker:
        await broker.publish([message(at, str(at)) for at in range(2)], timeout=5)
        stays, leaves = await broker.subscribe(subscription), await broker.subscribe(subscription)
        (kept,), (returned,) = await stays.receive(1), await leaves.receive(1)
        await leaves.aclose()
        assert await leaves.settle([(returned, ACK)]) == [returned]
        (again,) = await asyncio.wait_for(stays.receive(10), 5)
        assert numbers([again]) == numbers([returned])
        assert again.deliveries == 1
        assert not await stays.settle([(kept, ACK), (again, ACK)])


@pytest.mark.parametrize("subscription", [PLAIN, ORDERED], ids=["plain", "ordered"])
async def test_status_counts_a_retry_that_waits(server: RedisServer, client: Any, subscription: Subscription) -> None:
    async with connected(RedisBroker(server.url), subscription) as broker:
        await broker.publish([message(1, "a"), message(2, "b")], timeout=5)
        receiver = await broker.subscribe(subscription)
        (delivery,) = await receiver.receive(1)
        await receiver.settle([(delivery, RetryAfter(60.0))])
        assert [status.backlog for status in await broker.status([subscription])] == [2]


async def test_entries_may_go_by_their_age(server: RedisServer, client: Any) -> None:
    async with connected(RedisBroker(server.url, max_length=None, max_age=0.2), PLAIN) as broker:
        await broker.publish([message(at) for at in range(500)], timeout=5)
        await asyncio.sleep(0.3)
        await broker.trim()
        assert await client.xlen("diator:{orders}:events") == 500
        await settle_all(await broker.subscribe(PLAIN), 500)
        await broker.trim()
        assert await client.xlen("diator:{orders}:events") <= 100


async def test_a_topic_without_a_subscription_does_not_grow(server: RedisServer, client: Any) -> None:
    """Its publishers trim it."""
    async with connected(RedisBroker(server.url, max_length=100)) as broker:
        for _ in range(10):
            await broker.publish([message(at) for at in range(500)], timeout=5)
        await asyncio.sleep(0.1)
        assert await client.xlen("diator:{orders}:events") < 1500


async def test_a_group_that_nobody_reads_is_reported_with_the_way_out(
    server: RedisServer, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    gone = Subscription("app.gone", (TOPIC,))
    async with connected(RedisBroker(server.url, abandoned_after=0.2), PLAIN, gone) as broker:
        await broker.publish([message(1)], timeout=5)
        await settle_all(await broker.subscribe(PLAIN), 1)
        with caplog.at_level(logging.WARNING, "diator.redis"):
            await asyncio.sleep(0.3)
            for _ in range(2):
                await broker.trim()
        (record,) = caplog.records
        text = record.getMessage()
        assert "'app.gone'" in text
        command = text.partition("redis-cli ")[2].replace("'", "").split()
        assert await client.execute_command(*command) == 1


# Workers.


async def test_workers_share_the_keys(server: RedisServer, client: Any) -> None:
    """Who comes later gets some, and who leaves gives all back at once."""
    async with connected(RedisBroker(server.url, lease=5.0), ORDERED) as broker:
        receivers = [await broker.subscribe(ORDERED)]
        got: list[list[Delivery]] = [[], []]

        async def work(at: int) -> None:
            while came := await receivers[at].receive(10):
                await asyncio.sleep(0.002)
                lost = await receivers[at].settle([(delivery, ACK) for delivery in came])
                assert not lost or len(receivers) == 2, "only who was closed meanwhile loses something"
                got[at] += [delivery for delivery in came if delivery not in lost]

        tasks = [asyncio.create_task(work(0))]
        await broker.publish([message(at, f"key {at % 40}") for at in range(200)], timeout=5)
        receivers.append(await broker.subscribe(ORDERED))
        tasks.append(asyncio.create_task(work(1)))
        while not got[1]:
            await broker.publish([message(at, f"key {at % 40}") for at in range(100)], timeout=5)
            await asyncio.sleep(0.02)
        await receivers[0].aclose()
        before = len(got[1])
        await broker.publish([message(at, f"key {at % 40}") for at in range(100)], timeout=5)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await until(lambda: len(got[1]) >= before + 100)
        assert loop.time() - began < 3.0
        await receivers[1].aclose()
        await asyncio.gather(*tasks)


async def until(happened: Callable[[], bool]) -> None:
    for _ in range(1000):
        if happened():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not happen")


def test_keys_of_a_topic_or_a_subscription_are_in_one_slot() -> None:
    keys = KeyNames("diator")
    assert all(b"{a}" in name for name in keys.topic("a"))
    assert all(b"{sub}" in name for name in (keys.redelivery("sub"), keys.dead_letters("sub"), *keys.queues("sub")))
    assert keys.events("{x}:y%") == b"diator:{%7Bx%7D%3Ay%25}:events"
    assert keys.dead_letters("b:c") != keys.dead_letters("b%3Ac")


# Settings.


@pytest.mark.parametrize("protocol", [2, 3])
async def test_settings_in_an_address(server: RedisServer, client: Any, protocol: int) -> None:
    url = f"{server.url}/0?lease=60&prefix=mine&max_length=none&protocol={protocol}&client_name=me"
    async with connected(RedisBroker.from_url(url), PLAIN, ORDERED) as broker:
        assert broker.lease == 60
        for subscription in (PLAIN, ORDERED):
            receiver = await broker.subscribe(subscription)
            await broker.publish([message(1, "a"), message(2)], timeout=5)
            assert len(await settle_all(receiver, 2)) == 2
            await receiver.aclose()


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_client_of_ones_own(server: RedisServer, client: Any, decode: bool, protocol: int) -> None:
    """It stays open."""
    async with redis_at(server.url, decode_responses=decode, protocol=protocol) as own:
        async with connected(RedisBroker(own), PLAIN, ORDERED) as broker:
            for subscription in (PLAIN, ORDERED):
                receiver = await broker.subscribe(subscription)
                await broker.publish([message(1, "a"), message(2)], timeout=5)
                assert {*numbers(await settle_all(receiver, 4 if subscription.ordered else 2))} == {1, 2}
                await receiver.aclose()
        assert await own.ping()


async def test_a_unix_socket() -> None:
    with RedisServer(unix=True) as server:
        async with connected(RedisBroker.from_url(server.url + "?lease=5"), PLAIN) as broker:
            await broker.publish([message(1)], timeout=5)
            assert numbers(await settle_all(await broker.subscribe(PLAIN), 1)) == [1]


@pytest.mark.parametrize("subscription", [PLAIN, ORDERED], ids=["plain", "ordered"])
async def test_removing_a_subscription_leaves_no_key_of_it(
    server: RedisServer, client: Any, subscription: Subscription
) -> None:
    """Also under a prefix that reads like a pattern. Groups that other programs have on a topic stay."""
    other = Subscription("app.other", (TOPIC,))
    async with connected(RedisBroker(server.url, prefix="s*op[1]?"), subscription, other) as broker:
        await client.xgroup_create("s*op[1]?:{orders}:events", "monitor", "$")
        await client.xgroup_create("s*op[1]?:{app.foreign}:events", "app.foreign", "$", mkstream=True)
        await broker.publish([message(number, "k") for number in range(5)], timeout=5)
        receiver = await broker.subscribe(subscription)
        first, second, *_ = await receiver.receive(4)
        await receiver.settle([(first, RetryAfter(60)), (second, MoveToDeadLetters("rejected"))])
        await receiver.aclose()
        assert [one.name for one in await broker.other_subscriptions([other])] == [subscription.name]
        before = {*await client.keys("*")}
        assert await broker.remove_subscription(subscription.name)
        left = {*await client.keys("*")}
        assert before > left
        assert all(key.decode().startswith(f"s*op[1]?:{{{subscription.name}}}:") for key in before - left)
        assert not [key for key in left if b"{%s}" % subscription.name.encode() in key]
        groups = {group["name"] for group in await client.xinfo_groups("s*op[1]?:{orders}:events")}
        assert groups == {b"monitor", b"app.other"}
        for name in ("monitor", "app.foreign", "orders"):
            assert not await broker.remove_subscription(name)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://localhost/0?leese=60", "unknown setting 'leese'.*\n.*did you mean 'lease'"),
        ("redis://localhost/0?color=red", "unknown setting 'color'.*\n.*abandoned_after, lease"),
        ("redis://localhost/0?ssl_cert_reqs=none", "unknown setting 'ssl_cert_reqs'.*\n.*ssl_... need rediss://"),
        ("redis://localhost/0?health_check_interval=x", "can't be used: Invalid value for 'health_check_interval'"),
        ("redis://localhost/0?lease=soon", "lease='soon', which is not a number"),
        ("redis://localhost/0?lease=-1", "lease=-1.0; expected a number of seconds greater than 0"),
        ("http://localhost", "Redis URL must specify one of"),
    ],
)
def test_an_address_that_is_wrong_says_how_it_is_right(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as raised:
        RedisBroker.from_url(url)
    (problem,) = raised.value.problems
    assert problem.code in ("broker", "broker-url")
    assert problem.fix


@pytest.mark.parametrize(
    "url", ["redis://:s3cret", "redis://me:s3cr/t@host:6379", "redis://:s3c#ret@host:6379/0", "rediss://:s3cr?t@host"]
)
def test_a_password_that_is_not_encoded_is_not_shown(url: str) -> None:
    with pytest.raises(ConfigurationError, match="percent-encoded") as raised:
        RedisBroker.from_url(url)
    assert "s3c" not in "".join(traceback.format_exception(raised.value))


def test_something_that_is_no_client_is_refused() -> None:
    for kind in (RedisBroker, RedisPubSubBroker):
        with pytest.raises(ConfigurationError):
            kind(object())  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ConfigurationError):
        RedisPubSubBroker.from_url("redis+pubsub://localhost?wire=old")


def test_all_that_is_exported_is_there() -> None:
    public = {
        name for name, value in vars(diator_redis).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert sorted(public) == diator_redis.__all__
