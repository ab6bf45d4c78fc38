"""The receiver loop: what one receiver delivers is received, handled and settled, until the worker stops.

Calls go down, and answers come back as results: nothing below calls the loop.

    ReceiverLoop -> Prefetcher         receive: how many, and when
                 -> WorkQueue          which message is next
                 -> HandlerRunner      run its handler, and get the outcome
                 -> SettlementBatcher  have the broker record the outcome
                 -> LeaseRenewer       keep the leases of what is not settled
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from diator.brokers.port import RELEASE, Outcome, Receiver, Release, RetryAfter
from diator.delivery.catalog import ConsumerConfig
from diator.delivery.error_texts import described
from diator.delivery.handler_runner import Call, HandlerRunner
from diator.delivery.leases import LeaseRenewer
from diator.delivery.outcome_reporter import OutcomeReporter
from diator.delivery.prefetcher import MAX_PREFETCH, Prefetcher
from diator.delivery.settlement import SettlementBatcher
from diator.delivery.work_queue import Job, WorkQueue
from diator.delivery.worker_state import WorkerState
from diator.errors import BrokerError

logger = logging.getLogger("diator")

_YIELD_AFTER = 0.01
"""Seconds after which handlers that wait for nothing yield to the event loop."""
_CLOSE_TIMEOUT = 5.0
"""Seconds that cancelled handlers, the last settling, and closing may take."""

Task = asyncio.Task[None]


class ReceiverLoop:
    """Receives, handles ``concurrency`` messages at a time, and settles. One task receives, one settles, one renews."""

    def __init__(
        self,
        config: ConsumerConfig,
        calls: Mapping[type, Call],
        reporter: OutcomeReporter,
        state: WorkerState,
        receiver: Receiver,
    ) -> None:
        name, outage = config.name, state.outage
        self._name = name
        self._concurrency = config.concurrency
        self.receiver = receiver
        self._outage = outage
        self._reporter = reporter
        self._queue = queue = WorkQueue(max(MAX_PREFETCH, config.concurrency))
        self._leases = leases = LeaseRenewer(name, state.broker.lease, receiver, reporter, outage)
        self._settlement = SettlementBatcher(name, receiver, leases, reporter, outage)
        self._prefetcher = Prefetcher(receiver, config, state, queue, leases, self._settlement, reporter)
        self._runner = HandlerRunner(config, calls, reporter, state)
        self.is_receiving = True
        """Whether it receives messages."""
        self._yielded = 0.0
        self._loop = asyncio.get_running_loop()

    async def run(self, stopping: asyncio.Event, grace: Callable[[], float]) -> None:
        """Run until ``stopping`` is set, or something breaks; then close the receiver."""
        start = asyncio.ensure_future
        background = settling, _ = start(self._settlement.run()), start(self._leases.run())
        handling = [start(self._handle()) for _ in range(self._concurrency)]
        receiving = start(self._prefetcher.run())
        waiting = start(stopping.wait())
        try:
            await asyncio.wait({receiving, waiting, *handling, *background}, return_when=asyncio.FIRST_COMPLETED)
            await self._end(receiving, handling, grace)
        finally:
            self.is_receiving = False
            self._runner.is_shutting_down = True
            try:
                await _cancelled([waiting, receiving])
                await self._cancel(handling)
                await self._settle_rest(settling)
            finally:
                await _cancelled(background)
                await self._close()
                await asyncio.wait(handling)
        _raise_first(receiving, *handling, *background)

    async def _handle(self) -> None:
        """Handle one message after the other."""
        task = asyncio.current_task()
        assert task is not None
        while not self._runner.is_shutting_down:
            job = self._queue.get_nowait()
            if job is None:
                self._settlement.flush_soon()
                job = await self._queue.get()
                if job is None:
                    return
            self._settle(job, RELEASE if self._leases.has_expired(job) else await self._runner.run(job, task))
            now = self._loop.time()
            if now - self._yielded > _YIELD_AFTER:
                self._yielded = now
                await asyncio.sleep(0)  # handlers that wait for nothing would keep the loop to themselves

    def _settle(self, job: Job, outcome: Outcome) -> None:
        """Settle a job. If it is to be delivered again, those of its key that wait behind it are, too, in order."""
        self._settlement.add(job, outcome)
        if job.key is not None and isinstance(outcome, (RetryAfter, Release)):
            for later in self._queue.hold_key(job):
                self._settlement.add(later, RELEASE)
            self._settlement.flush_soon()
        else:
            self._queue.task_done(job)

    # Ending

    async def _end(self, receiving: Task, handling: list[Task], grace: Callable[[], float]) -> None:
        """Receive nothing more, release what has not begun, let finish what has, and cancel what takes too long."""
        self.is_receiving = False
        await _cancelled([receiving])
        for job in self._queue.drain():
            self._settlement.add(job, RELEASE)
        self._queue.close()
        self._settlement.flush_soon()
        while self._runner.running and (remaining := grace()) > 0:
            await asyncio.wait(handling, timeout=min(remaining, 0.2))
            if all(task.done() for task in handling):
                return
        self._runner.is_shutting_down = True
        for job in self._runner.running:
            self._reporter.cancelled_at_shutdown(job)

    async def _cancel(self, handling: list[Task]) -> None:
        """Cancel what runs. A handler that does not end, such as one whose database is frozen, loses its message."""
        for task in handling:
            task.cancel()
        await asyncio.wait(handling, timeout=_CLOSE_TIMEOUT)
        for job in self._runner.running:
            self._reporter.hangs_at_shutdown(job, _CLOSE_TIMEOUT)
            self._leases.lose(job)

    async def _settle_rest(self, settling: Task) -> None:
        """Settle what is left, as far as the broker can."""
        self._settlement.end()
        await asyncio.wait({settling}, timeout=_CLOSE_TIMEOUT)  # if cancelled, its result would not be known
        if settling.cancelled():  # with the event loop
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._settlement.run(), _CLOSE_TIMEOUT)

    async def _close(self) -> None:
        """Close the receiver, which releases what could not be settled."""
        if not self._settlement.is_done:
            logger.warning("%s: the last outcomes were not recorded; those messages are redelivered", self._name)
        text = "%s did not end cleanly (%s); its messages are redelivered when their lease expires"
        try:
            await asyncio.wait_for(self.receiver.aclose(), _CLOSE_TIMEOUT)
        except BrokerError as error:
            logger.warning(text, self._name, described(error))
        except asyncio.TimeoutError:
            logger.warning(text, self._name, f"its receiver did not close within {_CLOSE_TIMEOUT:g} s")
        self._outage.forget_all(self._name)


async def _cancelled(tasks: "Iterable[asyncio.Future[Any]]") -> None:
    """Cancel tasks and wait until they have ended, in any way."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)  # unlike `gather`, it ends at once if it is cancelled itself
    for task in tasks:
        if not task.cancelled():
            task.exception()  # or asyncio would report it a second time


def _raise_first(*tasks: "asyncio.Future[Any]") -> None:
    for task in tasks:
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            if isinstance(error, Exception):
                raise error
            # Otherwise asyncio would end the loop with it, or nothing would start the consumer again.
            raise RuntimeError(f"a task was ended by {type(error).__qualname__}") from error
