"""What is sent: the same document on both sides, some 200 bytes of JSON in an envelope of as many again."""

import asyncio
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal, NamedTuple
from uuid import uuid4

import msgspec

from diator import NotificationEvent, contract

BATCH = 100
KEYS = 1_000
PAUSE = 0.002
"""Seconds until everybody waits again after a message."""


@contract("bench.joined")
@dataclass(frozen=True)
class Joined(NotificationEvent):
    meeting_id: int
    user_id: int
    name: str
    tags: list[str]
    note: str


@contract("bench.moved", key="meeting_id")
@dataclass(frozen=True)
class Moved(NotificationEvent):
    meeting_id: int
    user_id: int
    name: str
    tags: list[str]
    note: str


def joined(number: int) -> Joined:
    return Joined(number, 8, "Somebody Important", ["host", "guest", "late"], "x" * 100)


def moved(number: int) -> Moved:
    return Moved(number % KEYS, 8, "Somebody Important", ["host", "guest", "late"], "x" * 100)


class Document(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What Diator puts on the wire for a `Joined`, for who writes and reads it by hand, in one go."""

    specversion: Literal["1.0"]
    id: str
    source: str
    type: str
    time: datetime | None = None
    datacontenttype: str = "application/json"
    diatorkind: str | None = None
    diatorversion: int = 1
    diatorcorrelation: str | None = None
    data: Joined


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Document).decode


def document(event: Joined) -> bytes:
    """Make the bytes of one event: with an id of its own and the time, as Diator does."""
    id_ = str(uuid4())
    return encode(
        Document(
            specversion="1.0",
            id=id_,
            source="bench",
            type="bench.joined",
            time=datetime.now(timezone.utc),
            diatorkind="notification",
            diatorcorrelation=id_,
            data=event,
        )
    )


class Spent(NamedTuple):
    """What one message took: seconds by the clock, and seconds of this process's processor time."""

    seconds: float
    processor: float


class Watch:
    """Measures from here on."""

    def __init__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def spent(self, count: int, seconds: float | None = None) -> Spent:
        """Give what each of so many messages has taken; ``seconds``, where each was measured by itself."""
        passed, processor = time.perf_counter() - self._began[0], time.process_time() - self._began[1]
        return Spent(passed / count if seconds is None else seconds, processor / count)


class Counter:
    """Counts what is handled, and tells when it was enough."""

    def __init__(self) -> None:
        self.left = 0
        self.done = asyncio.Event()

    async def handle(self, event: object) -> None:  # noqa: ARG002 - what it costs to get here is measured
        self.left -= 1
        if not self.left:
            self.done.set()

    def expect(self, number: int) -> None:
        self.left = number
        self.done.clear()
