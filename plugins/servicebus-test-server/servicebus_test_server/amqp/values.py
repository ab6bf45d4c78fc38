"""The AMQP 1.0 types that plain Python values cannot distinguish (AMQP 1.0, part 1, "Types").

A plain ``int`` is an AMQP long, ``float`` a double, ``str`` a string, ``bytes`` a binary, ``list`` a list and ``dict``
a map. Every other type has a class here. They are subclasses of the plain types, so values compare and hash like them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID

Value: TypeAlias = (
    "bool | int | float | str | bytes | UUID | Opaque | Described | list[Value] | dict[Value, Value] | None"
)
"""Any AMQP value, in Python."""


class UByte(int):
    """Unsigned, 8 bits."""

    __slots__ = ()


class UShort(int):
    """Unsigned, 16 bits."""

    __slots__ = ()


class UInt(int):
    """Unsigned, 32 bits."""

    __slots__ = ()


class ULong(int):
    """Unsigned, 64 bits."""

    __slots__ = ()


class Byte(int):
    """Signed, 8 bits."""

    __slots__ = ()


class Short(int):
    """Signed, 16 bits."""

    __slots__ = ()


class Int(int):
    """Signed, 32 bits."""

    __slots__ = ()


class Timestamp(int):
    """Milliseconds since 1970-01-01 UTC, signed, 64 bits."""

    __slots__ = ()


class Float(float):
    """Binary floating point, 32 bits."""

    __slots__ = ()


class Char(str):
    """One Unicode character."""

    __slots__ = ()


class Symbol(str):
    """A name from a constrained domain, in ASCII."""

    __slots__ = ()


class Array(list[Value]):
    """A sequence of values of one type."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Opaque:
    """A decimal number, kept as its format code and bytes: Python has no such types."""

    code: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Described:
    """A value with a descriptor that says what it means."""

    descriptor: Value
    value: Value


class CodecError(ValueError):
    """Bytes are not AMQP, or a value has no AMQP encoding."""
