"""Dead letters: messages of the stream of state, one subject each, with the reason in front of the event."""

import re
from collections.abc import Collection
from datetime import datetime, timezone

import msgspec
from nats.aio.msg import Msg

from diator.brokers.port import DeadLetter, MoveToDeadLetters, Subscription
from diator.errors import BrokerError
from diator_nats._access import Access
from diator_nats._errors import RejectedError
from diator_nats._names import decode

_SHORT = 2_000
"""Characters of a reason and an error that always have room."""


class _Head(msgspec.Struct, array_like=True):
    topic: str
    lane: str
    deliveries: int
    at: float
    reason: str
    error: str | None
    traceback: str | None
    attempts: int


_heads = msgspec.json.Decoder(_Head)


def pack(topic: str, lane: str, deliveries: int, failure: MoveToDeadLetters, body: bytes, limit: int) -> bytes:
    """Return a dead letter of at most so many bytes as it is stored; what has no room of the reason is cut."""
    head = _Head(topic, lane, deliveries, datetime.now(timezone.utc).timestamp(), *failure)
    encoded = msgspec.json.encode(head)
    if len(encoded) + len(body) >= limit:
        reason, error = failure.reason[:_SHORT], failure.error and failure.error[:_SHORT]
        room = (limit - len(body) - 6 * 2 * _SHORT - 1_000) // 6  # a character may be six bytes of JSON
        traceback = failure.traceback and failure.traceback[: max(0, room)]
        head = _Head(topic, lane, deliveries, head.at, reason, error, traceback, failure.attempts)
        encoded = msgspec.json.encode(head)
    return encoded + b"\n" + body


class DeadLetters:
    """The dead letters of one subscription."""

    def __init__(self, access: Access, subscription: Subscription) -> None:
        self._access, self._names, self._name = access, access.names, subscription.name
        self._subjects = self._names.dead(subscription.name, "*")

    async def page(self, after: str | None, limit: int) -> list[DeadLetter]:
        """Return at most ``limit``, oldest first, behind the one with this id."""
        if after is not None and not _is_id(after):
            raise BrokerError(f"{after!r} is not the id of a dead letter; expected one that a page has had")
        connection = await self._access.connection()
        found = await connection.read(
            self._names.state, seq=int(after or 0) + 1, batch=limit, next_by_subj=self._subjects
        )
        return [self._letter(msg) for msg in found]

    def _letter(self, msg: Msg) -> DeadLetter:
        head, body = _split(msg)
        return DeadLetter(
            id=_number_of(msg),
            subscription=self._name,
            topic=decode(head.topic),
            failure=MoveToDeadLetters(head.reason, head.error, head.traceback, head.attempts),
            dead_lettered_at=datetime.fromtimestamp(head.at, timezone.utc),
            deliveries=head.deliveries,
            headers={},
            body=body,
        )

    async def replay(self, ids: Collection[str]) -> list[str]:
        """Deliver these again; return those that were there."""
        connection, replayed = await self._access.connection(), list[str]()
        for one in ids:
            msg = await self._find(one)
            if msg is not None:
                head, body = _split(msg)
                subject = self._names.replayed(self._name, decode(head.topic), head.lane)
                await connection.store([(subject, body, {"Nats-Msg-Id": f"replay {self._names.state} {one}"})])
                replayed += await self.purge([one])
        return replayed

    async def purge(self, ids: Collection[str]) -> list[str]:
        """Delete these; return those that were there."""
        connection, purged = await self._access.connection(), list[str]()
        for one in ids:
            if await self._find(one) is not None:
                try:
                    await connection.api(f"STREAM.MSG.DELETE.{self._names.state}", seq=int(one), no_erase=True)
                except RejectedError:
                    continue  # another one was quicker
                purged.append(one)
        return purged

    async def _find(self, id_: str) -> Msg | None:
        if not _is_id(id_):
            return None
        connection = await self._access.connection()
        found = await connection.read(self._names.state, seq=int(id_), batch=1, next_by_subj=self._subjects)
        return found[0] if found and _number_of(found[0]) == id_ else None


def _split(msg: Msg) -> tuple[_Head, bytes]:
    head, _, body = msg.data.partition(b"\n")
    return _heads.decode(head), body


def _number_of(msg: Msg) -> str:
    return str((msg.headers or {})["Nats-Sequence"])


def _is_id(text: str) -> bool:
    return re.fullmatch(r"[1-9]\d{0,17}", text, re.ASCII) is not None
