"""Timeouts of calls that seldom take that long: a timer of the event loop for each would cost more than all else."""

import asyncio
from collections.abc import Callable
from contextvars import Context, copy_context

_LATE = 0.1
"""Seconds that a timer is late only if the loop stood still: what has come meanwhile gets so long to be read."""


class Timeouts:
    """Timeouts in one event loop, all with one timer. For plugins too."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[Callable[[], object], tuple[float, Context]] = {}
        self._due = 0.0
        self._stood_still = False
        self._timer: asyncio.TimerHandle | None = None

    def start(self, seconds: float, expire: Callable[[], object]) -> None:
        """Call ``expire`` after this many seconds, in the present context, unless it is stopped before.

        If the event loop stood still, answers that have come meanwhile are read first.
        """
        due = self._loop.time() + seconds
        self._waiting[expire] = due, copy_context()
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
        self._stood_still = not self._stood_still and now - self._due > _LATE
        if self._stood_still:
            self._set_timer(now + _LATE)
            return
        expired = [expire for expire, (due, _) in self._waiting.items() if due <= now]
        contexts = [self._waiting.pop(expire)[1] for expire in expired]
        if self._waiting:
            self._set_timer(min(due for due, _ in self._waiting.values()))
        for expire, context in zip(expired, contexts, strict=True):
            context.run(expire)  # at once: a call that ends in between must not be cancelled
