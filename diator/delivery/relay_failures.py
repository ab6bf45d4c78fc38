"""What a relay can't do now: each outage is logged once, and the keys of rows that can't be published are left out."""

import asyncio
import logging
import math
from collections.abc import Collection, Sequence
from random import uniform

from diator.delivery.error_texts import described
from diator.errors import BrokerUnavailableError, DiatorError, NotPublishedError
from diator.stores.port import StoredMessage

logger = logging.getLogger("diator")

_FIRST_DELAY, _MAX_DELAY = 0.1, 5.0
"""Seconds until rows that could not be published are tried again."""
_MAX_KEYS = 5000
"""Keys that one read leaves out at most: they are parameters of a query, whose number databases limit."""
_MAX_REASONS = 10
"""How many reasons are logged in one outage; there are errors that say something else each time."""


class Trouble:
    """Something that fails until it works again. Each reason is logged once."""

    def __init__(self, text: str, meanwhile: str, temporary: type[Exception]) -> None:
        self._text, self._meanwhile, self._temporary = text, meanwhile, temporary
        self._since: float | None = None
        self._last = ""
        self._logged: set[str] = set()

    @property
    def is_active(self) -> bool:
        """Whether it fails now."""
        return self._since is not None

    @property
    def reasons(self) -> list[str]:
        """What fails and why, as a sentence; nothing if it works."""
        return [f"{self._text} ({self._last})"] if self.is_active else []

    def begin(self, error: BaseException) -> None:
        """Record a failure."""
        self._last = reason = described(error)
        if self._since is None:
            self._since = asyncio.get_running_loop().time()
        if reason in self._logged or len(self._logged) >= _MAX_REASONS:
            return
        self._logged.add(reason)
        text = f"{self._text} ({reason}); {self._meanwhile}; retrying until it can"
        if isinstance(error, self._temporary):
            logger.warning("%s", text)
        else:
            logger.error("%s", text, exc_info=None if isinstance(error, DiatorError) else error)

    def end(self) -> None:
        """Record a success."""
        if self._since is not None:
            text = self._text.replace("can't", "can")
            logger.warning("%s again, after %.1f s", text, asyncio.get_running_loop().time() - self._since)
            self._since = None
            self._logged.clear()


class FailingKeys:
    """Topics and keys whose rows wait because the broker could not take one of them, until all are tried again.

    A key of ``None`` stands for all rows of a topic that have no key.
    """

    def __init__(self) -> None:
        self.trouble = Trouble("the relay can't publish", "events wait in the outbox", BrokerUnavailableError)
        self.retry_at = math.inf
        """When all are tried again, in the time of the event loop."""
        self._keys: set[tuple[str, str | None]] = set()
        self._delay = _FIRST_DELAY

    def to_leave_out(self) -> Collection[tuple[str, str | None]]:
        """Return the keys to leave out now: none when they are tried again."""
        if asyncio.get_running_loop().time() >= self.retry_at:
            self.retry_at = math.inf
            self._keys.clear()
            self._delay = min(2 * self._delay, _MAX_DELAY)
        return self._keys

    @property
    def are_too_many(self) -> bool:
        """Whether so many keys fail that nothing else is tried until they are retried."""
        return len(self._keys) >= _MAX_KEYS

    def add(
        self, failed: Sequence[StoredMessage], published: Sequence[StoredMessage], error: NotPublishedError
    ) -> None:
        """Have rows wait that were tried together, with those behind them of their keys."""
        if error.rejected:  # the others may have failed only because of these
            self.retry_at = asyncio.get_running_loop().time()
            return
        # Rows without a key have no order: they wait for none of them while others leave.
        leaving = {(row.topic, None) for row in published if row.key is None}
        self._keys |= {(row.topic, row.key) for row in failed} - leaving
        self.retry_at = asyncio.get_running_loop().time() + self._delay * uniform(0.8, 1.2)  # noqa: S311 - spreads load
        self.trouble.begin(error.__cause__ or error)

    def recover(self) -> None:
        """Record that all rows that were ready were published."""
        if not self._keys:
            self.trouble.end()
            self._delay, self.retry_at = _FIRST_DELAY, math.inf
