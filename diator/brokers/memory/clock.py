"""The clock of the broker, and one timer for everything that waits for a time."""

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count


class Clock:
    """The time of the event loop, in seconds. It stands still while the broker is closed, and goes on in any loop."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._offset = 0.0
        self._stopped_at = 0.0
        self._calls: list[tuple[float, int, Callable[[float], None]]] = []
        self._numbers = count()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Go on, by the loop that runs."""
        self._loop = asyncio.get_running_loop()
        self._offset = self._stopped_at - self._loop.time()
        self._set_timer()

    def stop(self) -> None:
        """Stand still."""
        self._stopped_at = self.now()
        self._loop = None
        self._set_timer()

    def now(self) -> float:
        """Return the time."""
        return self._stopped_at if self._loop is None else self._loop.time() + self._offset

    def call_at(self, when: float, callback: Callable[[float], None]) -> None:
        """Call back once with the time, when it is ``when`` or later."""
        heappush(self._calls, (when, next(self._numbers), callback))
        if self._calls[0][2] is callback:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = None if self._loop is None or not self._calls else self._calls[0][0] - self._offset
        self._timer = None if self._loop is None or due is None else self._loop.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        # The loop may fire a little early: without the maximum, nothing would be due, and the timer be set again.
        now = max(self._calls[0][0], self.now())
        while self._calls and self._calls[0][0] <= now:
            heappop(self._calls)[2](now)
        self._set_timer()
