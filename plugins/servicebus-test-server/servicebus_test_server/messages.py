"""Messages and their sections (AMQP 1.0, part 3, section 3.2).

The parts that belong to the sender (properties, application properties, body) are kept as the bytes that came; header
and annotations are written again for every delivery.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from servicebus_test_server.amqp.decoding import decode, skip
from servicebus_test_server.amqp.encoding import encode
from servicebus_test_server.amqp.values import CodecError, Described, UByte, UInt, ULong, Value
from servicebus_test_server.fields import Fields

BATCH_FORMAT = 0x80013700
"""The message-format of a transfer whose data sections are one whole message each."""
_LONGEST = 0xFFFFFFFF
SCHEDULED_FOR = "x-opt-scheduled-enqueue-time"

_HEADER, _DELIVERY_ANNOTATIONS, _ANNOTATIONS, _PROPERTIES, _APPLICATION, _DATA, _SEQUENCE, _VALUE, _FOOTER = range(
    0x70, 0x79
)
_NAMES = {
    "message_id": 0,
    "to": 2,
    "subject": 3,
    "reply_to": 4,
    "correlation_id": 5,
    "content_type": 6,
    "session_id": 10,
}


@dataclass(frozen=True, slots=True)
class AmqpMessage:
    """One message as its sender made it.

    Attributes:
        message_id: A string, UUID, number or binary; None where the sender gave none.
        session_id: The AMQP group-id.
        ttl: Time to live in ms, None for no limit.
        annotations: The sender's message annotations.
        application_properties: The sender's own properties by name.
        properties: The standard properties that filters can look at, by their Python name.
        body: The body's sections and the footer, encoded.
    """

    message_id: Value = None
    session_id: str | None = None
    ttl: int | None = None
    durable: bool = True
    annotations: Mapping[Value, Value] = field(default_factory=dict[Value, Value])
    application_properties: Mapping[Value, Value] = field(default_factory=dict[Value, Value])
    properties: Mapping[str, Value] = field(default_factory=dict[str, Value])
    raw_properties: bytes = b""
    raw_application_properties: bytes = b""
    body: bytes = b""

    @property
    def size(self) -> int:
        """The size of what is kept as it came, in bytes."""
        return len(self.raw_properties) + len(self.raw_application_properties) + len(self.body)

    @property
    def scheduled_for(self) -> int | None:
        """When the message is to be enqueued, in ms since 1970; None for at once."""
        due = self.annotations.get(SCHEDULED_FOR)
        return int(due) if isinstance(due, int) else None

    def data(self) -> bytes:
        """The body's data sections, joined; empty where the body is of another kind."""
        return b"".join(read_data(self.body))

    def with_application_properties(self, added: Mapping[str, Value]) -> AmqpMessage:
        """Make a copy with more application properties."""
        properties: dict[Value, Value] = {**self.application_properties}
        properties.update(added.items())
        return replace(self, application_properties=properties, raw_application_properties=_section(0x74, properties))

    def write(self, annotations: Mapping[Value, Value], delivery_count: int, ttl: int | None) -> bytes:
        """Encode the message for a delivery.

        Args:
            annotations: The service's message annotations; the sender's own ones are kept beside them.
            delivery_count: Failed deliveries so far.
            ttl: Time to live in ms.
        """
        header: list[Value] = [
            self.durable,
            UByte(4),
            None if ttl is None else UInt(min(ttl, _LONGEST)),
            False,
            UInt(delivery_count),
        ]
        merged = {**self.annotations, **annotations}
        own = self.raw_properties + self.raw_application_properties + self.body
        return _section(_HEADER, header) + _section(_ANNOTATIONS, merged) + own


def read_message(data: bytes) -> AmqpMessage:
    """Decode a message.

    Raises:
        CodecError: It is malformed.
    """
    sections: dict[int, tuple[Value, bytes]] = {}
    position = 0
    while position < len(data):
        code, start = _descriptor(data, position)
        if code >= _DATA:
            return _message(sections, _checked_body(data, position))
        value, end = decode(data, start)
        sections[code] = value, data[position:end]
        position = end
    return _message(sections, b"")


