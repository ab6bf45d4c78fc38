"""The envelope: one event in its wire format, which is a CloudEvent.

The attributes are those of CloudEvents 1.0 (https://github.com/cloudevents/spec, cloudevents/spec.md), of its
extensions for partitioning and distributed tracing, and five of Diator's own, whose names begin with ``diator``. A
broker with its own headers uses *binary mode*: attributes as headers, the data as the body. A broker without headers
uses *structured mode*: one JSON document (cloudevents/formats/json-format.md). `parse_envelope` reads both, and all
that the format allows: Diator's own form in one call of msgspec, others attribute by attribute.
"""

import base64
import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Annotated, Any, Literal

import msgspec

from diator.errors import UnreadableMessageError

JSON = "application/json"
BOM = b"\xef\xbb\xbf"
"""The byte order mark that some programs write before JSON."""
STRUCTURED = "application/cloudevents+json"
"""The content type of a body in structured mode."""


_ABSENT = msgspec.Raw(b"null")
"""The data of an event without a ``data`` member."""
_Text = Annotated[str, msgspec.Meta(min_length=1)]
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class Envelope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The attributes of one event, and its data as JSON."""

    specversion: Literal["1.0"]
    id: _Text
    """Identifies the event; the same each time it is published, so that duplicates can be detected."""
    source: _Text
    """The app that published it."""
    type: _Text
    """The wire name of its class."""
    time: _Moment | None = None
    """When it was published; in the format of RFC 3339 on the wire."""
    datacontenttype: str = JSON
    partitionkey: str | None = None
    """Events of one key are delivered in order."""
    traceparent: str | None = None
    """W3C Trace Context."""
    tracestate: str | None = None
    diatorkind: str | None = None
    """``notification`` or ``ecst``."""
    diatorversion: int = 1
    """The version of the contract for the data."""
    diatorcorrelation: str | None = None
    diatorcausation: str | None = None
    diatorheaders: str | None = None
    """The headers of ``app.using(headers=...)`` as a JSON object, because names of attributes are more restricted."""
    data: msgspec.Raw = _ABSENT

    @property
    def has_json(self) -> bool:
        """Whether its content type says that the data is JSON, such as ``application/vnd.meetings+json``."""
        media_type = self.datacontenttype.partition(";")[0].strip().lower()
        return media_type in (JSON, "text/json") or media_type.endswith("+json")


ATTRIBUTES = tuple(name for name in Envelope.__struct_fields__ if name != "data")
_KNOWN = frozenset({*ATTRIBUTES, "data", "data_base64"})
_NUMBERS = frozenset({"diatorversion"})

_structured = msgspec.json.Decoder(Envelope)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encoder = msgspec.json.Encoder()


class OutgoingMessage:
    """One event to publish to a topic."""

    __slots__ = ("_stored", "_structured", "due", "envelope", "topic")

    def __init__(self, topic: str, envelope: Envelope, *, due: datetime | None = None) -> None:
        self.topic = topic
        self.envelope = envelope
        self.due = due
        """The time after which it may be delivered; ``None`` for immediately."""
        self._structured: bytes | None = None
        self._stored = False

    @classmethod
    def from_bytes(cls, topic: str, structured: bytes) -> "OutgoingMessage":
        """Return the message of these `structured` bytes; it is published with the same bytes.

        It keeps attributes that this version does not know, in binary mode too. Raises `UnreadableMessageError`.
        """
        message = cls(topic, parse_envelope({}, structured))
        message._structured, message._stored = structured, True
        return message

    @property
    def id(self) -> str:
        """The id of the event, the same on each attempt to publish it."""
        return self.envelope.id

    @property
    def key(self) -> str | None:
        """Events of one key are delivered in order."""
        return self.envelope.partitionkey

    @property
    def structured(self) -> bytes:
        """The whole event as one JSON document."""
        if self._structured is None:
            self._structured = _encoder.encode(self.envelope)
        return self._structured

    @property
    def data(self) -> bytes:
        """The body in binary mode."""
        return bytes(self.envelope.data)

    def attributes(self) -> dict[str, str]:
        """The headers in binary mode, with the plain names of the attributes, without those that are not set."""
        found = ((name, getattr(self.envelope, name)) for name in ATTRIBUTES)
        others = _others_in(self._structured) if self._stored and self._structured is not None else {}
        return others | {
            name: value.isoformat() if isinstance(value, datetime) else str(value)
            for name, value in found
            if value is not None
        }

    def __repr__(self) -> str:
        return f"<OutgoingMessage {self.envelope.type} {self.id} to {self.topic}>"


def parse_envelope(headers: Mapping[str, str], body: bytes) -> Envelope:
    """Parse an event: in binary mode if there is a header ``specversion``, otherwise in structured mode.

    Raises `UnreadableMessageError` if it is not a CloudEvent. Its data may be of any kind; see `Envelope.has_json`.
    """
    try:
        return _from_headers(headers, body) if "specversion" in headers else _from_document(body)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise UnreadableMessageError(f"it is not a CloudEvent: {error}") from error


def _from_document(body: bytes) -> Envelope:
    if b'"data_base64"' not in body:  # which the struct does not know
        try:
            return _structured.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass  # what is wrong is found below, if anything is
    return _tolerantly(body)


def _from_headers(headers: Mapping[str, str], body: bytes) -> Envelope:
    known = {name: headers[name] for name in ATTRIBUTES if name in headers}
    try:
        attributes = {name: int(value) if name in _NUMBERS else value for name, value in known.items()}
        return msgspec.convert({**attributes, "data": msgspec.Raw(body)}, Envelope)
    except ValueError:
        return _envelope(known, msgspec.Raw(body))


# What other programs write: each attribute on its own, so that an error names it.

_REQUIRED = ("specversion", "id", "source", "type")
_TEXTS = frozenset({"specversion", "id", "source", "type", "time", "datacontenttype"})
"""Attributes whose type the specification fixes. Extensions may come as any of its simple types."""
_INTEGER = re.compile(r"-?[0-9]+")
_LEAP = re.compile(r"(.{10}[Tt ]\d\d:\d\d:)60((?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d))", re.ASCII)
_SHOWN = 100
"""Characters of a value that an error shows."""


def _tolerantly(body: bytes) -> Envelope:
    """Read any document that the JSON format of CloudEvents allows."""
    document = body.removeprefix(BOM)
    if document.lstrip()[:1] == b"[":
        raise ValueError("it is a batch of events; expected one event; send each as a message of its own")
    members = _members.decode(document)
    attributes = {name: msgspec.json.decode(members[name]) for name in ATTRIBUTES if name in members}
    return _envelope(attributes, _data_of(members))


def _others_in(structured: bytes) -> dict[str, str]:
    """Return the attributes of a document that this version does not know, as headers."""
    members = msgspec.json.decode(structured.removeprefix(BOM), type=dict[str, Any])
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in members.items()
        if name not in _KNOWN and isinstance(value, (str, int))
    }


def _data_of(members: Mapping[str, msgspec.Raw]) -> msgspec.Raw:
    encoded = msgspec.json.decode(members.get("data_base64", _ABSENT))
    if encoded is None:
        return members.get("data", _ABSENT)
    if bytes(members.get("data", _ABSENT)) != b"null":
        raise ValueError("it has both data and data_base64; expected one of them")
    try:
        return msgspec.Raw(base64.b64decode(encoded, validate=True).removeprefix(BOM))
    except (TypeError, ValueError) as error:
        raise ValueError(f"its data_base64 is not valid base64: {error}") from error


def _envelope(attributes: Mapping[str, Any], data: msgspec.Raw) -> Envelope:
    """Build an envelope of attributes that may be null, and extensions of any simple type. Names what is wrong."""
    given: dict[str, Any] = {name: _normal(name, value) for name, value in attributes.items() if value is not None}
    for name in _REQUIRED:
        if not given.get(name):
            raise ValueError(f"it has no {name}, which every event must have")
    if given["specversion"] != "1.0":
        raise ValueError(f"its specversion is {_show(given['specversion'])}; expected '1.0'")
    return Envelope(**given, data=data)


def _normal(name: str, value: object) -> object:
    """Convert an attribute to the type that it has in the envelope."""
    if name in _NUMBERS:
        return _number(name, value)
    if not isinstance(value, str):
        if name in _TEXTS or not isinstance(value, (bool, int)):
            raise ValueError(f"its {name} is {_show(value)}; expected a text")
        return str(value).lower() if isinstance(value, bool) else str(value)
    return _moment(value) if name == "time" else value


def _number(name: str, value: object) -> int:
    try:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, str) and _INTEGER.fullmatch(value):
            return int(value)
    except ValueError:  # more digits than Python reads
        pass
    raise ValueError(f"its {name} is {_show(value)}; expected an integer")


def _moment(text: str) -> datetime:
    """Read a timestamp of RFC 3339. A leap second, which Python can't hold, is the second after it."""
    try:
        leap = _LEAP.fullmatch(text)
        moment = msgspec.convert("59".join(leap.groups()) if leap else text, _Moment)
        if leap is None:
            return moment
        if moment.astimezone(timezone.utc).timetuple()[3:5] == (23, 59):
            return moment + timedelta(seconds=1)
    except (ValueError, OverflowError):  # reported below
        pass
    raise ValueError(f"its time is {_show(text)}; expected a timestamp as in RFC 3339, with its offset")


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
