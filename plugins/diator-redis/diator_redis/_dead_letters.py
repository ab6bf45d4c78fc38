"""Dead letters: a stream of the subscription, read page by page, oldest first."""

import re
from datetime import datetime, timezone

import msgspec

from diator.brokers.port import DeadLetter, MoveToDeadLetters, Subscription
from diator.errors import BrokerError
from diator_redis._client import Client, as_mapping
from diator_redis._entries import as_count, body_of
from diator_redis._keys import KeyNames
from diator_redis._scripts import REPLAY

_OWN_FIELDS = (b"w", b"t", b"f", b"d")

_reasons = msgspec.json.Decoder(MoveToDeadLetters)
_encoder = msgspec.json.Encoder()


def encode_reason(outcome: MoveToDeadLetters) -> bytes:
    """Return the reason why a message became a dead letter as JSON."""
    return _encoder.encode(outcome)


class DeadLetters:
    """The dead letters of one subscription."""

    def __init__(self, client: Client, keys: KeyNames, subscription: Subscription) -> None:
        self._client, self._name = client, subscription.name
        self._dead_letters, self._redelivery = keys.dead_letters(subscription.name), keys.redelivery(subscription.name)

    async def page(self, after: str | None, limit: int) -> list[DeadLetter]:
        """Return at most ``limit``, oldest first, after the one with this id."""
        if after is not None and not _is_id(after):
            raise BrokerError(f"{after!r} is not the id of a dead letter; expected the id of one that a page contained")
        start = b"-" if after is None else b"(" + after.encode()
        page = await self._client.call(b"XRANGE", self._dead_letters, start, b"+", b"COUNT", limit)
        return [self._dead_letter(id_.decode(), as_mapping(fields)) for id_, fields in page]

    def _dead_letter(self, id_: str, fields: dict[bytes, bytes]) -> DeadLetter:
        milliseconds = int(id_.partition("-")[0])
        return DeadLetter(
            id=id_,
            subscription=self._name,
            topic=fields.get(b"t", b"").decode(errors="backslashreplace"),
            failure=_reason(fields.get(b"w", b"")),
            dead_lettered_at=datetime.fromtimestamp(min(milliseconds / 1000, 253402300799), timezone.utc),
            deliveries=as_count(fields.get(b"d", b"0")),
            headers={},
            body=body_of({name: value for name, value in fields.items() if name not in _OWN_FIELDS}),
        )

    async def replay(self, id_: str) -> bool:
        """Deliver one again; false if it no longer exists. Raises `~diator.BrokerError`."""
        return _is_id(id_) and bool(await self._client.run(REPLAY, [self._dead_letters, self._redelivery], [id_]))

    async def purge(self, id_: str) -> bool:
        """Delete one permanently; false if it no longer exists. Raises `~diator.BrokerError`."""
        return _is_id(id_) and bool(await self._client.call(b"XDEL", self._dead_letters, id_))


def _is_id(text: str) -> bool:
    return re.fullmatch(r"\d{1,19}-\d{1,19}", text, re.ASCII) is not None


def _reason(text: bytes) -> MoveToDeadLetters:
    try:
        return _reasons.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return MoveToDeadLetters(text.decode(errors="backslashreplace") or "unknown")
