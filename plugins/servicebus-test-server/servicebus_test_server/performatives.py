"""What frames carry: nine AMQP performatives, and those of SASL.

AMQP 1.0, part 2, section 2.7, and part 5, section 5.3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from servicebus_test_server.amqp.decoding import decode
from servicebus_test_server.amqp.encoding import encode
from servicebus_test_server.amqp.values import (
    Array,
    CodecError,
    Described,
    Symbol,
    UByte,
    UInt,
    ULong,
    UShort,
    Value,
)
from servicebus_test_server.fields import Fields

SENDER = False
RECEIVER = True


@dataclass(slots=True)
class Open:
    """Starts a connection."""

    container_id: str
    hostname: str | None = None
    max_frame_size: int = 0xFFFFFFFF
    channel_max: int = 0xFFFF
    idle_time_out: int | None = None  # milliseconds

    @classmethod
    def read(cls, fields: Fields) -> Open:
        """Take it from its fields."""
        return cls(
            fields.text(0, ""),
            fields.maybe_text(1),
            fields.number(2, 0xFFFFFFFF),
            fields.number(3, 0xFFFF),
            fields.maybe_number(4),
        )

    def write(self) -> bytes:
        """Encode it."""
        idle = None if self.idle_time_out is None else UInt(self.idle_time_out)
        return performative(
            0x10, self.container_id, self.hostname, UInt(self.max_frame_size), UShort(self.channel_max), idle
        )


@dataclass(slots=True)
class Begin:
    """Starts a session on a channel."""

    remote_channel: int | None
    next_outgoing_id: int
    incoming_window: int
    outgoing_window: int

    @classmethod
    def read(cls, fields: Fields) -> Begin:
        """Take it from its fields."""
        return cls(fields.maybe_number(0), fields.number(1), fields.number(2), fields.number(3))

    def write(self) -> bytes:
        """Encode it."""
        remote = None if self.remote_channel is None else UShort(self.remote_channel)
        windows = UInt(self.incoming_window), UInt(self.outgoing_window)
        return performative(0x11, remote, UInt(self.next_outgoing_id), *windows)


@dataclass(slots=True)
class Attach:
    """Starts a link. Source and target are kept as they came: they are echoed."""

    name: str
    handle: int
    role: bool
    snd_settle_mode: int = 2
    rcv_settle_mode: int = 0
    source: Value = None
    target: Value = None
    initial_delivery_count: int | None = None
    max_message_size: int | None = None
    properties: dict[Value, Value] = field(default_factory=dict[Value, Value])

    @classmethod
    def read(cls, fields: Fields) -> Attach:
        """Take it from its fields."""
        return cls(
            fields.text(0),
            fields.number(1),
            fields.flag(2, None),
            fields.number(3, 2),
            fields.number(4, 0),
            fields.raw(5),
            fields.raw(6),
            fields.maybe_number(9),
            fields.maybe_number(10),
            fields.mapping(13),
        )

    def write(self) -> bytes:
        """Encode it."""
        modes = UByte(self.snd_settle_mode), UByte(self.rcv_settle_mode)
        count = None if self.initial_delivery_count is None else UInt(self.initial_delivery_count)
        size = None if self.max_message_size is None else ULong(self.max_message_size)
        head = self.name, UInt(self.handle), self.role, *modes, self.source, self.target
        return performative(0x12, *head, None, None, count, size, None, None, self.properties)


@dataclass(slots=True)
class Flow:
    """Tells windows of a session and, with a handle, the credit of a link."""

    next_incoming_id: int | None
    incoming_window: int
    next_outgoing_id: int
    outgoing_window: int
    handle: int | None = None
    delivery_count: int | None = None
    link_credit: int | None = None
    drain: bool = False
    echo: bool = False

    @classmethod
    def read(cls, fields: Fields) -> Flow:
        """Take it from its fields."""
        return cls(
            fields.maybe_number(0),
            fields.number(1),
            fields.number(2),
            fields.number(3),
            fields.maybe_number(4),
            fields.maybe_number(5),
            fields.maybe_number(6),
            fields.flag(8),
            fields.flag(9),
        )

    def write(self) -> bytes:
        """Encode it."""
        numbers = (
            self.next_incoming_id,
            self.incoming_window,
            self.next_outgoing_id,
            self.outgoing_window,
            self.handle,
            self.delivery_count,
            self.link_credit,
        )
        encoded = [None if number is None else UInt(number) for number in numbers]
        return performative(0x13, *encoded, None, self.drain, self.echo)


@dataclass(slots=True)
class Transfer:
    """Carries a message or a part of one. The payload follows the performative in the frame."""

    handle: int
    delivery_id: int | None = None
    delivery_tag: bytes | None = None
    message_format: int | None = None
    settled: bool | None = None
    more: bool = False
    aborted: bool = False

    @classmethod
    def read(cls, fields: Fields) -> Transfer:
        """Take it from its fields."""
        return cls(
            fields.number(0),
            fields.maybe_number(1),
            fields.data(2),
            fields.maybe_number(3),
            fields.flag(4),
            fields.flag(5),
            fields.flag(9),
        )

    def write(self) -> bytes:
        """Encode it, without the payload."""
        delivery_id = None if self.delivery_id is None else UInt(self.delivery_id)
        message_format = None if self.message_format is None else UInt(self.message_format)
        head = UInt(self.handle), delivery_id, self.delivery_tag, message_format, self.settled, self.more
        return performative(0x14, *head, None, None, None, self.aborted, False)


@dataclass(slots=True)
class Disposition:
    """Tells the state of deliveries ``first`` to ``last``."""

    role: bool
    first: int
    last: int
    settled: bool
    state: Value = None

    @classmethod
    def read(cls, fields: Fields) -> Disposition:
        """Take it from its fields."""
        first = fields.number(1)
        return cls(fields.flag(0, None), first, fields.number(2, first), fields.flag(3), fields.raw(4))

    def write(self) -> bytes:
        """Encode it."""
        return performative(0x15, self.role, UInt(self.first), UInt(self.last), self.settled, self.state, False)


@dataclass(slots=True)
class Detach:
    """Ends a link."""

    handle: int
    closed: bool = False
    error: Value = None

    @classmethod
    def read(cls, fields: Fields) -> Detach:
        """Take it from its fields."""
        return cls(fields.number(0), fields.flag(1), fields.raw(2))

    def write(self) -> bytes:
        """Encode it."""
        return performative(0x16, UInt(self.handle), self.closed, self.error)


@dataclass(slots=True)
class End:
    """Ends a session."""

    error: Value = None

    @classmethod
    def read(cls, fields: Fields) -> End:
        """Take it from its fields."""
        return cls(fields.raw(0))

    def write(self) -> bytes:
        """Encode it."""
        return performative(0x17, self.error)


@dataclass(slots=True)
class Close:
    """Ends a connection."""

    error: Value = None

    @classmethod
    def read(cls, fields: Fields) -> Close:
        """Take it from its fields."""
        return cls(fields.raw(0))

    def write(self) -> bytes:
        """Encode it."""
        return performative(0x18, self.error)


@dataclass(slots=True)
class SaslInit:
    """The client's choice of a mechanism."""

    mechanism: str

    @classmethod
    def read(cls, fields: Fields) -> SaslInit:
        """Take it from its fields."""
        return cls(fields.text(0))

    def write(self) -> bytes:
        """Encode it."""
        return performative(0x41, Symbol(self.mechanism), None, None)


