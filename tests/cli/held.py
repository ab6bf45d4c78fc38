"""A broker in memory that outlives the commands that a test runs in its process, with dead letters made to order."""

import asyncio
import sys
from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import ModuleType
from typing import Any

import msgspec

from diator.brokers import DeadLetter, Envelope, MemoryBroker, Outgoing, Park, Subscription, Topic
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

TOPIC = Topic("joined", False, ("joined",))
NOTE, MAIL = Subscription("meetings.note", (TOPIC,)), Subscription("meetings.mail", (TOPIC,))
WHY = Park("exhausted after 5 attempts", "builtins.ValueError: no such meeting", "Traceback ...\nValueError: no", 5)


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

    async def dead_letters(self, subscription: Subscription, /) -> AsyncIterator[DeadLetter]:
        async for letter in super().dead_letters(subscription):
            age = self.ages.get(letter.id, timedelta())
            changes = self.changes.get(letter.id, {})
            yield letter._replace(parked_at=letter.parked_at - age, **changes)

    async def replay(self, subscription: Subscription, letter: DeadLetter, /) -> bool:
        return self._may_touch(letter) and await super().replay(subscription, letter)

    async def purge(self, subscription: Subscription, letter: DeadLetter, /) -> bool:
        return self._may_touch(letter) and await super().purge(subscription, letter)

    def _may_touch(self, letter: DeadLetter) -> bool:
        self.tried.append(letter.id)
        if letter.id in self.failing:
            raise self.failing[letter.id]
        return letter.id not in self.gone

    def park(self, *numbers: int, of: Subscription = NOTE, why: Park = WHY) -> list[str]:
        """Park events with these numbers, and give the ids of the dead letters."""
        return asyncio.run(self._park(numbers, of, why))

    async def _park(self, numbers: Sequence[int], of: Subscription, why: Park) -> list[str]:
        await self.connect()
        await self.apply([of], [TOPIC])
        before = [letter.id async for letter in self.dead_letters(of)]
        await self.publish([_message(number) for number in numbers], timeout=1)
        receiver = await self.subscribe(of)
        await receiver.settle([(delivery, why) for delivery in await receiver.receive(100)])
        await self.aclose()
        return [letter.id async for letter in self.dead_letters(of) if letter.id not in before]

    def parked(self, of: Subscription = NOTE) -> list[str]:
        """The ids of the dead letters that are left."""

        async def read() -> list[str]:
            return [letter.id async for letter in self.dead_letters(of)]

        return asyncio.run(read())


def _message(number: int) -> Outgoing:
    data = msgspec.Raw(msgspec.json.encode({"number": number}))
    return Outgoing(
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
