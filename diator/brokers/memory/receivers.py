"""One worker's access to a queue: what it holds, for how long, and what becomes of it."""

from collections import OrderedDict
from collections.abc import Collection, Sequence

import msgspec

from diator.brokers.memory.clock import Clock
from diator.brokers.memory.queues import Queue, QueuedMessage
from diator.brokers.port import Ack, Delivery, MoveToDeadLetters, Outcome, RetryAfter, Settlement


class Lease:
    """The right to one message, for a time. It is the receipt of a delivery."""

    __slots__ = ("expires", "message", "settled")

    def __init__(self, message: QueuedMessage, expires: float) -> None:
        self.message = message
        self.expires = expires
        self.settled = False


class MemoryReceiver:
    """A receiver on a queue, with leases of this many seconds."""

    def __init__(self, queue: Queue, clock: Clock, lease: float, receivers: "dict[MemoryReceiver, None]") -> None:
        self._queue = queue
        self._clock = clock
        self._lease = lease
        self._open = receivers
        """The receivers of the broker that are open, the oldest first."""
        receivers[self] = None
        self._closed = False
        self._leases: OrderedDict[Lease, None] = OrderedDict()  # the oldest first, since all last equally long
        self._expiry_is_set = False
        """Whether `_expire` will be called."""

    async def receive(self, limit: int, /) -> Sequence[Delivery]:
        """Wait for messages, and give at most ``limit`` of them; none if the receiver is closed meanwhile."""
        while not self._closed:
            if messages := self._queue.take(limit):
                return self._hand_out(messages)
            await self._queue.stored.wait()
        return ()

    async def settle(self, settlements: Sequence[Settlement], /) -> Collection[Delivery]:
        """Settle many, in order; give those whose lease was lost."""
        lost: list[Delivery] = []
        released: list[QueuedMessage] = []
        for delivery, outcome in [(delivery, _as_recorded(outcome)) for delivery, outcome in settlements]:
            lease: Lease = delivery.receipt
            if lease in self._leases:
                del self._leases[lease]
                lease.settled = True
                self._settle(lease.message, outcome, released)
            elif not lease.settled:
                lost.append(delivery)
        self._queue.release(released)
        return lost

    async def renew(self, deliveries: Sequence[Delivery], /) -> Collection[Delivery]:
        """Renew leases; give those that were lost already."""
        expires = self._clock.now() + self._lease
        lost: list[Delivery] = []
        for delivery in deliveries:
            lease: Lease = delivery.receipt
            if lease in self._leases:
                lease.expires = expires
                self._leases.move_to_end(lease)
            elif not lease.settled:
                lost.append(delivery)
        return lost

    async def aclose(self) -> None:
        """Release what was not settled, and end."""
        self.close()

    def close(self) -> None:
        """Do what `aclose` does, which needs no waiting."""
        if self._closed:
            return
        self._closed = True
        released = [lease.message for lease in self._leases]
        self._leases.clear()
        for message in released:
            message.deliveries -= 1
        self._queue.release(released)
        self._queue.wake()
        del self._open[self]

    def _hand_out(self, messages: Sequence[QueuedMessage]) -> Sequence[Delivery]:
        expires = self._clock.now() + self._lease
        deliveries: list[Delivery] = []
        for message in messages:
            lease = Lease(message, expires)
            self._leases[lease] = None
            deliveries.append(
                Delivery(
                    message.topic,
                    message.body,
                    key=message.key_queue.key if message.key_queue else None,
                    failures=message.failures,
                    deliveries=message.deliveries,
                    receipt=lease,
                )
            )
        self._set_expiry()
        return deliveries

    def _settle(self, message: QueuedMessage, outcome: Outcome, released: list[QueuedMessage]) -> None:
        if isinstance(outcome, Ack):
            self._queue.remove(message)
        elif isinstance(outcome, RetryAfter):
            message.failures += 1
            self._queue.delay(message, outcome.delay)
        elif isinstance(outcome, MoveToDeadLetters):
            self._queue.dead_letter(message, outcome)
        else:
            message.deliveries -= 1
            released.append(message)

    def _set_expiry(self) -> None:
        if self._leases and not self._expiry_is_set:
            self._expiry_is_set = True
            self._clock.call_at(next(iter(self._leases)).expires, self._expire)

    def _expire(self, now: float) -> None:
        self._expiry_is_set = False
        expired: list[QueuedMessage] = []
        while self._leases and (oldest := next(iter(self._leases))).expires <= now:
            del self._leases[oldest]
            expired.append(oldest.message)
        self._set_expiry()
        self._queue.release(expired)


def _as_recorded(outcome: Outcome) -> Outcome:
    """An outcome as remote brokers store it: what cannot be encoded fails here too, in a test."""
    if isinstance(outcome, (MoveToDeadLetters, RetryAfter)):
        return msgspec.json.decode(msgspec.json.encode(outcome), type=type(outcome))
    return outcome
