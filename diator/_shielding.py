"""Shielding: work that runs to its end in the task of its caller, even if that task is cancelled repeatedly."""

import asyncio
import types
from collections.abc import Awaitable, Generator
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")


async def shielded(work: Awaitable[T], failure: BaseException | None = None, /) -> T:
    """Await work to its end; a cancellation that arrives before is raised afterwards, with any failure as its cause.

    It runs in the caller's task, and code inside it may still cancel it, such as a timeout around one of its awaits.
    ``failure`` is an earlier error; if this is a cancellation, it may be repeated.

    For plugins: ``publish`` of a broker must not be interrupted half-way.
    """
    shield = Shield(failure)
    result = await shield.run(work)
    if shield.cancelled is not None:
        raise shield.cancelled
    return result


class Shield:
    """Awaits something to its end and keeps a cancel for later, for callers that have more to do before raising it.

    A cancel comes from inside, and is passed on, if ``task.cancel()`` is called in a context that descends from the one
    inside, as in the timers and tasks that were started there. Every other one comes from outside and is kept, also if
    it is repeated at each await, as the cancel scopes of anyio do.
    """

    __slots__ = ("_early", "_messages", "_outer", "cancelled")

    def __init__(self, failure: BaseException | None = None) -> None:
        self._messages: tuple[object, ...] = ()
        """Messages of cancels from outside: an anyio scope that ends inside the coroutine repeats the outer cancel."""
        self._early = False
        """Whether the task was cancelled before the coroutine had to wait."""
        self._outer: Shield | None = None
        self.cancelled: asyncio.CancelledError | None = None
        """What to raise for the cancels from outside."""
        if failure is not None and issubclass(type(failure), asyncio.CancelledError):
            self._messages = failure.args

    async def run(self, work: Awaitable[T], /) -> T:
        """Await something to its end. If it fails, a pending cancel is raised from that error."""
        result: list[T] = []
        await self.close(_keeping(work, result))
        return result[0]

    @types.coroutine
    def close(self, work: Awaitable[object], /) -> Generator[Any, Any, None]:
        """Do what `run` does, for work without a result that seldom has to wait."""
        self._outer = _current.get()
        _current.set(self)
        try:
            steps = work.__await__()
            waits_for = next(steps, _ENDED)  # an ``except StopIteration`` would cost as much as all else here
            if waits_for is not _ENDED:
                self.begin_to_wait()
                yield from _driven(steps, waits_for, self)
        except BaseException as failure:
            if self.cancelled is None:
                raise
            raise self.cancelled from failure
        finally:
            _current.set(self._outer)  # not with a token: an abandoned coroutine is closed in any context

    def begin_to_wait(self) -> None:
        """Take a cancel that the task has not yet delivered for one from outside."""
        self._early = getattr(asyncio.current_task(), "_must_cancel", False)

    def keeps(self, message: object) -> bool:
        """Keep a cancel if it comes from outside, and return whether it does."""
        if self._early:
            self._early = False
        elif self._is_around() and message not in self._messages:
            return False
        if message is not None and message not in self._messages:
            self._messages = (*self._messages, message)
        if self.cancelled is None or self.cancelled.args:  # one of asyncio, without a message, outweighs those of anyio
            self.cancelled = asyncio.CancelledError(*() if message is None else (message,))
        return True

    def _is_around(self) -> bool:
        shield = _current.get()
        while shield is not None and shield is not self:
            shield = shield._outer
        return shield is self


_current: ContextVar[Shield | None] = ContextVar("diator.shield", default=None)


class _Wait:
    """What the task waits for instead of the coroutine's own future: ``task.cancel()`` cancels this one.

    It has what a task calls of a future and no more: a real one would take two turns of the loop and much more time.
    """

    __slots__ = ("_asyncio_future_blocking", "_inner", "_shield", "add_done_callback", "get_loop")

    def __init__(self, inner: "asyncio.Future[Any]", shield: Shield) -> None:
        self._asyncio_future_blocking = True  # as a task wants it of what is awaited, not just yielded
        self._inner, self._shield = inner, shield
        self.get_loop, self.add_done_callback = inner.get_loop, inner.add_done_callback

    def cancel(self, msg: Any = None) -> bool:
        """Called in the context of the caller of ``task.cancel()``; True means that there is nothing more to do."""
        return self._shield.keeps(msg) or self._inner.cancel(msg)

    def __repr__(self) -> str:  # shown of a task that hangs
        return repr(self._inner)


_ENDED: Any = object()
"""What `next` gives where there is nothing more to wait for. ``Any``: it stands for a future."""


async def _keeping(work: Awaitable[T], result: list[T]) -> None:
    result.append(await work)


def _driven(steps: Generator[Any, Any, Any], waits_for: Any, shield: Shield) -> Generator[Any, Any, None]:
    """Drive a coroutine that has begun to wait as a task does, but have the task wait for futures of ours."""
    while waits_for is not _ENDED:
        try:
            yield from _wait(waits_for, shield)
        except GeneratorExit:
            steps.close()
            raise
        except BaseException as error:  # noqa: BLE001 - also a cancel from inside is for the coroutine
            try:
                waits_for = steps.throw(error)
            except StopIteration:
                return
        else:
            waits_for = next(steps, _ENDED)


def _wait(waits_for: Any, shield: Shield) -> Generator[Any, Any, None]:
    if waits_for is None:  # asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        inner: asyncio.Future[None] = loop.create_future()
        loop.call_soon(_finish, inner)
        yield _Wait(inner, shield)
    elif getattr(waits_for, "_asyncio_future_blocking", None):
        waits_for._asyncio_future_blocking = False  # as a task does: the future was awaited, not just yielded
        yield _Wait(waits_for, shield)
    else:
        yield waits_for  # the task says what is wrong with it


def _finish(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
