"""Settlement: outcomes are collected, and recorded by the broker in batches."""

import asyncio
import logging
from collections.abc import Collection, Sequence

from diator.brokers.port import RELEASE, Delivery, MoveToDeadLetters, Outcome, Receiver, Release, RetryAfter
from diator.delivery.leases import LeaseRenewer
from diator.delivery.outage import Backoff, OutageTracker
from diator.delivery.outcome_reporter import OutcomeReporter
from diator.delivery.work_queue import Job
from diator.errors import BrokerError, BrokerUnavailableError

logger = logging.getLogger("diator")

_MAX_DELAY = 0.05
"""Seconds that an outcome waits at most for others."""
_MAX_BATCH = 100
"""Outcomes that wait at most before they are settled."""
_MAX_FRUITLESS = 30
"""Attempts to record an outcome that the broker rejects: about two minutes, since others may wait behind it."""


Decided = tuple[Job, Outcome]


class SettlementBatcher:
    """Settles the jobs of one receiver, in the order in which they were added."""

    def __init__(
        self, name: str, receiver: Receiver, leases: LeaseRenewer, reporter: OutcomeReporter, outage: OutageTracker
    ) -> None:
        self._name = name
        self._receiver = receiver
        self._leases = leases
        self._reporter = reporter
        self._outage = outage
        self._waiting: list[Decided] = []
        self._fruitless = 0
        """How often in a row nothing could be recorded, though the broker was there."""
        self._wake = asyncio.Event()
        self._ending = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def is_done(self) -> bool:
        """Whether nothing waits to be settled."""
        return not self._waiting

    def add(self, job: Job, outcome: Outcome) -> None:
        """Settle a job soon, together with others."""
        if outcome is RELEASE:
            self._reporter.released(job)
        job.is_decided = True
        if not self._waiting:
            self._timer = self._loop.call_later(_MAX_DELAY, self._wake.set)
        self._waiting.append((job, outcome))
        if len(self._waiting) >= _MAX_BATCH:
            self._wake.set()

    def flush_soon(self) -> None:
        """Settle what waits now: nothing more comes soon."""
        if self._waiting:
            self._wake.set()

    def end(self) -> None:
        """Let `run` return after it has settled the waiting messages, or the broker has failed again."""
        self._ending.set()
        self._wake.set()

    async def run(self) -> None:
        """Settle batches until `end` was called and nothing waits. May be called again after a cancel."""
        backoff = Backoff()
        while self._waiting or not self._ending.is_set():
            if not self._ending.is_set():
                await self._wake.wait()
                self._wake.clear()
            while self._waiting:
                is_last = self._ending.is_set()
                if not await self._flush():
                    if is_last:
                        return
                    await backoff.wait(self._ending)
            backoff.reset()

    async def _flush(self) -> bool:
        """Settle everything that waits; return false if the broker could not. What was not settled waits on."""
        batch, self._waiting = self._waiting, []
        if self._timer is not None:
            self._timer.cancel()
        try:
            await self._settle(batch)
        except BrokerError as error:
            self._outage.record_failure(_SETTLE, self._name, error)
            return False
        finally:
            self._waiting = [*batch, *self._waiting]
        self._outage.record_success(_SETTLE, self._name)
        return True

    async def _settle(self, batch: list[Decided]) -> None:
        """Settle a batch, and take out of it what the broker has recorded."""
        try:
            lost = await self._receiver.settle([(job.delivery, outcome) for job, outcome in batch])
        except BrokerUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 - any error may concern one of them alone
            await self._settle_each(batch, error)
        else:
            self._recorded(tuple(batch), {id(delivery) for delivery in lost} if lost else ())
            batch.clear()
            self._fruitless = 0

    def _recorded(self, settled: Sequence[Decided], lost: Collection[int]) -> None:
        """Finish jobs; ``lost`` are the ids of deliveries of which nothing was recorded."""
        jobs = [job for job, _ in settled]
        if lost:
            for job in jobs:
                if id(job.delivery) in lost:
                    self._leases.lose(job)
        self._leases.finish(jobs)
        self._reporter.settled(settled, lost)

    async def _settle_each(self, batch: list[Decided], error: Exception) -> None:
        """Settle one at a time, so that an outcome that can't be recorded takes no other with it.

        Where none can be, the broker or the receiver may be at fault: the error is raised, and all of them wait on, for
        a while. Of others that can't, nothing is recorded: they are delivered again when their leases end, at most so
        often as the subscription allows.
        """
        failed: list[Decided] = []
        total = len(batch)
        for job, outcome in tuple(batch):
            if job.key is not None and any(job.key == other.key for other, _ in failed):
                failed.append((job, outcome))  # it must not come before the one that has failed
                continue
            try:
                recorded, lost = await self._settle_alone(job, outcome)
            except BrokerUnavailableError:
                raise
            except Exception as again:  # noqa: BLE001 - as above
                failed.append((job, outcome))
                error = again
            else:
                batch.remove((job, outcome))
                self._fruitless = 0
                self._recorded([(job, recorded)], {id(delivery) for delivery in lost})
        if len(failed) == total and self._may_be_all(failed, error):
            raise error
        for job, outcome in failed:
            logger.error(_NOT_RECORDED, self._name, outcome, job.name, "it is delivered again", exc_info=error)
        batch.clear()
        self._recorded(failed, {id(job.delivery) for job, _ in failed})

    def _may_be_all(self, failed: list[Decided], error: Exception) -> bool:
        """Whether the broker or the receiver may be unable to record anything, not only these outcomes."""
        self._fruitless += 1
        if all(isinstance(outcome, Release) for _, outcome in failed):
            return False  # their leases expire, which needs no log
        return self._fruitless < _MAX_FRUITLESS if isinstance(error, BrokerError) else len(failed) > 1

    async def _settle_alone(self, job: Job, outcome: Outcome) -> tuple[Outcome, Collection[Delivery]]:
        """Settle one; if its details can't be recorded, as a dead letter without them."""
        settle = self._receiver.settle
        try:
            return outcome, await settle([(job.delivery, outcome)])
        except BrokerUnavailableError:
            raise
        except Exception as error:
            if not isinstance(outcome, (MoveToDeadLetters, RetryAfter)):
                raise
            text = f"its outcome could not be recorded ({type(error).__name__}); the log of the worker says more"
            instead = MoveToDeadLetters(text, attempts=job.delivery.failures + 1)
            lost = await settle([(job.delivery, instead)])
            logger.exception(_NOT_RECORDED, self._name, outcome, job.name, "it becomes a dead letter")
            return instead, lost


_SETTLE = "settle messages"
_NOT_RECORDED = "%s: the broker can't record %r for message %s; %s"
