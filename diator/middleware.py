"""Middlewares: the interface, and the built-in ones.

A middleware is an async callable with a message and ``call_next`` as parameters::

    @app.middleware
    async def announce(message: Command[Any], call_next: CallNext) -> Any:
        print("before", message)
        return await call_next(message)

The type hint of its first parameter selects the messages that it wraps: ``Message``, ``Command[Any]``, ``Query[Any]``,
an event or one class. Its other parameters are dependencies, like those of a handler.
"""

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable
from functools import partial
from typing import Any, Protocol

from typing_extensions import TypeVar

from diator._rows import WrappedRows
from diator.messages import ECSTEvent, Message, NotificationEvent, Query, Request
from diator.options import FLAG, POSITIVE, Rule, are_errors, is_a, is_whole, optional, require

# Any: a middleware wraps messages of many types, whose results have nothing in common, unless it says otherwise.
M_contra = TypeVar("M_contra", contravariant=True, default=Any)
R_co = TypeVar("R_co", covariant=True, default=Any)


class CallNext(Protocol[M_contra, R_co]):
    """The next step, which a middleware calls; ``CallNext[FindMeeting, Meeting]`` types it for one message."""

    def __call__(self, message: M_contra, /) -> Awaitable[R_co]:
        """Continue with this message, or with another one of the same class."""
        ...


class LoggingMiddleware:
    """Logs each command, query and brokered event, with its name, outcome and duration.

    Success is logged at ``level``, an error as an error, and a cancellation as a warning. Errors of the ``expected``
    classes, such as ``SeatTaken``, are part of the domain, so they are logged at ``level``. The log record has the
    extras ``diator_message_type`` (the class of the message), ``diator_outcome`` (``handled``, ``failed`` or
    ``cancelled``), ``diator_duration_seconds`` and, after a failure, ``diator_error_type`` (the class of the error).
    Fields of messages and texts of errors may contain secrets, so they are logged only with ``payload=True``. Register
    this middleware first, so that it also sees errors of closing the scope.

    A stream is logged when its rows end, with the time until then: as ``handled``, ``failed`` or ``cancelled``, or as
    ``left early`` if its block ends before its rows. It does not see errors of closing after the rows.
    """

    def __init__(
        self,
        logger: logging.Logger | None = None,
        *,
        level: int = logging.INFO,
        payload: bool = False,
        expected: type[BaseException] | tuple[type[BaseException], ...] = (),
    ) -> None:
        given = {"logger": logger, "level": level, "payload": payload, "expected": expected}
        require("LoggingMiddleware", _LOGGING, given)
        self._logger = logger or logging.getLogger("diator")
        self._level = level
        self._payload = payload
        self._expected = expected

    async def __call__(self, message: Request[Any] | NotificationEvent | ECSTEvent, call_next: CallNext) -> Any:
        """Wrap one command or query, or one run of a handler of a brokered event."""
        start = time.perf_counter()
        try:
            result = await call_next(message)
        except BaseException as error:
            self._ended(message, start, error)
            raise
        if isinstance(message, Query) and hasattr(result, "__anext__"):
            return WrappedRows(result, ended=partial(self._ended, message, start))
        self._ended(message, start, None)
        return result

    def _ended(self, message: Message, start: float, error: BaseException | None, *, left: bool = False) -> None:
        if issubclass(type(error), asyncio.CancelledError):
            self._log(logging.WARNING, "cancelled", message, start, error)
        elif error is not None:
            level = self._level if issubclass(type(error), self._expected) else logging.ERROR
            self._log(level, "failed", message, start, error)
        else:
            self._log(self._level, "left early" if left else "handled", message, start)

    def _log(
        self, level: int, outcome: str, message: Message, start: float, error: BaseException | None = None
    ) -> None:
        seconds = time.perf_counter() - start
        name = type(message).__qualname__
        extra: dict[str, object] = {
            "diator_message_type": name,
            "diator_outcome": outcome,
            "diator_duration_seconds": seconds,
        }
        text = "%r %s after %.1f ms" if self._payload else "%s %s after %.1f ms"
        values: list[object] = [message if self._payload else name, outcome, seconds * 1000]
        if error is not None:
            extra["diator_error_type"] = type(error).__qualname__
            text += ": %r" if self._payload else ": %s"
            values.append(error if self._payload else type(error).__qualname__)
        self._logger.log(level, text, *values, extra=extra)


def _are_errors(value: object) -> bool:
    return are_errors(value) or are_errors((value,))


_LOGGING = {
    "logger": optional(Rule(is_a(logging.Logger, logging.LoggerAdapter), "a logger")),
    "level": Rule(is_whole, "a level such as logging.INFO"),
    "payload": FLAG,
    "expected": Rule(_are_errors, "a class of errors, or a tuple of them"),
}


class TimeoutMiddleware:
    """Cancels commands and queries after ``seconds``, closes their unit of work and raises `TimeoutError`.

    For a stream, the time runs from its opening to its last row. The timeout takes effect while a row is awaited or
    when the next one is requested; code in the block is not cancelled.

    It wraps every command and query. For a single handler, use ``@app.command(timeout=...)``.
    """

    def __init__(self, seconds: float) -> None:
        require("TimeoutMiddleware", {"seconds": POSITIVE}, {"seconds": seconds})
        self.seconds = seconds

    async def __call__(self, message: Request[Any], call_next: CallNext) -> Any:
        """Wrap one command or query."""
        ends = time.monotonic() + self.seconds
        result = await self._within(self.seconds, message, call_next(message))
        if isinstance(message, Query) and hasattr(result, "__anext__"):
            return WrappedRows(result, lambda row: self._within(ends - time.monotonic(), message, row()))
        return result

    async def _within(self, seconds: float, message: Request[Any], call: Awaitable[Any]) -> Any:
        try:
            return await _limited(seconds, call)
        except _ExpiredError as error:
            name = type(message).__qualname__
            raise TimeoutError(f"{name} was cancelled: it took longer than {self.seconds} s") from error.__cause__


class _ExpiredError(Exception):
    """The time is up; what was called may raise a `TimeoutError` of its own."""


if sys.version_info >= (3, 11):

    async def _limited(seconds: float, call: Awaitable[Any]) -> Any:
        deadline = asyncio.timeout(seconds)
        try:
            async with deadline:
                return await call
        except TimeoutError as error:
            if deadline.expired():
                raise _ExpiredError from error
            raise

else:

    async def _awaited(call: Awaitable[Any]) -> Any:
        return await call

    async def _limited(seconds: float, call: Awaitable[Any]) -> Any:
        """Do the same in a task of its own: on 3.10 a task can't tell our cancel from one that comes with it."""
        task, cancelled = asyncio.ensure_future(_awaited(call)), None
        try:
            await asyncio.wait({task}, timeout=seconds)
        except asyncio.CancelledError as error:
            cancelled = error
        expired = not task.done() and cancelled is None
        while not task.done():
            task.cancel()
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
        if expired and task.cancelled():
            raise _ExpiredError
        return task.result()
