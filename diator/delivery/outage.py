"""Outages of the broker: ridden out with capped backoff, and said once per change of state."""

import asyncio
import logging
from contextlib import suppress
from random import uniform

logger = logging.getLogger("diator")

_FIRST, _LONGEST = 0.1, 5.0
"""Seconds between tries."""


class Outage:
    """What a worker knows of its broker: there, or away since when."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._told: str | None = None

    @property
    def is_on(self) -> bool:
        """Whether the broker is away."""
        return self._since is not None

    def down(self, what: str, error: BaseException) -> None:
        """Note that something has failed; said where the broker was there, or the reason is another one."""
        reason = f"{type(error).__name__}: {error}"
        if self._since is None:
            self._since = asyncio.get_running_loop().time()
        if self._told != reason:
            self._told = reason
            logger.warning(
                "the broker can't %s (%s); trying again until it can, nothing is lost meanwhile", what, reason
            )

    def up(self) -> None:
        """Note that something has worked."""
        if self._since is not None:
            seconds = asyncio.get_running_loop().time() - self._since
            self._since = self._told = None
            logger.warning("the broker is back after %.1f s", seconds)


class Backoff:
    """Waits between the tries of one thing: 0.1 s at first, twice as long each time, at most 5 s."""

    def __init__(self) -> None:
        self._next = _FIRST

    @property
    def was_used(self) -> bool:
        """Whether there was a failure since the last success."""
        return self._next != _FIRST

    async def wait(self, stopping: asyncio.Event | None = None) -> None:
        """Sleep before the next try, or until ``stopping`` is set."""
        seconds = self._next * uniform(0.8, 1.2)  # noqa: S311 - spreads load, hides nothing
        self._next = min(self._next * 2, _LONGEST)
        if stopping is None:
            await asyncio.sleep(seconds)
            return
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stopping.wait(), seconds)

    def reset(self) -> None:
        """Start anew after a success."""
        self._next = _FIRST
