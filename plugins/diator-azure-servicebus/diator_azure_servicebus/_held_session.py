"""A session that a receiver holds: the messages of one key, in order.

A message to be retried is released to its place, and the session is held until it is due. The failure counts are in
the state of the session, for the next receiver that holds it.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone

import msgspec
from azure.servicebus.exceptions import MessageAlreadySettled, OperationTimeoutError, ServiceBusServerBusyError

from diator.brokers import Ack, MoveToDeadLetters, Outcome, RetryAfter
from diator.errors import BrokerError
from diator_azure_servicebus._dead_letter_reason import write
from diator_azure_servicebus._errors import LOST, is_temporary, quietly, translate, unclear
from diator_azure_servicebus._fetching import Fetcher, LockedMessage, stopped
from diator_azure_servicebus._sdk import Receiver

IDLE_SESSION = 0.5
"""Seconds for which a session is kept when it has no more messages."""
_MISFITS = 5
"""Messages that may come out of order before the session is closed."""
_MIN_LEASE_SHARE = 0.8
"""The share of a lock that must remain when a message is delivered."""


class _State(msgspec.Struct, omit_defaults=True):
    """The state of a session."""

    failures: dict[int, int] = {}
    """How often messages have failed, by their sequence numbers."""
    due: float = 0.0
    """When the first may be delivered again, in seconds since 1970."""


class HeldSession:
    """One session. ``wake`` is called when something has changed."""

    def __init__(self, sdk: Receiver, state: bytes | None, lease: float, wake: Callable[[], None]) -> None:
        self.fetcher = Fetcher(sdk, wake, self._returned)
        self.in_flight: dict[LockedMessage, None] = {}
        """What was delivered and is not settled, in order."""
        self.lost = False
        self._sdk = sdk
        self._lease = lease
        self._wake = wake
        self._state = _read(state)
        self._broken = False
        """Whether a message was released while others of the session are in flight."""
        self._owed: set[int] = set()
        """Sequence numbers that were released and must come before any later one."""
        self._misfits = 0
        self._keeping: asyncio.Task[None] | None = None
        self._refreshing: asyncio.Task[None] | None = None
        if self.is_held:
            self._keep()

    @property
    def path(self) -> str:
        """The queue."""
        return self._sdk.entity_path

    @property
    def is_held(self) -> bool:
        """Whether it waits for a retry."""
        return self._state.due > time.time()

    @property
    def is_free(self) -> bool:
        """Whether it may be closed."""
        return not self.in_flight and not self.is_held

    @property
    def is_done(self) -> bool:
        """Whether it has no more messages now."""
        ended = self._misfits > _MISFITS or (self.fetcher.came_empty and not self.fetcher.is_busy)
        return self.is_free and ended and not self.fetcher.ready

    @property
    def has_expired(self) -> bool:
        """Whether its lock has run out, by the clock of this machine."""
        return self._left <= timedelta(0)

    @property
    def _left(self) -> timedelta:
        until = self._sdk.session.locked_until_utc
        return timedelta(days=1) if until is None else until - datetime.now(timezone.utc)

    # Delivering

    def start(self, limit: int) -> None:
        """Fetch, if what comes may be delivered."""
        if self._may_deliver and not self.fetcher.ready:
            self.fetcher.start(limit, IDLE_SESSION)

    @property
    def _may_deliver(self) -> bool:
        return not self.lost and not self.is_held and not (self._broken and self.in_flight)

    def is_fresh(self) -> bool:
        """Return whether enough of the lock remains to deliver messages; otherwise renew it, then wake."""
        ended = self._refreshing is not None and self._refreshing.done()
        if ended:
            self._refreshing = None
        if ended or self._left >= timedelta(seconds=self._lease * _MIN_LEASE_SHARE):
            return not self.lost
        if self._refreshing is None:
            self._refreshing = asyncio.ensure_future(self._refresh())
        return False

    async def _refresh(self) -> None:
        with contextlib.suppress(BrokerError):  # it lasts a little yet
            await self.renew()
        if self.has_expired:
            self.lose()
        self._wake()

    def take(self, limit: int) -> list[LockedMessage]:
        """Return what may be delivered, in order. What came too early is released."""
        ready, self.fetcher.ready = (
            sorted(self.fetcher.ready, key=lambda held: held.sequence),
            deque(),
        )
        taken = list(self._in_order(ready)) if self._may_deliver else []
        early, kept = ready[len(taken) :], taken[limit:]
        self.fetcher.ready.extend(kept)
        for held in taken[:limit]:
            held.failures = self._state.failures.get(held.sequence, 0)
            self.in_flight[held] = None
        if early:
            self._misfits += 1
            self.fetcher.release_soon(early)
        return taken[:limit]

    def _in_order(self, ready: Iterable[LockedMessage]) -> Iterable[LockedMessage]:
        for held in ready:
            if any(sequence < held.sequence for sequence in self._owed):
                return
            self._owed.discard(held.sequence)
            yield held

    def _returned(self, held: LockedMessage) -> None:
        self._owed.add(held.sequence)

    # Settling

    async def settle(self, held: LockedMessage, outcome: Outcome) -> bool:
        """Settle one; return whether it was lost.

        Raises `~diator.BrokerError` if another attempt can help, and if the connection broke: the outcome may be
        recorded then, and what is reported as lost must not be.
        """
        if held.settled:
            return False
        if held.lost or self.lost or self.has_expired:
            self.lose()
            return True
        try:
            await self._carry_out(held, outcome)
        except MessageAlreadySettled:
            pass
        except (ServiceBusServerBusyError, OperationTimeoutError) as error:
            raise translate(error, self.path) from error
        except LOST as error:
            self.lose()
            if outage := unclear(error, self.path):
                raise outage from error
            return True
        except Exception as error:
            if is_temporary(error):
                self.lose()  # a session does not outlive its connection
            raise translate(error, self.path) from error
        held.settled = True
        self.in_flight.pop(held, None)
        self._broken = self._broken and bool(self.in_flight)
        return False

    async def _carry_out(self, held: LockedMessage, outcome: Outcome) -> None:
        if isinstance(outcome, Ack):
            await self._sdk.complete_message(held.message)
        elif isinstance(outcome, MoveToDeadLetters):
            await self._sdk.dead_letter_message(held.message, *write(outcome))
        elif isinstance(outcome, RetryAfter):
            await self._hold(held, outcome.delay)
        else:
            await self._sdk.release(held.message, held.link)
        if isinstance(outcome, (Ack, MoveToDeadLetters)):
            await self._forget(held)
        else:
            self._owed.add(held.sequence)
            self._broken = True

    async def _hold(self, held: LockedMessage, delay: float) -> None:
        """Record the failure first: a crash in between may count one too many, but loses nothing."""
        self._state.failures[held.sequence] = held.failures + 1
        self._state.due = max(self._state.due, time.time() + delay)
        await self._save()
        await self._sdk.abandon_message(held.message)
        if delay > 0:
            self._keep()

    async def _forget(self, held: LockedMessage) -> None:
        if self._state.failures.pop(held.sequence, None) is not None:
            with contextlib.suppress(Exception):  # a count that stays does no harm
                await self._save()

    async def _save(self) -> None:
        state = msgspec.json.encode(self._state) if self._state.failures else None
        await self._sdk.session.set_state(state)

    # The lock

    async def renew(self) -> bool:
        """Renew the lock; return whether it was lost. Raises `~diator.BrokerError` if another attempt can help."""
        if self.lost or self.has_expired:
            self.lose()
            return True
        try:
            await self._sdk.session.renew_lock()
        except (ServiceBusServerBusyError, OperationTimeoutError) as error:
            raise translate(error, self.path) from error
        except Exception as error:
            if not isinstance(error, LOST) and not is_temporary(error):
                raise translate(error, self.path) from error
            self.lose()
        return self.lost

    def lose(self) -> None:
        """Note that another receiver may hold the session now."""
        self.lost = True
        for held in self.in_flight:
            held.lost = True
        self._wake()

    def _keep(self) -> None:
        if self._keeping is None or self._keeping.done():
            self._keeping = asyncio.ensure_future(self._keep_until_due())

    async def _keep_until_due(self) -> None:
        """Renew the lock while the session waits for a retry: the engine has no delivery of it to renew."""
        while self.is_held and not self.lost:
            await asyncio.sleep(min(self._lease / 3, max(0.0, self._state.due - time.time())))
            if not self.in_flight and self.is_held:
                with contextlib.suppress(BrokerError):  # it is tried again, or is lost
                    await self.renew()
        self._wake()

    async def aclose(self) -> None:
        """Release the session, and with it everything that is not settled."""
        self.lost = True  # what is settled from now on has been released with the session
        for held in self.in_flight:
            held.lost = True
        for task in (self._keeping, self._refreshing):
            if task is not None:
                await stopped(task)
        await self.fetcher.stop()
        await quietly(self._sdk.close())


def _read(state: bytes | None) -> _State:
    try:
        return msgspec.json.decode(bytes(state), type=_State) if state else _State()
    except msgspec.DecodeError:
        return _State()  # written by another program
