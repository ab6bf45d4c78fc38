"""What the suite does not ask: addresses, users, virtual hosts, TLS, several servers, a server that says nothing."""

import asyncio
import base64
import gc
import hashlib
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiormq
import pamqp.frame
import pytest
from diator_conformance.brokers.messages import messages, numbers
from diator_rabbitmq import RabbitBroker
from diator_rabbitmq.testing import MISSING, Proxy, RabbitServer, is_missing, shared_server
from pamqp.commands import Connection
from pamqp.heartbeat import Heartbeat

from diator import ConfigurationError, Diator
from diator.brokers import ACK, MoveToDeadLetters, RetryAfter, Subscription, Topic
from diator.errors import BrokerError, BrokerUnavailableError, NotPublishedError

once = pytest.mark.once  # it is slow, or the client for Python 3.10 leaves sockets of broken connections open
needs_server = pytest.mark.skipif(is_missing(), reason=MISSING)
TOPIC = Topic("orders", ("thing.happened",))
PLAIN = Subscription("bill", (TOPIC,))
ORDERED = Subscription("ship", (TOPIC,), ordered=True)


def prefix() -> str:
    return f"t{uuid.uuid4().hex[:12]}"


async def works(broker: RabbitBroker) -> None:
    """See that a message goes through it."""
    await broker.connect()
    try:
        await broker.apply([PLAIN])
        receiver = await broker.subscribe(PLAIN)
        await broker.publish(messages(1, TOPIC), timeout=30)
        taken = await asyncio.wait_for(receiver.receive(1), 30)
        assert numbers(taken) == [0]
        await receiver.settle([(taken[0], ACK)])
    finally:
        await broker.aclose()


@pytest.mark.parametrize(
    ("address", "part"),
    [
        ("amqp://user:SECRET@", "no host"),
        ("amqp://user:SECRET@host:0", "port"),
        ("amqp://user:SECRET@host:70000", "port"),
        ("amqp://user:SEC#RET@host", "%23 for #"),
        ("amqp://user:SECRET@host/a/b", "%2F"),
        ("amqp://user:SECRET@one,two:x/shop", "port"),
        ("amqp://user:SECRET@one,/shop", "no host"),
        ("amqp://user:SECRET@host?heartbeet=5", "unknown setting 'heartbeet'"),
        ("amqp://user:SECRET@host?heartbeat=0", "heartbeat"),
        ("amqp://user:SECRET@host?prefix=a:b", "prefix"),
        ("amqp://user:SECRET@host?timeout=never", "timeout"),
        ("amqp://user:SECRET@host?cacertfile=ca.pem", "amqps"),
        ("amqps://user:SECRET@host?cacertfile=/no/such/ca.pem", "No such file"),
        (f"amqp://user:SECRET@host/{'v' * 128}", "too long"),
    ],
)
def test_a_wrong_address_is_rejected_without_its_password(address: str, part: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Diator("shop", broker=address)
    text = " ".join(f"{one.text} {one.fix}" for one in raised.value.problems)
    assert part in text
    assert "SECRET" not in text


def test_a_broker_shows_its_server_and_no_password() -> None:
    broker = RabbitBroker.from_url("amqps://user:SECRET@one:5999,two/shop?prefix=staging&heartbeat=5")
    assert repr(broker) == "<RabbitBroker one:5999 'staging'>"
    assert broker.address == "one:5999"
    assert RabbitBroker("amqp://[::1]").address == "::1:5672"


def test_a_delay_that_is_too_long_is_rejected() -> None:
    (issue,) = RabbitBroker().validate([PLAIN._replace(max_delay=5e6)], [])
    assert issue.subscription == "bill"
    assert "5e+06 s" in issue.text


def hashed(password: str) -> str:
    """A password as RabbitMQ stores it."""
    salt = b"salt"
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RabbitServer, Proxy, Path]]:
    """A server with a user for one virtual host, and with TLS on a port of its own."""
    folder = tmp_path_factory.mktemp("rabbit")
    names = ("-addext", "subjectAltName=IP:127.0.0.1", "-subj", "/CN=localhost", "-days", "2", "-nodes")
    openssl("req", "-x509", "-newkey", "rsa:2048", "-keyout", f"{folder}/key.pem", "-out", f"{folder}/ca.pem", *names)
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    own = {"configure": "^diator:", "write": r"^(diator:|amq\.default)", "read": "^diator:"}
    users = {"shop@1": own, "nobody": None, "guest": everything}
    definitions = {
        "vhosts": [{"name": "/"}, {"name": "a/b"}],
        "users": [{"name": name, "password_hash": hashed(f"p:{name}"), "tags": ""} for name in users],
        "permissions": [{"user": name, "vhost": "a/b", **rights} for name, rights in users.items() if rights],
    }
    (folder / "definitions.json").write_text(json.dumps(definitions))
    with Proxy(0) as reserved:
        port = reserved.port
    config = {"load_definitions": f"{folder}/definitions.json", "listeners.ssl.1": f"127.0.0.1:{port}"}
    config |= {"ssl_options.certfile": f"{folder}/ca.pem", "ssl_options.keyfile": f"{folder}/key.pem"}
    config |= {"ssl_options.cacertfile": f"{folder}/ca.pem", "ssl_options.verify": "verify_none"}
    with RabbitServer(config) as server, Proxy(port) as tls:
        yield server, tls, folder


