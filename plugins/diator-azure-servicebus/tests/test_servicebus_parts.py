"""The parts that need no server: settings, names, errors, messages, why a message is dead, entities and the plan."""

from __future__ import annotations

import contextlib
import inspect
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from hashlib import sha256
from types import ModuleType
from typing import Any

import azure.servicebus.exceptions as sdk
import diator_azure_servicebus
import pytest
import servicebus_test_server as servers
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient
from diator_azure_servicebus import ServiceBusBroker
from diator_azure_servicebus import _errors as errors
from diator_azure_servicebus._command_line import main
from diator_azure_servicebus._dead_letter_reason import ROOM, read, write
from diator_azure_servicebus._entities import Entity, EntityPlanner
from diator_azure_servicebus._messages import from_wire, to_wire
from diator_azure_servicebus._names import copy_id_of, message_id_of, path_of, session_of, subscription_of
from diator_azure_servicebus._plan import commands, duration, server_command
from diator_azure_servicebus._sections import (
    char_of,
    items,
    join,
    list_of,
    map_of,
    number_of,
    pairs,
    split,
    string,
    symbol,
    timestamp,
)
from diator_azure_servicebus._settings import Settings
from hypothesis import given, settings, strategies
from servicebus_test_server.amqp.decoding import decode
from servicebus_test_server.amqp.encoding import encode
from servicebus_test_server.amqp.values import Char, Described, Opaque, Symbol, Timestamp, UInt, ULong
from servicebus_test_server.command_line import read_entities

from diator import Diator, NotificationEvent, contract
from diator.brokers import BrokerCapability, Envelope, MoveToDeadLetters, OutgoingMessage, Subscription, Topic
from diator.brokers.refusals import refusals_of
from diator.errors import BrokerError, BrokerUnavailableError, ConfigurationError

STRING = "Endpoint=sb://127.0.0.1:5673;SharedAccessKeyName=Root;SharedAccessKey=any;UseDevelopmentEmulator=true;"
ORDERS, BILLS = Topic("orders", ("order",)), Topic("bills", ("bill",))
MAIL = Subscription("shop.mail", (ORDERS, BILLS))
BOOK = Subscription("shop.book", (ORDERS,), ordered=True)
ODD = [Char("x"), Symbol("a"), UInt(0), ULong(300), Opaque(0x94, b"x" * 16), Timestamp(-1), 1.5, None, True]
VALUES = strategies.recursive(
    strategies.sampled_from(ODD)
    | strategies.binary(max_size=300)
    | strategies.text(max_size=9)
    | strategies.integers(-(2**63), 2**63 - 1)
    | strategies.builds(Described, strategies.just(Symbol("a:b")), strategies.none()),
    lambda inner: strategies.lists(inner, max_size=3) | strategies.dictionaries(strategies.text(), inner, max_size=3),
    max_leaves=6,
)
"""Values of AMQP, of each width that a format code can tell."""


def refusal_of(make: Any) -> str:
    with pytest.raises(ConfigurationError) as raised:
        make()
    return str(raised.value)


def test_what_is_exported_is_there() -> None:
    assert diator_azure_servicebus.__all__ == sorted(diator_azure_servicebus.__all__)
    assert all(hasattr(diator_azure_servicebus, name) for name in diator_azure_servicebus.__all__)


