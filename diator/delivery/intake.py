"""The intake: how many messages a consumer takes, and when."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

from diator.brokers.port import Delivery, Receiver
from diator.delivery.catalog import Consumed
from diator.delivery.lanes import Job, Lanes
from diator.delivery.outage import Backoff
from diator.delivery.shared import Shared
from diator.errors import BrokerError

logger = logging.getLogger("diator")

_MOST = 100
"""Messages that are worth one call, and that a worker takes ahead of handling them."""
_FAST, _SLOW = 0.1, 1.0
"""Seconds in which a batch is handled before more, or less, is taken at a time."""
_RECEIVE = "receive messages"
_ASK_AFTER = 1.0
"""Seconds that receiving has not failed, before the broker is asked whether it is there."""
_EMPTY = 0.1
"""Seconds that a receive should take which gives nothing."""
_SOON = 0.5
"""Seconds in which a suspect that was given back should come again; another worker may have taken it."""
_UNEXPLAINED = 2
"""Deliveries without an outcome that make a message a suspect, if more are allowed: a single one is no sign."""


class Intake:
    """Receives as much as is handled in about a tenth of a second, so that no worker sits on what others could do.

    A message that was delivered several times without an outcome may have killed its workers. Such suspects are run
    one at a time in the whole worker, and everything else that came with them is given back, so that a message which
    does kill its worker is the only one that is blamed.
    """

    def __init__(self, receiver: Receiver, consumed: Consumed, lanes: Lanes, shared: Shared) -> None:
        self._receiver = receiver
        self._subscription = consumed.subscription
        self._lanes = lanes
        self._shared = shared
        self._unexplained = max(1, min(_UNEXPLAINED, consumed.subscription.max_deliveries - 1))
        self._most = max(_MOST, consumed.concurrency)
        self._ahead = consumed.concurrency
        self._low = asyncio.Event()
        self._suspect: Delivery | None = None
        self._suspect_settled = asyncio.Event()
        self._returning: set[Job] = set()
        self._returned = asyncio.Event()
        self._after: list[Callable[[], object]] = []
        self._receiving = False
        self._loop = asyncio.get_running_loop()

    async def run(
        self, take_in: Callable[[Sequence[Delivery]], None], give_back: Callable[[Iterable[Delivery]], None]
    ) -> None:
        """Receive until cancelled."""
        backoff = Backoff()
        careful = False
        while True:
            await self._until_returned()
            if careful:
                async with self._shared.suspects:
                    careful = await self._one(take_in, backoff)
                continue
            limit = max(self._ahead, self._lanes.idle, 1)
            deliveries = await self._receive(limit, backoff)
            careful = any(map(self._is_suspect, deliveries))
            (give_back if careful else take_in)(deliveries)
            self._ended_receiving()
            if careful:
                continue
            began = self._loop.time()
            await self._until_low()
            self._adapt(len(deliveries) >= limit, self._loop.time() - began)
            await self._until_low()  # by the new measure

    async def _one(self, take_in: Callable[[Sequence[Delivery]], None], backoff: Backoff) -> bool:
        """Run one suspect alone; false where there is none any more."""
        deliveries = await self._soon(backoff)
        suspected = any(map(self._is_suspect, deliveries))
        if suspected:
            self._suspect = deliveries[0]
            self._suspect_settled.clear()
        if deliveries:
            take_in(deliveries)
        self._ended_receiving()
        if suspected:
            await self._suspect_settled.wait()
        return suspected

    def were_settled(self, jobs: Iterable[Job]) -> None:
        """Note that jobs have an outcome that the broker knows."""
        if self._suspect is None and not self._returning:
            return
        for job in jobs:
            if job.delivery is self._suspect:
                self._suspect = None
                self._suspect_settled.set()
            self._returning.discard(job)
        if not self._returning:
            self._returned.set()

    def returns(self, job: Job) -> None:
        """Receive no more until a job is back at the broker."""
        self._returning.add(job)
        self._returned.clear()

    async def _until_returned(self) -> None:
        while self._returning:
            await self._returned.wait()

    def wake(self) -> None:
        """Look again whether few messages wait, or somebody waits for one."""
        if self._lanes.has_idle or len(self._lanes) * 2 < self._ahead:
            self._low.set()

    def after_this_receive(self, act: Callable[[], object]) -> None:
        """Do something once the receive that is under way has been taken in, or now if there is none."""
        if self._receiving:
            self._after.append(act)
        else:
            act()

    async def _until_low(self) -> None:
        while not self._is_low:
            self._low.clear()
            await self._low.wait()

    @property
    def _is_low(self) -> bool:
        """Whether few messages wait. Those that wait for their key are of no use to who waits for a message."""
        waiting = len(self._lanes)
        return waiting * 2 < self._ahead or (waiting < self._most and self._lanes.idle > 0)

    async def _soon(self, backoff: Backoff) -> Sequence[Delivery]:
        """Receive one message if there is one: others wait for the right to run their suspects."""
        receiving = asyncio.ensure_future(self._receive(1, backoff))
        try:
            await asyncio.wait({receiving}, timeout=_SOON)
        finally:
            receiving.cancel()  # which is safe, and does nothing where it is done
            await asyncio.wait({receiving})
        return () if receiving.cancelled() else receiving.result()

    async def _receive(self, limit: int, backoff: Backoff) -> Sequence[Delivery]:
        outage, name = self._shared.outage, self._subscription.name
        while True:
            self._receiving = True
            began = self._loop.time()
            try:
                deliveries = await self._patiently(limit)
            except BrokerError as error:
                self._ended_receiving()
                outage.down(_RECEIVE, name, error)
                await backoff.wait()
                continue
            except BaseException:
                self._ended_receiving()
                raise
            outage.up(_RECEIVE, name)
            backoff.reset()
            if deliveries:
                return deliveries  # the receive ends when they were taken in
            self._ended_receiving()
            # A receiver that is closed gives nothing, at once, and again and again.
            await asyncio.sleep(0 if self._loop.time() - began > _EMPTY else _EMPTY)

    async def _patiently(self, limit: int) -> Sequence[Delivery]:
        if not self._shared.outage.has(_RECEIVE, self._subscription.name):
            return await self._receiver.receive(limit)
        asking = asyncio.ensure_future(self._ask())
        try:
            return await self._receiver.receive(limit)
        finally:
            asking.cancel()

    async def _ask(self) -> None:
        """Find out whether a broker that was away is back: who waits for messages is told nothing without any."""
        while True:
            await asyncio.sleep(_ASK_AFTER)
            try:
                await self._shared.broker.status([self._subscription])
            except BrokerError:
                continue
            except Exception:
                logger.exception("%s: asking whether the broker is back has failed", self._subscription.name)
                return
            self._shared.outage.up(_RECEIVE, self._subscription.name)
            return

    def _ended_receiving(self) -> None:
        self._receiving = False
        acts, self._after = self._after, []
        for act in acts:
            act()

    def _is_suspect(self, delivery: Delivery) -> bool:
        return delivery.deliveries > 1 and delivery.deliveries - delivery.failures > self._unexplained

    def _adapt(self, full: bool, seconds: float) -> None:
        if full and seconds < _FAST:
            self._ahead = min(max(1, self._ahead * 2), self._most)
        elif seconds > _SLOW:
            self._ahead //= 2
