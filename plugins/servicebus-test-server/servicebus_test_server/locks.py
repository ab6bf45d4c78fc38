"""The locks of a store, by token."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID, uuid4

from servicebus_test_server.errors import LOCK_LOST, NOT_ALLOWED, RefusalError
from servicebus_test_server.stored import Lock, Stored
from servicebus_test_server.timers import Timers


class Locks:
    """Who has locked what. In a store with sessions, locks have no end of their own.

    Args:
        milliseconds: How long a lock lasts; None in a store with sessions.
    """

    def __init__(self, milliseconds: int | None) -> None:
        self._milliseconds = milliseconds
        self._locked: dict[UUID, Stored] = {}
        self._timers: Timers[Lock] = Timers()

    def __len__(self) -> int:
        return len(self._locked)

    def lock(self, stored: Stored, now: int) -> None:
        """Lock a message."""
        until = None if self._milliseconds is None else now + self._milliseconds
        stored.lock = Lock(uuid4(), until)
        self._locked[stored.lock.token] = stored
        if until is not None:
            self._timers.add(until, stored.lock)

    def unlock(self, token: UUID) -> Stored:
        """Give a message free.

        Raises:
            RefusalError: The lock is lost.
        """
        stored = self._locked.pop(token, None)
        if stored is None:
            raise RefusalError(LOCK_LOST, "the lock on the message has expired or the message is settled")
        stored.lock = None
        return stored

    def renew(self, token: UUID, now: int) -> int:
        """Renew the lock of a message; return when it expires, in ms since 1970.

        Raises:
            RefusalError: The lock is lost, or is that of a session.
        """
        stored = self._locked.get(token)
        if stored is None or stored.lock is None:
            raise RefusalError(LOCK_LOST, "the lock on the message has expired or the message is settled")
        if self._milliseconds is None:
            raise RefusalError(NOT_ALLOWED, "a message of a session has no lock of its own: renew the session's")
        stored.lock.until = until = now + self._milliseconds
        return until

    def expired(self, now: int) -> Iterator[Stored]:
        """Unlock the messages whose lock has ended."""
        for lock in self._timers.due(now):
            if lock.token not in self._locked or lock.until is None:
                continue
            if lock.until > now:  # renewed meanwhile
                self._timers.add(lock.until, lock)
            else:
                yield self.unlock(lock.token)

    def unlock_all(self) -> list[Stored]:
        """Unlock all messages."""
        return [self.unlock(token) for token in list(self._locked)]

    def unlock_session(self, session_id: str) -> list[Stored]:
        """Unlock the messages of a session."""
        tokens = [token for token, stored in self._locked.items() if stored.message.session_id == session_id]
        return [self.unlock(token) for token in tokens]
