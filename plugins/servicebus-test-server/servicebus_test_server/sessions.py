"""Sessions of a store: who holds which, until when, and who waits for one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Protocol

from servicebus_test_server.errors import SESSION_LOCK_LOST, SESSION_TAKEN, TIMEOUT, RefusalError
from servicebus_test_server.stored import State, Stored


class SessionHolder(Protocol):
    """A receiver that asks for a session."""

    def granted(self, session_id: str, until: int) -> None:
        """Get a session, locked until a time in ms since 1970."""

    def refused(self, refusal: RefusalError) -> None:
        """Learn that there is none to be had."""

    def lost(self) -> None:
        """Learn that the session held is not locked any more."""


class ReadyQueue:
    """Messages that are ready to be delivered, lowest number first. A store without sessions has one."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Stored]] = []
        self._pushes = 0
        self.state: bytes | None = None
        self.state_set = 0
        self.holder: SessionHolder | None = None
        self.until = 0

    def set_state(self, state: bytes | None, now: int) -> None:
        """Keep the state of the session."""
        self.state, self.state_set = state, now

    def push(self, stored: Stored) -> None:
        """Add a message that is ready."""
        self._pushes += 1
        heappush(self._heap, (stored.sequence, self._pushes, stored))

    def pop(self, messages: dict[int, Stored]) -> Stored | None:
        """Take the next message, if there is one."""
        if self.peek(messages) is None:
            return None
        return heappop(self._heap)[2]

    def peek(self, messages: dict[int, Stored]) -> Stored | None:
        """Look at the next message; entries that were removed, locked or deferred meanwhile are dropped."""
        while self._heap:
            stored = self._heap[0][2]
            if messages.get(stored.sequence) is stored and stored.lock is None and stored.state is State.ACTIVE:
                return stored
            heappop(self._heap)
        return None


@dataclass(slots=True, eq=False)
class _Waiting:
    holder: SessionHolder
    deadline: int


class Sessions:
    """The sessions of one store."""

    def __init__(self, lock_milliseconds: int, messages: dict[int, Stored]) -> None:
        self.ready_queues: dict[str, ReadyQueue] = {}
        self._lock_milliseconds = lock_milliseconds
        self._messages = messages
        self._held: dict[str, ReadyQueue] = {}
        self._waiting: list[_Waiting] = []

    def ready_queue(self, session_id: str) -> ReadyQueue:
        """Find a session, or make it."""
        return self.ready_queues.setdefault(session_id, ReadyQueue())

    def accept(self, holder: SessionHolder, session_id: str, now: int) -> None:
        """Lock a session by its id; whether there are messages does not matter.

        Raises:
            RefusalError: Another receiver holds it.
        """
        ready_queue = self.ready_queue(session_id)
        if ready_queue.holder is not None:
            raise RefusalError(SESSION_TAKEN, f"the session {session_id!r} is locked by another receiver")
        self._grant(holder, session_id, ready_queue, now)

    def wait(self, holder: SessionHolder, deadline: int) -> None:
        """Ask for any session that has messages and is not locked."""
        self._waiting.append(_Waiting(holder, deadline))

    def serve(self, now: int) -> None:
        """Give free sessions with messages to those who wait."""
        if not self._waiting:
            return
        for session_id, ready_queue in list(self.ready_queues.items()):
            if self._waiting and ready_queue.holder is None and ready_queue.peek(self._messages) is not None:
                self._grant(self._waiting.pop(0).holder, session_id, ready_queue, now)

    def leave(self, holder: SessionHolder) -> str | None:
        """Release the session that a receiver holds or waits for; return the id of the session that it held."""
        self._waiting = [each for each in self._waiting if each.holder is not holder]
        for session_id, ready_queue in self._held.items():
            if ready_queue.holder is holder:
                self._free(session_id, ready_queue)
                return session_id
        return None

    def renew(self, session_id: str, now: int) -> int:
        """Renew the lock of a session; return when it expires, in ms since 1970.

        Raises:
            RefusalError: No receiver holds it.
        """
        ready_queue = self.held(session_id)
        ready_queue.until = now + self._lock_milliseconds
        return ready_queue.until

    def held(self, session_id: str) -> ReadyQueue:
        """Return a session that a receiver holds.

        Raises:
            RefusalError: No receiver holds it.
        """
        ready_queue = self._held.get(session_id)
        if ready_queue is None:
            raise RefusalError(SESSION_LOCK_LOST, f"the session {session_id!r} is not locked")
        return ready_queue

    def expire(self, now: int) -> list[str]:
        """Take away the sessions whose lock has ended, and turn away who has waited too long; return the ids."""
        for each in [each for each in self._waiting if each.deadline <= now]:
            self._waiting.remove(each)
            each.holder.refused(RefusalError(TIMEOUT, "no session with messages became free in time"))
        return self._take_away(lambda ready_queue: ready_queue.until <= now)

    def expire_all(self) -> list[str]:
        """Take away all sessions; return their ids."""
        return self._take_away(lambda _ready_queue: True)

    def _take_away(self, ended: Callable[[ReadyQueue], bool]) -> list[str]:
        taken = {session_id: ready_queue.holder for session_id, ready_queue in self._held.items() if ended(ready_queue)}
        for session_id, holder in taken.items():
            self._free(session_id, self._held[session_id])
            if holder is not None:
                holder.lost()
        return list(taken)

    def _free(self, session_id: str, ready_queue: ReadyQueue) -> None:
        ready_queue.holder = None
        del self._held[session_id]
        if ready_queue.state is None and ready_queue.peek(self._messages) is None:
            del self.ready_queues[session_id]  # it comes back with its next message

    def _grant(self, holder: SessionHolder, session_id: str, ready_queue: ReadyQueue, now: int) -> None:
        ready_queue.holder = holder
        ready_queue.until = now + self._lock_milliseconds
        self._held[session_id] = ready_queue
        holder.granted(session_id, ready_queue.until)
