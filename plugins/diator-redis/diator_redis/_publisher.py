"""Publishing: what gathers while one exchange is under way leaves with the next one.

A call that finds nobody under way sends at once, by itself. Calls that come meanwhile wait, and a task takes them all,
with one script call for each topic; each learns of its own messages only. A script tells which of them it could not
append, so that it is known what did not leave as long as a reply comes.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timezone
from typing import Any

from redis import exceptions as redis_errors

from diator.brokers.envelope import Outgoing
from diator.errors import BrokerUnavailableError, NotPublishedError
from diator_redis._call import Call
from diator_redis._keys import Keys
from diator_redis._link import Argument, Cut, Links, pack
from diator_redis._scripts import PUBLISH

MAX_MESSAGES = 500
MAX_BYTES = 4_000_000
"""What one exchange carries at most; a single message may have more."""
SMALL = 30_000
"""So many bytes are written without waiting: asyncio's limit is 64 KiB."""

XADD_HEAD = b"$4\r\nXADD\r\n"
XADD_MIDDLE = b"$1\r\n*\r\n$1\r\ne\r\n"


_Item = tuple[Call, Outgoing]


class Publisher:
    """Sends the messages of all callers over one link."""

    def __init__(
        self,
        links: Links,
        keys: Keys,
        noticed: Callable[[str, int], None],
        delayed: Callable[[str, float], None],
    ) -> None:
        self._links = links
        self._link = links.take()
        self._keys = keys
        self._heads: dict[str, bytes] = {}
        self._waiting: deque[Call] = deque()
        self._calls: dict[Call, None] = {}
        """Those that have not ended, oldest first."""
        self._alarm: asyncio.TimerHandle | None = None
        self._busy = False
        self._closed = False
        self._task: asyncio.Task[None] | None = None
        self._noticed = noticed
        self._delayed = delayed

    async def publish(self, messages: Sequence[Outgoing], timeout: float) -> None:
        """Store messages. Raises `~diator.NotPublishedError`."""
        if not messages:
            return
        call = Call(messages, timeout)
        if self._busy or self._closed or not self._link.is_ready or not is_small(messages):
            await self._queued(call)
        else:
            self._busy = True
            try:
                await self._send([(call, message) for message in messages], timeout)
            finally:
                self._next()
        if call.cause is not None or call.cancelled is not None:
            call.tell()

    async def aclose(self) -> None:
        """Let what is under way end, and refuse the rest."""
        self._closed = True
        while self._waiting:
            self._waiting.popleft().give_up(BrokerUnavailableError("the broker was closed"))
        if self._task is not None:
            await asyncio.wait({self._task})
        if self._alarm is not None:
            self._alarm.cancel()

    async def _queued(self, call: Call) -> None:
        if self._closed:
            raise NotPublishedError(call.messages) from BrokerUnavailableError("the broker was closed")
        call.deadline = asyncio.get_running_loop().time() + call.timeout
        self._waiting.append(call)
        self._calls[call] = None
        if self._alarm is None or call.deadline < self._alarm.when():
            self._set_alarm(call.deadline)
        if not self._busy:
            self._busy = True
            self._next()
        try:
            await call.wait()
        finally:
            del self._calls[call]

    def _set_alarm(self, when: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_at(when, self._ring)

    def _ring(self) -> None:
        """Tell those whose time is over. One timer for all: most calls end long before."""
        self._alarm = None
        now = asyncio.get_running_loop().time()
        for call in self._calls:
            if call.deadline <= now:
                call.give_up(redis_errors.TimeoutError(f"not published within {call.timeout:g} s"))
        left = [call.deadline for call in self._calls if not call.ended]
        if left:
            self._set_alarm(min(left))

    def _next(self) -> None:
        if self._waiting:
            self._task = asyncio.get_running_loop().create_task(self._drain())
        else:
            self._busy = False

    async def _drain(self) -> None:
        """Send what waits until nothing does, one exchange after the other."""
        try:
            while calls := self._take():
                await self._together(calls)
                # Who was just told often has the next message: it is gathered too.
                await asyncio.sleep(0)
        finally:
            self._busy = False

    async def _together(self, calls: list[Call]) -> None:
        try:
            await self._send([(call, message) for call in calls for message in call.messages], self._links.timeout)
        except BaseException as error:
            for call in calls:
                call.give_up(error)
            raise
        for call in calls:
            call.end()

    def _take(self) -> list[Call]:
        calls: list[Call] = []
        room = MAX_MESSAGES
        while self._waiting and room > 0:
            call = self._waiting.popleft()
            if not call.ended:
                call.started = True
                calls.append(call)
                room -= len(call.messages)
        return calls

    async def _send(self, items: list[_Item], timeout: float) -> None:
        ends = asyncio.get_running_loop().time() + timeout
        for batch in _batches(items):
            # What follows a failure of its own call stays, or it would overtake; what follows a cut finds nobody.
            for call, message in batch:
                if call.cause is not None:
                    call.fail(message, call.cause, sent=False)
            left = ends - asyncio.get_running_loop().time()
            rest = [item for item in batch if item[0].cause is None]
            if rest:
                await self._exchange(rest, min(max(left, 0.001), self._links.timeout))

    async def _exchange(self, batch: list[_Item], timeout: float) -> None:
        if len(batch) == 1 and batch[0][1].due is None:
            await self._one(batch[0], timeout)
            return
        topics: dict[str, list[_Item]] = {}
        for item in batch:
            topics.setdefault(item[1].topic, []).append(item)
        calls = [(items, self._arguments(topic, items)) for topic, items in topics.items()]
        await self._scripts(calls, timeout)

    async def _one(self, item: _Item, timeout: float) -> None:
        call, message = item
        topic, body, key = message.topic, message.structured, message.key
        head = self._heads.get(topic)
        if head is None:
            name = self._keys.events(topic)
            head = self._heads[topic] = b"%b$%d\r\n%b\r\n%b" % (XADD_HEAD, len(name), name, XADD_MIDDLE)
        replies: list[Any] = []
        try:
            data = b"%b%b$%d\r\n%b\r\n" % (b"*5\r\n" if key is None else b"*7\r\n", head, len(body), body)
            if key is not None:
                data += b"$1\r\nk\r\n$%d\r\n%b\r\n" % (len(encoded := key.encode()), encoded)
            call.cancelled = await self._link.exchange(data, 1, replies, timeout, to_the_end=True)
        except Cut as cut:
            call.cancelled = cut.cancelled
            call.fail(message, cut.error, sent=cut.sent and not replies)
            return
        if isinstance(replies[0], Exception):
            call.fail(message, replies[0], sent=False)
        else:
            self._noticed(topic, 1)

    def _arguments(self, topic: str, items: Iterable[_Item]) -> list[Argument]:
        """Give the keys and arguments of the script for one topic, the number of keys first."""
        keys = self._keys
        found: list[Argument] = [3, keys.events(topic), keys.due(topic), keys.scheduled(topic)]
        for _, message in items:
            found += (
                message.structured,
                message.key or "",
                "" if message.due is None else self._when(topic, message.due),
            )
        return found

    def _when(self, topic: str, due: datetime) -> str:
        """Return the millisecond when a message is due; empty if it is due already."""
        delay = (due - datetime.now(timezone.utc)).total_seconds()
        if delay <= 0:
            return ""
        self._delayed(topic, delay)
        return f"{due.timestamp() * 1000:.3f}"

    async def _scripts(
        self,
        calls: list[tuple[list[_Item], list[Argument]]],
        timeout: float,
        command: bytes = b"EVALSHA",
    ) -> None:
        name = PUBLISH.sha if command == b"EVALSHA" else PUBLISH.text
        replies: list[Any] = []
        data = b"".join([pack(command, name, *arguments) for _, arguments in calls])
        try:
            cancelled = await self._link.exchange(data, len(calls), replies, timeout, to_the_end=True)
        except Cut as cut:
            cancelled = cut.cancelled
            for items, _ in calls[len(replies) :]:
                _fail_all(items, cut.error, sent=cut.sent)
        if cancelled is not None:
            calls[0][0][0][0].cancelled = cancelled
        again: list[tuple[list[_Item], list[Argument]]] = []
        for (items, arguments), reply in zip(calls, replies, strict=False):
            if isinstance(reply, redis_errors.NoScriptError):
                again.append((items, arguments))
            else:
                self._told(items, reply)
        if again:
            await self._scripts(again, timeout, b"EVAL")

    def _told(self, items: list[_Item], reply: Any) -> None:
        if isinstance(reply, Exception):
            _fail_all(items, reply, sent=False)
            return
        failed: list[tuple[int, bytes]] = reply
        for number, text in failed:
            call, message = items[number]
            call.fail(message, redis_errors.ResponseError(text.decode(errors="backslashreplace")), sent=False)
        self._noticed(items[0][1].topic, len(items))


def is_small(messages: Sequence[Outgoing]) -> bool:
    """Whether one exchange takes all, and never waits until the socket takes more."""
    return len(messages) <= 100 and sum([len(message.structured) for message in messages]) < SMALL


def _batches(items: list[_Item]) -> Iterable[list[_Item]]:
    if len(items) == 1:
        return [items]
    batches: list[list[_Item]] = [[]]
    size = 0
    for item in items:
        size += len(item[1].structured)
        if batches[-1] and (len(batches[-1]) >= MAX_MESSAGES or size > MAX_BYTES):
            batches.append([])
            size = len(item[1].structured)
        batches[-1].append(item)
    return batches


def _fail_all(items: Iterable[_Item], cause: BaseException, *, sent: bool) -> None:
    for call, message in items:
        call.fail(message, cause, sent=sent)
