"""Timeouts of calls that seldom take that long: a timer of the event loop for each would cost more than all else."""

import asyncio
from collections.abc import Callable
from contextvars import Context, copy_context

_LATE = 0.01
"""Seconds by which a timer is late only if the loop was busy or the process stood still."""
_SECOND_LOOK = 0.1
"""Seconds in which what came meanwhile is read, before anything expires."""


class Timeouts:
    """Timeouts in one event loop, all with one timer. For plugins too."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[Callable[[], object], tuple[float, Context, bool]] = {}
        """When each is due, its context, and whether it had its second look."""
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self, seconds: float, expire: Callable[[], object]) -> None:
        """Call ``expire`` after this many seconds, in the present context, unless it is stopped before.

        If the event loop stood still, answers that have come meanwhile are read first.
        """
        due = self._loop.time() + seconds
        self._waiting[expire] = due, copy_context(), False
        if self._timer is None or due < self._due:
            self._set_timer(due)

    def stop(self, expire: Callable[[], object]) -> None:
        """Forget a timeout, which may have expired."""
        self._waiting.pop(expire, None)

    def _set_timer(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = self._loop.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = max(self._due, self._loop.time())  # the loop may be a little early
        is_late = now - self._due > _LATE
        expired = list[tuple[Callable[[], object], Context]]()
        for expire, (due, context, looked) in list(self._waiting.items()):
            if due <= now and is_late and not looked:
                self._waiting[expire] = now + _SECOND_LOOK, context, True
            elif due <= now:
                del self._waiting[expire]
                expired.append((expire, context))
        if self._waiting:
            self._set_timer(min(due for due, _, _ in self._waiting.values()))
        for expire, context in expired:
            context.run(expire)  # at once: a call that ends in between must not be cancelled
