"""What the consumers of one worker have in common."""

import asyncio
from typing import Literal, NamedTuple

from diator._hooks import HookDispatcher
from diator.brokers.port import Broker
from diator.delivery.outage import OutageTracker


class Turn(asyncio.Lock):
    """A lock that tells whether one who asks for it now has to wait."""

    _waiting = 0

    @property
    def is_wanted(self) -> bool:
        """Whether it is held, or others wait for it."""
        return self._waiting > 0 or self.locked()

    async def acquire(self) -> Literal[True]:
        """Wait until it is free, and hold it."""
        self._waiting += 1
        try:
            return await super().acquire()
        finally:
            self._waiting -= 1


class WorkerState(NamedTuple):
    """What the consumers of one worker have in common."""

    broker: Broker
    outage: OutageTracker
    hooks: HookDispatcher
    at_most_once: bool
    """Whether the broker delivers a message at most once."""
    isolation_lock: Turn
    """Held while a message runs that may have killed a worker, so that no other is blamed with it."""
