"""From AMQP bytes to Python values (AMQP 1.0, part 1, section 1.6)."""

from __future__ import annotations

import struct
from collections.abc import Callable
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
    Value,
)

MAX_DEPTH = 32
"""How deep lists, maps, arrays and descriptions may nest."""
MAX_ITEMS = 65536
"""How many items one list, map or array may have: a few bytes must not order gigabytes."""

_Reader: TypeAlias = Callable[[bytes, int, int], tuple[Value, int]]
_READERS: dict[int, _Reader] = {}
_WIDTH = {1: struct.Struct(">B"), 4: struct.Struct(">I")}
_MALFORMED = (IndexError, KeyError, OverflowError, RecursionError, TypeError, ValueError, struct.error)


def decode(data: bytes, position: int = 0) -> tuple[Value, int]:
    """Decode one value.

    Returns:
        The value, and the position after it.

    Raises:
        CodecError: The bytes are cut short or are no AMQP value.
    """
    try:
        return _value(data, position, 0)
    except CodecError:
        raise
    except _MALFORMED as error:
        raise CodecError(f"malformed AMQP value at byte {position}: {error!r}") from error


def skip(data: bytes, position: int) -> int:
    """Tell where the value at a position ends, without building it.

    Raises:
        CodecError: The bytes are cut short or start no AMQP value.
    """
    try:
        end = _end(data, position, 0)
    except _MALFORMED as error:
        raise CodecError(f"malformed AMQP value at byte {position}: {error!r}") from error
    if end > len(data):
        raise CodecError(f"the AMQP value at byte {position} needs {end - len(data)} bytes more")
    return end


def _end(data: bytes, position: int, depth: int) -> int:
    code = data[position]
    if code == 0:
        _check_depth(depth)
        return _end(data, _end(data, position + 1, depth + 1), depth + 1)
    if code not in _READERS:
        raise ValueError(f"unknown format code 0x{code:02x}")
    category = code >> 4
    if category < 0xA:  # fixed width: nothing, 1, 2, 4, 8 or 16 bytes
        return position + 1 + (0 if category == 4 else 1 << (category - 5))
    width = 4 if category & 1 else 1
    return position + 1 + width + int(_WIDTH[width].unpack_from(data, position + 1)[0])


def _value(data: bytes, position: int, depth: int) -> tuple[Value, int]:
    return _READERS[data[position]](data, position + 1, depth)


def _check_depth(depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise CodecError(f"AMQP values nest deeper than {MAX_DEPTH}")


def _constant(value: Value) -> _Reader:
    return lambda _data, position, _depth: (value, position)


def _fixed(pattern: str, convert: Callable[[Any], Value]) -> _Reader:
    layout = struct.Struct(">" + pattern)

    def read(data: bytes, position: int, _depth: int) -> tuple[Value, int]:
        return convert(layout.unpack_from(data, position)[0]), position + layout.size

    return read


def _variable(width: int, convert: Callable[[bytes], Value]) -> _Reader:
    length = _WIDTH[width]

    def read(data: bytes, position: int, _depth: int) -> tuple[Value, int]:
        start = position + width
        end = start + length.unpack_from(data, position)[0]
        if end > len(data):
            raise CodecError(f"the value at byte {position} needs {end - len(data)} bytes more")
        return convert(data[start:end]), end

    return read


def _compound(width: int, build: Callable[[bytes, int, int, int], Value]) -> _Reader:
    number = _WIDTH[width]

    def read(data: bytes, position: int, depth: int) -> tuple[Value, int]:
        _check_depth(depth)
        end = position + width + number.unpack_from(data, position)[0]
        if end > len(data):
            raise CodecError(f"the compound at byte {position} needs {end - len(data)} bytes more")
        count = number.unpack_from(data, position + width)[0]
        if count > MAX_ITEMS:
            raise CodecError(f"a compound of {count} items; at most {MAX_ITEMS} are taken")
        return build(data[:end], position + 2 * width, count, depth + 1), end

    return read


def _list(data: bytes, position: int, count: int, depth: int) -> Value:
    items: list[Value] = []
    for _ in range(count):
        item, position = _value(data, position, depth)
        items.append(item)
    return items


def _map(data: bytes, position: int, count: int, depth: int) -> Value:
    if count % 2:
        raise CodecError(f"a map of {count} items: keys and values must come in pairs")
    pairs: dict[Value, Value] = {}
    for _ in range(count // 2):
        key, position = _value(data, position, depth)
        pairs[key], position = _value(data, position, depth)
    return pairs


def _array(data: bytes, position: int, count: int, depth: int) -> Value:
    if not count:
        return Array()
    descriptor: Value = None
    described = data[position] == 0
    if described:
        descriptor, position = _value(data, position + 1, depth)
    read = _READERS[data[position]]
    position += 1
    items = Array()
    for _ in range(count):
        item, position = read(data, position, depth)
        items.append(Described(descriptor, item) if described else item)
    return items


def _described(data: bytes, position: int, depth: int) -> tuple[Value, int]:
    _check_depth(depth)
    descriptor, position = _value(data, position, depth + 1)
    value, position = _value(data, position, depth + 1)
    return Described(descriptor, value), position


def _decimal(code: int) -> Callable[[bytes], Value]:
    return lambda data: Opaque(code, data)


def _text(data: bytes) -> str:
    return data.decode()


def _symbol(data: bytes) -> str:
    return Symbol(data.decode("ascii"))


def _character(code_point: int) -> str:
    return Char(chr(code_point))


def _uuid(data: bytes) -> UUID:
    return UUID(bytes=data)


def _empty_list(_data: bytes, position: int, _depth: int) -> tuple[Value, int]:
    return [], position


_READERS.update(
    {
        0x00: _described,
        0x40: _constant(None),
        0x41: _constant(True),
        0x42: _constant(False),
        0x43: _constant(UInt(0)),
        0x44: _constant(ULong(0)),
        0x45: _empty_list,
        0x50: _fixed("B", UByte),
        0x51: _fixed("b", Byte),
        0x52: _fixed("B", UInt),
        0x53: _fixed("B", ULong),
        0x54: _fixed("b", Int),
        0x55: _fixed("b", int),
        0x56: _fixed("B", bool),
        0x60: _fixed("H", UShort),
        0x61: _fixed("h", Short),
        0x70: _fixed("I", UInt),
        0x71: _fixed("i", Int),
        0x72: _fixed("f", Float),
        0x73: _fixed("I", _character),
        0x74: _fixed("4s", _decimal(0x74)),
        0x80: _fixed("Q", ULong),
        0x81: _fixed("q", int),
        0x82: _fixed("d", float),
        0x83: _fixed("q", Timestamp),
        0x84: _fixed("8s", _decimal(0x84)),
        0x94: _fixed("16s", _decimal(0x94)),
        0x98: _fixed("16s", _uuid),
        0xA0: _variable(1, bytes),
        0xA1: _variable(1, _text),
        0xA3: _variable(1, _symbol),
        0xB0: _variable(4, bytes),
        0xB1: _variable(4, _text),
        0xB3: _variable(4, _symbol),
        0xC0: _compound(1, _list),
        0xC1: _compound(1, _map),
        0xD0: _compound(4, _list),
        0xD1: _compound(4, _map),
        0xE0: _compound(1, _array),
        0xF0: _compound(4, _array),
    }
)
