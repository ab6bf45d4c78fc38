"""The time that the broker goes by, and one timer for many things to come."""

import asyncio
from collections.abc import Callable


class Clock:
    """The time of the event loop, in seconds. It stands still while the broker is closed, and goes on in any loop."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._offset = 0.0
        self._stopped_at = 0.0

    def start(self) -> None:
        """Go on, by the loop that runs."""
        self.loop = asyncio.get_running_loop()
        self._offset = self._stopped_at - self.loop.time()

    def stop(self) -> None:
        """Stand still."""
        self._stopped_at = self.now()
        self.loop = None

    def now(self) -> float:
        """Tell the time."""
        return self._stopped_at if self.loop is None else self.loop.time() + self._offset

    def call_at(self, when: float, callback: Callable[[], None]) -> asyncio.TimerHandle | None:
        """Have something called; nothing happens while the clock stands still."""
        return None if self.loop is None else self.loop.call_at(when - self._offset, callback)


class Alarm:
    """Rings at the earliest time that it was set to. It is told that time then, or the present one if it is late."""

    def __init__(self, clock: Clock, ring: Callable[[float], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._when = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def set(self, when: float) -> None:
        """Ring at this time too; cheap if it rings earlier anyway."""
        if self._timer is None or when < self._when:
            self.cancel()
            self._when = when
            self._timer = self._clock.call_at(when, self._fire)

    def cancel(self) -> None:
        """Do not ring."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        # The loop may fire a little early: without the maximum, nothing would be due, and the alarm be set again.
        self._ring(max(self._when, self._clock.now()))
