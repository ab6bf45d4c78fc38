"""The health of the broker as a worker sees it: outages are logged once, and each operation retried with a backoff."""

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

_MIN_DELAY, _MAX_DELAY = 0.1, 5.0
"""Seconds between tries."""
CREATE = "create subscriptions"
"""What fails before a worker has subscriptions; see `Creation`."""
UNEXPECTED_CANCEL = "a call was cancelled unexpectedly"
"""The reason reported for a driver that raises a cancel of its own."""
_ALL_BACK = 2 * _MAX_DELAY
"""Seconds in which all that was tried should work again when a broker is back."""
_MAX_REASONS = 10
"""How many reasons are told in one outage; there are errors that say something else each time."""


class OutageTracker:
    """Tracks which operations fail at the broker, and for which subject: a subscription, or the worker itself.

    An outage lasts until each operation that has failed has worked again, so that others that still work do not end
    it. ``at_most_once``: the broker delivers at most once.
    """

    def __init__(self, *, at_most_once: bool = False) -> None:
        self._at_most_once = at_most_once
        self._since = 0.0
        self._broken: dict[tuple[str, str], str] = {}
        """The reasons of failures, by operation and subject."""
        self._told: set[str] = set()
        self._away = False
        """Whether any of it is a broker that can't be reached, and nothing that it refuses."""
        self._recovered: set[str] = set()
        """For whom all works again, since that was told last."""
        self._recovery_timer: asyncio.TimerHandle | None = None

    @property
    def is_active(self) -> bool:
        """Whether anything fails."""
        return bool(self._broken)

    def is_failing(self, operation: str, subject: str) -> bool:
        """Return whether an operation has failed and has not worked since."""
        return (operation, subject) in self._broken

    def failures(self, subject: str) -> list[str]:
        """Return what fails for a subject, as sentences."""
        return [_in_words(*failed, reason) for failed, reason in self._broken.items() if failed[1] == subject]

    def record_failure(self, operation: str, subject: str, error: BaseException) -> None:
        """Record that an operation has failed. It is logged if the reason is new in this outage."""
        reason = described(error)
        refused = not isinstance(error, BrokerUnavailableError)
        if not self._broken:
            self._since = asyncio.get_running_loop().time()
        self._away = self._away or not refused
        self._broken[operation, subject] = reason
        if reason not in self._told and len(self._told) < _MAX_REASONS:
            self._told.add(reason)
            text = f"{_in_words(operation, subject, reason)}; retrying until it can"
            if refused:  # such as a queue that is gone, which receives nothing that is published
                logger.error("%s", text, exc_info=None if isinstance(error, BrokerError) else error)
            else:
                logger.warning("%s; %s", text, self._meanwhile)

    @property
    def _meanwhile(self) -> str:
        """What happens to messages, as far as known here: a server may lose stored messages."""
        if self._at_most_once:
            return "events published until then may be lost"
        if any(operation == CREATE for operation, _ in self._broken):
            return (
                "events that this process publishes wait until they exist; events that other processes publish before "
                "are not delivered to new ones"
            )
        return "messages that the broker keeps are handled after it recovers"

    def record_success(self, operation: str, subject: str) -> None:
        """Record that an operation has worked."""
        if (operation, subject) not in self._broken:
            return
        away, seconds = self._away, asyncio.get_running_loop().time() - self._since
        self.forget(operation, subject)
        if self._broken:
            self._has_recovered(subject)
        elif away:
            logger.warning("the broker has recovered after %.1f s", seconds)
        else:
            logger.warning("%s works again after %.1f s", subject, seconds)

    def forget(self, operation: str, subject: str) -> None:
        """Record that an operation is no longer attempted."""
        self._broken.pop((operation, subject), None)
        if not self._broken:
            self._told.clear()
            self._recovered.clear()
            self._away = False
            if self._recovery_timer is not None:
                self._recovery_timer.cancel()
                self._recovery_timer = None

    def forget_all(self, subject: str) -> None:
        """Record that a subject no longer attempts anything that has failed."""
        for operation, other in tuple(self._broken):
            if other == subject:
                self.forget(operation, subject)

    def _has_recovered(self, subject: str) -> None:
        """Tell in a while for whom the broker works again, unless it works for all by then."""
        self._recovered.add(subject)
        if self._recovery_timer is None:
            self._recovery_timer = asyncio.get_running_loop().call_later(_ALL_BACK, self._report_recovered)

    def _report_recovered(self) -> None:
        self._recovery_timer = None
        well = sorted(self._recovered - {subject for _, subject in self._broken})
        self._recovered.clear()
        if well:
            left = "; ".join(_in_words(*failed, reason) for failed, reason in self._broken.items())
            logger.warning("the broker works again for %s; still %s", ", ".join(well), left)


def _in_words(operation: str, subject: str, reason: str) -> str:
    return f"the broker can't {operation} for {subject} ({reason})"


class Backoff:
    """Waits between the attempts of one operation: 0.1 s at first, doubled each time, at most ``max_delay``."""

    def __init__(self, max_delay: float = _MAX_DELAY) -> None:
        self._next, self._max_delay = _MIN_DELAY, max_delay

    async def wait(self, stopping: asyncio.Event | None = None) -> None:
        """Sleep before the next try, or until ``stopping`` is set."""
        seconds = self._next * uniform(0.8, 1.2)  # noqa: S311 - spreads load, hides nothing
        self._next = min(self._next * 2, self._max_delay)
        if stopping is None:
            await asyncio.sleep(seconds)
            return
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stopping.wait(), seconds)

    def reset(self) -> None:
        """Start again after a success."""
        self._next = _MIN_DELAY


async def unless_stopped(work: Coroutine[Any, Any, T], stopping: asyncio.Event) -> T | None:
    """Await an answer of the broker; none where ``stopping`` is set before it has come, which may be never."""
    answering, waiting = asyncio.ensure_future(work), asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({answering, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if answering.cancelled():
            raise BrokerUnavailableError(UNEXPECTED_CANCEL)
        return answering.result() if answering.done() else None
    finally:
        answering.cancel()
        waiting.cancel()
        await asyncio.wait({answering, waiting})
