"""Dead letters: a stream for each topic of a subscription, read page by page, oldest first."""

import re
from collections.abc import Sequence
from datetime import datetime, timezone

import msgspec

from diator.brokers.port import DeadLetter, Park, Subscription
from diator.errors import BrokerError
from diator_redis._client import Client, as_mapping
from diator_redis._entries import as_count, body_of
from diator_redis._keys import Keys
from diator_redis._scripts import REPLAY

_reasons = msgspec.json.Decoder(Park)
_encoder = msgspec.json.Encoder()


def encode_reason(outcome: Park) -> bytes:
    """Write why a message became a dead letter."""
    return _encoder.encode(outcome)


class DeadLetters:
    """The dead letters of one subscription."""

    def __init__(self, client: Client, keys: Keys, subscription: Subscription) -> None:
        self._client, self._keys, self._subscription = client, keys, subscription.name
        self._topics = list(dict.fromkeys(topic.name for topic in subscription.topics))

    async def page(self, after: str | None, limit: int) -> list[DeadLetter]:
        """Return at most ``limit``, in the order in which they became dead letters, behind the one with this id."""
        place, last = self._cursor(after)
        found: list[tuple[tuple[int, int], int, Sequence[bytes]]] = []
        for number, topic in enumerate(self._topics):
            start = last if number > place else b"(" + last  # of one millisecond, the topics before have been read
            for id_, fields in await self._client.call(b"XRANGE", self._dead(topic), start, b"+", b"COUNT", limit):
                milliseconds, _, at = id_.partition(b"-")
                found.append(((int(milliseconds), int(at)), number, fields))
        found.sort(key=lambda one: one[:2])
        return [
            self._letter(self._topics[number], order, as_mapping(fields)) for order, number, fields in found[:limit]
        ]

    def _cursor(self, after: str | None) -> tuple[int, bytes]:
        if after is None:
            return -1, b"-"
        topic, id_ = _entry(after)
        if id_ is None:
            raise BrokerError(f"{after!r} is not the id of a dead letter; expected one that a page has had")
        return self._topics.index(topic) if topic in self._topics else -1, id_.encode()

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

    async def replay(self, letter_id: str) -> bool:
        """Deliver one again; false if it is gone. Raises `~diator.BrokerError`."""
        topic, id_ = _entry(letter_id)
        keys = [self._dead(topic), self._keys.again(topic, self._subscription)]
        return id_ is not None and bool(await self._client.run(REPLAY, keys, [id_]))

    async def purge(self, letter_id: str) -> bool:
        """Delete one permanently; false if it is gone. Raises `~diator.BrokerError`."""
        topic, id_ = _entry(letter_id)
        return id_ is not None and bool(await self._client.call(b"XDEL", self._dead(topic), id_))

    def _dead(self, topic: str) -> bytes:
        return self._keys.dead(topic, self._subscription)


def _entry(letter_id: str) -> tuple[str, str | None]:
    """Return the topic of a dead letter and the id of its entry; ``None`` if it can't be one."""
    topic, _, id_ = letter_id.rpartition("/")
    return topic, id_ if re.fullmatch(r"\d+-\d+", id_, re.ASCII) else None


def _reason(text: bytes) -> Park:
    try:
        return _reasons.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Park(text.decode(errors="backslashreplace") or "unknown")
