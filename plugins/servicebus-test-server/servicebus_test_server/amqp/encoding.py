"""From Python values to AMQP bytes (AMQP 1.0, part 1, section 1.6)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias
from uuid import UUID

from servicebus_test_server.amqp.values import (
    Array,
    Byte,
    Char,
    CodecError,
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

_Writer: TypeAlias = Callable[[Any, bool], bytes]
_UINT = struct.Struct(">I")


def encode(value: object) -> bytes:
    """Encode one value, in the shortest form there is.

    Raises:
        CodecError: The value's type has no AMQP encoding, or a number is out of its type's range.
    """
    return _encode(value, False)


def _encode(value: object, wide: bool) -> bytes:
    """Encode a value; ``wide`` asks for the one form that all values of the type have, as arrays need it."""
    try:
        return _WRITERS[type(value)](value, wide)
    except KeyError:
        raise CodecError(f"{value!r} has no AMQP encoding: its type is {type(value).__name__}") from None
    except (struct.error, UnicodeEncodeError) as error:
        raise CodecError(f"{value!r} is not within the range of its AMQP type: {error}") from error


def _null(_value: None, _wide: bool) -> bytes:
    return b"\x40"


def _boolean(value: bool, wide: bool) -> bytes:
    if wide:
        return b"\x56\x01" if value else b"\x56\x00"
    return b"\x41" if value else b"\x42"


def _fixed(code: int, pattern: str) -> _Writer:
    layout = struct.Struct(">B" + pattern)
    return lambda value, _wide: layout.pack(code, value)


def _signed(small: int, code: int, pattern: str) -> _Writer:
    narrow, layout = struct.Struct(">Bb"), struct.Struct(">B" + pattern)
    return lambda value, wide: (
        narrow.pack(small, value) if not wide and -128 <= value < 128 else layout.pack(code, value)
    )


def _unsigned(zero: bytes, small: int, code: int, pattern: str) -> _Writer:
    layout = struct.Struct(">B" + pattern)

    def write(value: int, wide: bool) -> bytes:
        if wide or not 0 <= value < 256:
            return layout.pack(code, value)
        return bytes((small, value)) if value else zero

    return write


def _variable(code: int, to_bytes: Callable[[Any], bytes]) -> _Writer:
    def write(value: object, wide: bool) -> bytes:
        data = to_bytes(value)
        if wide or len(data) > 255:
            return bytes((code | 0x10,)) + _UINT.pack(len(data)) + data
        return bytes((code, len(data))) + data

    return write


def _compound(code: int, count: int, data: bytes, wide: bool) -> bytes:
    if wide or count > 255 or len(data) > 254:
        return bytes((code | 0x10,)) + _UINT.pack(len(data) + 4) + _UINT.pack(count) + data
    return bytes((code, len(data) + 1, count)) + data


def _list(items: Sequence[object], wide: bool) -> bytes:
    if not items and not wide:
        return b"\x45"
    return _compound(0xC0, len(items), b"".join([_encode(item, False) for item in items]), wide)


def _map(pairs: Mapping[object, object], wide: bool) -> bytes:
    data = b"".join([_encode(key, False) + _encode(value, False) for key, value in pairs.items()])
    return _compound(0xC1, 2 * len(pairs), data, wide)


def _array(items: Sequence[object], wide: bool) -> bytes:
    if not items:
        return _compound(0xE0, 0, b"\x40", wide)
    if any(isinstance(item, Described) for item in items):
        raise CodecError("arrays of described values are not written")
    encoded = [_encode(item, True) for item in items]
    code = encoded[0][:1]
    if any(item[:1] != code for item in encoded):
        raise CodecError(f"the items of an array must be of one type: {items!r}")
    return _compound(0xE0, len(items), code + b"".join([item[1:] for item in encoded]), wide)


def _described(value: Described, _wide: bool) -> bytes:
    return b"\x00" + _encode(value.descriptor, False) + _encode(value.value, False)


def _opaque(value: Opaque, _wide: bool) -> bytes:
    return bytes((value.code,)) + value.data


def _uuid(value: UUID, _wide: bool) -> bytes:
    return b"\x98" + value.bytes


def _char(value: str, _wide: bool) -> bytes:
    return b"\x73" + _UINT.pack(ord(value))


def _ascii(value: str) -> bytes:
    return value.encode("ascii")


_WRITERS: dict[type, _Writer] = {
    type(None): _null,
    bool: _boolean,
    UByte: _fixed(0x50, "B"),
    UShort: _fixed(0x60, "H"),
    UInt: _unsigned(b"\x43", 0x52, 0x70, "I"),
    ULong: _unsigned(b"\x44", 0x53, 0x80, "Q"),
    Byte: _fixed(0x51, "b"),
    Short: _fixed(0x61, "h"),
    Int: _signed(0x54, 0x71, "i"),
    int: _signed(0x55, 0x81, "q"),
    Timestamp: _fixed(0x83, "q"),
    Float: _fixed(0x72, "f"),
    float: _fixed(0x82, "d"),
    Char: _char,
    UUID: _uuid,
    bytes: _variable(0xA0, bytes),
    str: _variable(0xA1, str.encode),
    Symbol: _variable(0xA3, _ascii),
    Opaque: _opaque,
    Described: _described,
    list: _list,
    tuple: _list,
    dict: _map,
    Array: _array,
}
