"""Shielding: work that runs to its end in the task of its caller, even if that task is cancelled repeatedly."""

import asyncio
import types
from collections.abc import Awaitable, Callable, Generator
from contextvars import ContextVar
from functools import partial
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
                yield from _driven(steps, waits_for, partial(_wait, shield=self))
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


class _Wait(asyncio.Future[None]):
    """The future that the task waits for instead of the coroutine's own: ``task.cancel()`` cancels this one."""

    def __init__(self, inner: "asyncio.Future[Any]", shield: Shield) -> None:
        super().__init__(loop=inner.get_loop())
        self._inner = inner
        self._shield = shield
        inner.add_done_callback(self._wake)

    def _wake(self, _: "asyncio.Future[Any]") -> None:
        if not self.done():
            self.set_result(None)

    def cancel(self, msg: Any = None) -> bool:
        """Called in the context of the caller of ``task.cancel()``; True means that there is nothing more to do."""
        return self._shield.keeps(msg) or self._inner.cancel(msg)


_ENDED: Any = object()
"""What `next` gives where there is nothing more to wait for. ``Any``: it stands for a future."""


async def _keeping(work: Awaitable[T], result: list[T]) -> None:
    result.append(await work)


@types.coroutine
def awaited(work: Awaitable[object], on_wait: Callable[[], None], /) -> Generator[Any, Any, None]:
    """Await something, and call ``on_wait`` when it first has to wait: what seldom waits then costs nothing more."""
    steps = work.__await__()
    waits_for = next(steps, _ENDED)
    if waits_for is not _ENDED:
        on_wait()
        yield from _driven(steps, waits_for, _plainly)


def _plainly(waits_for: Any) -> Generator[Any, Any, None]:
    yield waits_for


def _driven(
    steps: Generator[Any, Any, Any], waits_for: Any, wait: Callable[[Any], Generator[Any, Any, None]]
) -> Generator[Any, Any, None]:
    """Drive a coroutine that has begun to wait as a task does, but have the task wait in another way."""
    while waits_for is not _ENDED:
        try:
            yield from wait(waits_for)
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
        yield from _Wait(inner, shield)
        inner.result()
    elif getattr(waits_for, "_asyncio_future_blocking", None):
        waits_for._asyncio_future_blocking = False  # as a task does: the future was awaited, not just yielded
        yield from _Wait(waits_for, shield)
    else:
        yield waits_for  # the task says what is wrong with it


def _finish(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
