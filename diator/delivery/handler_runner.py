"""Handler runs: one message from its bytes to the end of its handler, within the time that the handler has."""

import asyncio
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from diator._hooks import HookDispatcher
from diator.brokers.port import ACK, RELEASE, Outcome
from diator.context import Context
from diator.delivery.catalog import ConsumerConfig
from diator.delivery.follow_up import SendingEndedError
from diator.delivery.new_context import Call, run_in_new_context
from diator.delivery.outcome_reporter import OutcomeReporter
from diator.delivery.reading import build_context, decode, read_envelope
from diator.delivery.work_queue import Job
from diator.delivery.worker_state import WorkerState
from diator.errors import UnreadableMessageError
from diator.hooks import Handling

_NEVER = float("inf")


class WorkerCancelledError(asyncio.CancelledError):
    """Stands for a cancel that the worker asked for; never raised."""


class Run:
    """A handler that runs."""

    __slots__ = ("deadline", "is_late", "job", "task")

    def __init__(self, job: Job, task: "asyncio.Task[Any]", deadline: float) -> None:
        self.job = job
        self.task = task
        self.deadline = deadline
        """When it will have taken too long, by the clock of the event loop."""
        self.is_late = False
        """Whether it was cancelled for taking too long."""


class RunningHandlers:
    """The handlers of one subscription that run now, and the time limit of each: one timer serves all of them."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._runs: dict[asyncio.Task[Any], Run] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def __bool__(self) -> bool:
        return bool(self._runs)

    @property
    def jobs(self) -> Iterable[Job]:
        """The messages that are being handled."""
        return [run.job for run in self._runs.values()]

    def start(self, job: Job, task: "asyncio.Task[Any]", now: float) -> Run:
        """Limit the time of a handler that starts in this task."""
        run = self._runs[task] = Run(job, task, now + self._timeout)
        if self._timer is None:
            self._timer = self._loop.call_at(run.deadline, self._on_timer)
        return run

    def end(self, run: Run) -> None:
        """Note that a handler has ended."""
        del self._runs[run.task]

    def holds_lease(self, context: Context) -> bool:
        """Return whether the message of a context is still this worker's own."""
        runs = [run for run in self._runs.values() if run.job.context is context]
        now = self._loop.time()
        return bool(runs) and all(not run.job.lost and run.job.lease_ends > now for run in runs)

    def suspend_timeout(self, context: Context) -> None:
        """Let a message take as long as it needs: its handler has succeeded, and its follow-ups are being sent."""
        for run in self._runs.values():
            if run.job.context is context:
                run.deadline = _NEVER

    def _on_timer(self) -> None:
        """Cancel the handlers that have taken too long."""
        now = self._loop.time()
        self._timer = None
        for run in list(self._runs.values()):
            if run.deadline <= now and not run.is_late:
                run.is_late = True
                run.task.cancel()
        due = [run.deadline for run in self._runs.values() if not run.is_late and run.deadline != _NEVER]
        if due:
            self._timer = self._loop.call_at(min(due), self._on_timer)


class HandlerRunner:
    """Runs the handler of one subscription for the messages of one receiver, any number at a time."""

    def __init__(
        self,
        config: ConsumerConfig,
        calls: Mapping[type, Call],
        running: RunningHandlers,
        reporter: OutcomeReporter,
        state: WorkerState,
    ) -> None:
        self.is_shutting_down = False
        """Whether what runs is being cancelled, by the worker or with the event loop."""
        self._config = config
        self._name = config.name
        self._calls = calls
        self._running = running
        self._reporter = reporter
        self._hooks = state.hooks if state.hooks.has_listener("handling") else None
        self._broker = state.broker
        self._loop = asyncio.get_running_loop()

    async def run(self, job: Job, task: "asyncio.Task[Any]") -> Outcome:
        """Handle the message of a job in this task, which is the current one, and return its outcome."""
        if job.unexplained >= self._config.subscription.max_deliveries:
            with suppress(UnreadableMessageError):
                read_envelope(job)  # so that it can be named
            return self._reporter.poisonous(job)
        try:
            envelope = job.envelope or read_envelope(job)
            entry = self._config.entries.get(envelope.type)
            if entry is None:
                return self._reporter.unhandled(job)
            context = job.context = build_context(job, self._name)
            event = decode(envelope, entry)
        except UnreadableMessageError as error:
            return self._reporter.unreadable(job, error)
        began = self._loop.time()
        failure = await self._call(job, task, self._calls[entry.cls], event, began)
        self._reporter.handled(event, context, began, failure)
        if failure is None:
            return ACK
        try:
            if issubclass(type(failure), (WorkerCancelledError, SendingEndedError)):
                return RELEASE
            return self._reporter.failed(job, failure)
        finally:
            del failure  # its frames lead here, and they would keep each other alive

    async def _wrapped(self, hooks: HookDispatcher, call: Call, job: Job, event: Any) -> None:
        """Call the handler inside of the hooks that wrap it."""
        details = Handling(event, self._config.registration, job.context, job.delivery, self._broker)
        with hooks.wrap("handling", details):
            details.result = await call(event)

    async def _call(
        self, job: Job, task: "asyncio.Task[Any]", call: Call, event: Any, began: float
    ) -> BaseException | None:
        """Call the handler; return what it raised."""
        assert job.context is not None
        run = self._running.start(job, task, began)
        if self._hooks is not None:
            call = partial(self._wrapped, self._hooks, call, job)
        try:
            failure: BaseException | None = await run_in_new_context(call, job.context, event)
        finally:
            self._running.end(run)
        if failure is not None:
            failure = await self._explained(run, failure)
        if _cancels_left(task):
            await _forget_cancels(task)
        try:
            return failure
        finally:
            del failure  # this frame is among its own, and they would keep each other alive

    async def _explained(self, run: Run, failure: BaseException) -> BaseException:
        """Tell a cancel that the worker asked for from one of unknown origin, which is a failure."""
        if issubclass(type(failure), asyncio.CancelledError):
            if run.is_late:
                name, seconds = self._config.registration.name, self._config.timeout
                late = TimeoutError(f"{name} was cancelled: it took longer than {seconds:g} s")
                late.__cause__ = failure
                return late
            if not self.is_shutting_down:
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0)  # if all tasks are cancelled, the receiver loop sees it now
            return WorkerCancelledError() if self.is_shutting_down else failure
        if not self.is_shutting_down:
            return failure
        cancelled = WorkerCancelledError()  # drivers and middlewares make errors of their own of a cancel
        cancelled.__cause__ = failure
        return cancelled


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
