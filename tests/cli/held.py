"""A broker in memory that outlives the commands that a test runs in its process, with dead letters made to order."""

import asyncio
import sys
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import ModuleType
from typing import Any

import msgspec

from diator.brokers import (
    DeadLetter,
    Envelope,
    MemoryBroker,
    MoveToDeadLetters,
    OutgoingMessage,
    Subscription,
    SubscriptionStatus,
    Topic,
    dead_letters_of,
)
from diator.errors import BrokerError, BrokerUnavailableError, ConfigurationError, Problem

APP = """
from held import broker
app = Diator("meetings", broker=broker)
@contract("joined")
@dataclass
class Joined(NotificationEvent):
    number: int
@app.on_event
async def note(event: Joined) -> None: ...
@app.on_event
async def mail(event: Joined) -> None: ...
"""

TOPIC = Topic("joined", ("joined",))
NOTE, MAIL = Subscription("meetings.note", (TOPIC,)), Subscription("meetings.mail", (TOPIC,))
WHY = MoveToDeadLetters(
    "exhausted after 5 attempts", "builtins.ValueError: no such meeting", "Traceback ...\nValueError: no", 5
)


START_IT = "    -> start the broker, or correct the app's broker=..."
"""The fix that commands print when the broker is away."""


class HeldBroker(MemoryBroker):
    """Ages dead letters, replaces parts of them, and fails where it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.ages: dict[str, timedelta] = {}
        self.changes: dict[str, dict[str, Any]] = {}
        self.failing: dict[str, BrokerError] = {}
        self.gone: set[str] = set()
        self.tried: list[str] = []
        self.away = False
        self.unfit: Problem | None = None

    async def connect(self) -> None:
        if self.unfit:
            raise ConfigurationError([self.unfit])
        if "connect" in self.failing:
            raise self.failing["connect"]
        if self.away:
            raise BrokerUnavailableError("connection refused by nowhere:1")
        await super().connect()

    async def dead_letters(
        self, subscription: Subscription, /, *, after: str | None = None, limit: int = 100
    ) -> Sequence[DeadLetter]:
        return [
            letter._replace(
                dead_lettered_at=letter.dead_lettered_at - self.ages.get(letter.id, timedelta()),
                **self.changes.get(letter.id, {}),
            )
            for letter in await super().dead_letters(subscription, after=after, limit=limit)
        ]

    async def other_subscriptions(self, used: Sequence[Subscription], /) -> Sequence[SubscriptionStatus]:
        if "other_subscriptions" in self.failing:
            raise self.failing["other_subscriptions"]
        return await super().other_subscriptions(used)

    async def replay(self, subscription: Subscription, ids: Collection[str], /) -> Collection[str]:
        return await super().replay(subscription, [one for one in ids if self._may_touch(one)])

    async def purge(self, subscription: Subscription, ids: Collection[str], /) -> Collection[str]:
        return await super().purge(subscription, [one for one in ids if self._may_touch(one)])

    def _may_touch(self, letter_id: str) -> bool:
        self.tried.append(letter_id)
        if letter_id in self.failing:
            raise self.failing[letter_id]
        return letter_id not in self.gone

    def park(self, *numbers: int, of: Subscription = NOTE, why: MoveToDeadLetters = WHY) -> list[str]:
        """MoveToDeadLetters events with these numbers, and give the ids of the dead letters."""
        return asyncio.run(self._park(numbers, of, why))

    async def _park(self, numbers: Sequence[int], of: Subscription, why: MoveToDeadLetters) -> list[str]:
        await self.connect()
        await self.apply([of], [TOPIC])
        before = [letter.id async for letter in dead_letters_of(self, of)]
        await self.publish([_message(number) for number in numbers], timeout=1)
        receiver = await self.subscribe(of)
        await receiver.settle([(delivery, why) for delivery in await receiver.receive(100)])
        await self.aclose()
        return [letter.id async for letter in dead_letters_of(self, of) if letter.id not in before]

    def parked(self, of: Subscription = NOTE) -> list[str]:
        """The ids of the dead letters that are left."""

        async def read() -> list[str]:
            return [letter.id async for letter in dead_letters_of(self, of)]

        return asyncio.run(read())


def _message(number: int) -> OutgoingMessage:
    data = msgspec.Raw(msgspec.json.encode({"number": number}))
    return OutgoingMessage(
        "joined", Envelope(specversion="1.0", id=f"event-{number}", source="test", type="joined", data=data)
    )


@contextmanager
def held(broker: MemoryBroker) -> Generator[None]:
    """Let modules of tests import a broker: ``from held import broker``."""
    module = ModuleType("held")
    vars(module)["broker"] = broker
    sys.modules["held"] = module
    try:
        yield
    finally:
        del sys.modules["held"]
