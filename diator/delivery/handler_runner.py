"""Handler runs: one message from its bytes to the end of its handler, within the time that the handler has."""

import asyncio
import sys
import types
from collections.abc import Callable, Collection, Coroutine, Generator, Mapping
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any

from diator._hooks import HookDispatcher
from diator.brokers.port import ACK, RELEASE, Outcome
from diator.context import current_context
from diator.delivery.catalog import ConsumerConfig
from diator.delivery.follow_up import ReleasedError
from diator.delivery.outcome_reporter import OutcomeReporter
from diator.delivery.reading import build_context, decode, read_envelope
from diator.delivery.work_queue import NEVER, Job, current_job
from diator.delivery.worker_state import WorkerState
from diator.errors import UnreadableMessageError
from diator.hooks import Handling

Call = Callable[[Any], Coroutine[Any, Any, Any]]
"""What handles the events of one class. ``Any``: handlers of all results meet here."""


class HandlerRunner:
    """Runs the handler of one subscription for the messages of one receiver, any number at a time.

    One timer serves the time limits of all that run.
    """

    def __init__(
        self, config: ConsumerConfig, calls: Mapping[type, Call], reporter: OutcomeReporter, state: WorkerState
    ) -> None:
        self.is_shutting_down = False
        """Whether what runs is being cancelled, by the worker or with the event loop."""
        self._config = config
        self._calls = calls
        self._reporter = reporter
        self._hooks = state.hooks if state.hooks.has_listener("handling") else None
        self._broker = state.broker
        self._running: dict[asyncio.Task[Any], Job] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def running(self) -> Collection[Job]:
        """The messages that are being handled."""
        return self._running.values()

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
            job.context = build_context(job, self._config.name)
            event = decode(envelope, entry)
        except UnreadableMessageError as error:
            return self._reporter.unreadable(job, error)
        began = self._loop.time()
        failure = await self._call(job, task, self._calls[entry.cls], event, began)
        seconds = self._loop.time() - began
        self._reporter.handled(job, event, seconds, failure)
        if failure is None:
            return ACK
        try:
            cancelled = self.is_shutting_down and issubclass(type(failure), asyncio.CancelledError)
            if cancelled or issubclass(type(failure), ReleasedError):
                return RELEASE
            return self._reporter.failed(job, failure, seconds)
        finally:
            del failure  # its frames lead here, and they would keep each other alive

    async def _wrapped(self, hooks: HookDispatcher, call: Call, job: Job, event: Any) -> None:
        """Call the handler inside the hooks that wrap it."""
        details = Handling(event, self._config.registration, job.context, job.delivery, self._broker)
        with hooks.wrap("handling", details):
            details.result = await call(event)

    async def _call(
        self, job: Job, task: "asyncio.Task[Any]", call: Call, event: Any, began: float
    ) -> BaseException | None:
        """Call the handler; return what it raised."""
        job.deadline = began + self._config.timeout
        self._running[task] = job
        if self._timer is None:
            self._timer = self._loop.call_at(job.deadline, self._on_timer)
        if self._hooks is not None:
            call = partial(self._wrapped, self._hooks, call, job)
        try:
            failure: BaseException | None = await _run_in_new_context(call, job, event)
        finally:
            del self._running[task]
        if failure is not None:
            failure = await self._explained(job, failure)
        if _cancels_left(task):
            await _forget_cancels(task)
        try:
            return failure
        finally:
            del failure  # this frame is among its own, and they would keep each other alive

    def _on_timer(self) -> None:
        """Cancel the handlers that have taken too long."""
        now = self._loop.time()
        self._timer = None
        for task, job in list(self._running.items()):
            if job.deadline <= now and not job.is_late:
                job.is_late = True
                task.cancel()
        due = [job.deadline for job in self._running.values() if not job.is_late and job.deadline != NEVER]
        if due:
            self._timer = self._loop.call_at(min(due), self._on_timer)

    async def _explained(self, job: Job, failure: BaseException) -> BaseException:
        """Tell a cancel that the worker asked for from one of unknown origin, which is a failure."""
        is_cancel = issubclass(type(failure), asyncio.CancelledError)
        if is_cancel and job.is_late:
            name, seconds = self._config.registration.name, self._config.timeout
            late = TimeoutError(f"{name} was cancelled: it took longer than {seconds:g} s")
            late.__cause__ = failure
            return late
        if is_cancel and not self.is_shutting_down:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)  # if all tasks are cancelled, the receiver loop sees it now
        if is_cancel or not self.is_shutting_down:
            return failure
        cancelled = asyncio.CancelledError()  # drivers and middlewares make errors of their own of a cancel
        cancelled.__cause__ = failure
        return cancelled


@types.coroutine
def _run_in_new_context(call: Call, job: Job, event: Any) -> Generator[Any, Any, BaseException | None]:
    """Handle one event and return what its handler raised. What it sets in context variables is gone afterwards.

    What is returned came out of the handler, and what is raised came from outside: a `GeneratorExit` may be either.
    """
    run = copy_context().run
    run(current_context.set, job.context)
    run(current_job.set, job)
    is_closed = False
    try:
        handling = run(call, event)
        waits_for = run(handling.send, None)
        while True:
            try:
                got = yield waits_for
            except BaseException as error:
                if issubclass(type(error), GeneratorExit) and not _is_result_of(waits_for, error):
                    is_closed = True
                    handling.close()
                    raise
                waits_for = run(handling.throw, error)
            else:
                waits_for = run(handling.send, got)
    except StopIteration:
        return None
    except BaseException as error:
        if is_closed or issubclass(type(error), KeyboardInterrupt):  # a person's
            raise
        return error


def _is_result_of(future: Any, error: BaseException) -> bool:
    """Whether an error is that of what the handler has waited for, such as a task of its own."""
    done = isinstance(future, asyncio.Future) and future.done() and not future.cancelled()
    return done and future.exception() is error


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
