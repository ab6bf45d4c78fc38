"""Lanes: which message a handler gets next, so that those of one key come one at a time and in order."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from diator.brokers.envelope import Envelope
from diator.brokers.port import Delivery
from diator.context import Context


class Job:
    """One delivery on its way through a worker."""

    __slots__ = ("context", "deadline", "delivery", "envelope", "expired", "held_until", "key", "lost", "task")

    def __init__(self, delivery: Delivery, held_until: float = 0.0) -> None:
        self.delivery = delivery
        self.envelope: Envelope | None = None
        """None until it is read, and where it can't be."""
        self.key: str | None = None
        """None where order does not matter."""
        self.context: Context | None = None
        self.held_until = held_until
        """When its lease ends, if it is not renewed, by the loop's clock; nobody tells where the broker is away."""
        self.lost = False
        """Whether its lease was lost: somebody else has it."""
        self.expired = False
        """Whether its handler was cancelled for taking too long."""
        self.deadline = 0.0
        """When its handler will have taken too long, by the loop's clock."""
        self.task: asyncio.Task[Any] | None = None
        """What runs it."""

    @property
    def message_id(self) -> str | None:
        """The id of the event, where it could be read."""
        return self.envelope.id if self.envelope is not None else None

    @property
    def name(self) -> str | None:
        """What to call it before people: its id and its type; where it could be read."""
        return None if self.envelope is None else f"{self.envelope.id} ({self.envelope.type})"


def _nothing() -> None: ...


class LanesClosedError(Exception):
    """There will be no more jobs."""


class Lanes:
    """Jobs that wait for a handler. A key is closed while a job of it runs, and those behind it wait."""

    def __init__(self) -> None:
        self._ready: deque[Job] = deque()
        self._behind: dict[str, deque[Job]] = {}
        """By closed key."""
        self._held: dict[str, Job] = {}
        """By key, what is on its way back to the broker."""
        self._idle: deque[asyncio.Future[None]] = deque()
        self._count = 0
        self._closed = False
        self.when_idle: Callable[[], None] = _nothing
        """Called when somebody begins to wait for a job."""

    def __len__(self) -> int:
        """How many jobs wait."""
        return self._count

    @property
    def has_idle(self) -> bool:
        """Whether somebody may wait for a job; cheaper than `idle`, and sometimes wrongly so."""
        return bool(self._idle)

    @property
    def idle(self) -> int:
        """How many wait for a job."""
        return sum(not waiter.done() for waiter in self._idle)

    def is_held(self, key: str | None) -> bool:
        """Whether a message of a key is on its way back, so that what comes of it now would overtake."""
        return key in self._held

    def is_holder(self, job: Job) -> bool:
        """Whether it is this job that keeps its key closed."""
        return job.key is not None and self._held.get(job.key) is job

    def add(self, job: Job) -> None:
        """Take a job in."""
        self._count += 1
        if job.key is not None:
            behind = self._behind.get(job.key)
            if behind is not None:
                behind.append(job)
                return
            self._behind[job.key] = deque()
        self._make_ready(job)

    def take_now(self) -> Job | None:
        """Give a job that may run, if there is one."""
        if not self._ready:
            return None
        self._count -= 1
        return self._ready.popleft()

    async def take(self) -> Job:
        """Wait for a job that may run. Raises `LanesClosedError` when there will be none."""
        while not self._ready:
            if self._closed:
                raise LanesClosedError
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(waiter)
            self.when_idle()
            try:
                await waiter
            except BaseException:
                if waiter.done() and not waiter.cancelled():
                    self._wake()  # it was meant for somebody who takes a job
                raise
        self._count -= 1
        return self._ready.popleft()

    def done(self, job: Job) -> None:
        """Let the next job of its key run."""
        if job.key is None:
            return
        behind = self._behind[job.key]
        if behind:
            self._make_ready(behind.popleft())
        else:
            del self._behind[job.key]

    def hold(self, job: Job) -> list[Job]:
        """Keep the key of a job closed, and give those that wait behind it."""
        assert job.key is not None
        behind = list(self._behind.pop(job.key))
        self._held[job.key] = job
        self._count -= len(behind)
        return behind

    def free(self, job: Job) -> None:
        """Open the key that a job has kept closed."""
        if job.key is not None and self.is_holder(job):
            del self._held[job.key]

    def drop(self, job: Job) -> bool:
        """Take out a job that waits; false where it does not."""
        try:
            self._ready.remove(job)
        except ValueError:
            behind = self._behind.get(job.key) if job.key is not None else None
            if behind is None or job not in behind:
                return False
            behind.remove(job)
            self._count -= 1
            return True
        self._count -= 1
        self.done(job)
        return True

    def drain(self) -> list[Job]:
        """Take out everything that waits, in order."""
        jobs = [*self._ready, *(job for behind in self._behind.values() for job in behind)]
        self._ready.clear()
        for behind in self._behind.values():
            behind.clear()
        self._count = 0
        return jobs

    def close(self) -> None:
        """Let nobody wait any longer."""
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