class TestSettings:
    def test_an_address_has_the_namespace_and_the_settings(self) -> None:
        broker = ServiceBusBroker.from_url("azure-servicebus://shop?lease=30&sessions=false&duplicate_window=600")
        assert repr(broker) == "<ServiceBusBroker shop.servicebus.windows.net>"
        assert broker.lease == 30
        assert BrokerCapability.ORDER_BY_KEY not in broker.capabilities
        assert BrokerCapability.DUPLICATE_DETECTION in broker.capabilities

    async def test_a_connection_string_may_be_in_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is read when the broker is opened: checking, planning and testing an app need no secret."""
        broker = ServiceBusBroker.from_url("azure-servicebus://?connection_string_env=SHOP_BUS")
        assert repr(broker) == "<ServiceBusBroker $SHOP_BUS>"
        assert not list(broker.validate([MAIL], [ORDERS]))
        for value, told in [
            (None, "'SHOP_BUS', which is not set"),
            ("", "'SHOP_BUS', which is not set, or empty"),
            ("garbage", "in the environment variable 'SHOP_BUS' can't be used"),
            (f"{STRING}EntityPath=orders", "is of one entity"),
        ]:
            monkeypatch.setenv("SHOP_BUS", value) if value is not None else monkeypatch.delenv("SHOP_BUS", False)
            with pytest.raises(ConfigurationError, match=told):
                await broker.connect()
        monkeypatch.setenv("SHOP_BUS", STRING)
        with pytest.raises(BrokerUnavailableError, match=r"127\.0\.0\.1:5673"):
            await broker.connect()

    @pytest.mark.parametrize(
        ("url", "told"),
        [
            ("azure-servicebus://shop?color=red", "unknown setting 'color'"),
            ("azure-servicebus://shop?lease=soon", "lease='soon'"),
            ("azure-servicebus://shop?sessions=perhaps", "sessions='perhaps'"),
            ("azure-servicebus://shop?lease=301", "lease=301.0"),
            ("azure-servicebus://shop?layout=stars", "layout='stars'"),
            ("azure-servicebus://", "either a namespace or connection_string_env"),
            ("azure-servicebus://shop/queue", "more than the name of a namespace and settings"),
            ("azure-servicebus://user:secret@shop", "more than the name"),
            ("azure-servicebus://Endpoint=sb://shop;SharedAccessKey=secret=", "port after its colon"),
            ("azure-servicebus://?connection_string_env=Endpoint=sb://shop;SharedAccessKey=secret=", "not the name of"),
            ("azure-servicebus://shop:5671", "more than the name of a namespace"),
            ("azure-servicebus://shop?lease=30&lease=40", "'lease' more than once"),
        ],
    )
    def test_what_an_address_must_not_have_is_refused(self, url: str, told: str) -> None:
        text = refusal_of(lambda: ServiceBusBroker.from_url(url))
        assert told in text
        assert "secret" not in text

    def test_what_is_no_namespace_is_refused(self) -> None:
        assert "is not a namespace" in refusal_of(lambda: ServiceBusBroker(5))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # wrong on purpose
        assert "connection string can't be used" in refusal_of(lambda: ServiceBusBroker("Endpoint=nothing"))

    def test_a_client_that_is_ready_is_taken(self) -> None:
        client = ServiceBusClient.from_connection_string(STRING)
        assert repr(ServiceBusBroker(client)) == "<ServiceBusBroker 127.0.0.1:5673>"

    async def test_without_azure_identity_the_error_names_the_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "azure.identity.aio", None)
        with pytest.raises(ConfigurationError, match=r"uv add .*diator-azure-servicebus\[identity\]"):
            await ServiceBusBroker("shop").connect()


class TestNames:
    @settings(deadline=None)
    @given(strategies.text(), strategies.text())
    def test_names_fit_and_stay_apart(self, one: str, other: str) -> None:
        for name, longest in ((path_of(one), 254), (subscription_of(one), 50)):
            assert 0 < len(name) <= longest
            assert (name[0] + name[-1]).isalnum()
            assert name.isascii()
        assert (path_of(one) == path_of(other)) == (one == other) or path_of(one) in (one, other)

    def test_names_that_fit_stay_as_they_are(self) -> None:
        assert path_of("meetings.user-joined_2") == "meetings.user-joined_2"
        assert path_of("a b", "test.") == "test.a-b-fca53dcf56"
        assert subscription_of("x" * 60) == "x" * 39 + "-" + sha256(b"x" * 60).hexdigest()[:10]

    def test_ids_fit(self) -> None:
        assert (message_id_of("id"), session_of("key", "id"), session_of(None, "id")) == ("id", "key", "~id")
        assert len(message_id_of("x" * 500)) == len(session_of("x" * 500, "id")) == 128
        assert session_of("", "id"), "an empty key is a key, and no session may be empty"
        assert copy_id_of("a", "s", 1) == copy_id_of("a", "s", 1) != copy_id_of("a", "s", 2)


PERMANENT: list[type[Exception]] = [
    sdk.ServiceBusAuthenticationError,
    sdk.ServiceBusAuthorizationError,
    sdk.MessagingEntityNotFoundError,
    sdk.MessagingEntityAlreadyExistsError,
    sdk.MessageSizeExceededError,
    sdk.MessageNotFoundError,
    sdk.MessageLockLostError,
    sdk.SessionLockLostError,
    sdk.MessageAlreadySettled,
    sdk.AutoLockRenewFailed,
    sdk.AutoLockRenewTimeout,
]
"""What needs a person, or another message."""
NEEDS_TEXT = (sdk.AutoLockRenewFailed, sdk.AutoLockRenewTimeout)


class TestErrors:
    @pytest.mark.parametrize(
        "cls", [cls for _, cls in inspect.getmembers(sdk, inspect.isclass) if cls.__module__ == sdk.__name__]
    )
    def test_none_of_the_sdk_is_forgotten(self, cls: type[Exception]) -> None:
        """Each class is in one of the two tables; its base is told by its text."""
        listed = [cls in errors.TEMPORARY, cls in PERMANENT]
        assert listed.count(True) == (cls is not sdk.ServiceBusError)

    @pytest.mark.parametrize("cls", [*PERMANENT, ClientAuthenticationError])
    def test_what_needs_a_person_is_no_outage(self, cls: type[Exception]) -> None:
        """Also if the service had an error of its own meanwhile."""
        error: Any = cls("no") if issubclass(cls, NEEDS_TEXT) else cls()
        error._status_code = 503
        assert not errors.is_temporary(error)

    def test_an_error_is_told_with_its_entity(self) -> None:
        busy = errors.translate(sdk.ServiceBusServerBusyError(), "orders")
        assert isinstance(busy, BrokerUnavailableError)
        assert str(busy).startswith("Service Bus, orders: ")
        missing = errors.translate(sdk.MessagingEntityNotFoundError(), "orders")
        assert type(missing) is BrokerError
        assert "'orders'; `diator-azure plan module:app`" in str(missing)
        assert errors.translate(busy, "orders") is busy

    @pytest.mark.parametrize(
        ("error", "temporary"),
        [
            (sdk.ServiceBusError("no", condition=b"amqp:internal-error"), True),
            (sdk.ServiceBusError("no", condition=b"amqp:not-allowed"), False),
            (sdk.ServiceBusError("no", condition=b"com.microsoft:never-heard-of"), False),
            (sdk.ServiceBusError("no"), False),
            (sdk.ServiceBusError("no", status_code=503), True),
            (sdk.ServiceBusError("no", status_code=400), False),
            (sdk.ServiceBusError("Handler failed", error=ConnectionResetError()), True),
            (
                sdk.ServiceBusError("Handler failed", error=AttributeError("'NoneType' object has no attribute 'x'")),
                True,
            ),
            (sdk.ServiceBusError("Handler failed", error=ValueError("Value supplied for int invalid: 9")), False),
            (sdk.ServiceBusConnectionError(message="[SSL: CERTIFICATE_VERIFY_FAILED] certificate has expired"), False),
            (ValueError("The handler has already been shutdown. Please use ServiceBusClient to create ..."), True),
            (ValueError("The handler is odd"), False),
            (AttributeError("'HeldSession' object has no attribute 'x'"), False),
            (TypeError("no"), False),
            (KeyError("no"), False),
            (OSError(101, "Network is unreachable"), True),
            (TimeoutError(), True),
            (PermissionError(13, "Permission denied"), False),
            (HttpResponseError("no"), False),
        ],
        ids=repr,
    )
    def test_only_what_is_known_to_pass_is_an_outage(self, error: Exception, temporary: bool) -> None:
        assert errors.is_temporary(error) == temporary
        translated = errors.translate(error, "orders")
        assert isinstance(translated, BrokerUnavailableError) == temporary
        assert translated.__cause__ is error


class FakeReceived:
    """A message as it comes out of the SDK."""

    message_id = "1"
    session_id = partition_key = correlation_id = to = reply_to = time_to_live = None
    delivery_count, sequence_number, enqueued_time_utc = 0, 1, datetime(2026, 1, 1, tzinfo=timezone.utc)

    def __init__(self, sent: ServiceBusMessage, **properties: object) -> None:
        self.body, self.body_type = sent.body, sent.body_type
        self.content_type, self.subject = sent.content_type, sent.subject
        raw: dict[Any, Any] = {**(sent.application_properties or {}), **properties}
        self.application_properties = {
            key.encode(): value.encode() if isinstance(value, str) else value for key, value in raw.items()
        }


def received(sent: ServiceBusMessage, **properties: object) -> Any:
    return FakeReceived(sent, **properties)


class TestMessages:
    def outgoing(self, **more: Any) -> OutgoingMessage:
        envelope = Envelope(
            specversion="1.0",
            id="7",
            source="shop",
            type="sold",
            time=datetime(2026, 1, 2, tzinfo=timezone.utc),
            **more,
        )
        return OutgoingMessage("orders", envelope)

    def test_an_event_is_bound_as_cloudevents_say(self) -> None:
        wire = to_wire(self.outgoing(partitionkey="k", diatorcorrelation="c"), sessions=True)
        assert (wire.message_id, wire.subject, wire.session_id, wire.correlation_id) == ("7", "sold", "k", "c")
        assert wire.content_type == "application/json"
        properties = dict(wire.application_properties or {})
        assert properties["cloudEvents:id"] == "7"
        assert properties["cloudEvents:time"] == "2026-01-02T00:00:00+00:00"
        assert all(isinstance(value, str) for value in properties.values())
        assert b"".join(wire.body) == b"null"

    def test_without_sessions_the_key_is_the_partition_key(self) -> None:
        wire = to_wire(self.outgoing(partitionkey="k"), sessions=False)
        assert (wire.session_id, wire.partition_key) == (None, "k")

    def test_a_scheduled_event_is_enqueued_when_it_is_due_and_no_millisecond_before(self) -> None:
        due = datetime(2026, 1, 2, 3, 4, 5, 6_001, timezone.utc)
        wire = to_wire(OutgoingMessage("orders", self.outgoing().envelope, due=due), sessions=True)
        assert wire.scheduled_enqueue_time_utc == due.replace(microsecond=7_000)
        assert to_wire(self.outgoing(), sessions=True).scheduled_enqueue_time_utc is None

    def test_long_attributes_travel_in_structured_mode(self) -> None:
        sent = self.outgoing(diatorheaders="x" * 20_000)
        wire = to_wire(sent, sessions=True)
        assert wire.content_type == "application/cloudevents+json"
        content = from_wire(received(wire), MAIL)
        assert (content.headers, content.body) == ({}, sent.structured)

    def test_attributes_of_other_programs_are_understood(self) -> None:
        sent = ServiceBusMessage(
            b"1", content_type="application/json", application_properties={"cloudEvents_type": "bill"}
        )
        content = from_wire(
            received(sent, **{"cloudEvents:id": "5", "cloudEvents_id": "6", "cloudEvents:time": 0}), MAIL
        )
        expected = {
            "id": "5",
            "type": "bill",
            "time": "1970-01-01T00:00:00+00:00",
            "datacontenttype": "application/json",
        }
        assert content.headers == expected
        assert content.topic == "bills", "found by its type"

    def test_what_is_damaged_is_told(self) -> None:
        sent = ServiceBusMessage(b"1", application_properties={"cloudEvents:id": "5"})
        message = received(sent)
        message.application_properties[b"cloudEvents:type"] = b"\xff"
        assert "UnicodeDecodeError" in str(from_wire(message, MAIL).read_error)


class TestParking:
    @settings(deadline=None)
    @given(
        strategies.text(max_size=9_000), strategies.none() | strategies.text(max_size=9_000), strategies.integers(0, 9)
    )
    def test_why_a_message_is_dead_is_kept_within_the_room(self, reason: str, text: str | None, attempts: int) -> None:
        why = MoveToDeadLetters(reason, text, text, attempts)
        told, description = write(why)
        assert max(len(told.encode()), len(description.encode())) <= ROOM
        found, _ = read(received(ServiceBusMessage(b""), DeadLetterReason=told, DeadLetterErrorDescription=description))
        assert found.attempts == attempts
        if len(reason) + 2 * len(text or "") < 900:
            assert found == why

    def test_dead_letters_of_the_service_are_read_too(self) -> None:
        reason, text = "MaxDeliveryCountExceeded", "Message could not be consumed"
        message = received(ServiceBusMessage(b""), DeadLetterReason=reason, DeadLetterErrorDescription=text)
        why, since = read(message)
        assert why == MoveToDeadLetters(reason, text)
        assert since == datetime(2026, 1, 1, tzinfo=timezone.utc)


class TestEntities:
    def test_each_handler_has_a_queue_that_its_topics_forward_to(self) -> None:
        found = EntityPlanner(Settings(lease=30, duplicate_window=60)).entities([MAIL, BOOK], [ORDERS])
        assert found == [
            Entity("queue", "shop.mail", sessions=False, lock_seconds=30),
            Entity("queue", "shop.book", sessions=True, lock_seconds=30),
            Entity("queue", "shop.mail.retry", forward_to="shop.mail", duplicate_window=600),
            Entity("topic", "orders", duplicate_window=60, lock_seconds=30),
            Entity("topic", "bills", duplicate_window=60, lock_seconds=30),
            Entity("subscription", "shop.mail", "orders", forward_to="shop.mail"),
            Entity("subscription", "shop.mail", "bills", forward_to="shop.mail"),
            Entity("subscription", "shop.book", "orders", forward_to="shop.book"),
        ]

    def test_or_each_topic_is_a_queue_with_one_handler(self) -> None:
        broker = ServiceBusBroker(STRING, layout="queues", prefix="test.")
        assert [(one.path, one.sessions) for one in broker.entities([BOOK], [BILLS])] == [
            ("test.orders", True),
            ("test.bills", None),
        ]
        refusals = list(broker.validate([MAIL, BOOK], [ORDERS]))
        assert [refusal.subscription for refusal in refusals] == ["shop.mail", "shop.book"]
        assert not list(broker.validate([BOOK], [ORDERS, BILLS]))

    def test_names_that_meet_are_refused(self) -> None:
        broker = ServiceBusBroker(STRING)
        loud = Subscription("SHOP.mail", (ORDERS,))
        refusals = list(broker.validate([MAIL, loud, Subscription("orders", (BILLS,))], [ORDERS]))
        assert [refusal.subscription for refusal in refusals] == ["SHOP.mail", "orders"]
        assert "would share the entity" in refusals[0].text
        assert "ignores case" in refusals[0].fix
        assert "ignores case" not in refusals[1].fix

    def test_no_handler_takes_the_queue_for_retries_of_another(self) -> None:
        retry = Subscription("shop.mail.retry", (BILLS,))
        (refusal,) = ServiceBusBroker(STRING).validate([MAIL, retry], [])
        assert refusal.subscription == "shop.mail.retry"
        assert "the queue for retries of 'shop.mail'" in refusal.text
        assert not list(ServiceBusBroker(STRING).validate([BOOK, Subscription("shop.book.retry", (BILLS,))], []))

    def test_what_an_ordered_handler_can_not_have_is_refused(self) -> None:
        long = BOOK._replace(max_delay=601.0)
        assert not list(ServiceBusBroker(STRING, max_session_hold=601).validate([long], [ORDERS]))
        (refusal,) = ServiceBusBroker(STRING).validate([long], [ORDERS])
        assert "max_session_hold" in refusal.text
        (refusal,) = refusals_of(ServiceBusBroker(STRING, sessions=False), [BOOK], [ORDERS])
        assert "no order by key" in refusal.text


class TestSections:
    """Built and taken apart without a look at the values, which the codec of the server makes."""

    @settings(deadline=None)
    @given(strategies.lists(strategies.tuples(strategies.integers(0x70, 0x78), VALUES)))
    def test_what_is_joined_is_split_again(self, sections: list[tuple[int, Any]]) -> None:
        encoded = [(code, encode(value)) for code, value in sections]
        assert [*split(join(encoded))] == encoded
        cut = join(encoded)[:-1]
        if cut:
            with pytest.raises(ValueError, match="the message ends within a value"):
                list(split(cut))

    @settings(deadline=None)
    @given(strategies.lists(VALUES))
    def test_a_list_has_its_items_and_a_map_its_pairs(self, values: list[Any]) -> None:
        encoded = [encode(value) for value in values]
        assert items(encode(values)) == items(list_of(encoded)) == encoded
        named = {Symbol(f"name-{number}"): value for number, value in enumerate(values)}
        expected = [(str(name), encode(name), encode(value)) for name, value in named.items()]
        assert pairs(encode(named)) == expected
        assert pairs(map_of([part for _, *pair in expected for part in pair])) == expected

    @settings(deadline=None)
    @given(strategies.binary(max_size=60))
    def test_any_bytes_are_a_message_or_refused(self, data: bytes) -> None:
        with contextlib.suppress(ValueError):
            for _, content in split(data):
                pairs(content)

    @settings(deadline=None)
    @given(strategies.text(), strategies.integers(-(2**63), 2**63 - 1), strategies.integers(0, 2**32 - 1))
    def test_what_is_written_is_read_by_others(self, text: str, moment: int, number: int) -> None:
        assert decode(string(text))[0] == text
        assert decode(timestamp(moment))[0] == Timestamp(moment)
        assert decode(symbol("x-opt-a"))[0] == "x-opt-a"
        assert number_of(encode(UInt(number))) == number_of(encode(ULong(number))) == number
        assert number_of(encode(Timestamp(number))) is None
        assert char_of(encode(Char("ü"))) == "ü"


class TestPlan:
    def test_durations(self) -> None:
        assert [duration(each) for each in (30, 60, 90, 600, 3600, 5.5)] == [
            "PT30S",
            "PT1M",
            "PT1M30S",
            "PT10M",
            "PT1H",
            "PT5.5S",
        ]

    def test_each_entity_is_one_command(self) -> None:
        lines = list(commands(EntityPlanner(Settings(duplicate_window=600)).entities([MAIL, BOOK]), "ns", "rg"))
        assert len(lines) == 8
        assert lines[1] == (
            "az servicebus queue create --resource-group rg --namespace-name ns --name shop.book "
            "--lock-duration PT1M --max-delivery-count 1000 --enable-session true"
        )
        assert lines[-1] == (
            "az servicebus topic subscription create --resource-group rg --namespace-name ns --topic-name orders "
            "--name shop.book --max-delivery-count 1000 --forward-to shop.book"
        )

    def test_the_command_line_loads_an_app(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        @contract("orders.placed")
        @dataclass(frozen=True)
        class Placed(NotificationEvent):
            number: int

        async def bill(event: Placed) -> None: ...

        module: Any = ModuleType("servicebus_plan_shop")
        module.app = Diator("shop", broker=ServiceBusBroker(STRING))
        module.app.on_event(bill)
        module.other = Diator("other", broker="memory://")
        monkeypatch.setitem(sys.modules, "servicebus_plan_shop", module)
        assert main(["plan", "servicebus_plan_shop:app", "--namespace-name", "ns"]) == 0
        assert "--namespace-name ns --name orders.placed" in capsys.readouterr().out
        assert main(["plan", "servicebus_plan_shop:other"]) == 2
        assert "has no ServiceBusBroker" in capsys.readouterr().err

    def test_the_plan_of_an_app_starts_a_server(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        module: Any = ModuleType("servicebus_planned")
        app = module.app = Diator("shop", broker=ServiceBusBroker("shop", lease=30, duplicate_window=600))

        @contract("shop.sold", key="number")
        @dataclass(frozen=True)
        class Sold(NotificationEvent):
            number: int

        @app.on_event(ordered=False)
        async def mail(event: Sold) -> None: ...

        @app.on_event
        async def book(event: Sold) -> None: ...

        monkeypatch.setitem(sys.modules, "servicebus_planned", module)
        assert main(["plan", "servicebus_planned:app", "--for-test-server"]) == 0
        (line,) = capsys.readouterr().out.splitlines()
        command, *words = line.split(" --")
        assert command == "servicebus-test-server"
        queues, topics = ([word[6:] for word in words if word.startswith(kind)] for kind in ("queue=", "topic="))
        entities = read_entities(queues, topics)
        assert sorted(entities, key=lambda each: each.name) == [
            servers.Queue("shop.book", sessions=True, lock_seconds=30, max_delivery_count=1000),
            servers.Queue("shop.mail", lock_seconds=30, max_delivery_count=1000),
            servers.Queue("shop.mail.retry", duplicate_window=600, max_delivery_count=1000, forward_to="shop.mail"),
            servers.Topic(
                "shop.sold",
                (
                    servers.Subscription("shop.mail", max_delivery_count=1000, forward_to="shop.mail"),
                    servers.Subscription("shop.book", max_delivery_count=1000, forward_to="shop.book"),
                ),
                duplicate_window=600,
            ),
        ]
        with servers.ServiceBusServer(entities) as server:
            assert server.counts("shop.sold/shop.mail") == servers.MessageCounts()

    def test_the_plan_quotes_for_a_shell(self) -> None:
        line = server_command([Entity("queue", "a queue", sessions=True)])
        assert line == "servicebus-test-server '--queue=a queue,lock=60,max-delivery=1000,sessions'"
