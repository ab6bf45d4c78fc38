"""What is to become of messages: it is stored first, where the server does not know it, then the server is told."""

from collections.abc import Sequence
from typing import NamedTuple

from diator.brokers.port import Ack, MoveToDeadLetters, RetryAfter
from diator.errors import BrokerError
from diator_nats._access import MAX_MESSAGE_BYTES, REASON_BYTES, nanoseconds
from diator_nats._connection import Connection, Record
from diator_nats._dead_letters import pack
from diator_nats._names import Names
from diator_nats._notes import Notes
from diator_nats._ownership import Ownership
from diator_nats._pulling import Held


class Change(NamedTuple):
    """What is to become of a message: it is redelivered after some seconds, or not (``None``)."""

    one: Held
    failures: int
    deliveries: int
    wait: float | None
    failure: MoveToDeadLetters | None = None


def change_of(one: Held, outcome: object) -> Change:
    """Return what an outcome makes of a message."""
    if isinstance(outcome, RetryAfter):
        return Change(one, one.failures + 1, one.deliveries, max(0.0, outcome.delay))
    if isinstance(outcome, MoveToDeadLetters):
        return Change(one, 0, 0, None, outcome)
    if isinstance(outcome, Ack):
        return Change(one, 0, 0, None)
    return given_back(one)


def given_back(one: Held, wait: float = 0.0) -> Change:
    """Return that a message is redelivered, after some seconds, and that this delivery does not count."""
    return Change(one, one.failures, one.deliveries - 1, wait)


class Settling:
    """Writes changes of the messages of one subscription."""

    def __init__(self, names: Names, subscription: str, owner: Ownership, notes: Notes) -> None:
        self._names, self._name, self._owner, self._notes = names, subscription, owner, notes
        self.held: set[Held] = set()
        """Messages that were delivered and are not settled."""

    async def write(self, connection: Connection, changes: Sequence[Change]) -> list[Held]:
        """Store what is to be known of messages, then acknowledge them; return those that were lost meanwhile."""
        await connection.store(self._records(changes))
        now = self._owner.now()
        late = [
            change.one for change in changes if change.one in self.held and not self._owner.is_valid(change.one, now)
        ]
        told = sorted((change for change in changes if change.one not in late), key=lambda change: change.one.sequence)
        try:
            unknown = await connection.tell(
                [(change.one.consumer, change.one.reply, _ack(change.wait)) for change in told]
            )
        except BrokerError:
            for change in told:
                change.one.is_lost |= change.wait is not None  # said twice, it would take it from another receiver
            raise
        for change in told:
            if change.one.consumer in unknown:
                change.one.is_lost = True
                late += [change.one] if change.one in self.held else []
            else:
                self._settled(change)
        for one in late:
            self.held.discard(one)
        return late

    def _records(self, changes: Sequence[Change]) -> list[Record]:
        """Return what the state stream knows of messages: dead letters, and notes of redelivered ones."""
        records: list[Record] = []
        now = self._owner.now()
        for one, failures, deliveries, wait, failure in changes:
            if wait is not None and (lane := self._owner.lane_of(one)):  # from now on, though it is still to be written
                lane.put_away(one.sequence, now + wait)
            if failure is not None:
                letter = pack(one.topic, one.lane, one.deliveries, failure, one.body, MAX_MESSAGE_BYTES + REASON_BYTES)
                first = {"Nats-Expected-Last-Subject-Sequence": "0"}
                records.append((self._names.dead(self._name, one.sequence), letter, first))
            if wait is not None:
                records.append(self._notes.write(one, failures, deliveries, wait))
            elif one.is_noted:
                records.append(self._notes.forget(one.part, one.sequence))
        return records

    def _settled(self, change: Change) -> None:
        one = change.one
        one.is_settled = one in self.held
        one.is_lost = not one.is_settled
        self.held.discard(one)
        owned, lane = self._owner.own(one.part), self._owner.lane_of(one)
        if owned and lane and lane.held.get(one.sequence) is one:
            del lane.held[one.sequence]
            if change.wait is None:
                lane.away.pop(one.sequence, None)
            if not lane.held and not lane.away:
                del owned.lanes[one.lane]


def _ack(wait: float | None) -> bytes:
    if wait is None:
        return b"+ACK"
    return b'-NAK {"delay": %d}' % nanoseconds(wait) if wait else b"-NAK"