def read_batch(data: bytes) -> list[AmqpMessage]:
    """Decode the messages in the data sections of a batch's envelope.

    Raises:
        CodecError: The envelope or a message in it is malformed.
    """
    return [read_message(part) for part in read_data(read_message(data).body)]


def read_data(body: bytes) -> list[bytes]:
    """Take the data sections' contents out of a body."""
    parts: list[bytes] = []
    position = 0
    while position < len(body):
        code, start = _descriptor(body, position)
        value, position = decode(body, start) if code == _DATA else (None, skip(body, start))
        if isinstance(value, bytes):
            parts.append(value)
    return parts


def read_value(message: AmqpMessage) -> Value:
    """Decode the body of a message that is one value.

    Raises:
        CodecError: The body is of another kind.
    """
    code, start = _descriptor(message.body, 0) if message.body else (0, 0)
    if code != _VALUE:
        raise CodecError("the body must be an amqp-value")
    return decode(message.body, start)[0]


def write_answer(correlation_id: Value, application_properties: Mapping[Value, Value], body: Value) -> bytes:
    """Encode an answer of a request/response node."""
    properties: list[Value] = [None, None, None, None, None, correlation_id]
    return (
        _section(_PROPERTIES, properties)
        + _section(_APPLICATION, application_properties)
        + encode(Described(ULong(_VALUE), body))
    )


def _section(code: int, content: Mapping[Value, Value] | list[Value]) -> bytes:
    return encode(Described(ULong(code), content if isinstance(content, list) else dict(content)))


def _descriptor(data: bytes, position: int) -> tuple[int, int]:
    if data[position : position + 1] != b"\x00":
        raise CodecError(f"no section starts at byte {position}")
    code, start = decode(data, position + 1)
    if not isinstance(code, int) or not _HEADER <= code <= _FOOTER:
        raise CodecError(f"no section has the descriptor {code!r}")
    return code, start


def _checked_body(data: bytes, position: int) -> bytes:
    start = position
    while position < len(data):
        position = skip(data, _descriptor(data, position)[1])
    return data[start:]


def _message(sections: Mapping[int, tuple[Value, bytes]], body: bytes) -> AmqpMessage:
    header = _fields("header", sections, _HEADER)
    properties = _fields("properties", sections, _PROPERTIES)
    message_id = properties.raw(0)
    if isinstance(message_id, (list, dict, Described)):
        raise CodecError(f"{message_id!r} cannot be a message id")
    return AmqpMessage(
        message_id=message_id,
        session_id=properties.maybe_text(10),
        ttl=max(0, header.number(2, _LONGEST)) if header.raw(2) is not None else None,
        durable=header.flag(0),
        annotations=_mapping("annotations", sections, _ANNOTATIONS),
        application_properties=_mapping("application properties", sections, _APPLICATION),
        properties={name: properties.raw(index) for name, index in _NAMES.items()},
        raw_properties=sections[_PROPERTIES][1] if _PROPERTIES in sections else b"",
        raw_application_properties=sections[_APPLICATION][1] if _APPLICATION in sections else b"",
        body=body,
    )


def _fields(name: str, sections: Mapping[int, tuple[Value, bytes]], code: int) -> Fields:
    value = sections[code][0] if code in sections else []
    if not isinstance(value, list):
        raise CodecError(f"a message's {name} must be a list, not {value!r}")
    return Fields(name, value)


def _mapping(name: str, sections: Mapping[int, tuple[Value, bytes]], code: int) -> dict[Value, Value]:
    value = sections[code][0] if code in sections else {}
    if not isinstance(value, dict):
        raise CodecError(f"a message's {name} must be a map, not {value!r}")
    return value
