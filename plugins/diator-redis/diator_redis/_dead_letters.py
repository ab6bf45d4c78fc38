"""Entries of streams, and of those dead letters: any bytes at all may be in them.

Field ``e`` is the event, ``k`` its key. A dead letter also has ``t``, its topic, ``w``, the reason, ``f``, its
failures, and ``d``, its deliveries. ``x`` says what is wrong with an entry that could not be kept as it was.
"""

import re
from collections.abc import Mapping
from datetime import datetime, timezone

import msgspec

from diator.brokers.port import DeadLetter, MoveToDeadLetters

_NOT_OF_EVENT = (b"w", b"t", b"f", b"d")

_reasons = msgspec.json.Decoder(MoveToDeadLetters)
encode_reason = msgspec.json.Encoder().encode


def body_of(values: Mapping[bytes, bytes]) -> bytes:
    """Return the event; of an entry that has none all its fields."""
    body = values.get(b"e")
    return b"\n".join(b"%b=%b" % pair for pair in values.items()) if body is None else body


def find_read_error(values: Mapping[bytes, bytes]) -> str | None:
    """Return what is wrong with the fields of an entry."""
    if b"x" in values:
        return values[b"x"].decode(errors="backslashreplace") or "it is damaged"
    if not values:
        return "its entry was deleted from the stream"
    if b"e" not in values:
        names = b", ".join(values).decode(errors="backslashreplace")
        return f"the entry has no field 'e', which holds the event; it has: {names}"
    return None


def is_id(text: str) -> bool:
    """Return whether a text can be the id of an entry."""
    return re.fullmatch(r"\d{1,19}-\d{1,19}", text, re.ASCII) is not None


def as_dead_letter(subscription: str, id_: str, fields: Mapping[bytes, bytes]) -> DeadLetter:
    """Return the dead letter that an entry is."""
    reason, deliveries = fields.get(b"w", b""), fields.get(b"d", b"")
    try:
        failure = _reasons.decode(reason)
    except (msgspec.DecodeError, UnicodeDecodeError):
        failure = MoveToDeadLetters(reason.decode(errors="backslashreplace") or "unknown")
    seconds = min(int(id_.partition("-")[0]) / 1000, 253402300799)
    return DeadLetter(
        id=id_,
        subscription=subscription,
        topic=fields.get(b"t", b"").decode(errors="backslashreplace"),
        failure=failure,
        dead_lettered_at=datetime.fromtimestamp(seconds, timezone.utc),
        deliveries=int(deliveries) if len(deliveries) < 10 and deliveries.isdigit() else 0,
        headers={},
        body=body_of({name: value for name, value in fields.items() if name not in _NOT_OF_EVENT}),
    )
