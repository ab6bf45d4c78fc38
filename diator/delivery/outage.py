"""Outages of the broker: ridden out with capped backoff, and said once per change of state."""

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from random import uniform
from typing import Any, TypeVar

from diator.errors import BrokerUnavailableError

T = TypeVar("T")

logger = logging.getLogger("diator")

_FIRST, _LONGEST = 0.1, 5.0
"""Seconds between tries."""
OUT_OF_NOWHERE = "a call was cancelled, and nobody here has asked for that"
"""What is said of a driver that raises a cancel of its own."""
_MOST_REASONS = 10
"""How many reasons are told in one outage; there are errors that say something else each time."""


class Outage:
    """What a worker knows of its broker: there, or away since when.

    It is away while anything that has failed has not worked since, so that what still works does not belie it.
    ``lossy`` is a broker that delivers at most once.
    """

    def __init__(self, *, lossy: bool = False) -> None:
        self._meanwhile = "what is published meanwhile may be lost" if lossy else "nothing is lost meanwhile"
        self._since = 0.0
        self._broken: set[tuple[str, str]] = set()
        self._told: set[str] = set()

    @property
    def is_on(self) -> bool:
        """Whether the broker is away."""
        return bool(self._broken)

    def has(self, what: str, who: str) -> bool:
        """Whether this has failed, and has not worked since."""
        return (what, who) in self._broken

    def down(self, what: str, who: str, error: BaseException) -> None:
        """Note that something has failed; said where all was well before, or the reason is another one."""
        reason = f"{type(error).__name__}: {error}"
        if not self._broken:
            self._since = asyncio.get_running_loop().time()
        self._broken.add((what, who))
        if reason not in self._told and len(self._told) < _MOST_REASONS:
            self._told.add(reason)
            text = "the broker can't %s for %s (%s); trying again until it can, %s"
            logger.warning(text, what, who, reason, self._meanwhile)

    def up(self, what: str, who: str) -> None:
        """Note that something has worked."""
        if (what, who) in self._broken:
            self.forget(what, who)
            if not self._broken:
                seconds = asyncio.get_running_loop().time() - self._since
                logger.warning("the broker is back after %.1f s", seconds)

    def forget(self, what: str, who: str) -> None:
        """Note that nobody tries this any more."""
        self._broken.discard((what, who))
        if not self._broken:
            self._told.clear()

    def forget_all(self, who: str) -> None:
        """Note that somebody tries nothing of what has failed any more."""
        for what, other in tuple(self._broken):
            if other == who:
                self.forget(what, who)


class Backoff:
    """Waits between the tries of one thing: 0.1 s at first, twice as long each time, at most 5 s."""

    def __init__(self) -> None:
        self._next = _FIRST

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


async def unless_stopped(work: Coroutine[Any, Any, T], stopping: asyncio.Event) -> T | None:
    """Await an answer of the broker; none where ``stopping`` is set before it has come, which may be never."""
    answering, waiting = asyncio.ensure_future(work), asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({answering, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if answering.cancelled():
            raise BrokerUnavailableError(OUT_OF_NOWHERE)
        return answering.result() if answering.done() else None
    finally:
        answering.cancel()
        waiting.cancel()
        await asyncio.wait({answering, waiting})
