"""Outages of the broker: ridden out with capped backoff, and said once per change of state."""

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from random import uniform
from typing import Any, TypeVar

from diator.delivery.error_texts import described
from diator.errors import BrokerError, BrokerUnavailableError

T = TypeVar("T")

logger = logging.getLogger("diator")

_FIRST, _LONGEST = 0.1, 5.0
"""Seconds between tries."""
CREATE = "create subscriptions"
"""What fails before a worker has subscriptions; see `Creation`."""
OUT_OF_NOWHERE = "a call was cancelled, and nobody here has asked for that"
"""What is said of a driver that raises a cancel of its own."""
_ALL_BACK = 2 * _LONGEST
"""Seconds in which all that was tried should work again when a broker is back."""
_MOST_REASONS = 10
"""How many reasons are told in one outage; there are errors that say something else each time."""


class Outage:
    """What a worker knows of its broker: all works, or what fails since when.

    It lasts while anything that has failed has not worked since, so that what still works does not belie it. ``lossy``
    is a broker that delivers at most once.
    """

    def __init__(self, *, lossy: bool = False) -> None:
        self._lossy = lossy
        self._since = 0.0
        self._broken: dict[tuple[str, str], str] = {}
        """The reason, by what fails for whom."""
        self._told: set[str] = set()
        self._away = False
        """Whether any of it is a broker that can't be reached, and nothing that it refuses."""
        self._recovered: set[str] = set()
        """For whom all works again, since that was told last."""
        self._telling: asyncio.TimerHandle | None = None

    @property
    def is_on(self) -> bool:
        """Whether anything fails."""
        return bool(self._broken)

    def has(self, what: str, who: str) -> bool:
        """Whether this has failed, and has not worked since."""
        return (what, who) in self._broken

    def troubles(self, who: str) -> list[str]:
        """What fails for somebody, in words."""
        return [_in_words(what, who, reason) for (what, other), reason in self._broken.items() if other == who]

    def down(self, what: str, who: str, error: BaseException) -> None:
        """Note that something has failed; said where all was well before, or the reason is another one."""
        reason = described(error)
        refused = not isinstance(error, BrokerUnavailableError)
        if not self._broken:
            self._since = asyncio.get_running_loop().time()
        self._away = self._away or not refused
        self._broken[what, who] = reason
        if reason not in self._told and len(self._told) < _MOST_REASONS:
            self._told.add(reason)
            text = f"{_in_words(what, who, reason)}; trying again until it can"
            if refused:  # such as a queue that is gone, which gets nothing of what is published
                logger.error("%s", text, exc_info=None if isinstance(error, BrokerError) else error)
            else:
                logger.warning("%s; %s", text, self._meanwhile)

    @property
    def _meanwhile(self) -> str:
        """What happens to messages, as far as known here: a server may lose stored messages."""
        if self._lossy:
            return "events published until then may be lost"
        if any(what == CREATE for what, _ in self._broken):
            return (
                "events that this process publishes wait until they exist; events that other processes publish before "
                "are not delivered to new ones"
            )
        return "messages that the broker keeps are handled after it recovers"

    def up(self, what: str, who: str) -> None:
        """Note that something has worked."""
        if (what, who) not in self._broken:
            return
        away, seconds = self._away, asyncio.get_running_loop().time() - self._since
        self.forget(what, who)
        if self._broken:
            self._has_recovered(who)
        elif away:
            logger.warning("the broker is back after %.1f s", seconds)
        else:
            logger.warning("%s works again after %.1f s", who, seconds)

    def forget(self, what: str, who: str) -> None:
        """Note that nobody tries this any more."""
        self._broken.pop((what, who), None)
        if not self._broken:
            self._told.clear()
            self._recovered.clear()
            self._away = False
            if self._telling is not None:
                self._telling.cancel()
                self._telling = None

    def forget_all(self, who: str) -> None:
        """Note that somebody tries nothing of what has failed any more."""
        for what, other in tuple(self._broken):
            if other == who:
                self.forget(what, who)

    def _has_recovered(self, who: str) -> None:
        """Tell in a while for whom the broker works again, unless it works for all by then."""
        self._recovered.add(who)
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(_ALL_BACK, self._tell_recovered)

    def _tell_recovered(self) -> None:
        self._telling = None
        well = sorted(self._recovered - {who for _, who in self._broken})
        self._recovered.clear()
        if well:
            left = "; ".join(_in_words(what, who, reason) for (what, who), reason in self._broken.items())
            logger.warning("the broker works again for %s; still %s", ", ".join(well), left)


def _in_words(what: str, who: str, reason: str) -> str:
    return f"the broker can't {what} for {who} ({reason})"


class Backoff:
    """Waits between the attempts of one operation: 0.1 s at first, doubled each time, at most ``longest``."""

    def __init__(self, longest: float = _LONGEST) -> None:
        self._next, self._longest = _FIRST, longest

    async def wait(self, stopping: asyncio.Event | None = None) -> None:
        """Sleep before the next try, or until ``stopping`` is set."""
        seconds = self._next * uniform(0.8, 1.2)  # noqa: S311 - spreads load, hides nothing
        self._next = min(self._next * 2, self._longest)
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
