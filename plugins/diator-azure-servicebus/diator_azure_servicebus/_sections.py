"""The sections of an AMQP message (AMQP 1.0, part 3, section 3.2), taken apart without touching the values in them.

The SDK forgets which AMQP type a value had, and does not know all types. Here values stay encoded, so a copy of a
message keeps the types that its sender gave them.
"""

from collections.abc import Iterable, Iterator, Sequence

HEADER, DELIVERY_ANNOTATIONS, ANNOTATIONS, PROPERTIES, APPLICATION, DATA, SEQUENCE, VALUE, FOOTER = range(0x70, 0x79)

NULL = b"\x40"
_CHAR = 0x73
_LIST, _MAP = 0xD0, 0xD1


def split(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Return the code and the encoded content of each section. Raises `ValueError` if the bytes are not a message."""
    position = 0
    while position < len(message):
        start = _end(message, position + 1)
        code = number_of(message[position + 1 : start])
        if message[position] != 0 or code is None:
            raise ValueError(f"byte {position} of the message does not start a section")
        position = _end(message, start)
        yield code, message[start:position]


def join(sections: Iterable[tuple[int, bytes]]) -> bytes:
    """Return the message that consists of these sections."""
    return b"".join(bytes((0x00, 0x53, code)) + content for code, content in sections)


def items(compound: bytes) -> list[bytes]:
    """Return the items of a list, or the keys and values of a map in turn, each encoded. Raises `ValueError`."""
    code = compound[0]
    if code in (0x40, 0x45):  # null and the empty list
        return []
    if code & 0xEE != 0xC0:
        raise ValueError(f"0x{code:02x} is not the format code of a list or map")
    width = 4 if code & 0x10 else 1
    position = 1 + 2 * width
    found: list[bytes] = []
    for _ in range(int.from_bytes(compound[1 + width : position], "big")):
        end = _end(compound, position)
        found.append(compound[position:end])
        position = end
    return found


def pairs(content: bytes) -> list[tuple[str | None, bytes, bytes]]:
    """Return the entries of a map: the name if the key is a text, then key and value encoded. Raises `ValueError`."""
    found = items(content)
    return [(_text_of(key), key, value) for key, value in zip(found[::2], found[1::2], strict=True)]


def list_of(encoded: Sequence[bytes]) -> bytes:
    """Return the list of encoded values."""
    return _compound(_LIST, encoded)


def map_of(encoded: Sequence[bytes]) -> bytes:
    """Return the map of encoded keys and values in turn."""
    return _compound(_MAP, encoded)


def number_of(encoded: bytes) -> int | None:
    """Return an unsigned number; None if the value is something else."""
    return int.from_bytes(encoded[1:], "big") if encoded[0] in (0x43, 0x44, 0x52, 0x53, 0x70, 0x80) else None


def char_of(encoded: bytes) -> str | None:
    """Return a single character; None if the value is something else."""
    return chr(int.from_bytes(encoded[1:], "big")) if encoded[0] == _CHAR else None


def string(text: str) -> bytes:
    """Encode a string."""
    data = text.encode()
    return b"\xb1" + len(data).to_bytes(4, "big") + data


def symbol(name: str) -> bytes:
    """Encode a symbol of at most 255 characters."""
    return bytes((0xA3, len(name))) + name.encode("ascii")


def timestamp(milliseconds: int) -> bytes:
    """Encode a time, given in milliseconds since 1970."""
    return b"\x83" + milliseconds.to_bytes(8, "big", signed=True)


def _text_of(encoded: bytes) -> str | None:
    if encoded[0] not in (0xA1, 0xA3, 0xB1, 0xB3):
        return None
    return encoded[5 if encoded[0] & 0x10 else 2 :].decode(errors="replace")


def _compound(code: int, encoded: Sequence[bytes]) -> bytes:
    content = b"".join(encoded)
    return bytes((code,)) + (len(content) + 4).to_bytes(4, "big") + len(encoded).to_bytes(4, "big") + content


def _end(data: bytes, position: int) -> int:
    """Return where the value at a position ends, which its format code says (AMQP 1.0, part 1, section 1.2)."""
    values = 1
    while values:
        if position >= len(data):
            raise ValueError("the message ends within a value")
        code, position = data[position], position + 1
        if code == 0:  # a description and what it describes
            values += 1
            continue
        kind, values = code >> 4, values - 1
        if kind < 4:
            raise ValueError(f"0x{code:02x} is not a format code of AMQP")
        if kind < 10:  # nothing, 1, 2, 4, 8 or 16 bytes
            position += 0 if kind == 4 else 1 << (kind - 5)
        else:
            width = 4 if kind & 1 else 1
            position += width + int.from_bytes(data[position : position + width], "big")
    if position > len(data):
        raise ValueError("the message ends within a value")
    return position
