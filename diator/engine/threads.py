"""Sync handlers: what they return, and how they run in a thread."""

import asyncio
import threading
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any


async def finished(result: Any) -> Any:
    """The result of a sync handler, awaited if need be: a sync wrapper around an async handler gives a coroutine."""
    return await result if is_awaitable(result) else result


def is_awaitable(thing: object) -> bool:
    """Whether something can be awaited, by its class: an object may answer to any name."""
    return hasattr(type(thing), "__await__")


async def in_thread(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Run a sync handler in a thread of the loop's executor.

    A cancellation calls it off if it has not begun, and waits for it if it has: a thread can't be stopped, and the
    scope that it uses must not close under it.
    """
    job = _Job(function, arguments)
    future = asyncio.get_running_loop().run_in_executor(None, job)
    try:
        return await finished(await asyncio.shield(future))
    except asyncio.CancelledError as cancelled:
        if not job.call_off():
            await _done(future)
        ended = future.done() and not future.cancelled()
        raise cancelled from (future.exception() if ended else None)
    finally:
        del future  # its error would hold this frame, and this frame its error


async def _done(future: "asyncio.Future[Any]") -> None:
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            continue


class _Job:
    """One call, which can be called off until it has begun."""

    __slots__ = ("_begun", "_call")

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._call = partial(copy_context().run, function, *arguments)
        self._begun = threading.Lock()

    def call_off(self) -> bool:
        """Keep it from beginning; false where it has begun."""
        return self._begun.acquire(blocking=False)

    def __call__(self) -> Any:
        if not self._begun.acquire(blocking=False):
            return None
        try:
            return self._call()
        except (StopIteration, GeneratorExit) as error:
            # A future can't hold the first, and the second would close the coroutines that await it, half-way.
            raise RuntimeError(f"the handler raised {type(error).__name__}") from error
