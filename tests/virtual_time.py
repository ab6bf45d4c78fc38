"""An event loop whose time is virtual: it jumps to the next timer when there is nothing to do, so nothing sleeps."""

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

_BUSY = 200_000
"""Turns of the loop without any progress of time: something goes round and round."""
_LONG = 1_000_000.0
"""Seconds of virtual time after which what a test waits for will not come, though timers go on."""


class _Selector(selectors.DefaultSelector):
    now = 0.0
    turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if ready or timeout == 0:
            self.turns += 1
            if self.turns > _BUSY:
                raise RuntimeError(f"the event loop turned {_BUSY:,} times at second {self.now:g}: a hot loop")
            return ready
        self.turns = 0
        if timeout is None:
            raise RuntimeError("everything waits for ever: there is nothing to do, and no timer")
        self.now += timeout
        if self.now > _LONG:
            raise RuntimeError(
                f"{_LONG:,.0f} s have passed in virtual time: something is waited for that does not come"
            )
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its clock begins at 1000 and moves only while everything waits. What it is told of by ``call_exception_handler``
    is kept in ``complaints``."""

    def __init__(self) -> None:
        self.selector = _Selector()
        super().__init__(self.selector)
        self.complaints: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.complaints.append(context))

    def time(self) -> float:
        return 1000.0 + self.selector.now


def run(main: Coroutine[Any, Any, T]) -> T:
    """Do what ``asyncio.run`` does, in virtual time. Nothing may be left over, and nothing may go unnoticed."""
    loop = VirtualLoop()
    try:
        asyncio.set_event_loop(loop)
        try:
            result = loop.run_until_complete(main)
            left = asyncio.all_tasks(loop)
            assert not left, f"still running at the end: {left}"
        finally:
            _end(loop)
        assert not loop.complaints, loop.complaints
        return result
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def _end(loop: VirtualLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Make a test of a coroutine function that runs in virtual time."""

    @functools.wraps(test)
    def play(*args: P.args, **kwargs: P.kwargs) -> None:
        run(test(*args, **kwargs))

    return play
