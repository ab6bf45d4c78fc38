"""Dead letters: a stream of the subscription, read page by page, oldest first."""

import re
from datetime import datetime, timezone

import msgspec

from diator.brokers.port import DeadLetter, MoveToDeadLetters, Subscription
from diator.errors import BrokerError
from diator_redis._client import Client, as_mapping
from diator_redis._entries import as_count, body_of
from diator_redis._keys import Keys
from diator_redis._scripts import REPLAY

_NOT_OF_EVENT = (b"w", b"t", b"f", b"d")

_reasons = msgspec.json.Decoder(MoveToDeadLetters)
_encoder = msgspec.json.Encoder()


def encode_reason(outcome: MoveToDeadLetters) -> bytes:
    """Write why a message became a dead letter."""
    return _encoder.encode(outcome)


class DeadLetters:
    """The dead letters of one subscription."""

    def __init__(self, client: Client, keys: Keys, subscription: Subscription) -> None:
        self._client, self._name = client, subscription.name
        self._dead, self._again = keys.dead(subscription.name), keys.again(subscription.name)

    async def page(self, after: str | None, limit: int) -> list[DeadLetter]:
        """Return at most ``limit``, in the order in which they became dead letters, behind the one with this id."""
        if after is not None and not _is_id(after):
            raise BrokerError(f"{after!r} is not the id of a dead letter; expected one that a page has had")
        start = b"-" if after is None else b"(" + after.encode()
        page = await self._client.call(b"XRANGE", self._dead, start, b"+", b"COUNT", limit)
        return [self._letter(id_.decode(), as_mapping(fields)) for id_, fields in page]

    def _letter(self, id_: str, fields: dict[bytes, bytes]) -> DeadLetter:
        milliseconds = int(id_.partition("-")[0])
        return DeadLetter(
            id=id_,
            subscription=self._name,
            topic=fields.get(b"t", b"").decode(errors="backslashreplace"),
            failure=_reason(fields.get(b"w", b"")),
            dead_lettered_at=datetime.fromtimestamp(min(milliseconds / 1000, 253402300799), timezone.utc),
            deliveries=as_count(fields.get(b"d", b"0")),
            headers={},
            body=body_of({name: value for name, value in fields.items() if name not in _NOT_OF_EVENT}),
        )

    async def replay(self, id_: str) -> bool:
        """Deliver one again; false if it is gone. Raises `~diator.BrokerError`."""
        return _is_id(id_) and bool(await self._client.run(REPLAY, [self._dead, self._again], [id_]))

    async def purge(self, id_: str) -> bool:
        """Delete one permanently; false if it is gone. Raises `~diator.BrokerError`."""
        return _is_id(id_) and bool(await self._client.call(b"XDEL", self._dead, id_))


def _is_id(text: str) -> bool:
    return re.fullmatch(r"\d{1,19}-\d{1,19}", text, re.ASCII) is not None


def _reason(text: bytes) -> MoveToDeadLetters:
    try:
        return _reasons.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return MoveToDeadLetters(text.decode(errors="backslashreplace") or "unknown")
