"""Late deliveries: those that come when all others have ended."""

import asyncio
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

from diator.brokers.envelope import OutgoingMessage
from diator.brokers.port import Delivery
from diator.errors import BrokerUnavailableError
from diator.testing.activity import ActivityTracker
from diator.testing.faults import Fault, Injection

if TYPE_CHECKING:
    from diator.testing.faulty_receiver import FaultyReceiver

_LATEST = 1.0
"""Seconds that a late delivery waits at most, for handlers that wait for one another."""


class _Late(NamedTuple):
    fault: Fault
    receiver: "FaultyReceiver"
    delivery: Delivery
    key: str | None
    """The key that it is ordered by."""
    timer: asyncio.TimerHandle


class LateDeliveries:
    """The deliveries of all receivers that come, one at a time, when all others have ended and the test waits."""

    def __init__(self, injection: Injection, activity: ActivityTracker) -> None:
        self.receivers: list[FaultyReceiver] = []
        self._injection = injection
        self._late: list[_Late] = []
        self._keys: dict[str, str | None] = {}
        """The keys of messages, by their ids."""
        self.activity = activity
        activity.when_changed = self._release_next
        activity.when_expected = self.published

    def published(self, messages: Sequence[OutgoingMessage]) -> None:
        """Number messages, and learn their keys: those that come after a late one wait at the broker."""
        self._injection.number(messages, self.activity.delivery_before)
        self._keys.update((message.id, message.key) for message in messages)

    def happened(self, fault: Fault) -> None:
        """Write down that a fault has happened."""
        self._injection.happened(fault, self.activity.message_of(fault.message_id))

    def add(self, fault: Fault, receiver: "FaultyReceiver", delivery: Delivery, key: str | None) -> None:
        """Keep a delivery."""
        self._injection.begin(fault)
        timer = asyncio.get_running_loop().call_later(_LATEST, self._release, fault)
        self._late.append(_Late(fault, receiver, delivery, key, timer))
        self._release_next()

    def remove(self, deliveries: Collection[Delivery]) -> None:
        """Keep deliveries no longer: the broker has them back."""
        for late in [late for late in self._late if late.delivery in deliveries]:
            self._injection.give_up(late.fault)
            self._take(late)

    def of(self, receiver: "FaultyReceiver") -> list[Delivery]:
        """The deliveries of one receiver."""
        return [late.delivery for late in self._late if late.receiver is receiver]

    def _release_next(self) -> None:
        if self._late and self.activity.is_awaited:
            keys = {(late.receiver.name, late.key) for late in self._late if late.key is not None}
            others = self.activity.count(lambda way: (way[1], self._keys.get(way[0])) not in keys)
            if others <= sum(late.key is None for late in self._late):
                self._release(min((late.fault for late in self._late), key=lambda fault: fault.rank))

    def _release(self, fault: Fault) -> None:
        late = next((late for late in self._late if late.fault is fault), None)
        if late is not None:
            self._take(late)
            self.happened(fault)
            late.receiver.hand_out(late.delivery)

    def _take(self, late: _Late) -> None:
        self._late.remove(late)
        late.timer.cancel()


def away(line: str) -> BrokerUnavailableError:
    """The error of a broker that is unavailable because of a fault."""
    return BrokerUnavailableError(f"injected fault: the broker is unavailable: {line}")
