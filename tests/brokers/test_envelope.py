"""CloudEvents as other programs write them: every form of the JSON format and of binary mode, in both directions."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from cloudevents.core.bindings import amqp
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given, settings
from hypothesis import strategies as st

from diator import Context, Diator, NotificationEvent, UnreadableMessageError, contract
from diator.brokers import Envelope, OutgoingMessage, parse_envelope
from tests.brokered import Flaky, Watch, letters, put
from tests.virtual_time import in_virtual_time

PLAIN = {"specversion": "1.0", "id": "1", "source": "/sdk", "type": "shop.sold"}


@contract("shop.sold")
@dataclass(frozen=True)
class Sold(NotificationEvent):
    n: int


def document(**members: Any) -> bytes:
    return json.dumps({**PLAIN, "data": {"n": 1}, **members}).encode()


def reason(body: bytes, headers: Mapping[str, str] | None = None) -> str:
    with pytest.raises(UnreadableMessageError) as raised:
        parse_envelope(headers or {}, body)
    return str(raised.value)


@pytest.mark.parametrize(
    "body",
    [
        document(),
        document(datacontenttype=None, time=None, partitionkey=None, traceparent=None, tracestate=None),
        document(diatorkind=None, diatorversion=None, diatorcorrelation=None, diatorcausation=None, diatorheaders=None),
        document(subject=None, dataschema=None, extension=None),
        document(flag=True, count=-5, text="x", binary="AAE=", uri="https://x", other={"a": [1, {}]}, big=10**40),
        document(data_base64=None),
        document(data=None, data_base64=base64.b64encode(b'{"n": 1}').decode()),
        document(data=None, data_base64=base64.b64encode(b'\xef\xbb\xbf\n{"n": 1} ').decode()),
        document(datacontenttype="application/json; charset=utf-8"),
        document(datacontenttype="Application/Vnd.Shop+JSON;v=1"),
        document(datacontenttype="text/json"),
        document(data='{"n": 1}'),
        b"\xef\xbb\xbf" + document(),
        b" \r\n\t" + document() + b"\n",
        json.dumps({"data": {"n": 1}, **PLAIN}, indent=4).encode(),
        b'{"data": {"n": 7}, "id": "0", ' + document()[1:],  # of members that come twice the last counts
    ],
)
@in_virtual_time
async def test_an_event_is_handled_in_each_form_that_the_json_format_allows(body: bytes) -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("shop", broker=broker, hooks=[watch])
    got: list[tuple[Sold, str]] = []

    @app.on_event
    async def take(event: Sold, context: Context) -> None:
        got.append((event, context.message_id))

    async with app, app.worker():
        await put(broker, "shop.sold", body)
        await watch.settle(1)
        assert not await letters(broker)
    assert got == [(Sold(1), "1")]


@in_virtual_time
async def test_data_that_is_really_a_text_is_told_as_it_came() -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("shop", broker=broker, hooks=[watch])

    @app.on_event
    async def take(event: Sold) -> None: ...

    async with app, app.worker():
        await put(broker, "shop.sold", document(data="hello"))
        await watch.settle(1)
        (letter,) = await letters(broker)
    assert "does not fit Sold: Expected `object`, got `str`" in letter.failure.reason


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-29T01:02:03Z", datetime(2026, 11, 29, 1, 2, 3, tzinfo=timezone.utc)),
        ("2026-11-29t01:02:03z", datetime(2026, 11, 29, 1, 2, 3, tzinfo=timezone.utc)),
        ("2026-11-29 01:02:03.5-00:00", datetime(2026, 11, 29, 1, 2, 3, 500_000, tzinfo=timezone.utc)),
        ("2026-11-29T01:02:03.123456789+05:30", datetime(2026, 11, 28, 19, 32, 3, 123_457, tzinfo=timezone.utc)),
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=timezone.utc)),
        ("2016-12-31t23:59:60.25z", datetime(2017, 1, 1, 0, 0, 0, 250_000, tzinfo=timezone.utc)),
        ("1990-12-31T15:59:60-08:00", datetime(1991, 1, 1, tzinfo=timezone.utc)),
    ],
)
@pytest.mark.parametrize("binary", [False, True])
def test_a_time_may_be_any_of_rfc_3339(text: str, moment: datetime, binary: bool) -> None:
    envelope = parse_envelope({**PLAIN, "time": text}, b"{}") if binary else parse_envelope({}, document(time=text))
    assert envelope.time == moment


@pytest.mark.parametrize(
    "text",
    [
        "yesterday",
        "2026-11-29",
        "2026-11-29T01:02:03",
        "2026-11-29T12:30:60Z",
        "2026-02-30T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "9999-12-31T23:59:60Z",
        "",
    ],
)
@pytest.mark.parametrize("binary", [False, True])
def test_what_is_no_time_is_told_with_its_name(text: str, binary: bool) -> None:
    told = reason(b"{}", {**PLAIN, "time": text}) if binary else reason(document(time=text))
    assert f"its time is {text!r}; expected a timestamp as in RFC 3339" in told


def test_extensions_may_have_any_of_the_simple_types() -> None:
    """A hop in binary mode makes texts of numbers, and the other way round."""
    envelope = parse_envelope({}, document(partitionkey=7, diatorversion="12", diatorcorrelation=True, tracestate=-1))
    assert (envelope.partitionkey, envelope.diatorversion) == ("7", 12)
    assert (envelope.diatorcorrelation, envelope.tracestate) == ("true", "-1")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (document(id=None), "it has no id"),
        (document(id=""), "it has no id"),
        (document(source=""), "it has no source"),
        (document(type=None), "it has no type"),
        (document(specversion=None), "it has no specversion"),
        (document(specversion="0.3"), "its specversion is '0.3'; expected '1.0'"),
        (document(specversion=1.0), "its specversion is 1.0; expected a text"),
        (document(id=5), "its id is 5; expected a text"),
        (document(type=["x"]), "its type is ['x']; expected a text"),
        (document(datacontenttype=1), "its datacontenttype is 1; expected a text"),
        (document(time=1_700_000_000), "its time is 1700000000; expected a text"),
        (document(partitionkey=1.5), "its partitionkey is 1.5; expected a text"),
        (document(partitionkey={"a": 1}), "its partitionkey is {'a': 1}; expected a text"),
        (document(diatorversion="one"), "its diatorversion is 'one'; expected an integer"),
        (document(diatorversion=True), "its diatorversion is True; expected an integer"),
        (document(diatorversion="9" * 5000), "its diatorversion is '999"),
        (document(data_base64="AA=="), "it has both data and data_base64"),
        (document(data=None, data_base64="?"), "its data_base64 is not valid base64"),
        (document(data=None, data_base64=5), "its data_base64 is not valid base64"),
        (b" [" + document() + b"]", "it is a batch of events; expected one event"),
        (b"5", "Expected `object`, got `int`"),
        (b"", "it is not a CloudEvent"),
        (b"\xef\xbb\xbf", "it is not a CloudEvent"),
    ],
)
def test_what_is_malformed_is_told_with_the_attribute_and_what_was_expected(body: bytes, told: str) -> None:
    text = reason(body)
    assert told in text
    assert len(text) < 300


simple_text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=10)
zones = st.sampled_from([timezone.utc, timezone(timedelta(hours=-9)), timezone(timedelta(hours=5, minutes=30))])
moments = st.datetimes(timezones=zones).filter(lambda moment: 1 < moment.year < 9999)
names = st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True).filter(
    lambda name: name not in {*Envelope.__struct_fields__, "data_base64", "subject", "dataschema"}
)
extensions = st.dictionaries(
    names, simple_text | st.booleans() | st.integers(-(2**31), 2**31 - 1) | st.none(), max_size=4
)
payloads = st.dictionaries(simple_text, simple_text | st.integers() | st.none() | st.lists(st.booleans()), max_size=4)


@st.composite
def sdk_events(draw: st.DrawFn) -> tuple[CloudEvent, Any]:
    """An event of the SDK, and its data as JSON."""
    attributes: dict[str, Any] = {"id": draw(simple_text), "source": draw(simple_text), "type": draw(simple_text)}
    attributes["time"] = draw(moments)
    for name, values in {
        "datacontenttype": st.sampled_from(["application/json", "application/json; charset=utf-8", "a/vnd.x+json"]),
        "subject": simple_text,
        "partitionkey": simple_text | st.integers(0, 100),
        "traceparent": simple_text | st.none(),
    }.items():
        if draw(st.booleans()):
            attributes[name] = draw(values)
    attributes.update(draw(extensions))
    data = draw(payloads)
    in_bytes = draw(st.booleans())
    if attributes.get("datacontenttype") == "a/vnd.x+json" and not in_bytes:
        del attributes["datacontenttype"]  # the SDK knows no JSON by that name, and writes how Python shows it
    return CloudEvent(attributes, json.dumps(data).encode() if in_bytes else data), data


def same(envelope: Envelope, event: CloudEvent, data: Any) -> None:
    attributes = event.get_attributes()
    assert (envelope.id, envelope.source, envelope.type) == tuple(attributes[name] for name in ("id", "source", "type"))
    assert envelope.partitionkey == (None if "partitionkey" not in attributes else str(attributes["partitionkey"]))
    assert envelope.traceparent == attributes.get("traceparent")
    assert envelope.has_json
    assert msgspec.json.decode(envelope.data) == data


@settings(max_examples=200, deadline=None)
@given(sdk_events())
def test_what_the_sdk_writes_in_structured_mode_is_read(pair: tuple[CloudEvent, Any]) -> None:
    event, data = pair
    envelope = parse_envelope({}, JSONFormat().write(event))
    same(envelope, event, data)
    assert envelope.time == event.get_time()


@settings(max_examples=200, deadline=None)
@given(
    st.builds(
        Envelope,
        specversion=st.just("1.0"),
        id=simple_text,
        source=simple_text,
        type=simple_text,
        time=moments | st.none(),
        partitionkey=st.text(max_size=5) | st.none(),
        diatorversion=st.integers(1, 5),
        diatorkind=st.sampled_from(["notification", "ecst", None]),
        diatorcorrelation=simple_text | st.none(),
        diatorheaders=st.dictionaries(simple_text, simple_text).map(lambda it: msgspec.json.encode(it).decode()),
        data=payloads.map(msgspec.json.encode).map(msgspec.Raw),
    )
)
def test_what_diator_writes_is_read_by_the_sdk(envelope: Envelope) -> None:
    outgoing = OutgoingMessage("topic", envelope)
    for event in (
        JSONFormat().read(CloudEvent, outgoing.structured),
        amqp.from_binary_event(
            amqp.AMQPMessage(
                {"content-type": envelope.datacontenttype},
                {f"cloudEvents:{name}": value for name, value in outgoing.attributes().items()},
                outgoing.data,
            )
        ),
    ):
        attributes = event.get_attributes()
        assert (event.get_id(), event.get_source(), event.get_type()) == (envelope.id, envelope.source, envelope.type)
        assert envelope.time is None or event.get_time() == envelope.time
        assert attributes.get("partitionkey") == envelope.partitionkey
        assert int(attributes.get("diatorversion", 1)) == envelope.diatorversion
        assert attributes.get("diatorheaders") == envelope.diatorheaders
        assert event.get_data() == msgspec.json.decode(envelope.data)
    assert parse_envelope({}, outgoing.structured) == envelope
    assert parse_envelope(outgoing.attributes(), outgoing.data) == envelope


def test_stored_bytes_are_published_as_they_are() -> None:
    stored = document(partitionkey="k", later=True, count=3, dataschema="https://x", other={"a": 1}, empty=None)
    message = OutgoingMessage.from_bytes("sales", stored)
    assert message.structured is stored
    assert (message.topic, message.id, message.key, message.data) == ("sales", "1", "k", b'{"n": 1}')
    unknown = {"later": "true", "count": "3", "dataschema": "https://x"}
    known = OutgoingMessage("sales", parse_envelope({}, stored)).attributes()
    assert message.attributes() == {**known, **unknown}
    assert not unknown.keys() & known.keys()


def test_bytes_that_are_no_event_cannot_be_published() -> None:
    with pytest.raises(UnreadableMessageError, match="it is not a CloudEvent"):
        OutgoingMessage.from_bytes("sales", b"{}")
