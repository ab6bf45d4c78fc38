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
"""So many times ``max_sessions`` there may be, with those that wait for a retry."""
_CLEAN_UP_TIMEOUT = 10.0
"""Seconds that the SDK may take to close what it was opening; `quietly` gives it less."""


class SessionReceiver(Receiving):
    """One worker's access to a queue with sessions. Each session is a lane.

    It asks for sessions while a ``receive`` waits for messages: for one at first, and for more the more it has.
    """

    def __init__(
        self, link: NamespaceClient, queue: str, subscription: Subscription, forget: Callable[[Receiver], None]
    ) -> None:
        super().__init__(queue, subscription, link.settings.lease, forget)
        self._link = link
        self._most = link.settings.max_sessions
        self._lanes: list[HeldSession] = []
        self._of: dict[int, HeldSession] = {}
        """The lane of what is out, by the identity of what is held."""
        self._asking: set[asyncio.Task[None]] = set()
        self._background: set[asyncio.Task[Any]] = set()
        self._error: BaseException | None = None

    async def settle(self, settlements: Sequence[Settlement], /) -> Collection[Delivery]:
        """Settle many, those of one session in order; give those whose session was lost."""
        by_lane: dict[int, list[Settlement]] = {}
        for settlement in settlements:
            by_lane.setdefault(id(self._of.get(id(settlement[0].receipt))), []).append(settlement)
        with self._settling():
            done = await asyncio.gather(*map(self._settle, by_lane.values()), return_exceptions=True)
        self._wake()
        return _joined(done)

    async def _settle(self, settlements: Sequence[Settlement]) -> list[Delivery]:
        """Settle those of one session: in order, but neighbours that are acknowledged side by side."""
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
        lane = self._of.get(id(held))
        is_lost = not held.settled and (held.lost or (lane is not None and await lane.settle(held, outcome)))
        self._of.pop(id(held), None)
        return [delivery] if is_lost else []

    async def renew(self, deliveries: Sequence[Delivery], /) -> Collection[Delivery]:
        """Renew the sessions of these; give those that were lost already."""
        lanes = {id(lane): lane for one in deliveries if (lane := self._of.get(id(one.receipt))) is not None}
        done = await asyncio.gather(*(lane.renew() for lane in lanes.values()), return_exceptions=True)
        for result in done:
            if isinstance(result, BaseException):
                raise result
        lost = [one for one in deliveries if one.receipt.lost]
        for one in lost:
            self._of.pop(id(one.receipt), None)
        return lost

    async def _close(self) -> None:
        self._stop_asking()
        lanes, self._lanes = self._lanes, []
        await asyncio.gather(*(lane.aclose() for lane in lanes))
        while self._background:
            await asyncio.wait(list(self._background))

    # Handing out

    def _hand_out(self, limit: int) -> list[Delivery]:
        deliveries: list[Delivery] = []
        for lane in self._lanes:
            if len(deliveries) < limit and lane.fetcher.ready and lane.is_fresh():
                taken = lane.take(limit - len(deliveries))
                self._of.update((id(held), lane) for held in taken)
                deliveries += [held.delivery(self._subscription, held.failures) for held in taken]
        if len(self._lanes) > 1:
            self._lanes.append(self._lanes.pop(0))  # so that each is first in turn
        return deliveries

    def _ask(self, limit: int) -> None:
        """Fetch from the sessions there are, and ask for more: for one only while messages wait for their locks.

        LinkFactory many takes long, in which the locks of those that are open would run out.
        """
        self._tidy()
        for lane in self._lanes:
            lane.start(limit)
        active = sum(not lane.is_held for lane in self._lanes)
        asking = len(self._asking)
        room = min(self._most - active, self._most * _HELD - len(self._lanes)) - asking
        wanted = 1 if any(lane.fetcher.ready for lane in self._lanes) else 1 + active
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
        """Get the next session that is free, and what is known of it."""
        try:
            sdk = await self._link.session(self._queue, _WAIT)
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
        self._lanes.append(HeldSession(sdk, state, self._lease, self._wake))
        self._linger()

    # Letting go

    def _tidy(self) -> None:
        """Let go of the sessions that have no more messages, or are lost."""
        for lane in list(self._lanes):
            if lane.fetcher.take_error() is not None:
                lane.lose()
            if lane.lost or lane.is_done:
                self._let_go(lane)

    def _let_go(self, lane: HeldSession) -> None:
        self._lanes.remove(lane)
        self._in_background(lane.aclose())

    def _rest(self) -> None:
        """Leave all sessions of which nothing is out to other receivers."""
        if self._is_waiting or self._closing is not None:
            return
        self._stop_asking()
        self._tidy()
        for lane in list(self._lanes):
            if lane.is_free:
                self._let_go(lane)
            else:
                lane.fetcher.pause()

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
