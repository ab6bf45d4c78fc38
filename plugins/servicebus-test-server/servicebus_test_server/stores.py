"""A store: the messages of a queue, a subscription or a dead-letter queue, and what receivers do with them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Protocol
from uuid import UUID

from servicebus_test_server.amqp.values import Value
from servicebus_test_server.declarations import Queue, Subscription
from servicebus_test_server.errors import MESSAGE_NOT_FOUND, NOT_ALLOWED, RefusalError
from servicebus_test_server.locks import Locks
from servicebus_test_server.messages import AmqpMessage
from servicebus_test_server.sessions import ReadyQueue, Sessions
from servicebus_test_server.stored import MessageCounts, State, Stored, now
from servicebus_test_server.timers import Timers

_NOTHING: Mapping[str, Value] = MappingProxyType({})


class Outcome(Enum):
    """What a receiver decides about a message it has locked."""

    COMPLETE = "completed"
    ABANDON = "abandoned"
    DEFER = "defered"  # spelled so on the wire
    DEAD_LETTER = "suspended"
    RELEASE = "released"


class Consumer(Protocol):
    """A receiver's link."""

    @property
    def credit(self) -> int:
        """How many messages it takes now."""
        ...

    @property
    def session_id(self) -> str | None:
        """The session it holds."""
        ...

    @property
    def deletes(self) -> bool:
        """Whether a message is gone once delivered (receive-and-delete)."""
        ...

    def deliver(self, stored: Stored) -> None:
        """Take a message."""


