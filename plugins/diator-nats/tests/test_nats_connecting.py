"""Addresses, and who may connect: tokens, users, TLS and credentials, on real servers."""

import asyncio
import base64
import contextlib
import gc
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import nats
import pytest
from diator_nats import NatsBroker
from diator_nats.testing import NatsServer, Proxy
from nats.js.errors import NoStreamResponseError

from diator import ConfigurationError, Diator
from diator.brokers import ACK, OutgoingMessage, Subscription, Topic
from diator.errors import BrokerError, BrokerUnavailableError, NotPublishedError

nkeys: Any = import_module("nkeys")  # has no types
SOLD = Topic("shop.sold", ("shop.sold",))
BILL = Subscription("shop.bill", (SOLD,), ordered=True)
EVENT = b'{"specversion":"1.0","id":"%d","source":"/","type":"shop.sold","partitionkey":"k","data":{}}'


def event(number: int) -> OutgoingMessage:
    return OutgoingMessage.from_bytes("shop.sold", EVENT % number)


@contextlib.contextmanager
def running(config: str = "", **options: bool) -> Generator[NatsServer]:
    with NatsServer(config, **options) as server:
        yield server


async def works(broker: NatsBroker) -> None:
    """Publish, receive and settle."""
    await broker.connect()
    try:
        await broker.apply([BILL], [SOLD])
        await broker.publish([event(1)], timeout=5.0)
        receiver = await broker.subscribe(BILL)
        (delivery,) = await asyncio.wait_for(receiver.receive(1), 10.0)
        assert not await receiver.settle([(delivery, ACK)])
    finally:
        await broker.aclose()


async def is_rejected(broker: NatsBroker, *parts: str) -> None:
    """Connecting fails for good, and shows no secret."""
    error = await rejection(broker)
    for _ in range(20):  # the server says why and closes: now and then the client sees only that it has closed
        if isinstance(error, BrokerUnavailableError):
            error = await rejection(broker)
    await broker.aclose()
    assert not isinstance(error, BrokerUnavailableError)
    text = f"{error} {error!r} {broker!r}"
    assert "SECRET" not in text
    assert all(part in text for part in parts), text


async def rejection(broker: NatsBroker) -> BrokerError:
    with pytest.raises(BrokerError) as raised:
        await broker.connect()
    return raised.value


# Addresses.


@pytest.mark.parametrize(
    ("address", "settings"),
    [
        ("nats://localhost", ["localhost:4222"]),
        ("nats://one:1,two:2,nats://three", ["one:1", "two:2", "three:4222"]),
        ("tls://user:p%40ss@one:1,two:2?lease=60&prefix=x", ["one:1", "two:2"]),
        ("nats://[::1]:4222", ["[::1]:4222"]),
    ],
)
def test_an_address_names_servers(address: str, settings: list[str]) -> None:
    broker = NatsBroker.from_url(address)
    assert broker.address == settings[0]
    assert list(broker._server.hosts) == settings  # pyright: ignore[reportPrivateUsage]  # no other way to see all
    assert "p%40ss" not in repr(broker)
    assert "p@ss" not in repr(broker)
    assert broker.lease == (60 if "lease" in address else 30)


