"""Receiving from a queue with sessions: the messages of one key in order, several keys side by side."""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Sequence
from itertools import groupby
from typing import Any

from azure.servicebus.exceptions import OperationTimeoutError, SessionLockLostError

from diator.brokers import Ack, Delivery, Receiver, Settlement, Subscription
from diator_azure_servicebus import _sdk
from diator_azure_servicebus._errors import quietly
from diator_azure_servicebus._fetching import LockedMessage, stopped
from diator_azure_servicebus._held_session import HeldSession
from diator_azure_servicebus._namespace import NamespaceClient
from diator_azure_servicebus._receiving import Receiving

_WAIT = 30.0
"""Seconds for which the service is asked for a session at a time."""
_HELD = 4
"""Sessions held at most, as a multiple of ``max_sessions``, including those that wait for a retry."""
_CLEAN_UP_TIMEOUT = 10.0
"""Seconds that the SDK may take to close what it was opening; `quietly` gives it less."""


class SessionReceiver(Receiving):
    """One worker's access to a queue with sessions.

    It asks for sessions while a ``receive`` waits for messages: for one at first, and for more the more it has.
    """

    def __init__(
        self, client: NamespaceClient, queue: str, subscription: Subscription, forget: Callable[[Receiver], None]
    ) -> None:
        super().__init__(queue, subscription, client.settings.lease, forget)
        self._client = client
        self._most = client.settings.max_sessions
        self._sessions: list[HeldSession] = []
        self._session_of: dict[LockedMessage, HeldSession] = {}
        """The sessions of the messages in flight."""
        self._asking: set[asyncio.Task[None]] = set()
        self._background: set[asyncio.Task[Any]] = set()
        self._error: BaseException | None = None

    async def settle(self, settlements: Sequence[Settlement], /) -> Collection[Delivery]:
        """Settle many, those of one session in order; return those whose session was lost."""
        by_session: dict[HeldSession | None, list[Settlement]] = {}
        for settlement in settlements:
            by_session.setdefault(self._session_of.get(settlement[0].receipt), []).append(settlement)
        done = await asyncio.gather(*map(self._settle, by_session.values()), return_exceptions=True)
        self._wake()
        return _joined(done)

    async def _settle(self, settlements: Sequence[Settlement]) -> list[Delivery]:
        """Settle those of one session in order; adjacent acknowledgements are settled together."""
        lost: list[Delivery] = []
        for _, run in groupby(settlements, lambda settlement: isinstance(settlement[1], Ack)):
            one_by_one = [*run]
            if isinstance(one_by_one[0][1], Ack):
                done = await asyncio.gather(*map(self._settle_one, one_by_one), return_exceptions=True)
                lost += _joined(done)
            else:
                for settlement in one_by_one:
                    lost += await self._settle_one(settlement)
        return lost

    async def _settle_one(self, settlement: Settlement) -> list[Delivery]:
        delivery, outcome = settlement
        held: LockedMessage = delivery.receipt
        session = self._session_of.get(held)
        is_lost = not held.settled and (held.lost or (session is not None and await session.settle(held, outcome)))
        self._session_of.pop(held, None)
        return [delivery] if is_lost else []

    async def renew(self, deliveries: Sequence[Delivery], /) -> Collection[Delivery]:
        """Renew the sessions of these; return those that were lost already."""
        sessions = {self._session_of[one.receipt] for one in deliveries if one.receipt in self._session_of}
        done = await asyncio.gather(*(session.renew() for session in sessions), return_exceptions=True)
        for result in done:
            if isinstance(result, BaseException):
                raise result
        lost = [one for one in deliveries if one.receipt.lost]
        for one in lost:
            self._session_of.pop(one.receipt, None)
        return lost

    async def _close(self) -> None:
        self._stop_asking()
        sessions, self._sessions = self._sessions, []
        await asyncio.gather(*(session.aclose() for session in sessions))
        while self._background:
            await asyncio.wait(list(self._background))

    # Delivering

    def _deliver(self, limit: int) -> list[Delivery]:
        deliveries: list[Delivery] = []
        for session in self._sessions:
            if len(deliveries) < limit and session.fetcher.ready and session.is_fresh():
                taken = session.take(limit - len(deliveries))
                self._session_of.update(dict.fromkeys(taken, session))
                deliveries += [held.delivery(self._subscription, held.failures) for held in taken]
        if len(self._sessions) > 1:
            self._sessions.append(self._sessions.pop(0))  # so that each is first in turn
        return deliveries

    def _ask(self, limit: int) -> None:
        """Fetch from the sessions there are, and ask for more: for one only while messages wait for their locks.

        Opening many takes long, and meanwhile the locks of those that are open would run out.
        """
        self._tidy()
        for session in self._sessions:
            session.start(limit)
        active = sum(not session.is_held for session in self._sessions)
        asking = len(self._asking)
        room = min(self._most - active, self._most * _HELD - len(self._sessions)) - asking
        wanted = 1 if any(session.fetcher.ready for session in self._sessions) else 1 + active
        for _ in range(min(room, wanted - asking)):
            task = asyncio.ensure_future(self._open())
            self._asking.add(task)
            task.add_done_callback(self._asked)

    def _take_error(self) -> BaseException | None:
        error, self._error = self._error, None
        return error

    def _asked(self, task: "asyncio.Task[None]") -> None:
        self._asking.discard(task)
        self._woken.set()

    async def _open(self) -> None:
        """Open the next free session, and read its state."""
        try:
            sdk = await self._client.session(self._queue, _WAIT)
            try:
                state = await sdk.session.get_state()
            except BaseException:
                await quietly(sdk.close())
                raise
            await self._opened(sdk, state)
        except (OperationTimeoutError, SessionLockLostError):
            pass  # there was none, or its lock ended while it was opened
        except Exception as error:  # noqa: BLE001 - raised by `receive`
            self._error = error

    async def _opened(self, sdk: _sdk.Receiver, state: bytes | None) -> None:
        if self._closing is not None:
            await quietly(sdk.close())
            return
        self._look_at_lock(sdk.session.locked_until_utc)
        self._sessions.append(HeldSession(sdk, state, self._lease, self._wake))
        self._linger()

    # Closing sessions

    def _tidy(self) -> None:
        """Close the sessions that have no more messages, or are lost."""
        for session in list(self._sessions):
            if session.fetcher.take_error() is not None:
                session.lose()
            if session.lost or session.is_done:
                self._close_session(session)

    def _close_session(self, session: HeldSession) -> None:
        self._sessions.remove(session)
        self._in_background(session.aclose())

    def _rest(self) -> None:
        """Release all sessions without a message in flight, for other receivers."""
        if self._is_waiting or self._closing is not None:
            return
        self._stop_asking()
        self._tidy()
        for session in list(self._sessions):
            if session.is_free:
                self._close_session(session)
            else:
                session.fetcher.pause()

    def _stop_asking(self) -> None:
        """Stop each once: a second cancel would cut short its closing, and leave a session locked for a lease."""
        stopping, self._asking = self._asking, set()
        for task in stopping:
            self._in_background(stopped(task, _CLEAN_UP_TIMEOUT))

    def _in_background(self, work: "Coroutine[Any, Any, object]") -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _joined(done: "Sequence[list[Delivery] | BaseException]") -> list[Delivery]:
    lost: list[Delivery] = []
    for result in done:
        if isinstance(result, BaseException):
            raise result
        lost += result
    return lost
