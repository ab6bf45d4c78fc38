"""An event loop whose time passes at once: where all tasks wait, the clock jumps to the next timer."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any

_TICK = 0.0001
"""Seconds that a turn of the loop takes, so that time limits end what goes round in circles."""


class _Selector(selectors.SelectSelector):
    """Jumps instead of waiting. Only for tests that wait for nothing but timers."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("all tasks wait for ever")
        self.now += max(timeout, _TICK)
        return super().select(0)


class SwiftLoop(asyncio.SelectorEventLoop):
    """Passes time at once."""

    def __init__(self) -> None:
        self._jumps = _Selector()
        super().__init__(self._jumps)

    def time(self) -> float:
        return self._jumps.now


def run_swiftly(main: Coroutine[Any, Any, None]) -> None:
    """Run this in a loop whose time passes at once, as `asyncio.run` would."""
    loop = SwiftLoop()
    try:
        loop.run_until_complete(main)
    finally:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