Performative: TypeAlias = Open | Begin | Attach | Flow | Transfer | Disposition | Detach | End | Close | SaslInit

_READERS: dict[int, Callable[[Fields], Performative]] = {
    0x10: Open.read,
    0x11: Begin.read,
    0x12: Attach.read,
    0x13: Flow.read,
    0x14: Transfer.read,
    0x15: Disposition.read,
    0x16: Detach.read,
    0x17: End.read,
    0x18: Close.read,
    0x41: SaslInit.read,
}


def performative(code: int, *fields: Value) -> bytes:
    """Encode a performative from its code and all its fields in order."""
    return encode(Described(ULong(code), list(fields)))


def sasl_mechanisms(*names: str) -> bytes:
    """Encode the server's offer of mechanisms."""
    return performative(0x40, Array(Symbol(name) for name in names))


def sasl_outcome(code: int) -> bytes:
    """Encode the end of SASL: 0 is ok, 1 is a failed authentication."""
    return performative(0x44, UByte(code), None)


def read_performative(body: bytes) -> tuple[Performative, bytes]:
    """Decode a frame's body.

    Returns:
        The performative, and the payload after it.

    Raises:
        CodecError: The body is no performative that a server may get.
    """
    described, end = decode(body)
    if not isinstance(described, Described) or not isinstance(described.value, list):
        raise CodecError(f"a frame's body must be a described list, not {described!r}")
    code = described.descriptor
    reader = _READERS.get(code) if isinstance(code, int) else None
    if reader is None:
        raise CodecError(f"no performative has the descriptor {code!r}")
    return reader(Fields(f"performative {code!r}", described.value)), body[end:]
