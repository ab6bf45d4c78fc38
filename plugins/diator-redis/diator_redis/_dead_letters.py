"""Dead letters: a stream for each topic of a subscription, read page by page, oldest first."""

import heapq
import re
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timezone

import msgspec

from diator.brokers.port import DeadLetter, Park, Subscription
from diator_redis._client import Client, as_mapping
from diator_redis._entries import as_count, body_of
from diator_redis._keys import Keys
from diator_redis._scripts import REPLAY

PAGE = 100

_reasons = msgspec.json.Decoder(Park)
_encoder = msgspec.json.Encoder()


def encode_reason(outcome: Park) -> bytes:
    """Write why a message became a dead letter."""
    return _encoder.encode(outcome)


class DeadLetters:
    """The dead letters of one subscription."""

    def __init__(self, client: Client, keys: Keys, subscription: Subscription) -> None:
        self._client, self._keys, self._subscription = client, keys, subscription.name
        self._topics = [topic.name for topic in subscription.topics]

    async def read(self) -> AsyncIterator[DeadLetter]:
        """Return all of them, in the order in which they became dead letters. Raises `~diator.BrokerError`."""
        pages = [self._entries(topic) for topic in self._topics]
        heads = [(*head, at) for at, page in enumerate(pages) if (head := await anext(page, None))]
        heapq.heapify(heads)
        while heads:
            order, fields, at = heapq.heappop(heads)
            yield self._letter(self._topics[at], order, as_mapping(fields))
            if head := await anext(pages[at], None):
                heapq.heappush(heads, (*head, at))

    async def _entries(self, topic: str) -> AsyncIterator[tuple[tuple[int, int], Sequence[bytes]]]:
        after = b"-"
        while page := await self._client.call(b"XRANGE", self._dead(topic), after, b"+", b"COUNT", PAGE):
            for id_, fields in page:
                milliseconds, _, number = id_.partition(b"-")
                yield (int(milliseconds), int(number)), fields
            after = b"(" + page[-1][0]

    def _letter(self, topic: str, order: tuple[int, int], values: dict[bytes, bytes]) -> DeadLetter:
        return DeadLetter(
            id=f"{topic}/{order[0]}-{order[1]}",
            subscription=self._subscription,
            topic=topic,
            why=_reason(values.get(b"w", b"")),
            parked_at=datetime.fromtimestamp(min(order[0] / 1000, 253402300799), timezone.utc),
            deliveries=as_count(values.get(b"d", b"0")),
            headers={},
            body=body_of({name: value for name, value in values.items() if name not in (b"w", b"o", b"f", b"d")}),
        )

    async def replay(self, letter: DeadLetter) -> bool:
        """Deliver one again; false if it is gone. Raises `~diator.BrokerError`."""
        keys = [self._dead(letter.topic), self._keys.again(letter.topic, self._subscription)]
        id_ = _entry_id(letter)
        return id_ is not None and bool(await self._client.run(REPLAY, keys, [id_]))

    async def purge(self, letter: DeadLetter) -> bool:
        """Delete one permanently; false if it is gone. Raises `~diator.BrokerError`."""
        id_ = _entry_id(letter)
        return id_ is not None and bool(await self._client.call(b"XDEL", self._dead(letter.topic), id_))

    def _dead(self, topic: str) -> bytes:
        return self._keys.dead(topic, self._subscription)


def _entry_id(letter: DeadLetter) -> str | None:
    """Return the id of the entry that a dead letter is; ``None`` if it can't be one."""
    found = re.search(r"/(\d+-\d+)$", letter.id, re.ASCII)
    return found and found[1]


def _reason(text: bytes) -> Park:
    try:
        return _reasons.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Park(text.decode(errors="backslashreplace") or "unknown")
