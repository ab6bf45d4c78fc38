"""Whether the service locks messages for as long as the app believes."""

import logging
from datetime import datetime, timezone

logger = logging.getLogger("diator")

_ENOUGH = 0.75
"""The share of a lease that is left of the lock when a message is handed out, at least."""


class Locks:
    """Looks at the first lock of a receiver, and warns where it is too short.

    The app renews by its ``lease``. Where the lock of the queue ends before, a handler that takes long has its message
    delivered again, and again, until it is parked.
    """

    def __init__(self, queue: str, lease: float) -> None:
        self._queue = queue
        self._lease = lease
        self._looked = False

    def look(self, until: datetime | None) -> None:
        """Look at the first lock, which lasts ``until`` then."""
        if self._looked or until is None:
            return
        self._looked = True
        seconds = (until - datetime.now(timezone.utc)).total_seconds()
        if seconds < self._lease * _ENOUGH:
            logger.error(
                "Service Bus locks a message of queue %s for %.0f s, and the broker has lease=%g: a handler that takes"
                " longer gets it again and again; give lease=%.0f, or the queue a longer lock duration (or the clock of"
                " this machine is wrong)",
                *(self._queue, seconds, self._lease, max(1.0, seconds)),
            )