@once
@needs_server
async def test_a_user_works_in_a_virtual_host_and_without_rights_to_anything_else(
    secured: tuple[RabbitServer, Proxy, Path],
) -> None:
    server, _, _ = secured
    await works(RabbitBroker(f"amqp://shop%401:p%3Ashop%401@127.0.0.1:{server.port}/a%2Fb"))


@once
@needs_server
@pytest.mark.parametrize(
    ("who", "reason"),
    [
        ("nobody:p%3Anobody@127.0.0.1:{}/a%2Fb", "virtual host .*virtual host 'a/b'"),
        ("shop%401:SECRET@127.0.0.1:{}/a%2Fb", "the password is wrong"),
        ("shop%401:p%3Ashop%401@127.0.0.1:{}/no", r"the virtual host does not exist, .*at 127.0.0.1:\d+, .* 'no'"),
    ],
    ids=["no rights", "wrong password", "no such virtual host"],
)
async def test_who_may_not_connect_is_told_for_good(
    secured: tuple[RabbitServer, Proxy, Path], who: str, reason: str
) -> None:
    server, _, _ = secured
    broker = RabbitBroker("amqp://" + who.format(server.port))
    with pytest.raises(BrokerError, match=reason) as raised:
        await broker.connect()
    assert not isinstance(raised.value, BrokerUnavailableError)
    assert "SECRET" not in str(raised.value)
    await broker.aclose()


@once
@needs_server
async def test_tls_needs_a_certificate_that_is_trusted(secured: tuple[RabbitServer, Proxy, Path]) -> None:
    _, tls, folder = secured
    url = f"amqps://shop%401:p%3Ashop%401@127.0.0.1:{tls.port}/a%2Fb"
    await works(
        RabbitBroker.from_url(f"{url}?cacertfile={folder}/ca.pem&certfile={folder}/ca.pem&keyfile={folder}/key.pem")
    )
    stranger = RabbitBroker(url)
    with pytest.raises(BrokerError, match="certificate") as raised:
        await stranger.connect()
    assert not isinstance(raised.value, BrokerUnavailableError)
    await stranger.aclose()


@once
@needs_server
async def test_the_first_server_that_answers_is_used() -> None:
    port = shared_server().port
    with Proxy(port) as closed:
        away = closed.port
    await works(RabbitBroker(f"amqp://guest:guest@127.0.0.1:{away},127.0.0.1:{port}", prefix=prefix()))


@once
@needs_server
async def test_a_server_that_says_nothing_is_away_in_time(caplog: pytest.LogCaptureFixture) -> None:
    with RabbitServer() as server:
        broker = RabbitBroker(server.url, timeout=1.0)
        await broker.connect()
        for subscription in (PLAIN, ORDERED):
            await broker.apply([subscription])
        receiver = await broker.subscribe(PLAIN)
        await broker.publish(messages(1, TOPIC), timeout=30)
        taken = await asyncio.wait_for(receiver.receive(1), 30)
        server.pause()
        await asyncio.sleep(0.5)  # on a busy machine it goes on for a while
        with pytest.raises(NotPublishedError) as raised:
            await asyncio.wait_for(broker.publish(messages(1, TOPIC, first=1), timeout=0.5), 10)
        assert isinstance(raised.value.__cause__, BrokerUnavailableError)
        with pytest.raises(BrokerUnavailableError):
            await asyncio.wait_for(receiver.settle([(taken[0], ACK)]), 10)
        await asyncio.wait_for(receiver.aclose(), 10)
        server.resume()
        await asyncio.wait_for(broker.aclose(), 30)
    gc.collect()
    assert "never retrieved" not in caplog.text


