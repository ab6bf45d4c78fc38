"""A message in a store: its numbers, its state, its lock."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import IntEnum
from uuid import UUID

from servicebus_test_server.amqp.values import Int, Symbol, Timestamp, Value
from servicebus_test_server.messages import AmqpMessage

_SEQUENCE_NUMBER = Symbol("x-opt-sequence-number")
_ENQUEUE_SEQUENCE = Symbol("x-opt-enqueue-sequence-number")
_ENQUEUED_TIME = Symbol("x-opt-enqueued-time")
_LOCKED_UNTIL = Symbol("x-opt-locked-until")
_STATE = Symbol("x-opt-message-state")


class State(IntEnum):
    """The state of a stored message, numbered as the SDK reads it."""

    ACTIVE = 0
    DEFERRED = 1
    SCHEDULED = 2


@dataclass(slots=True)
class Lock:
    """Keeps a message for one receiver.

    Attributes:
        token: What the receiver settles by.
        until: When the lock ends, in ms since 1970; None for a message that is locked as long as its session.
    """

    token: UUID
    until: int | None


@dataclass(slots=True, eq=False)
class Stored:
    """A message in a store.

    Attributes:
        message: The message as its sender made it.
        sequence: Its number in the store.
        enqueued: When it came, in ms since 1970.
        expires: When its life ends, in ms since 1970; None for never.
        delivery_count: Failed deliveries so far.
        due: When a scheduled message becomes active, in ms since 1970.
    """

    message: AmqpMessage
    sequence: int
    enqueued: int
    state: State = State.ACTIVE
    expires: int | None = None
    delivery_count: int = 0
    due: int = 0
    lock: Lock | None = None

    def write(self, locked: bool = True) -> bytes:
        """Encode the message for a receiver, with the annotations of the service; a peek shows no lock."""
        annotations: dict[Value, Value] = {
            _SEQUENCE_NUMBER: self.sequence,
            _ENQUEUE_SEQUENCE: self.sequence,
            _ENQUEUED_TIME: Timestamp(self.enqueued),
            _STATE: Int(self.state),
        }
        if locked and self.lock is not None and self.lock.until is not None:
            annotations[_LOCKED_UNTIL] = Timestamp(self.lock.until)
        ttl = None if self.expires is None else self.expires - self.enqueued
        return self.message.write(annotations, self.delivery_count, ttl)


@dataclass(frozen=True, slots=True)
class MessageCounts:
    """How many messages of a store are in which state. ``active`` are those that a receiver may get now."""

    active: int = 0
    locked: int = 0
    scheduled: int = 0
    deferred: int = 0
    dead: int = 0


def now() -> int:
    """Tell the time in ms since 1970. The SDK compares lock times with its own clock, so this is the real one."""
    return int(time.time() * 1000)
