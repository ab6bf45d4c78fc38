"""A receiver with faults, around the receiver of another broker: messages are redelivered, or delivered late.

A fault needs no message of its own. A message to redeliver is delivered again instead of being acknowledged, so that
the inner broker still has it, and records what becomes of it in the end.
"""

import asyncio
from collections import deque
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from diator.brokers.envelope import parse_envelope
from diator.brokers.port import RELEASE, Ack, Delivery, MoveToDeadLetters, Receiver, Settlement, Subscription
from diator.errors import UnreadableMessageError
from diator.testing.faults import Fault, FaultKind, Injection
from diator.testing.late_deliveries import LateDeliveries, away


class _Block(NamedTuple):
    """A delivery with a fault to come, and those of its key that wait behind it."""

    first: list[Delivery]
    """The delivery; another object when it is redelivered."""
    behind: list[Delivery]


class FaultyReceiver:
    """A receiver that redelivers messages, or delivers them late.

    In an ordered subscription one with a fault blocks its key until it has ended.
    """

    def __init__(
        self,
        inner: Receiver,
        subscription: Subscription,
        injection: Injection,
        late: LateDeliveries,
        *,
        acknowledged: bool,
    ) -> None:
        self._inner = inner
        self._subscription = subscription
        self.name = subscription.name
        self._injection = injection
        self._late = late
        self._acknowledged = acknowledged
        self._ready: deque[Delivery] = deque()
        self._blocks: dict[str, _Block] = {}
        self._counts: dict[str, tuple[int, int]] = {}
        """By message, the failures and deliveries that the inner broker counts otherwise."""
        self._outages: dict[str, str] = {}
        """What is to fail once, and why."""
        self._receiving: asyncio.Future[Sequence[Delivery]] | None = None
        self._wake: asyncio.Future[None] | None = None
        self._is_closed = False
        late.receivers.append(self)

    async def receive(self, limit: int, /) -> Sequence[Delivery]:
        """Wait for deliveries of the inner receiver, or redeliveries."""
        while not self._is_closed:
            self._fail_once("receive")
            if self._ready:
                return [self._ready.popleft() for _ in range(min(limit, len(self._ready)))]
            if not await self._wait(limit):
                break
        return ()

    async def _wait(self, limit: int) -> bool:
        """Wait until there may be something; false if the inner receiver has ended."""
        if self._receiving is None:
            self._receiving = asyncio.ensure_future(self._inner.receive(limit))
        self._wake = asyncio.get_running_loop().create_future()
        waits: set[asyncio.Future[Any]] = {self._receiving, self._wake}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._receiving.cancel()  # the next message is for a receiver that waits
            raise
        if not self._receiving.done():
            return True
        received, self._receiving = self._receiving, None
        if received.cancelled():
            return True
        deliveries = received.result()
        for delivery in deliveries:
            failures, count = self._counts.get(_id_of(delivery), (0, 0))
            delivery.failures, delivery.deliveries = delivery.failures + failures, delivery.deliveries + count
            self._arrived(delivery)
        return bool(deliveries)

    def _arrived(self, delivery: Delivery) -> None:
        key = self._key_of(delivery)
        if key is not None and key in self._blocks:
            self._blocks[key].behind.append(delivery)
            return
        late = self._fault("late", delivery)
        if key is not None and (late or self._comes_again(delivery)):
            self._blocks[key] = _Block([delivery], [])
        if late:
            self._late.add(late, self, delivery, key)
        else:
            self.hand_out(delivery)

    def hand_out(self, delivery: Delivery) -> None:
        """Have a delivery received."""
        self._ready.append(delivery)
        self._wake_up()

    async def settle(self, settlements: Sequence[Settlement], /) -> Collection[Delivery]:
        """Settle deliveries, except those that are redelivered."""
        self._fail_once("settle")
        again = self._redeliveries(settlements)
        passed = [one for one in settlements if id(one[0]) not in again]
        lost = await self._inner.settle(passed) if passed else ()
        back: list[Delivery] = []
        for delivery, outcome in settlements:
            if id(delivery) in again:
                self._deliver_again(delivery, again[id(delivery)])
            elif isinstance(outcome, Ack | MoveToDeadLetters) and delivery not in lost:
                self._unblock(delivery)
            else:
                back += self._take_back(delivery)
        if back:
            await self._inner.settle([(delivery, RELEASE) for delivery in back])
        return lost

    def _redeliveries(self, settlements: Sequence[Settlement]) -> dict[int, Fault]:
        """The faults of acknowledged deliveries that are redelivered, by id."""
        found: dict[int, Fault] = {}
        for delivery, outcome in settlements:
            fault = self._comes_again(delivery) if isinstance(outcome, Ack) else None
            if fault is not None and fault not in found.values():  # a message may be there twice
                found[id(delivery)] = fault
        return found

    async def renew(self, deliveries: Sequence[Delivery], /) -> Collection[Delivery]:
        """Renew leases, also of what is not delivered."""
        behind = (one for block in self._blocks.values() for one in block.behind)
        own = [*self._ready, *self._late.of(self), *behind]
        lost = await self._inner.renew([*deliveries, *own])
        return [delivery for delivery in lost if delivery in deliveries]

    async def aclose(self) -> None:
        """Close; the inner receiver releases unsettled messages."""
        self._is_closed = True
        self._late.remove(self._late.of(self))
        with suppress(ValueError):
            self._late.receivers.remove(self)
        if self._receiving is not None:
            self._receiving.cancel()
        self._wake_up()
        await self._inner.aclose()

    def take_away(self, outage: Fault) -> None:
        """Have the next receiving and settling fail."""
        self._outages = dict.fromkeys(("receive", "settle"), outage.line)
        self._wake_up()

    def _fail_once(self, operation: str) -> None:
        line = self._outages.pop(operation, None)
        if line is not None:
            raise away(line)

    def _wake_up(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    # Faults

    def _fault(self, kind: FaultKind, delivery: Delivery) -> Fault | None:
        message_id = _id_of(delivery)
        way = (message_id, self.name)
        return self._injection.fault(kind, *way) if self._late.activity.expects(way) else None

    def _comes_again(self, delivery: Delivery) -> Fault | None:
        """The fault by which a message is redelivered after it was handled."""
        if not self._acknowledged:
            return None
        # Where one delivery is all that is allowed, a crash makes a dead letter, whatever the handler does.
        crash = self._subscription.max_deliveries > 1 and self._fault("crash", delivery)
        return crash or self._fault("duplicate", delivery)

    def _deliver_again(self, delivery: Delivery, fault: Fault) -> None:
        is_crash = fault.line.startswith("crash")
        failures, deliveries = (delivery.failures, delivery.deliveries + 1) if is_crash else (0, 1)
        more_failures, more_deliveries = self._counts.get(fault.message_id, (0, 0))
        self._counts[fault.message_id] = (
            more_failures + failures - delivery.failures,
            more_deliveries + deliveries - delivery.deliveries,
        )
        again = Delivery(
            delivery.topic,
            delivery.body,
            delivery.headers,
            key=delivery.key,
            failures=failures,
            deliveries=deliveries,
            receipt=delivery.receipt,
        )
        self._late.activity.expect_again((fault.message_id, self.name))
        key = self._key_of(delivery)
        if key is not None:
            self._blocks.setdefault(key, _Block([], [])).first[:] = [again]
        if is_crash or key is not None:
            self._late.happened(fault)
            self.hand_out(again)
        else:
            self._late.add(fault, self, again, None)

    def _unblock(self, delivery: Delivery) -> None:
        """Go on with the key of a delivery that has ended, if it was that which the others waited for."""
        key = self._key_of(delivery)
        if key is not None and key in self._blocks and self._blocks[key].first[0] is delivery:
            for behind in self._blocks.pop(key).behind:
                self._arrived(behind)

    def _take_back(self, delivery: Delivery) -> list[Delivery]:
        """Return the deliveries here that have the key of a redelivery of the inner broker, as they follow it."""
        key = self._key_of(delivery)
        if key is None:
            return []
        block = self._blocks.pop(key, None)
        late = [one for one in self._late.of(self) if self._key_of(one) == key]
        ready = [one for one in self._ready if self._key_of(one) == key]
        self._late.remove(late)
        self._ready = deque(one for one in self._ready if one not in ready)
        return [*ready, *late, *(block.behind if block else ())]

    def _key_of(self, delivery: Delivery) -> str | None:
        """The key that a delivery is ordered by."""
        if not self._subscription.ordered:
            return None
        if delivery.key is not None:
            return delivery.key
        with suppress(UnreadableMessageError):
            return parse_envelope(delivery.headers, delivery.body).partitionkey
        return None


def _id_of(delivery: Delivery) -> str:
    with suppress(UnreadableMessageError):
        return parse_envelope(delivery.headers, delivery.body).id
    return ""