class Store:
    """Messages, numbered in order of arrival.

    Locks are kept by token, so they outlive the connection that got them. Sessions do not: they are free again when
    the link or its connection ends.

    ``changed`` is called when there may be something to deliver; ``pump`` delivers. ``activate`` is called with a
    scheduled message that has become due, which has left the store.
    """

    def __init__(self, path: str, options: Queue | Subscription, changed: Callable[[Store], None]) -> None:
        self.path = path
        self.messages: dict[int, Stored] = {}
        self.dead_letters: Store | None = None
        self.activate: Callable[[AmqpMessage], object] = self.put
        self._max_delivery_count: int | None = options.max_delivery_count
        self._ttl = None if options.default_ttl is None else round(options.default_ttl * 1000)
        self._dead_letter_on_expiry = options.dead_letter_on_expiry
        self._changed = changed
        self._sequence = 0
        self._ready_queue = ReadyQueue()
        milliseconds = round(options.lock_seconds * 1000)
        self.sessions = Sessions(milliseconds, self.messages) if options.sessions else None
        self._locks = Locks(None if options.sessions else milliseconds)
        self._consumers: deque[Consumer] = deque()
        self._life_timers: Timers[Stored] = Timers()
        self._schedule: Timers[Stored] = Timers()

    @classmethod
    def of_dead_letters(cls, path: str, options: Queue | Subscription, changed: Callable[[Store], None]) -> Store:
        """Make the dead-letter queue of a store: no sessions, no end of life, no limit of deliveries."""
        store = cls(path, Queue(path, lock_seconds=options.lock_seconds), changed)
        store._max_delivery_count = None
        return store

    # -- what comes in

    def put(self, message: AmqpMessage) -> Stored:
        """Append a message. One without a session id goes to the dead letters of a store with sessions."""
        stored = Stored(message, self._next_sequence(), now())
        lives = min((ttl for ttl in (message.ttl, self._ttl) if ttl is not None), default=None)
        if lives is not None:
            stored.expires = stored.enqueued + lives
        self.messages[stored.sequence] = stored
        if self.sessions is not None and message.session_id is None:
            self._bury(stored, "SessionIdMissing", "The entity requires sessions.")
        else:
            self._make_ready(stored)
        return stored

    def refuse(self, message: AmqpMessage, description: str) -> None:
        """Take a message that could not be forwarded: it becomes a dead letter."""
        stored = Stored(message, self._next_sequence(), now())
        self.messages[stored.sequence] = stored
        self._bury(stored, "ForwardingFailed", description)

    def schedule(self, message: AmqpMessage, due: int) -> int:
        """Keep a message until it is due; return the number to cancel it by."""
        stored = Stored(message, self._next_sequence(), now(), State.SCHEDULED, due=due)
        self.messages[stored.sequence] = stored
        self._schedule.add(due, stored)
        return stored.sequence

    def cancel(self, sequences: Iterable[int]) -> None:
        """Forget scheduled messages.

        Raises:
            RefusalError: One of the numbers is not that of a scheduled message; none is cancelled.
        """
        for stored in self._find(sequences, State.SCHEDULED):
            del self.messages[stored.sequence]

    # -- what goes out

    def subscribe(self, consumer: Consumer) -> None:
        """Let a receiver take part."""
        self._consumers.append(consumer)
        self._changed(self)

    def unsubscribe(self, consumer: Consumer) -> None:
        """Let a receiver go; its locks stay."""
        if consumer in self._consumers:
            self._consumers.remove(consumer)

    def pump(self) -> None:
        """Deliver what is ready to those who have credit, by turns."""
        if self.sessions is not None:
            self.sessions.serve(now())
        waiting = deque(each for each in self._consumers if each.credit > 0)
        self._consumers.rotate(-1)
        while waiting:
            consumer = waiting.popleft()
            stored = self._next_for(consumer)
            if stored is not None:
                consumer.deliver(stored)
                waiting.append(consumer)

    def _next_for(self, consumer: Consumer) -> Stored | None:
        ready_queue = self._ready_queue_of(consumer.session_id)
        if consumer.credit <= 0 or ready_queue is None:
            return None
        stored = ready_queue.pop(self.messages)
        while stored is not None and stored.expires is not None and stored.expires <= now():
            self._end_life(stored)
            stored = ready_queue.pop(self.messages)
        if stored is not None:
            self._take(stored, consumer.deletes)
        return stored

    def _ready_queue_of(self, session_id: str | None) -> ReadyQueue | None:
        if self.sessions is None:
            return self._ready_queue
        return None if session_id is None else self.sessions.ready_queues.get(session_id)

    def _take(self, stored: Stored, deletes: bool) -> None:
        if deletes:
            del self.messages[stored.sequence]
        else:
            self._locks.lock(stored, now())

    def receive_deferred(self, sequences: Iterable[int], deletes: bool) -> list[Stored]:
        """Give out deferred messages by number.

        Raises:
            RefusalError: One of the numbers is not that of a deferred message that is not locked.
        """
        found = self._find(sequences, State.DEFERRED)
        for stored in found:
            self._take(stored, deletes)
        return found

    def peek(self, first: int, count: int, session_id: str | None) -> list[Stored]:
        """Return messages from a number on, in any state."""
        wanted = (
            stored
            for number, stored in sorted(self.messages.items())
            if number >= first and session_id in (None, stored.message.session_id)
        )
        return [stored for stored, _ in zip(wanted, range(min(count, 250)), strict=False)]

    # -- what becomes of it

    def settle(self, token: UUID, outcome: Outcome, properties: Mapping[str, Value] = _NOTHING) -> None:
        """Carry out what a receiver has decided.

        Args:
            token: The lock.
            outcome: What becomes of the message.
            properties: Application properties to set or replace; for a dead letter, the reason.

        Raises:
            RefusalError: The lock is lost, or a dead letter is to be dead-lettered.
        """
        if outcome is Outcome.DEAD_LETTER and self.dead_letters is None:
            raise RefusalError(NOT_ALLOWED, "a message in a dead-letter queue cannot be dead-lettered")
        stored = self._locks.unlock(token)
        if outcome is Outcome.COMPLETE:
            del self.messages[stored.sequence]
            return
        if properties:
            stored.message = stored.message.with_application_properties(properties)
        if outcome is Outcome.ABANDON:
            self._fail(stored)
        elif outcome is Outcome.DEFER:
            stored.state = State.DEFERRED
        elif outcome is Outcome.DEAD_LETTER:
            self._move_to_dead_letters(stored)
        else:
            self._make_ready(stored)

    def renew(self, token: UUID) -> int:
        """Renew the lock of a message; return when it expires, in ms since 1970.

        Raises:
            RefusalError: The lock is lost, or is that of a session.
        """
        return self._locks.renew(token, now())

    def leave_session(self, session_id: str, failed: bool = False) -> None:
        """Unlock the messages of a session; they count as failed deliveries only when its lock has expired."""
        for stored in self._locks.unlock_session(session_id):
            (self._fail if failed else self._make_ready)(stored)
        self._changed(self)

    def sweep(self, moment: int) -> None:
        """Let locks, sessions, lives and schedules end that end at or before a moment."""
        for stored in self._locks.expired(moment):
            self._fail(stored)
        for session_id in [] if self.sessions is None else self.sessions.expire(moment):
            self.leave_session(session_id, failed=True)
        for stored in self._schedule.due(moment):
            if self.messages.get(stored.sequence) is stored:
                del self.messages[stored.sequence]
                self.activate(stored.message)
        for stored in self._life_timers.due(moment):
            free = stored.lock is None and stored.state is State.ACTIVE
            if free and self.messages.get(stored.sequence) is stored:
                self._end_life(stored)

    def expire_locks(self) -> None:
        """Let all locks on messages and sessions end at once."""
        if self.sessions is not None:
            for session_id in self.sessions.expire_all():
                self.leave_session(session_id, failed=True)
        for stored in self._locks.unlock_all():
            self._fail(stored)

    def counts(self) -> MessageCounts:
        """Count the messages by state."""
        everything = self.messages.values()
        states = [stored.state for stored in everything if stored.lock is None]
        return MessageCounts(
            active=states.count(State.ACTIVE),
            locked=len(self._locks),
            scheduled=states.count(State.SCHEDULED),
            deferred=states.count(State.DEFERRED),
            dead=0 if self.dead_letters is None else len(self.dead_letters.messages),
        )

    def session_ids(self, state_set_after: int | None) -> list[str]:
        """Name the sessions that have messages or a state, or only those whose state was set after a time in ms."""
        ready_queues = {} if self.sessions is None else self.sessions.ready_queues
        if state_set_after is not None:
            return [name for name, ready_queue in ready_queues.items() if ready_queue.state_set > state_set_after]
        named = [stored.message.session_id for stored in self.messages.values() if stored.message.session_id]
        return list(
            dict.fromkeys(
                [*named, *(name for name, ready_queue in ready_queues.items() if ready_queue.state is not None)]
            )
        )

    def _next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    def _find(self, sequences: Iterable[int], state: State) -> list[Stored]:
        found: list[Stored] = []
        for sequence in dict.fromkeys(sequences):
            stored = self.messages.get(sequence)
            if stored is None or stored.state is not state or stored.lock is not None:
                raise RefusalError(MESSAGE_NOT_FOUND, f"no {state.name.lower()} message has the number {sequence}")
            found.append(stored)
        return found

    def _make_ready(self, stored: Stored) -> None:
        if stored.state is State.DEFERRED:
            return
        session_id = stored.message.session_id
        ready_queue = (
            self._ready_queue if self.sessions is None or session_id is None else self.sessions.ready_queue(session_id)
        )
        ready_queue.push(stored)
        if stored.expires is not None:
            self._life_timers.add(stored.expires, stored)
        self._changed(self)

    def _fail(self, stored: Stored) -> None:
        stored.delivery_count += 1
        if self._max_delivery_count is not None and stored.delivery_count >= self._max_delivery_count:
            text = f"Message could not be consumed after {stored.delivery_count} delivery attempts."
            self._bury(stored, "MaxDeliveryCountExceeded", text)
        else:
            self._make_ready(stored)

    def _end_life(self, stored: Stored) -> None:
        if self._dead_letter_on_expiry:
            self._bury(stored, "TTLExpiredException", "The message expired and was dead lettered.")
        else:
            del self.messages[stored.sequence]

    def _bury(self, stored: Stored, reason: str, description: str) -> None:
        told = {"DeadLetterReason": reason, "DeadLetterErrorDescription": description}
        stored.message = stored.message.with_application_properties(told)
        self._move_to_dead_letters(stored)

    def _move_to_dead_letters(self, stored: Stored) -> None:
        del self.messages[stored.sequence]
        if self.dead_letters is not None:
            self.dead_letters.adopt(stored)

    def adopt(self, stored: Stored) -> None:
        """Take over a message as a dead letter. It keeps its number and its count of deliveries."""
        stored.state = State.ACTIVE
        stored.expires = None
        self.messages[stored.sequence] = stored
        self._make_ready(stored)