@pytest.mark.parametrize(
    "address",
    [
        "nats://",
        "nats://localhost/path",
        "nats://localhost?leese=60",
        "nats://localhost?lease=0",
        "nats://localhost?prefix=a.b",
        "nats://one,two:99999",
        "nats://SECRET#x@localhost",
        "nats://one?lease=60,nats://two",
        "nats://one,http://two",
    ],
)
def test_a_wrong_address_is_an_error_that_shows_no_secret(address: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Diator("shop", broker=address)
    assert "SECRET" not in str(raised.value)


def test_names_that_are_too_long_are_rejected() -> None:
    broker = NatsBroker()
    long = Topic("ä" * 50, ())
    issues = list(broker.validate([BILL, BILL._replace(name="x" * 201)], [long, SOLD]))
    assert [issue.subscription for issue in issues] == [None, "x" * 201]


# Who may connect.


async def test_a_token_is_enough() -> None:
    with running('authorization { token: "SECRET/1" }') as server:
        await works(NatsBroker(server.url.replace("//", "//SECRET%2F1@")))
        await is_rejected(NatsBroker(server.url.replace("//", "//SECRETS@")), "uthorization")


async def test_a_user_may_have_no_more_rights_than_the_readme_says() -> None:
    rights = 'permissions { publish: ["diator.>", "$JS.API.>", "$JS.ACK.>"], subscribe: ["diator.here.>", "_INBOX.>"] }'
    users = f'authorization {{ users: [ {{ user: shop, password: "SECRET@", {rights} }} ] }}'
    with running(users) as server:
        await works(NatsBroker(server.url.replace("//", "//shop:SECRET%40@")))
        await is_rejected(NatsBroker(server.url.replace("//", "//shop:SECRET@")), "uthorization")
        other = NatsBroker(server.url.replace("//", "//shop:SECRET%40@"), prefix="other", timeout=1.0)
        await other.connect()
        try:
            with pytest.raises(NotPublishedError) as raised:
                await other.publish([event(1)], timeout=1.0)
            assert "ermissions" in str(raised.value.__cause__)
        finally:
            await other.aclose()


def token(issuer: Any, subject: Any, **claims: object) -> str:
    """Sign a JWT of NATS."""
    body = {"jti": "1", "iat": 1, "iss": issuer.public_key.decode(), "sub": subject.public_key.decode(), "name": "shop"}
    parts = [{"typ": "JWT", "alg": "ed25519-nkey"}, body | {"nats": {"version": 2} | claims}]
    signed = ".".join(_base64(json.dumps(part).encode()) for part in parts)
    return f"{signed}.{_base64(issuer.sign(signed.encode()))}"


def _base64(some: bytes) -> str:
    return base64.urlsafe_b64encode(some).rstrip(b"=").decode()


def key_of(kind: int) -> Any:
    return nkeys.from_seed(nkeys.encode_seed(os.urandom(32), kind))


def credentials_of(account: Any, folder: Path) -> Path:
    user = key_of(nkeys.PREFIX_BYTE_USER)
    jwt = token(account, user, type="user", subs=-1, data=-1, payload=-1)
    file = folder / f"{user.public_key.decode()}.creds"
    file.write_text(
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )
    return file


async def test_a_credentials_file_is_enough(tmp_path: Path) -> None:
    """An operator signs an account, and the account a user."""
    operator = key_of(nkeys.PREFIX_BYTE_OPERATOR)
    account, system, stranger = (key_of(nkeys.PREFIX_BYTE_ACCOUNT) for _ in range(3))
    usual = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1) | {"wildcards": True}
    stored = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
    known = {
        account.public_key.decode(): token(operator, account, type="account", limits=usual | stored),
        system.public_key.decode(): token(operator, system, type="account", limits=usual),
    }
    config = f"""
        operator: "{token(operator, operator, type="operator")}"
        system_account: {system.public_key.decode()}
        resolver: MEMORY
        resolver_preload: {{ {", ".join(f'{name}: "{jwt}"' for name, jwt in known.items())} }}
    """
    good, other = credentials_of(account, tmp_path), credentials_of(stranger, tmp_path)
    with running(config) as server:
        await works(NatsBroker(server.url, credentials=str(good)))
        await works(NatsBroker.from_url(f"{server.url}?credentials={good}"))
        await is_rejected(NatsBroker(server.url), "uthorization")
        await is_rejected(NatsBroker(server.url, credentials=str(other)), "uthorization")
        broken = tmp_path / "broken"
        seed = good.read_text().split("SEED-----\n")[1].split("\n")[0]
        for text in (
            good.read_text().replace(seed, "SECRET"),
            good.read_text().replace(seed, f"SECRET{seed}"),
            good.read_text().replace("USER NKEY SEED", "SECRET"),
            "SECRET",
            "",
        ):
            broken.write_text(text)
            await is_rejected(NatsBroker(server.url, credentials=str(broken)), str(broken), ".creds")


async def test_credentials_need_nkeys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "nkeys", None)
    (tmp_path / "creds").touch()
    await is_rejected(NatsBroker(credentials=f"{tmp_path}/creds"), "uv add nkeys")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nats")
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-subj", "/CN=localhost", "-days", "2", "-nodes"]
    made = ["-keyout", f"{folder}/key.pem", "-out", f"{folder}/ca.pem"]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", *made, *names], check=True, capture_output=True)
    return folder


async def test_tls_trusts_the_authority_that_is_named(certificates: Path) -> None:
    with running(f'tls {{ cert_file: "{certificates}/ca.pem", key_file: "{certificates}/key.pem" }}') as server:
        await works(NatsBroker(server.url, tls_ca=f"{certificates}/ca.pem"))
        await works(NatsBroker.from_url(f"{server.url.replace('nats', 'tls', 1)}?tls_ca={certificates}/ca.pem"))
        await is_rejected(NatsBroker(server.url.replace("nats", "tls", 1)), "CERTIFICATE_VERIFY_FAILED")
    await is_rejected(NatsBroker(tls_ca="/no/such/file"), "/no/such/file")
    await is_rejected(NatsBroker(credentials="/no/such/file"), "/no/such/file")


async def test_one_of_several_servers_is_enough() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused, running() as server:
        dead = f"127.0.0.1:{unused.getsockname()[1]}"
        unused.close()
        for _ in range(4):  # they are tried in any order
            await works(NatsBroker(f"nats://{dead},127.0.0.1:{server.port}"))


# Servers that can't be used.


async def test_an_older_server_is_rejected() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        info = b'INFO {"server_id":"x","version":"2.11.9","max_payload":1048576,"headers":true,"jetstream":true}\r\n'

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(info)
                    while data := connection.recv(4096):
                        connection.sendall(b"PONG\r\n" * data.count(b"PING"))

        thread = threading.Thread(target=serve)
        thread.start()
        await is_rejected(NatsBroker(f"nats://127.0.0.1:{listener.getsockname()[1]}"), "2.11.9", "2.12 or newer")
        thread.join(5)


