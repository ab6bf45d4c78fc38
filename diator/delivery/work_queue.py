"""The work queue: which message a handler gets next, so that those of one key run one at a time and in order."""

import asyncio
from collections import deque
from contextvars import ContextVar

from diator.brokers.envelope import Envelope
from diator.brokers.port import Delivery
from diator.context import Context

NEVER = float("inf")


class Job:
    """One delivery, from being received until it is settled."""

    __slots__ = (
        "_finished",
        "context",
        "deadline",
        "delivery",
        "envelope",
        "is_decided",
        "is_finished",
        "is_late",
        "is_repeated",
        "key",
        "lease_ends",
        "lost",
        "unexplained",
    )

    def __init__(self, delivery: Delivery, lease_ends: float) -> None:
        self.delivery = delivery
        self.envelope: Envelope | None = None
        """None until it is read, and if it can't be."""
        self.key: str | None = None
        """None if order does not matter."""
        self.context: Context | None = None
        self.deadline = NEVER
        """When its handler will have taken too long, by the clock of the event loop."""
        self.is_late = False
        """Whether its handler was cancelled for taking too long."""
        self.is_repeated = False
        """Whether the inbox has it as handled already, so that its handler does not run."""
        self.lease_ends = lease_ends
        """When its lease expires if it is not renewed, by the clock of the event loop."""
        self.lost = False
        """Whether its lease was lost: another worker may have the message."""
        self.is_decided = False
        """Whether it has an outcome, which the broker has recorded or soon does."""
        self.unexplained = delivery.deliveries - delivery.failures - 1
        """How many earlier deliveries have no recorded outcome: the message may have killed those workers."""
        self.is_finished = False
        """Whether it is settled, or was found lost then: this worker is done with it."""
        self._finished: asyncio.Future[None] | None = None

    @property
    def message_id(self) -> str | None:
        """The id of the event, if it could be read."""
        return self.envelope.id if self.envelope is not None else None

    @property
    def name(self) -> str | None:
        """The id and type of the event, if they could be read."""
        return None if self.envelope is None else f"{self.envelope.id} ({self.envelope.type})"

    def finish(self) -> None:
        """Note that this worker is done with it."""
        self.is_finished = True
        if self._finished is not None and not self._finished.done():
            self._finished.set_result(None)

    async def wait_until_finished(self) -> None:
        """Wait until this worker is done with it; one caller at a time."""
        if not self.is_finished:
            self._finished = asyncio.get_running_loop().create_future()
            await self._finished


current_job: ContextVar[Job] = ContextVar("diator.job")
"""The message that is being handled, for what its handler publishes."""


class WorkQueue:
    """Jobs that wait for a handler.

    While a job of a key runs, its key is busy, and those of its key wait behind it. While a job is on its way back to
    the broker, its key is held: what is received of that key meanwhile would overtake it.

    ``limit`` is how many jobs may wait while handlers are idle, since they wait behind busy keys.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._ready: deque[Job] = deque()
        self._behind: dict[str, deque[Job]] = {}
        """By busy key."""
        self._held: dict[str, Job] = {}
        """By held key, the job that is on its way back."""
        self._idle: deque[asyncio.Future[None]] = deque()
        self._count = 0
        self._batch = 0
        self._low: asyncio.Future[None] | None = None
        self._closed = False

    @property
    def idle(self) -> int:
        """How many handlers wait for a job."""
        return len(self._idle)

    def put(self, job: Job) -> None:
        """Add a job."""
        self._count += 1
        if job.key is not None:
            behind = self._behind.get(job.key)
            if behind is not None:
                behind.append(job)
                return
            self._behind[job.key] = deque()
        self._make_ready(job)

    def get_nowait(self) -> Job | None:
        """Return the next job that may run, if there is one."""
        if not self._ready:
            return None
        self._count -= 1
        return self._ready.popleft()

    async def get(self) -> Job | None:
        """Wait for a job that may run; return None once the queue is closed."""
        while not self._ready and not self._closed:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(waiter)
            self._notify_if_low()
            try:
                await waiter
            except BaseException:
                if waiter in self._idle:
                    self._idle.remove(waiter)
                else:
                    self._wake()  # it was meant for one who takes a job
                raise
        return self.get_nowait()

    def task_done(self, job: Job) -> None:
        """Let the next job of the same key run."""
        if job.key is not None:
            behind = self._behind[job.key]
            if behind:
                self._make_ready(behind.popleft())
            else:
                del self._behind[job.key]
        self._notify_if_low()

    # Held keys

    def hold_key(self, job: Job) -> list[Job]:
        """Hold the key of a job that goes back to the broker; remove and return the jobs that wait behind it."""
        assert job.key is not None
        behind = list(self._behind.pop(job.key))
        self._held[job.key] = job
        self._count -= len(behind)
        self._notify_if_low()
        return behind

    def is_held(self, key: str | None) -> bool:
        """Return whether a job of this key is on its way back."""
        return key in self._held

    def release_finished_keys(self) -> None:
        """Stop holding keys whose job is back at the broker. Call it between two receives, not during one.

        A receive that was under way when the job came back may return later messages of its key.
        """
        if self._held:
            self._held = {key: job for key, job in self._held.items() if not job.is_finished}

    # How many wait

    async def wait_until_low(self, batch: int) -> None:
        """Wait until less than half a batch waits, or a handler is idle and there is room for more."""
        self._batch = batch
        while not self._is_low():
            self._low = asyncio.get_running_loop().create_future()
            await self._low

    def _is_low(self) -> bool:
        return self._count * 2 < self._batch or (self._count < self._limit and bool(self._idle))

    def _notify_if_low(self) -> None:
        if self._low is not None and not self._low.done() and self._is_low():
            self._low.set_result(None)

    # Ending

    def drain(self) -> list[Job]:
        """Remove and return all jobs that wait, in order."""
        jobs = [*self._ready, *(job for behind in self._behind.values() for job in behind)]
        self._ready.clear()
        for behind in self._behind.values():
            behind.clear()
        self._count = 0
        return jobs

    def close(self) -> None:
        """End every wait for a job."""
        self._closed = True
        while self._idle:
            self._wake()

    def _make_ready(self, job: Job) -> None:
        self._ready.append(job)
        self._wake()

    def _wake(self) -> None:
        while self._idle:
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
