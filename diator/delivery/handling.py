"""Handling: one message from its bytes to what its handler makes of it, within its time."""

import asyncio
import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from diator.brokers.port import ACK, RELEASE, Outcome
from diator.context import Context
from diator.delivery.alone import Call, alone
from diator.delivery.catalog import Consumed
from diator.delivery.fate import Fate
from diator.delivery.follow_up import SendingEndedError
from diator.delivery.lanes import Job
from diator.delivery.outcomes import parked
from diator.delivery.reading import context_of, decode, understand
from diator.errors import UnreadableMessageError

_NEVER = float("inf")


logger = logging.getLogger("diator")

_UNEXPLAINED = "its worker died, or its handler outlasted its lease"
_RENAMED = "If its event was called so before, say that in its @contract"
_MOST_IGNORED = 100
"""Types that are told of; there are topics on which anything may come."""


class GivenBackError(asyncio.CancelledError):
    """Stands for a cancel that the worker asked for; never raised."""


class Handling:
    """Runs the handler of one subscription, for any number of messages at a time.

    A timer limits their time, not a task for each. ``torn_down`` tells whether everything is being cancelled by
    somebody else, such as the end of the event loop.
    """

    def __init__(
        self, consumed: Consumed, calls: Mapping[type, Call], fate: Fate, torn_down: Callable[[], bool]
    ) -> None:
        self.cancelling = False
        """Whether what runs is being cancelled, by the worker or with everything else."""
        self.ignored = 0
        """Messages of types that nobody here handles, which were acknowledged."""
        self._ignored: set[str] = set()
        self._consumed = consumed
        self._calls = calls
        self._fate = fate
        self._torn_down = torn_down
        self._running: dict[asyncio.Task[Any], Job] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def running(self) -> Iterable[Job]:
        """The jobs whose handlers run now."""
        return self._running.values()

    async def outcome(self, job: Job, task: "asyncio.Task[Any]") -> Outcome:
        """Handle the message of a job in this task, which is the current one; tell what is to become of it."""
        delivery = job.delivery
        unexplained = delivery.deliveries - delivery.failures - 1
        if unexplained >= self._consumed.subscription.max_deliveries:
            with suppress(UnreadableMessageError):
                understand(job)  # so that it can be named
            text = f"delivered {delivery.deliveries} times, {unexplained} without an outcome: {_UNEXPLAINED}"
            return self._fate.park(job, parked(text, delivery.failures))
        try:
            envelope = job.envelope or understand(job)
            entry = self._consumed.entries.get(envelope.type)
            if entry is None:
                self._ignore(envelope.type, delivery.topic)
                return ACK
            context = job.context = context_of(job, self._consumed.name)
            event = decode(envelope, entry)
        except UnreadableMessageError as error:
            cause = error if error.__cause__ is None else error.__cause__
            return self._fate.park(job, parked(f"undecodable: {error}", delivery.failures, cause))
        began = self._loop.time()
        failure = await self._call(job, task, context, self._calls[entry.cls], event, began)
        self._fate.handled(event, context, began, failure)
        if failure is None:
            return ACK
        try:
            if issubclass(type(failure), (GivenBackError, SendingEndedError)):
                return RELEASE
            return self._fate.failed(job, failure)
        finally:
            del failure  # its frames lead here, and they would keep each other alive

    async def _call(
        self, job: Job, task: "asyncio.Task[Any]", context: Context, call: Call, event: Any, began: float
    ) -> BaseException | None:
        """Call the handler; give what it raised."""
        job.task = task
        job.deadline = began + self._consumed.timeout
        self._running[task] = job
        if self._alarm is None:
            self._alarm = self._loop.call_at(job.deadline, self._ring)
        try:
            failure: BaseException | None = await alone(call, context, event)
        finally:
            job.task = None
            del self._running[task]
        if failure is not None:
            failure = await self._explained(job, failure)
        if _cancels_left(task):
            await _forget_cancels(task)
        try:
            return failure
        finally:
            del failure  # this frame is among its own, and they would keep each other alive

    async def _explained(self, job: Job, failure: BaseException) -> BaseException:
        """Tell a cancel that the worker asked for from one that came out of nowhere, which is a failure."""
        if issubclass(type(failure), asyncio.CancelledError):
            if job.expired:
                name, seconds = self._consumed.registration.name, self._consumed.timeout
                late = TimeoutError(f"{name} was cancelled: it took longer than {seconds:g} s")
                late.__cause__ = failure
                return late
            if not self.cancelling:
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0)  # lets the other tasks end, if it was meant for all
            self.cancelling = self.cancelling or self._torn_down()
            return GivenBackError() if self.cancelling else failure
        if not self.cancelling:
            return failure
        given = GivenBackError()  # drivers and middlewares make errors of their own of a cancel
        given.__cause__ = failure
        return given

    def _ignore(self, name: str, topic: str) -> None:
        """Count a message of a type that nobody here handles; each type is told once.

        On a topic that several share that is to be expected. Elsewhere it may be the former name of an event.
        """
        self.ignored += 1
        if name not in self._ignored and len(self._ignored) < _MOST_IGNORED:
            self._ignored.add(name)
            text = f"{self._consumed.name} gets messages of type {name!r}, which its handler does not take"
            if topic in self._consumed.shared:
                logger.info("%s; they are acknowledged", text)
            else:
                logger.warning("%s; they are acknowledged, and gone. %s: aliases=(%r,)", text, _RENAMED, name)

    def _ring(self) -> None:
        """Cancel what has taken too long."""
        now = self._loop.time()
        self._alarm = None
        for job in list(self._running.values()):
            if job.deadline <= now and not job.expired and job.task is not None:
                job.expired = True
                job.task.cancel()
        due = [job.deadline for job in self._running.values() if not job.expired and job.deadline != _NEVER]
        if due:
            self._alarm = self._loop.call_at(min(due), self._ring)

    def spare(self, context: Context) -> None:
        """Let a message take as long as it needs: its handler has succeeded, and the broker is away."""
        for job in self._running.values():
            if job.context is context:
                job.deadline = _NEVER


def _cancels_left(task: "asyncio.Task[Any]") -> bool:
    """Whether a handler has left cancels behind for its task, which would hit another message."""
    asked = sys.version_info >= (3, 11) and task.cancelling() > 0
    return asked or getattr(task, "_must_cancel", False)  # not raised yet; there is no public way to tell


async def _forget_cancels(task: "asyncio.Task[Any]") -> None:
    if sys.version_info >= (3, 11):
        while task.cancelling():
            task.uncancel()
    while getattr(task, "_must_cancel", False):
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
