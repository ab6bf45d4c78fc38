"""The sections of a message (AMQP 1.0, part 3, section 3.2), taken apart without touching the values in them."""

from collections.abc import Iterable, Iterator, Sequence

from diator_azure_servicebus._amqp.decoding import decode, skip
from diator_azure_servicebus._amqp.values import CodecError

HEADER, DELIVERY_ANNOTATIONS, ANNOTATIONS, PROPERTIES, APPLICATION, DATA, SEQUENCE, VALUE, FOOTER = range(0x70, 0x79)

_NULL, _EMPTY_LIST, _DESCRIBED = 0x40, 0x45, 0x00
_LIST, _MAP = 0xD0, 0xD1


def split(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Give each section's code and its content, encoded. Raises `CodecError` for what is no message."""
    position = 0
    while position < len(message):
        if message[position] != _DESCRIBED:
            raise CodecError(f"no section starts at byte {position}")
        code, start = decode(message, position + 1)
        if not isinstance(code, int):
            raise CodecError(f"no section has the descriptor {code!r}")
        position = skip(message, start)
        yield code, message[start:position]


def join(sections: Iterable[tuple[int, bytes]]) -> bytes:
    """Make a message of the contents of its sections."""
    return b"".join(bytes((_DESCRIBED, 0x53, code)) + content for code, content in sections)


def items(compound: bytes) -> list[bytes]:
    """Give what is in a list, or the keys and values of a map in turn, each encoded. Raises `CodecError`."""
    code = compound[0]
    if code in (_NULL, _EMPTY_LIST):
        return []
    if code & 0xEE != 0xC0:
        raise CodecError(f"0x{code:02x} is the code of no list and no map")
    width = 4 if code >= _LIST else 1
    position = 1 + 2 * width
    found: list[bytes] = []
    for _ in range(int.from_bytes(compound[1 + width : position], "big")):
        end = skip(compound, position)
        found.append(compound[position:end])
        position = end
    return found


def pairs(compound: bytes) -> list[tuple[object, bytes, bytes]]:
    """Give the entries of a map: the key, and key and value encoded. Raises `CodecError`."""
    found = items(compound)
    return [(decode(key)[0], key, value) for key, value in zip(found[::2], found[1::2], strict=True)]


def as_list(encoded: Sequence[bytes]) -> bytes:
    """Make a list of values that are encoded."""
    return _compound(_LIST, encoded)


def as_map(encoded: Sequence[bytes]) -> bytes:
    """Make a map of keys and values in turn, which are encoded."""
    return _compound(_MAP, encoded)


def _compound(code: int, encoded: Sequence[bytes]) -> bytes:
    content = b"".join(encoded)
    return bytes((code,)) + (len(content) + 4).to_bytes(4, "big") + len(encoded).to_bytes(4, "big") + content
