"""Entries of streams, as they are read: any bytes at all may stand in them."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from diator.brokers.port import Delivery


class Stream(NamedTuple):
    """A stream that a subscription reads."""

    name: bytes
    topic: str
    own: bool = False
    """Whether it belongs to this subscription alone, so that what is settled is deleted from it."""


class Receipt:
    """Which entry a delivery is, and until when it is surely still its receiver's."""

    __slots__ = ("expires", "id", "stream")

    def __init__(self, stream: Stream, id: bytes, expires: float) -> None:  # noqa: A002
        self.stream, self.id, self.expires = stream, id, expires
        # `expires` is on the loop's clock, counted from before the request left: Redis gives nothing away earlier.


Entry = tuple[bytes, Sequence[bytes] | None]
"""An id, and names and values by turns; ``None`` where the entry was deleted."""

DELETED = "its entry was deleted from the stream"
MAX_COUNT = 10**9


def entries_of(reply: Any) -> Iterator[tuple[bytes, Sequence[Entry]]]:
    """Give the name and the entries of each stream in a reply to XREADGROUP or XREAD, of RESP2 or RESP3."""
    if reply is None:
        return iter(())
    pairs: Any = reply.items() if hasattr(reply, "items") else reply
    return iter(pairs)


def delivery_of(stream: Stream, entry: Entry, expires: float) -> Delivery:
    """Give what one entry says, or what is wrong with it."""
    id_, fields = entry
    return delivery_from(fields, Receipt(stream, id_, expires))


def delivery_from(fields: Sequence[bytes] | None, receipt: Receipt) -> Delivery:
    """Give what fields say, or what is wrong with them."""
    if fields and fields[0] == b"e" and (len(fields) == 2 or (len(fields) == 4 and fields[2] == b"k")):
        key = fields[3].decode(errors="surrogateescape") if len(fields) == 4 else None
        return Delivery(receipt.stream.topic, fields[1], key=key, receipt=receipt)  # as Diator writes them
    stream = receipt.stream
    values = as_mapping(fields)
    failures, deliveries = as_count(values.get(b"f")), as_count(values.get(b"d"))
    return Delivery(
        stream.topic,
        body_of(values),
        key=values[b"k"].decode(errors="surrogateescape") if b"k" in values else None,
        failures=failures or 0,
        deliveries=(deliveries or 0) + 1,
        damage=damage_of(values, stream.own),
        receipt=receipt,
    )


def as_mapping(fields: Sequence[bytes] | None) -> dict[bytes, bytes]:
    """Give the fields by their names, the first of equal ones; empty where the entry is gone."""
    if not fields:
        return {}
    pairs = list(zip(fields[::2], fields[1::2], strict=False))
    return dict(reversed(pairs))


def as_count(value: bytes | None) -> int | None:
    """Give a stored count; zero where there is none, ``None`` for what is no count."""
    if value is None:
        return 0
    if len(value) > 10 or not value.isdigit() or int(value) > MAX_COUNT:
        return None
    return int(value)


def body_of(values: dict[bytes, bytes]) -> bytes:
    """Give the event; of an entry that has none all that it says."""
    body = values.get(b"e")
    return b"\n".join(b"%b=%b" % pair for pair in values.items()) if body is None else body


def damage_of(values: dict[bytes, bytes], own: bool) -> str | None:
    """Tell what is wrong with the fields of an entry; those of a subscription's own stream have counts as well."""
    if own and b"x" in values:
        return values[b"x"].decode(errors="backslashreplace") or "it is damaged"
    if not values:
        return DELETED
    if b"e" not in values:
        names = b", ".join(values).decode(errors="backslashreplace")
        return f"the entry has no field 'e', which holds the event; it has: {names}"
    for name in (b"f", b"d") if own else ():
        if as_count(values.get(name)) is None:
            return f"the entry's field {name.decode()!r} is no count: {values[name]!r}"
    return None
