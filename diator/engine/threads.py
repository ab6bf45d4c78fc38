"""Sync handlers: what they return, and how they run in a thread."""

import asyncio
import sys
import threading
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor


async def finished(result: Any) -> Any:
    """The result of a sync handler, awaited if need be: a sync wrapper around an async handler gives a coroutine."""
    return await result if is_awaitable(result) else result


def is_awaitable(thing: object) -> bool:
    """Whether something can be awaited, by its class: an object may answer to any name."""
    return hasattr(type(thing), "__await__")


class Threads:
    """The threads of one app that run its sync handlers.

    A handler takes one that is free, or a new one. So none waits: waiting would take of its time, and one that has
    another request sent, and blocks meanwhile, would keep that from running. What limits their number is what limits
    the handlers that run at once, such as ``concurrency``. They end with the app.
    """

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None
        self._busy = 0
        self._all_done: asyncio.Future[None] | None = None

    async def run(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Run a sync handler in a thread.

        A cancellation calls it off if it has not begun, and waits for it if it has: a thread can't be stopped, and the
        scope that it uses must not close under it.
        """
        job = _Job(function, arguments)
        future = self._begin(job)
        try:
            return await finished(await asyncio.shield(future))
        except asyncio.CancelledError as cancelled:
            if not job.call_off():
                await _done(future)
            error = future.exception() if future.done() and not future.cancelled() else None
            if error is cancelled:  # the handler has raised it
                raise
            raise cancelled from error
        finally:
            del future  # its error would hold this frame, and this frame its error

    async def stop(self) -> None:
        """Wait for what runs, and end the threads; another call of `run` starts new ones."""
        try:
            while self._busy:
                self._all_done = asyncio.get_running_loop().create_future()
                await self._all_done
        finally:
            executor, self._executor = self._executor, None
            if executor is not None:
                executor.shutdown(wait=not self._busy)  # without delay where none is busy

    def _begin(self, job: "_Job") -> "asyncio.Future[Any]":
        if self._executor is None:
            from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - slow to import, and seldom needed

            self._executor = ThreadPoolExecutor(_NO_LIMIT, "diator")
        try:
            future = asyncio.get_running_loop().run_in_executor(self._executor, job)
        except RuntimeError as error:
            job.call_off()  # the executor keeps it, though it could not start a thread
            text = f"no thread could be started for the handler ({self._busy} running): {error}"
            raise RuntimeError(f"{text}; limit how many handlers run at a time, such as with concurrency=") from error
        self._busy += 1
        future.add_done_callback(self._has_ended)
        return future

    def _has_ended(self, _: "asyncio.Future[Any]") -> None:
        self._busy -= 1
        if not self._busy and self._all_done is not None and not self._all_done.done():
            self._all_done.set_result(None)


_NO_LIMIT = sys.maxsize


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