@once
async def test_a_server_whose_heartbeat_comes_before_its_answer_is_away_for_now() -> None:
    """On a busy machine: a worker that starts then must try again, not end."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for frame in (Connection.Start(), Connection.Tune(heartbeat=1), Heartbeat()):
            await reader.read(4096)
            writer.write(pamqp.frame.marshal(frame, 0))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        broker = RabbitBroker(f"amqp://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(BrokerUnavailableError, match="Heartbeat"):
            await broker.connect()
        await broker.aclose()


@once
@needs_server
async def test_client_logs_nothing_about_a_lost_connection(caplog: pytest.LogCaptureFixture) -> None:
    """Diator reports an outage once; the client would log an error for each try to connect."""
    proxy = Proxy(shared_server().port)
    broker = RabbitBroker(proxy.url, prefix=prefix())
    await broker.connect()
    proxy.close()
    for _ in range(3):
        with pytest.raises(BrokerUnavailableError):
            await broker.apply([PLAIN])
    await broker.aclose()
    assert [record.getMessage() for record in caplog.records if record.name.startswith("aiormq")] == []


@once
@needs_server
async def test_the_counts_of_a_retry_survive_its_owner_and_so_does_its_delay() -> None:
    space = prefix()
    proxy = Proxy(shared_server().port)
    first, second = RabbitBroker(proxy.url, prefix=space), RabbitBroker(shared_server().url, prefix=space)
    await first.connect()
    await first.apply([ORDERED])
    receiver = await first.subscribe(ORDERED)
    await first.publish(messages(2, TOPIC, "a"), timeout=30)
    for failures, delay in ((0, 0.0), (1, 1.5)):
        taken = await asyncio.wait_for(receiver.receive(1), 30)
        assert [(one.failures, one.deliveries) for one in taken] == [(failures, failures + 1)]
        began = asyncio.get_running_loop().time()
        await receiver.settle([(taken[0], RetryAfter(delay))])
    proxy.close()  # as if its process had died
    await second.connect()
    taken = await asyncio.wait_for((await second.subscribe(ORDERED)).receive(5), 60)
    assert asyncio.get_running_loop().time() - began > 1.4
    assert (numbers(taken)[0], taken[0].failures, taken[0].deliveries) == (0, 2, 3)
    for broker in (first, second):
        await broker.aclose()


@needs_server
async def test_a_large_number_of_dead_letters_is_read_by_pages() -> None:
    broker = RabbitBroker(shared_server().url, prefix=prefix())
    await broker.connect()
    await broker.apply([PLAIN])
    receiver = await broker.subscribe(PLAIN)
    await broker.publish(messages(451, TOPIC), timeout=30)
    done = 0
    while done < 451:
        taken = await asyncio.wait_for(receiver.receive(100), 30)
        await receiver.settle([(one, MoveToDeadLetters("rejected")) for one in taken])
        done += len(taken)
    started: list[Any] = []
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(firstiter=started.append)
    assert len(await broker.purge(PLAIN, [(await broker.dead_letters(PLAIN, limit=1))[0].id])) == 1
    sys.set_asyncgen_hooks(*hooks)
    assert started
    assert all(one.ag_frame is None for one in started), "what reads is left open if it need not read to the end"
    first = await broker.dead_letters(PLAIN, limit=300)
    rest = await broker.dead_letters(PLAIN, after=first[-1].id, limit=300)
    assert len({one.id for one in (*first, *rest)}) == 450
    assert len(await broker.purge(PLAIN, [one.id for one in first])) == 300
    assert [one.id for one in await broker.dead_letters(PLAIN, limit=300)] == [one.id for one in rest]
    await broker.aclose()


@once
@needs_server
async def test_a_subscription_that_was_deleted_is_told_for_good() -> None:
    broker = RabbitBroker(shared_server().url, prefix=prefix())
    await broker.connect()
    for subscription in (PLAIN, ORDERED):
        receiver = await broker.subscribe(subscription)  # which was never applied
        with pytest.raises(BrokerError, match="NOT_FOUND") as raised:
            await asyncio.wait_for(receiver.receive(1), 30)
        assert not isinstance(raised.value, BrokerUnavailableError)
    await broker.aclose()


async def at_server(*calls: tuple[str, str]) -> None:
    """Do something with a queue or an exchange, as an operator could."""
    connection: Any = aiormq.Connection(shared_server().url)
    await connection.connect()
    channel = await connection.channel()
    for call, name in calls:
        await getattr(channel, call)(name)
    await connection.close()


@once
@needs_server
async def test_an_outcome_whose_queue_was_deleted_is_reported_and_not_lost() -> None:
    """The server confirms a message that no queue gets, unless it is told not to."""
    space = prefix()
    broker = RabbitBroker(shared_server().url, prefix=space)
    await broker.connect()
    await broker.apply([PLAIN])
    receiver = await broker.subscribe(PLAIN)
    await broker.publish(messages(1, TOPIC), timeout=30)
    taken = await asyncio.wait_for(receiver.receive(1), 30)
    await at_server(("queue_delete", f"{space}:dead:bill"))
    with pytest.raises(BrokerError, match=r"queue '\w+:dead:bill' does not exist; create it: diator") as raised:
        await receiver.settle([(taken[0], MoveToDeadLetters("rejected"))])
    assert not isinstance(raised.value, BrokerUnavailableError)
    assert await broker.apply([PLAIN]) == [f"{space}:dead:bill"]
    assert not await receiver.settle([(taken[0], MoveToDeadLetters("rejected"))])
    letters = await broker.dead_letters(PLAIN)
    assert len(letters) == 1
    await at_server(("queue_delete", f"{space}:queue:bill"))
    with pytest.raises(BrokerError, match="does not exist"):
        await broker.replay(PLAIN, [letters[0].id])
    assert await broker.dead_letters(PLAIN) == letters
    await broker.aclose()


@once
@needs_server
async def test_what_exists_in_part_is_listed_until_it_is_removed() -> None:
    """As after a crash while it was created, and after an operator has deleted its queue."""
    space = prefix()
    broker = RabbitBroker(shared_server().url, prefix=space)
    await broker.connect()
    await broker.apply([PLAIN])
    await at_server(("queue_delete", f"{space}:queue:bill"))
    (found,) = await broker.other_subscriptions([])
    assert (found.name, found.exists, found.missing) == ("bill", False, (f"{space}:queue:bill",))
    assert await broker.remove_subscription("bill")
    assert not await broker.other_subscriptions([])
    (status,) = await broker.status([PLAIN])
    assert status.missing == (f"{space}:dead:bill", f"{space}:queue:bill", "bill <- orders")
    await broker.aclose()


@once
@needs_server
async def test_a_subscription_that_is_not_in_the_register_is_recorded_by_apply() -> None:
    space = prefix()
    broker = RabbitBroker(shared_server().url, prefix=space)
    await broker.connect()
    await broker.apply([PLAIN])
    await at_server(
        ("queue_purge", f"{space}:register:subscriptions"), ("exchange_delete", f"{space}:listed:bill:orders")
    )
    assert not await broker.other_subscriptions([])
    assert await broker.apply([PLAIN]) == ["bill <- orders"]
    assert [one.name for one in await broker.other_subscriptions([])] == ["bill"]
    await broker.aclose()


@once
@needs_server
async def test_what_is_applied_while_it_is_removed_is_listed_if_it_exists() -> None:
    space = prefix()
    brokers = [RabbitBroker(shared_server().url, prefix=space) for _ in range(2)]
    for broker in brokers:
        await broker.connect()

    async def remove(after: float) -> None:
        await asyncio.sleep(after)
        await brokers[1].remove_subscription("bill")

    for after in (0.0, 0.02, 0.05, 0.1):
        await asyncio.gather(brokers[0].apply([PLAIN]), remove(after), return_exceptions=True)
        (status,) = await brokers[0].status([PLAIN])
        listed = await brokers[1].other_subscriptions([])
        assert status.missing or [one.name for one in listed] == ["bill"]  # what is missing, apply creates and records
        await brokers[1].remove_subscription("bill")
    for broker in brokers:
        await broker.aclose()


@once
@needs_server
async def test_looking_for_what_does_not_exist_never_breaks_the_connection() -> None:
    """Each look takes a channel, which the server closes; a connection has 2,047 of them."""
    broker = RabbitBroker(shared_server().url, prefix=prefix())
    await broker.connect()
    for _ in range(2_100 // 19):
        (status,) = await broker.status([ORDERED])
        assert len(status.missing) == 19
    await broker.aclose()
