"""The settler: outcomes are collected and taken down by the broker in batches."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Protocol

from diator.brokers.port import Delivery, Outcome, Settlement
from diator.delivery.lanes import Job
from diator.delivery.outage import Backoff, Outage
from diator.errors import BrokerError

WITHIN = 0.05
"""Seconds that an outcome waits at most for others to go with."""
_MOST = 100
"""Outcomes that are worth a call."""


class Settles(Protocol):
    """What a receiver does for a settler."""

    async def settle(self, settlements: Sequence[Settlement], /) -> Collection[Delivery]:
        """Settle many, in order."""
        ...


class Settler:
    """Collects outcomes for one receiver. ``settled`` gets each batch, and the identities of what was lost."""

    def __init__(
        self,
        name: str,
        receiver: Settles,
        settled: Callable[[Sequence[tuple[Job, Outcome]], Collection[int]], None],
        outage: Outage,
    ) -> None:
        self._name = name
        self._receiver = receiver
        self._settled = settled
        self._outage = outage
        self._waiting: list[tuple[Job, Outcome]] = []
        self._wake = asyncio.Event()
        self._resting = asyncio.Event()
        self._resting.set()
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def add(self, job: Job, outcome: Outcome) -> None:
        """Take an outcome in."""
        if not self._waiting:
            self._timer = self._loop.call_later(WITHIN, self._wake.set)
        self._waiting.append((job, outcome))
        if len(self._waiting) >= _MOST:
            self._wake.set()

    def hurry(self) -> None:
        """Settle what there is: nothing more comes soon."""
        if self._waiting:
            self._wake.set()

    async def run(self) -> None:
        """Settle batches until cancelled."""
        backoff = Backoff()
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting and not await self.flush():
                await backoff.wait()
            backoff.reset()

    async def at_rest(self, seconds: float) -> None:
        """Let a settling that is under way end: cut off, nobody would know what became of it."""
        if not self._resting.is_set():
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._resting.wait(), seconds)

    async def flush(self) -> bool:
        """Settle everything that waits; false where the broker could not. What was not settled waits on."""
        batch, self._waiting = self._waiting, []
        if not batch:
            return True
        if self._timer is not None:
            self._timer.cancel()
        self._resting.clear()
        try:
            lost = await self._receiver.settle([(job.delivery, outcome) for job, outcome in batch])
        except BrokerError as error:
            self._outage.down("settle messages", self._name, error)
            self._waiting = [*batch, *self._waiting]
            return False
        except BaseException:
            self._waiting = [*batch, *self._waiting]
            raise
        finally:
            self._resting.set()
        self._outage.up("settle messages", self._name)
        self._settled(batch, {id(delivery) for delivery in lost} if lost else ())
        return True
