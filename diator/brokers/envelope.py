"""The envelope: one event as it travels, which is a CloudEvent.

The attributes are those of CloudEvents 1.0 (https://github.com/cloudevents/spec, cloudevents/spec.md), of its
extensions for partitioning and distributed tracing, and five of Diator's own, whose names begin with ``diator``. A
broker that has headers of its own carries an event in *binary mode*: attributes as headers, the data as the body. One
that has none carries it in *structured mode*: one JSON document (cloudevents/formats/json-format.md). `read` takes
both.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import msgspec

from diator.errors import UnreadableMessageError

JSON = "application/json"
STRUCTURED = "application/cloudevents+json"
"""The content type of a body in structured mode."""


class Envelope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The attributes of one event, and its data as JSON."""

    specversion: Literal["1.0"]
    id: str
    """Identifies the event; the same each time that it is published, so that duplicates can be told."""
    source: str
    """The app that published it."""
    type: str
    """The wire name of its class."""
    time: datetime | None = None
    """When it was published; as in RFC 3339 on the wire."""
    datacontenttype: str = JSON
    partitionkey: str | None = None
    """Events of one key are delivered in order."""
    traceparent: str | None = None
    """W3C Trace Context."""
    tracestate: str | None = None
    diatorkind: str | None = None
    """``notification`` or ``ecst``."""
    diatorversion: int = 1
    """The version of the contract that the data follows."""
    diatorcorrelation: str | None = None
    diatorcausation: str | None = None
    diatorheaders: str | None = None
    """What the sender attached with ``app.using(headers=...)``, as a JSON object: names of attributes are narrower."""
    data: msgspec.Raw = msgspec.Raw(b"null")

    @property
    def has_json(self) -> bool:
        """Whether the data says that it is JSON; ``application/vnd.meetings+json; charset=utf-8`` does too."""
        media_type = self.datacontenttype.partition(";")[0].strip().lower()
        return media_type in (JSON, "text/json") or media_type.endswith("+json")


ATTRIBUTES = tuple(name for name in Envelope.__struct_fields__ if name != "data")
_NUMBERS = frozenset({"diatorversion"})

_structured = msgspec.json.Decoder(Envelope)
_encoder = msgspec.json.Encoder()


class Outgoing:
    """One event on its way to a topic."""

    __slots__ = ("_structured", "envelope", "topic")

    def __init__(self, topic: str, envelope: Envelope) -> None:
        self.topic = topic
        self.envelope = envelope
        self._structured: bytes | None = None

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
        """The headers in binary mode, by the plain names of the attributes, without those that are not set."""
        found = ((name, getattr(self.envelope, name)) for name in ATTRIBUTES)
        return {
            name: value.isoformat() if isinstance(value, datetime) else str(value)
            for name, value in found
            if value is not None
        }

    def __repr__(self) -> str:
        return f"<Outgoing {self.envelope.type} {self.id} to {self.topic}>"


def read(headers: Mapping[str, str], body: bytes) -> Envelope:
    """Read an event off the wire: in binary mode where a header ``specversion`` says so, else in structured mode.

    Raises `UnreadableMessageError` for what is no CloudEvent. Its data may be of any kind; see `Envelope.has_json`.
    """
    try:
        return _from_headers(headers, body) if "specversion" in headers else _structured.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise UnreadableMessageError(f"it is no CloudEvent: {error}") from error


def _from_headers(headers: Mapping[str, str], body: bytes) -> Envelope:
    known = {name: headers[name] for name in ATTRIBUTES if name in headers}
    attributes = {name: int(value) if name in _NUMBERS else value for name, value in known.items()}
    return msgspec.convert({**attributes, "data": msgspec.Raw(body)}, Envelope)
