"""Prefetching: how many messages a consumer receives, and when; and how it isolates suspected poison messages."""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress

from diator.brokers.port import RELEASE, Delivery, Receiver
from diator.delivery.catalog import ConsumerConfig
from diator.delivery.leases import LeaseRenewer
from diator.delivery.outage import Backoff
from diator.delivery.outcome_reporter import OutcomeReporter
from diator.delivery.reading import read_envelope
from diator.delivery.settlement import SettlementBatcher
from diator.delivery.work_queue import Job, WorkQueue
from diator.delivery.worker_state import WorkerState
from diator.errors import BrokerError, UnreadableMessageError

logger = logging.getLogger("diator")

MAX_PREFETCH = 100
"""Messages that are worth one call, and that a worker receives ahead of handling them."""
_FAST, _SLOW = 0.1, 1.0
"""Seconds in which a batch is handled before the next ones are larger, or smaller."""
_RECEIVE = "receive messages"
_PROBE_AFTER = 1.0
"""Seconds that receiving has not failed, before the broker is asked whether it is there."""
_EMPTY = 0.1
"""Seconds that a receive should take which returns nothing."""
_SOON = 0.5
"""Seconds in which a suspected message that was released should be redelivered; another worker may have received it."""
_SUSPECT_AFTER = 2
"""Deliveries without an outcome that make a message suspected, if more are allowed: a single one is no sign."""


class Prefetcher:
    """Receives as much as is handled in about a tenth of a second, so that no worker sits on what others could do.

    A message that was delivered several times without an outcome may have killed its workers. Such messages run one at
    a time in the whole worker, once everything that was received with them is released, so that a message which does
    kill its worker is the only one that is blamed.
    """

    def __init__(
        self,
        receiver: Receiver,
        config: ConsumerConfig,
        state: WorkerState,
        queue: WorkQueue,
        leases: LeaseRenewer,
        settlement: SettlementBatcher,
        reporter: OutcomeReporter,
    ) -> None:
        self._receiver = receiver
        self._subscription = config.subscription
        self._state = state
        self._queue = queue
        self._leases = leases
        self._settlement = settlement
        self._reporter = reporter
        self._suspect_after = max(1, min(_SUSPECT_AFTER, config.subscription.max_deliveries - 1))
        self._max_batch = max(MAX_PREFETCH, config.concurrency)
        self._batch_size = config.concurrency
        self._backoff = Backoff()
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        """Receive until cancelled."""
        while True:
            limit = max(self._batch_size, self._queue.idle, 1)
            jobs = self._start(await self._receive(limit))
            if any(map(self._is_suspected, jobs)):
                await self._isolate(jobs, limit)
                continue
            returning = self._accept(jobs)
            began = self._loop.time()
            await self._queue.wait_until_low(self._batch_size)
            self._adapt(len(jobs) >= limit, self._loop.time() - began)
            await self._queue.wait_until_low(self._batch_size)
            await _all_finished(returning)

    def _adapt(self, full: bool, seconds: float) -> None:
        if full and seconds < _FAST:
            self._batch_size = min(max(1, self._batch_size * 2), self._max_batch)
        elif seconds > _SLOW:
            self._batch_size //= 2

    def _start(self, deliveries: Sequence[Delivery]) -> list[Job]:
        jobs = self._leases.start(deliveries)
        for job in jobs if self._subscription.ordered else ():
            with suppress(UnreadableMessageError):  # reported when its turn comes
                job.key = job.delivery.key or read_envelope(job).partitionkey
        return jobs

    def _accept(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """Queue jobs; release and return those whose key is held, since they would overtake."""
        self._reporter.received(jobs)
        returning: list[Job] = []
        for job in jobs:
            if self._queue.is_held(job.key):
                returning.append(job)
            else:
                self._queue.put(job)
        self._release(returning)
        return returning

    def _release(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._settlement.add(job, RELEASE)
        if jobs:
            self._settlement.flush_soon()

    # Suspected poison messages

    def _is_suspected(self, job: Job) -> bool:
        return job.unexplained >= self._suspect_after

    async def _isolate(self, jobs: Sequence[Job], limit: int) -> None:
        """Run suspected messages one at a time: these, and those among as many that come after them.

        They come one by one then, so that none is received and released again and again with the others.
        """
        turn = self._state.isolation_lock
        remaining = len(jobs)
        if turn.is_wanted:  # the suspected message of another subscription must not take these with it
            self._release(jobs)
            await _all_finished(jobs)
        else:
            async with turn:
                await self._run_alone(jobs)
            limit = 1
        while jobs and remaining > 0:
            await self._queue.wait_until_low(self._batch_size)
            async with turn:
                jobs = self._start(await self._receive_soon(limit))
                if any(map(self._is_suspected, jobs)):
                    await self._run_alone(jobs)
                    remaining = max(remaining, len(jobs))
                else:
                    await _all_finished(self._accept(jobs))
            remaining -= 1
            limit = 1

    async def _run_alone(self, jobs: Sequence[Job]) -> None:
        """Run one suspected message, once the broker has all others back.

        It is not released itself: it would be received with others again, and whenever a worker is killed before it can
        run it, that would speak against it. What comes before it in its key takes its place.
        """
        suspect = max(filter(self._is_suspected, jobs), key=lambda job: job.unexplained)
        first = suspect if suspect.key is None else next(job for job in jobs if job.key == suspect.key)
        others = [job for job in jobs if job is not first]
        self._release(others)
        await _all_finished(others)
        self._accept([first])
        await _all_finished([first])

    async def _receive_soon(self, limit: int) -> Sequence[Delivery]:
        """Receive what there is, if anything: other consumers wait for the lock to run their suspected messages."""
        receiving = asyncio.ensure_future(self._receive(limit))
        try:
            await asyncio.wait({receiving}, timeout=_SOON)
        finally:
            receiving.cancel()  # which is safe, and does nothing if it is done
            await asyncio.wait({receiving})
        return () if receiving.cancelled() else receiving.result()

    # Receiving

    async def _receive(self, limit: int) -> Sequence[Delivery]:
        """Receive at least one message, however long that takes and through all outages."""
        outage, name = self._state.outage, self._subscription.name
        while True:
            self._queue.release_finished_keys()
            began = self._loop.time()
            try:
                deliveries = await self._receive_probing(limit)
            except BrokerError as error:
                outage.record_failure(_RECEIVE, name, error)
                await self._backoff.wait()
                continue
            outage.record_success(_RECEIVE, name)
            self._backoff.reset()
            if deliveries:
                return deliveries
            # A receiver that is closed returns nothing, at once, and again and again.
            await asyncio.sleep(0 if self._loop.time() - began > _EMPTY else _EMPTY)

    async def _receive_probing(self, limit: int) -> Sequence[Delivery]:
        """Receive; during an outage, also probe whether it is over, since there may be nothing to receive."""
        if not self._state.outage.is_failing(_RECEIVE, self._subscription.name):
            return await self._receiver.receive(limit)
        probing = asyncio.ensure_future(self._probe())
        try:
            return await self._receiver.receive(limit)
        finally:
            probing.cancel()

    async def _probe(self) -> None:
        while True:
            await asyncio.sleep(_PROBE_AFTER)
            try:
                await self._state.broker.status([self._subscription])
            except BrokerError:
                continue
            except Exception:
                logger.exception("%s: checking whether the broker has recovered failed", self._subscription.name)
                return
            self._state.outage.record_success(_RECEIVE, self._subscription.name)
            return


async def _all_finished(jobs: Iterable[Job]) -> None:
    for job in jobs:
        await job.wait_until_finished()
