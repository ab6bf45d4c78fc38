"""Publishing: messages that are published during an exchange with the server are sent together in the next one.

Each call gets the outcome of its own messages only. The server replies to each command, so it is known which messages
were not stored, unless the reply is lost.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from redis import exceptions as redis_errors

from diator.brokers.envelope import OutgoingMessage
from diator.errors import BrokerUnavailableError, NotPublishedError
from diator_redis._client import Client, Lost
from diator_redis._errors import translate
from diator_redis._scripts import Command

MAX_MESSAGES = 500
MAX_BYTES = 4_000_000
"""Limits of one exchange; a single message may be larger."""

Commands = Callable[[Sequence[OutgoingMessage]], Iterable[tuple[Sequence[int], Command]]]
"""Returns commands that store messages, each with the positions of its messages."""


class Publisher:
    """Sends the messages of all callers, one exchange after another."""

    def __init__(self, client: Client, commands: Commands) -> None:
        self._client, self._commands = client, commands
        self._waiting: deque[_Call] = deque()
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    async def publish(self, messages: Sequence[OutgoingMessage], timeout: float) -> None:
        """Store messages within ``timeout`` seconds. Raises `~diator.NotPublishedError`."""
        if self._is_closed:
            raise NotPublishedError(messages) from BrokerUnavailableError("the broker was closed")
        call = _Call(messages)
        self._waiting.append(call)
        loop = asyncio.get_running_loop()
        self._task = self._task or loop.create_task(self._drain())
        alarm = loop.call_later(timeout, call.give_up)
        try:
            await call.done
        finally:
            alarm.cancel()
        if call.cause is not None:
            failure = translate(call.cause)
            if failure is not call.cause:
                failure.__cause__ = call.cause
            raise NotPublishedError(call.unsent, call.unknown) from failure

    async def aclose(self) -> None:
        """Reject messages that were not sent yet, and wait for the current exchange."""
        self._is_closed = True
        for call in self._waiting:
            call.give_up(BrokerUnavailableError("the broker was closed"))
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _drain(self) -> None:
        try:
            while calls := list(self._next_calls()):
                try:
                    for batch in _batches([(call, message) for call in calls for message in call.messages]):
                        await self._send(batch)
                except Exception as error:  # noqa: BLE001 - raised to the callers
                    for call in calls:
                        call.give_up(error)
                for call in calls:
                    call.end()
                await asyncio.sleep(0)  # a caller whose call has just returned often publishes again
        finally:
            self._task = None

    def _next_calls(self) -> Iterator["_Call"]:
        room = MAX_MESSAGES
        while self._waiting and room > 0:
            call = self._waiting.popleft()
            if not call.done.done():
                call.is_started = True
                room -= len(call.messages)
                yield call

    async def _send(self, batch: Sequence["_Item"]) -> None:
        # Messages behind a failed one of the same call are not sent: they would overtake it.
        for call, message in batch:
            if call.cause is not None:
                call.fail(message, call.cause, sent=False)
        batch = [item for item in batch if item[0].cause is None]
        commands = list(self._commands([message for _, message in batch]))
        replies = await self._client.send(*(command for _, command in commands)) if commands else []
        for (locations, _), reply in zip(commands, replies, strict=True):
            for number, error, sent in _failures(reply, len(locations)):
                call, message = batch[locations[number]]
                call.fail(message, error, sent=sent)


class _Call:
    """The messages of one caller, and their outcomes."""

    __slots__ = ("cause", "done", "is_started", "messages", "unknown", "unsent")

    def __init__(self, messages: Sequence[OutgoingMessage]) -> None:
        self.messages = messages
        self.unsent: list[OutgoingMessage] = []
        self.unknown: list[OutgoingMessage] = []
        self.cause: BaseException | None = None
        self.is_started = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(self, message: OutgoingMessage, cause: BaseException, *, sent: bool) -> None:
        if not self.done.done():
            (self.unknown if sent else self.unsent).append(message)
            self.cause = self.cause or cause

    def give_up(self, cause: BaseException | None = None) -> None:
        """End the call now, by default because of its timeout; what happens to the messages later is ignored."""
        cause = cause or redis_errors.TimeoutError("not published in time")
        known = {*map(id, self.unsent), *map(id, self.unknown)}
        for message in self.messages:
            if id(message) not in known:
                self.fail(message, cause, sent=self.is_started)
        self.end()

    def end(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


_Item = tuple[_Call, OutgoingMessage]


def _failures(reply: Any, count: int) -> Iterator[tuple[int, BaseException, bool]]:
    """Yield the position of each message of a command that failed, its error, and whether it may have been stored."""
    if isinstance(reply, Exception):
        error, sent = (reply.error, reply.sent) if isinstance(reply, Lost) else (reply, False)
        yield from ((number, error, sent) for number in range(count))
    elif not isinstance(reply, (bytes, int)):  # a script returns the failed messages, each with its error
        for number, text in reply:
            yield number, redis_errors.ResponseError(text.decode(errors="backslashreplace")), False


def _batches(items: Sequence[_Item]) -> Iterator[list[_Item]]:
    batch: list[_Item] = []
    size = 0
    for item in items:
        size += len(item[1].structured)
        if batch and (len(batch) >= MAX_MESSAGES or size > MAX_BYTES):
            yield batch
            batch, size = [], len(item[1].structured)
        batch.append(item)
    yield batch
