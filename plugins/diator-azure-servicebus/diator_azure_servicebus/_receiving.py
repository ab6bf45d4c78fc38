"""What receivers of queues with and without sessions have in common: waiting, resting and closing."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timezone

from diator.brokers import Delivery, Receiver, Settlement, Subscription
from diator_azure_servicebus._errors import translate

logger = logging.getLogger("diator")

IDLE_BEFORE_REST = 0.1
"""Seconds for which a receiver is ready for the next call before it takes no more messages from the others."""
_MIN_LEASE_SHARE = 0.75
"""The share of a lease for which the lock of a message must last when it is delivered."""


class Receiving(ABC):
    """A receiver of a queue. ``forget`` is called when it is closed."""

    def __init__(
        self, queue: str, subscription: Subscription, lease: float, forget: Callable[[Receiver], None]
    ) -> None:
        self._queue = queue
        self._subscription = subscription
        self._lease = lease
        self._forget = forget
        self._woken = asyncio.Event()
        self._is_waiting = False
        self._has_seen_a_lock = False
        self._timer: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None

    @abstractmethod
    def _deliver(self, limit: int) -> Sequence[Delivery]:
        """Return what may be delivered now. Nothing is awaited, so that what is taken is returned."""

    @abstractmethod
    def _ask(self, limit: int) -> None:
        """Ask for messages; `_wake` is called when some have come."""

    @abstractmethod
    def _take_error(self) -> BaseException | None:
        """Return why asking has failed, once."""

    @abstractmethod
    def _rest(self) -> None:
        """Leave messages to other receivers, since no ``receive`` waits."""

    @abstractmethod
    async def _close(self) -> None:
        """Release what is not settled, and close."""

    @abstractmethod
    async def settle(self, settlements: Sequence[Settlement], /) -> Collection[Delivery]:
        """Settle many; return those whose lock was lost."""

    @abstractmethod
    async def renew(self, deliveries: Sequence[Delivery], /) -> Collection[Delivery]:
        """Renew locks; return those that were lost already."""

    async def receive(self, limit: int, /) -> Sequence[Delivery]:
        """Wait for messages, and return at most ``limit`` of them; none once the receiver is closed."""
        if self._timer is not None:
            self._timer.cancel()
        self._is_waiting = True
        try:
            while self._closing is None:
                self._woken.clear()
                if deliveries := self._deliver(limit):
                    return deliveries
                if error := self._take_error():
                    raise translate(error, self._queue)
                self._ask(limit)
                await self._woken.wait()
            return ()
        finally:
            self._is_waiting = False
            self._linger()

    async def aclose(self) -> None:
        """Release what was not settled, and close."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
            self._closing.add_done_callback(lambda _: self._forget(self))
            self._woken.set()
            if self._timer is not None:
                self._timer.cancel()
        await asyncio.shield(self._closing)

    def _wake(self) -> None:
        self._woken.set()
        self._linger()

    def _linger(self) -> None:
        """Rest soon, unless a ``receive`` waits by then."""
        if self._is_waiting or self._closing is not None:
            return
        now = asyncio.get_running_loop().time()
        if self._timer is None or self._timer.cancelled() or self._timer.when() <= now:
            self._timer = asyncio.get_running_loop().call_later(IDLE_BEFORE_REST, self._rest)

    def _look_at_lock(self, until: datetime | None) -> None:
        """Log an error if the first lock, which lasts ``until`` then, is shorter than the lease.

        The app renews by its lease. If the lock ends before, a handler that takes long has its message
        redelivered until it is a dead letter.
        """
        if self._has_seen_a_lock or until is None:
            return
        self._has_seen_a_lock = True
        seconds = (until - datetime.now(timezone.utc)).total_seconds()
        if seconds < self._lease * _MIN_LEASE_SHARE:
            logger.error(
                "Service Bus locks a message of queue %s for %.0f s, and the broker has lease=%g: a handler that takes"
                " longer gets it again; set lease=%.0f, or a longer lock duration of the queue (or the clock of this"
                " machine is wrong)",
                *(self._queue, seconds, self._lease, max(1.0, seconds)),
            )
