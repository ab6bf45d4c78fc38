"""What a brokered event costs from publishing to handled, over the broker in memory, against a bare queue."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from uuid import uuid4

import msgspec

from benchmarks.measure import Effort, Work, compare
from benchmarks.report import Row
from diator import Diator, NotificationEvent
from diator.brokers import Envelope

LIMIT = 1 / 0.35
"""At least 0.35 times as many messages a second."""


@dataclass(frozen=True)
class UserJoined(NotificationEvent):
    meeting_id: int
    user_id: int
    name: str
    tags: list[str]
    note: str


EVENT = UserJoined(7, 8, "Somebody Important", ["host", "guest", "late"], "x" * 80)
"""About 150 bytes of JSON, and twice that with its envelope."""


class Counter:
    """Counts what is handled, and tells when it was enough."""

    def __init__(self) -> None:
        self.left = 0
        self.done = asyncio.Event()

    async def handle(self, event: UserJoined) -> None:  # noqa: ARG002 - what it costs to get here is measured
        self.left -= 1
        if not self.left:
            self.done.set()

    def expect(self, number: int) -> None:
        self.left = number
        self.done.clear()


async def rows(effort: Effort) -> AsyncIterator[Row]:
    """Measure one handler at a time, and ten."""
    longer = Effort(max(5, effort.rounds // 10), effort.seconds * 40)  # a batch should be full
    bare, consumer = _bare()
    try:
        for concurrency in (1, 10):
            async with AsyncExitStack() as stack:
                ratio = await compare(await _ours(stack, concurrency), bare, longer)
            what = f"publish a notification event in memory until it is handled, {concurrency} at a time"
            yield Row(what, "asyncio.Queue, with the same encoding and decoding", ratio, limit=LIMIT)
    finally:
        consumer.cancel()


def _bare() -> tuple[Work, "asyncio.Task[None]"]:
    counter = Counter()
    queue: asyncio.Queue[bytes] = asyncio.Queue(10_000)
    encode, read = msgspec.json.Encoder().encode, msgspec.json.Decoder(Envelope).decode
    decode = msgspec.json.Decoder(UserJoined).decode

    async def consume() -> None:
        while True:
            await counter.handle(decode(read(await queue.get()).data))

    async def loop(times: int) -> None:
        counter.expect(times)
        for _ in range(times):
            message_id = str(uuid4())
            envelope = Envelope(
                specversion="1.0",
                id=message_id,
                source="bench",
                type="UserJoined",
                time=datetime.now(timezone.utc),
                diatorkind="notification",
                diatorcorrelation=message_id,
                data=msgspec.Raw(encode(EVENT)),
            )
            await queue.put(encode(envelope))
        await counter.done.wait()

    return Work(loop, {Counter.handle: 1}), asyncio.ensure_future(consume())


async def _ours(stack: AsyncExitStack, concurrency: int) -> Work:
    counter = Counter()
    app = Diator("bench", broker="memory://", concurrency=concurrency)
    app.add_event_handler(counter.handle)
    app.publishes(UserJoined)
    await stack.enter_async_context(app)
    await stack.enter_async_context(app.worker())

    async def loop(times: int) -> None:
        counter.expect(times)
        for _ in range(times):
            await app.publish(EVENT)
        await counter.done.wait()

    return Work(loop, {Counter.handle: 1})
