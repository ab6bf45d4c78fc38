"""Messages of other programs: whatever AMQP can carry is retried, parked and replayed as it came."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest
from diator_azure_servicebus import ServiceBusBroker
from diator_azure_servicebus._sections import APPLICATION, DATA, SEQUENCE, VALUE, join
from diator_azure_servicebus._transfers import readable
from diator_azure_servicebus.testing import ServerTopology
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servicebus_test_server import ServiceBusServer, shorten_sdk_sleeps
from servicebus_test_server.amqp.encoding import encode
from servicebus_test_server.amqp.values import (
    Array,
    Byte,
    Char,
    Described,
    Float,
    Int,
    Opaque,
    Short,
    Symbol,
    Timestamp,
    UByte,
    UInt,
    ULong,
    UShort,
)
from servicebus_test_server.messages import AmqpMessage, read_message

from diator import Context, Diator, NotificationEvent, Retry, contract
from diator.brokers import (
    ACK,
    Delivery,
    Envelope,
    MoveToDeadLetters,
    OutgoingMessage,
    Receiver,
    RetryAfter,
    Subscription,
    Topic,
    dead_letters_of,
)
from diator.errors import BrokerError, BrokerUnavailableError

pytestmark = pytest.mark.once  # it takes long, and depends little on the Python

if os.environ.get("DIATOR_TEST_SERVICEBUS"):
    pytest.skip("a real namespace lets nobody write bytes", allow_module_level=True)

EVERY_TYPE: dict[str, Any] = {
    "null": None,
    "true": True,
    "false": False,
    "ubyte": UByte(200),
    "ushort": UShort(60_000),
    "uint": UInt(4_000_000_000),
    "uint0": UInt(0),
    "ulong": ULong(2**64 - 1),
    "ulong0": ULong(0),
    "byte": Byte(-100),
    "short": Short(-30_000),
    "int": Int(-5),
    "int32": Int(2**31 - 1),
    "long": 2**63 - 1,
    "small long": -1,
    "float": Float(1.5),
    "double": 1e300,
    "decimal32": Opaque(0x74, b"\x22\x50\x00\x01"),
    "decimal64": Opaque(0x84, b"\x22\x38" + b"\x00" * 5 + b"\x01"),
    "decimal128": Opaque(0x94, b"\x30\x40" + b"\xff" * 14),
    "char": Char("ü"),
    "timestamp": Timestamp(1_700_000_000_123),
    "before 1970": Timestamp(-1),
    "uuid": UUID(int=2**127),
    "binary": b"\x00\xff\xfe",
    "large binary": b"\xff" * 300,
    "string": "grüße",
    "large string": "x" * 300,
    "symbol": Symbol("com.example:symbol"),
    "described string": Described(Symbol("x:y"), "z"),
    "described uuid": Described(ULong(5), UUID(int=5)),
    "described null": Described(ULong(5), None),
}
COMPOUND: dict[str, Any] = {
    "list": [1, "a", None, [Char("x")]],
    "map": {"a": Char("b"), UInt(1): [True]},
    "array": Array([Symbol("a"), Symbol("b")]),
    "described list": Described(ULong(1), [UUID(int=1)]),
}
ANNOTATIONS: dict[str, Any] = {"x-opt-foreign": Char("c"), "x-opt-more": {"a": Timestamp(5)}, "x-opt-uuid": UUID(int=3)}


@pytest.fixture(scope="module")
def server() -> Iterator[ServiceBusServer]:
    with ServiceBusServer() as running, shorten_sdk_sleeps():
        yield running


def section(code: int, content: object) -> tuple[int, bytes]:
    return code, encode(content)


def foreign(
    properties: Mapping[str, Any],
    *body: tuple[int, bytes],
    annotations: Mapping[str, Any] = ANNOTATIONS,
    message_id: Any = "id",
    session_id: str | None = None,
    ttl: int | None = None,
) -> bytes:
    """A message with everything in it that its sender may set."""
    standard: list[Any] = [message_id, b"\xffuser", "to", "subject", "reply", UUID(int=9), Symbol("text/x"), None]
    standard += [Timestamp(7), Timestamp(8), session_id, UInt(5), "reply-session"]
    return join(
        [
            section(0x70, [True, UByte(7), None if ttl is None else UInt(ttl)]),
            section(0x71, {Symbol("x-opt-on-the-way"): Char("d")}),
            section(0x72, {Symbol(name): value for name, value in annotations.items()}),
            section(0x73, standard),
            section(APPLICATION, dict(properties)),
            *(body or [section(DATA, b'{"n": 1}')]),
            section(0x78, {Symbol("footer"): Char("f")}),
        ]
    )


def publish(server: ServiceBusServer, path: str, *messages: bytes) -> None:
    read = [read_message(message) for message in messages]
    server._call(lambda node: node.namespace.send_target(path).publish(read))  # pyright: ignore[reportPrivateUsage]  # no other way to see it


def stored(server: ServiceBusServer, path: str) -> list[AmqpMessage]:
    def look(node: Any) -> list[AmqpMessage]:
        return [one.message for _, one in sorted(node.namespace.backlog(path).messages.items())]

    return server._call(look)  # pyright: ignore[reportPrivateUsage]  # no other way to see it


OWN = ("diator-", "DeadLetter", "x-opt-s", "x-opt-enq", "x-opt-locked", "x-opt-message-state")


def typed(value: Any) -> Any:
    """A value with the types of its parts, which equality does not look at; numbers that are none are one."""
    several: Any = value
    if isinstance(value, dict):
        return {repr(name): typed(one) for name, one in several.items() if not str(name).startswith(OWN)}
    if isinstance(value, list):
        return [typed(one) for one in several]
    if isinstance(value, Described):
        return typed(value.descriptor), typed(value.value)
    return type(value).__name__, repr(value)


def told(message: AmqpMessage) -> Any:
    """Everything that the sender has given a message, but its id."""
    standard = {name: typed(value) for name, value in message.properties.items() if name != "message_id"}
    return typed(dict(message.application_properties)), typed(dict(message.annotations)), standard, message.body


async def take(receiver: Receiver, count: int) -> list[Delivery]:
    found: list[Delivery] = []
    while len(found) < count:
        found += await asyncio.wait_for(receiver.receive(count - len(found)), 15)
    return found


async def journey(server: ServiceBusServer, messages: Sequence[bytes], *, ordered: bool) -> None:
    """Retry, park, replay and acknowledge messages; what their senders gave them is the same all the time."""
    name = f"shop{uuid4().hex[:8]}"
    mail = Subscription(f"{name}.mail", (Topic(f"{name}.sold", ("sold",)),), ordered=ordered)
    broker = ServiceBusBroker(server.connection_string, topology=ServerTopology(server))
    await broker.connect()
    try:
        await broker.apply([mail], mail.topics)
        publish(server, mail.topics[0].name, *messages)
        sent = sorted(map(repr, map(told, stored(server, mail.name))))

        def kept(path: str) -> list[str]:
            return sorted(map(repr, map(told, stored(server, path))))

        receiver = await broker.subscribe(mail)
        deliveries = await take(receiver, len(messages))
        assert not await receiver.settle([(one, RetryAfter(0.0)) for one in deliveries])
        assert kept(mail.name) == sent
        deliveries = await take(receiver, len(messages))
        assert {one.failures for one in deliveries} == {1}
        assert not await receiver.settle(
            [(one, MoveToDeadLetters("why", "error", "traceback", 2)) for one in deliveries]
        )
        letters = [letter async for letter in dead_letters_of(broker, mail)]
        assert {letter.failure.reason for letter in letters} == {"why"}
        assert kept(f"{mail.name}/$DeadLetterQueue") == sent
        for letter in letters:
            assert await broker.replay(mail, [letter.id])
        assert kept(mail.name) == sent
        deliveries = await take(receiver, len(messages))
        assert {one.failures for one in deliveries} == {0}
        assert not await receiver.settle([(one, ACK) for one in deliveries])
        assert server.counts(mail.name).active == server.counts(mail.name).dead == 0
    finally:
        await broker.aclose()


@pytest.mark.parametrize("ordered", [False, True])
async def test_every_type_travels_unchanged(server: ServiceBusServer, ordered: bool) -> None:
    session = "key" if ordered else None
    await journey(
        server,
        [
            foreign(EVERY_TYPE, session_id=session, ttl=3_600_000),
            foreign({}, session_id=session, annotations={}),
            *(foreign({"p": value}, session_id=session) for value in EVERY_TYPE.values()),
            *(
                foreign({}, section(VALUE, one), session_id=session)
                for one in (*COMPOUND.values(), *EVERY_TYPE.values())
            ),
            foreign({}, section(SEQUENCE, [1, Char("x")]), section(SEQUENCE, []), session_id=session),
            foreign({}, section(DATA, b"a"), section(DATA, b"\xff" * 3_000), session_id=session),
            *(
                foreign({}, message_id=one, session_id=session)
                for one in (ULong(2**63), UUID(int=1), b"\xff", "x", None)
            ),
        ],
        ordered=ordered,
    )


scalars = st.sampled_from(list(EVERY_TYPE.values())) | st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 2**64 - 1).map(ULong),
    st.integers(-(2**63), 2**63 - 1).map(Timestamp),
    st.floats(width=32).map(Float),
    st.floats(),
    st.binary(max_size=300),
    st.text(max_size=20),
    st.characters(codec="utf-8").map(Char),
    st.binary(min_size=16, max_size=16).map(lambda data: Opaque(0x94, data)),
)
names = st.text(min_size=1, max_size=8).filter(lambda name: not name.startswith(OWN))
values = scalars | st.sampled_from(list(COMPOUND.values()))
bodies = st.one_of(
    st.lists(st.binary(max_size=50).map(lambda data: section(DATA, data)), min_size=1, max_size=3),
    values.map(lambda value: [section(VALUE, value)]),
    st.lists(st.lists(values, max_size=3).map(lambda items: section(SEQUENCE, items)), min_size=1, max_size=2),
)
notes = st.dictionaries(names.map(lambda name: "x-opt-" + ascii(name)[1:-1]), values, max_size=3)


def foreign_of(properties: dict[str, Any], body: list[tuple[int, bytes]], given: dict[str, Any]) -> bytes:
    annotations = {name: one for name, one in given.items() if not name.startswith(OWN)}
    return foreign(properties, *body, annotations=annotations, session_id="key")


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.builds(foreign_of, st.dictionaries(names, scalars, max_size=5), bodies, notes),
        min_size=1,
        max_size=12,
    ),
    st.booleans(),
)
def test_any_values_travel_unchanged(server: ServiceBusServer, messages: list[bytes], ordered: bool) -> None:
    asyncio.run(journey(server, messages, ordered=ordered))


@given(st.dictionaries(names, values, max_size=5), bodies)
def test_what_the_sdk_can_not_decode_is_left_out_for_it(
    properties: dict[str, Any], body: list[tuple[int, bytes]]
) -> None:
    from azure.servicebus import ServiceBusReceivedMessage

    message = ServiceBusReceivedMessage.from_bytes(readable(foreign(properties, *body)))
    assert message.subject == "subject"
    assert set(message.application_properties or {}) <= {name.encode() for name in properties}


@contract("foreign.sold")
@dataclass(frozen=True)
class Sold(NotificationEvent):
    n: int


def event(number: int, **more: Any) -> bytes:
    attributes: dict[str, Any] = {"specversion": "1.0", "id": f"{number}", "source": "/js", "type": "foreign.sold"}
    attributes.update(time=Timestamp(1_700_000_000_123), partitionkey=Char("k"), sequence=2**40, flag=True, raw=b"\xff")
    properties = {f"cloudEvents:{name}": value for name, value in attributes.items()}
    standard: list[Any] = [f"{number}", None, None, None, None, None, Symbol("application/json")]
    data = section(DATA, b'{"n": %d}' % number)
    return join([section(0x73, standard), section(APPLICATION, properties | more), data])


async def test_a_foreign_event_is_retried_parked_and_replayed_beside_others(server: ServiceBusServer) -> None:
    broker = ServiceBusBroker(server.connection_string, topology=ServerTopology(server), lease=5)
    app = Diator("foreign", broker=broker, retry=Retry(attempts=3, delay=0.1))
    attempts: list[int] = []
    handled: list[int] = []
    times: set[datetime | None] = set()
    is_well = False

    @app.on_event(subscription="foreign.mail")
    async def mail(event: Sold, context: Context) -> None:
        times.add(context.published_at)
        if event.n == 1 and not is_well:
            attempts.append(context.attempt)
            raise ValueError("again")
        handled.append(event.n)

    async def until(met: Any) -> None:
        for _ in range(300):
            if met():
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"{attempts} {handled} {server.counts('foreign.mail')}")

    (subscription,) = app_subscriptions(app)
    async with app, app.worker():
        await until(lambda: exists(server, "foreign.mail"))
        publish(
            server,
            "foreign.sold",
            event(1, foreign=Char("x"), **{"a b": Opaque(0x74, b"1234")}),
            *map(event, range(2, 9)),
        )
        await until(lambda: server.counts("foreign.mail").dead == 1)
        assert attempts == [1, 2, 3]
        await until(lambda: sorted(handled) == [*range(2, 9)])
        is_well = True
        (letter,) = [one async for one in dead_letters_of(broker, subscription)]
        assert letter.failure.error == "builtins.ValueError: again"
        assert letter.failure.attempts == 3
        assert await broker.replay(subscription, [letter.id])
        await until(lambda: handled[-1] == 1)
        counts = server.counts("foreign.mail")
        await until(lambda: server.counts("foreign.mail").locked == 0)
        assert (counts.active, counts.dead) == (0, 0)
    assert times == {datetime(2023, 11, 14, 22, 13, 20, 123_000, tzinfo=timezone.utc)}


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize(
    "error", [TypeError("a bug"), ValueError("a bug"), AttributeError("a bug"), KeyError("a bug")], ids=repr
)
async def test_a_bug_is_no_outage_and_holds_up_no_other_message(
    server: ServiceBusServer, monkeypatch: pytest.MonkeyPatch, error: Exception, ordered: bool
) -> None:
    """It is told with its class, for good; the others of the same call are settled, and it is with another outcome."""
    name = f"shop{uuid4().hex[:8]}"
    mail = Subscription(f"{name}.mail", (Topic(f"{name}.sold", ("sold",)),), ordered=ordered)
    broker = ServiceBusBroker(server.connection_string, topology=ServerTopology(server))
    await broker.connect()
    try:
        await broker.apply([mail], mail.topics)
        publish(server, mail.topics[0].name, *(foreign({}, message_id=f"{one}", session_id="key") for one in range(3)))
        receiver = await broker.subscribe(mail)
        first, second, third = await take(receiver, 3)

        def fail(*_: object, **__: object) -> None:
            raise error

        location = "_held_session.HeldSession._save" if ordered else "_receiver.copy_of"
        monkeypatch.setattr(f"diator_azure_servicebus.{location}", fail)
        with pytest.raises(BrokerError, match=rf"a bug.*\({type(error).__name__}\)") as raised:
            await receiver.settle([(first, ACK), (second, RetryAfter(0.0)), (third, ACK)])
        assert not isinstance(raised.value, BrokerUnavailableError)
        assert raised.value.__cause__ is error
        monkeypatch.undo()
        assert not await receiver.settle([(second, MoveToDeadLetters("why"))])
        assert not await receiver.settle([(third, ACK)])
        counts = server.counts(mail.name)
        assert (counts.active, counts.locked, counts.dead) == (0, 0, 1)
    finally:
        await broker.aclose()


async def test_a_bug_while_receiving_or_sending_is_told_and_passes(
    server: ServiceBusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"shop{uuid4().hex[:8]}"
    topic = Topic(f"{name}.sold", ("sold",))
    subscriptions = [Subscription(f"{name}.{one}", (topic,), ordered=one == "book") for one in ("mail", "book")]
    broker = ServiceBusBroker(server.connection_string, topology=ServerTopology(server))
    await broker.connect()
    try:
        await broker.apply(subscriptions, [topic])

        async def fail(*_: object, **__: object) -> None:
            raise TypeError("a bug")

        for one in subscriptions:
            receiver = await broker.subscribe(one)
            await receiver.aclose()
            with monkeypatch.context() as patch:
                patch.setattr("diator_azure_servicebus._private._Receiver.fetch", fail)
                patch.setattr("diator_azure_servicebus._namespace.NamespaceClient.session", fail)
                receiver = await broker.subscribe(one)
                with pytest.raises(BrokerError, match=r"a bug \(TypeError\)"):
                    await asyncio.wait_for(receiver.receive(1), 5)
                await receiver.aclose()
        event = OutgoingMessage(
            topic.name, Envelope(specversion="1.0", id="1", source="shop", type="sold", partitionkey="k")
        )
        with monkeypatch.context() as patch:
            patch.setattr("azure.servicebus.aio.ServiceBusSender.send_messages", fail)
            results = await asyncio.gather(
                *(broker.publish([event], timeout=5) for _ in range(3)), return_exceptions=True
            )
        assert [type(one).__name__ for one in results] == ["NotPublishedError"] * 3
        assert {str(one.__cause__) for one in results if isinstance(one, BaseException)} == {
            f"Service Bus, {topic.name}: a bug (TypeError)"
        }
        await broker.publish([event], timeout=5)
    finally:
        await broker.aclose()


def exists(server: ServiceBusServer, path: str) -> bool:
    try:
        server.counts(path)
    except LookupError:
        return False
    return True


def app_subscriptions(app: Diator) -> list[Subscription]:
    return [Subscription("foreign.mail", (Topic("foreign.sold", ("foreign.sold",)),))]
