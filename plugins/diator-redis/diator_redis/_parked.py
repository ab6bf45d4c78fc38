"""Dead letters: a stream for each topic of a subscription, read page by page, oldest first."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timezone
from heapq import heapify, heappop, heapreplace
from typing import Any

import msgspec

from diator.brokers.port import DeadLetter, Park
from diator_redis._entries import Entry, as_count, as_mapping, body_of
from diator_redis._keys import Keys
from diator_redis._link import Links

PAGE = 100

_reasons = msgspec.json.Decoder(Park)
_encoder = msgspec.json.Encoder()


def reason_of(outcome: Park) -> bytes:
    """Write why something was parked."""
    return _encoder.encode(outcome)


class DeadLetters:
    """The dead letters of one subscription on one topic, read one after the other."""

    def __init__(self, links: Links, keys: Keys, subscription: str, topic: str) -> None:
        self._links = links
        self._stream = keys.dead(topic, subscription)
        self._subscription, self._topic = subscription, topic
        self._after = b"-"
        self._page: list[Entry] = []

    async def next(self) -> Entry | None:
        """Give the next one as it is stored; ``None`` after the last."""
        if not self._page:
            found = await self._links.call(b"XRANGE", self._stream, self._after, b"+", b"COUNT", PAGE)
            self._page = list(reversed(found))
            if found:
                self._after = b"(" + found[-1][0]
        return self._page.pop() if self._page else None

    def letter(self, entry: Entry) -> DeadLetter:
        """Give what an entry says."""
        id_, values = entry[0].decode(), as_mapping(entry[1])
        return DeadLetter(
            id=f"{self._topic}/{id_}",
            subscription=self._subscription,
            topic=self._topic,
            why=_reason(values.get(b"w", b"")),
            parked_at=datetime.fromtimestamp(min(order_of(id_)[0] / 1000, 253402300799), timezone.utc),
            deliveries=as_count(values.get(b"d")) or 0,
            headers={},
            body=body_of({name: value for name, value in values.items() if name not in (b"w", b"o", b"f", b"d")}),
        )


async def read_all(sources: Sequence[DeadLetters]) -> AsyncIterator[DeadLetter]:
    """Read several, in the order in which they were parked."""
    heads: list[tuple[tuple[int, int], int, Entry]] = []
    for number, source in enumerate(sources):
        if entry := await source.next():
            heads.append((order_of(entry[0].decode()), number, entry))
    heapify(heads)
    while heads:
        _, number, entry = heads[0]
        yield sources[number].letter(entry)
        following = await sources[number].next()
        if following is None:
            heappop(heads)
        else:
            heapreplace(heads, (order_of(following[0].decode()), number, following))


def order_of(id_: str) -> tuple[int, int]:
    """Give the id of an entry as numbers."""
    milliseconds, _, number = id_.partition("-")
    return int(milliseconds), int(number or 0)


def entry_id(letter: DeadLetter) -> str | None:
    """Give the id of the entry that a dead letter is; ``None`` where it can't be one."""
    _, _, id_ = letter.id.rpartition("/")
    parts: Any = id_.split("-")
    return id_ if len(parts) == 2 and all(part.isdecimal() and part.isascii() for part in parts) else None


def _reason(text: bytes) -> Park:
    try:
        return _reasons.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Park(text.decode(errors="backslashreplace") or "unknown")