async def test_a_server_without_jetstream_says_what_to_do() -> None:
    with running(jetstream=False) as server:
        with pytest.raises(BrokerError, match="JetStream"):
            await NatsBroker(server.url).connect()


async def test_a_server_that_can_not_be_reached_is_named_without_its_password() -> None:
    broker = NatsBroker("nats://shop:SECRET@127.0.0.1:1,nohost.invalid:4222")
    with pytest.raises(BrokerUnavailableError, match=r"at nats://127.0.0.1:1, nats://nohost.invalid:4222") as raised:
        await broker.connect()
    assert "SECRET" not in str(raised.value)
    await broker.aclose()


async def test_a_server_that_answers_nothing_is_unavailable() -> None:
    with running() as server, Proxy(server.port) as proxy:
        broker = NatsBroker(proxy.url, timeout=0.5)
        await broker.connect()
        proxy.swallows = True
        with pytest.raises(NotPublishedError) as raised:
            await broker.publish([event(1)], timeout=1.0)
        assert isinstance(raised.value.__cause__, BrokerUnavailableError)
        assert len(raised.value.unknown) == 1
        with pytest.raises(BrokerUnavailableError):
            await broker.apply([BILL])
        proxy.swallows = False
        proxy.cut()
        await broker.apply([BILL])
        await broker.publish([event(1)], timeout=5.0)
        await broker.aclose()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not list the files of a process")
@pytest.mark.parametrize("said", [b"", b"nothing of NATS\r\n"])
async def test_a_failed_connection_leaves_no_socket_open(said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.sendall(said)

        thread = threading.Thread(target=serve)
        thread.start()
        before = sockets()
        broker = NatsBroker(f"nats://127.0.0.1:{listener.getsockname()[1]}", timeout=0.5)
        gc.disable()
        try:
            for _ in range(3):
                with pytest.raises(BrokerError):
                    await broker.connect()
            await broker.aclose()
            assert sockets() == before
        finally:
            gc.enable()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def sockets() -> int:
    return sum(str(os.readlink(file)).startswith("socket:") for file in _files())


def _files() -> Iterator[Path]:
    for file in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            os.readlink(file)
            yield file


async def test_another_lease_or_order_is_rejected_with_what_to_do() -> None:
    with running() as server:
        broker, other = NatsBroker(server.url), NatsBroker(server.url, lease=60)
        for one in (broker, other):
            await one.connect()
        await broker.apply([BILL])
        with pytest.raises(BrokerError, match=r"created with lease=30, and this broker has lease=60; .*remove"):
            await other.apply([BILL])
        with pytest.raises(BrokerError, match=r"was created ordered by key, and is wanted without order; .*remove"):
            await broker.subscribe(BILL._replace(ordered=False))
        with pytest.raises(BrokerError, match=r"does not exist; create it"):
            await broker.subscribe(BILL._replace(name="shop.other"))
        for one in (broker, other):
            await one.aclose()


@pytest.mark.parametrize("subject", ["ev.shop=2esold.z.key", "la.shop=2esold.z.key", "la.shop=2esold"])
async def test_an_event_for_a_partition_that_does_not_exist_is_rejected_by_the_server(subject: str) -> None:
    """One for later would stop those that are due after it: no worker could move it."""
    with running() as server:
        broker = NatsBroker(server.url)
        await broker.connect()
        client: Any = await nats.connect(server.url)  # pyright: ignore[reportUnknownMemberType]  # has no types
        with pytest.raises(NoStreamResponseError):
            await client.jetstream().publish(f"diator.{subject}", b"{}")
        await client.close()
        await broker.aclose()


async def test_a_default_context_of_tls_is_used_for_tls() -> None:
    """Without ``tls_ca`` the system's authorities are trusted, and certificates are checked."""
    from diator_nats._settings import options_of, servers_of

    context = options_of(servers_of("tls://localhost"), None, None)["tls"]
    assert isinstance(context, ssl.SSLContext)
    assert context.verify_mode is ssl.CERT_REQUIRED


async def test_a_process_that_paused_longer_than_the_timeout_keeps_its_connection() -> None:
    """As on a machine that was suspended: the answers are in the socket by then."""
    subscription = Subscription("paused", (Topic("shop.sold", ()),))
    with NatsServer() as server:
        broker = NatsBroker(server.url, timeout=0.5)
        await broker.connect()
        await broker.apply([subscription])
        for steps in range(1, 16):
            calls: list[Any] = [broker.status([subscription]), broker.publish([event(steps)], timeout=0.5)]
            tasks = [asyncio.ensure_future(call) for call in calls]
            for _ in range(steps):
                await asyncio.sleep(0)
            time.sleep(0.6)  # noqa: ASYNC251 - it stands still
            await asyncio.gather(*tasks)
        await broker.aclose()
