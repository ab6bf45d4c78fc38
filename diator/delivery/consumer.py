"""The consumer: one subscription in one worker, from receiving to settling."""

import asyncio
import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from diator.brokers.port import (
    ACK,
    RELEASE,
    Broker,
    Capability,
    Delivery,
    Outcome,
    Park,
    Receiver,
    Release,
    RetryAfter,
)
from diator.context import Context
from diator.delivery.alone import Call, alone
from diator.delivery.catalog import Consumed, Entry
from diator.delivery.follow_up import FollowUps, SendingEndedError
from diator.delivery.intake import Intake
from diator.delivery.lanes import Job, Lanes, LanesClosedError
from diator.delivery.outage import Backoff, Outage
from diator.delivery.outcomes import after_failure, in_words, parked
from diator.delivery.reading import context_of, decode, understand
from diator.delivery.settler import Settler
from diator.delivery.telling import Telling
from diator.errors import BrokerError, Reject, UnreadableMessageError
from diator.hooks import Handled, Parked, Received, Retried, Settled

logger = logging.getLogger("diator")


class Shared(NamedTuple):
    """What the consumers of one worker have in common."""

    broker: Broker
    outage: Outage
    telling: Telling
    suspects: asyncio.Lock
    """Held while a message runs that may have killed a worker, so that no other is blamed with it."""


class Consumer:
    """Handles the messages of one subscription, ``concurrency`` at a time."""

    def __init__(self, consumed: Consumed, calls: Mapping[type, Call], follow_ups: FollowUps, shared: Shared) -> None:
        self.consumed = consumed
        self.name = consumed.name
        self.ignored = 0
        """Messages of types that nobody here handles, which were acknowledged."""
        self._calls = calls
        self._follow_ups = follow_ups
        self._shared = shared
        self._lossy = Capability.ACKNOWLEDGED not in shared.broker.capabilities
        self._open: dict[int, Job] = {}
        """What was received and is not settled, by the identity of the delivery."""
        self._lanes = Lanes()
        self._running: dict[asyncio.Task[Any], Job] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._cancelling = False
        self._receiver: Receiver | None = None
        self._settler: Settler | None = None
        self._intake: Intake | None = None
        self._loop = asyncio.get_running_loop()
        self._gave_way = 0.0
        self._background: list[asyncio.Task[None]] = []

    @property
    def is_receiving(self) -> bool:
        """Whether it is connected and takes messages."""
        return self._receiver is not None and not self._cancelling

    @property
    def running(self) -> Iterable[Job]:
        """The jobs whose handlers run now."""
        return self._running.values()

    async def run(self, stopping: asyncio.Event, grace: Callable[[], float]) -> None:
        """Handle messages until ``stopping`` is set; what runs then may finish within ``grace()`` seconds."""
        receiver = await self._subscribed(stopping)
        if receiver is None:
            return
        self._open, self._lanes, self._cancelling = {}, Lanes(), False
        self._receiver = receiver
        settler = self._settler = Settler(self.name, receiver, self._was_settled, self._shared.outage)
        self._intake = Intake(receiver, self.consumed, self._lanes, self._shared)
        self._lanes.when_idle = self._intake.wake
        background = self._background = [asyncio.ensure_future(work) for work in (settler.run(), self._renew(receiver))]
        runners = [asyncio.ensure_future(self._runner()) for _ in range(self.consumed.concurrency)]
        taking = asyncio.ensure_future(self._intake.run(self._take_in, self._give_back))
        waiting = asyncio.ensure_future(stopping.wait())
        try:
            await asyncio.wait({taking, waiting, *runners, *background}, return_when=asyncio.FIRST_COMPLETED)
            await self._end(taking, runners, grace)
        finally:
            self._cancelling = True
            self._receiver = None
            await _cancelled([waiting, taking, *runners, *background])
            await self._leave(receiver, settler)
        _raise_first(taking, *runners, *background)

    async def _subscribed(self, stopping: asyncio.Event) -> Receiver | None:
        backoff = Backoff()
        while not stopping.is_set():
            try:
                receiver = await self._shared.broker.subscribe(self.consumed.subscription)
            except BrokerError as error:
                self._shared.outage.down("subscribe", self.name, error)
                await backoff.wait(stopping)
            else:
                self._shared.outage.up("be used", self.name)
                self._shared.outage.up("subscribe", self.name)
                return receiver
        return None

    # Taking in

    def _take_in(self, deliveries: Sequence[Delivery]) -> None:
        if self._shared.telling.hears("received"):
            self._shared.telling.tell("received", Received(self.name, deliveries))
        ordered = self.consumed.subscription.ordered
        lease = self._shared.broker.lease
        held_until = float("inf") if lease is None else self._loop.time() + lease
        for delivery in deliveries:
            job = Job(delivery, held_until)
            self._open[id(delivery)] = job
            if ordered:
                with suppress(UnreadableMessageError):  # told when its turn comes
                    understand(job)
                    job.key = None if job.envelope is None else job.envelope.partitionkey
                if self._lanes.is_held(job.key):
                    self._return(job)
                    continue
            self._lanes.add(job)

    def _give_back(self, deliveries: Iterable[Delivery]) -> None:
        for delivery in deliveries:
            job = Job(delivery)
            self._open[id(delivery)] = job
            self._return(job)

    def _return(self, job: Job) -> None:
        """Give back what has just come, before more is received: what comes later of its key would overtake it."""
        assert self._settler is not None
        assert self._intake is not None
        self._intake.returns(job)
        self._settle(job, RELEASE)
        self._settler.hurry()

    # Running

    async def _runner(self) -> None:
        settler = self._settler
        assert settler is not None
        while True:
            if not len(self._lanes):
                settler.hurry()
            try:
                job = await self._lanes.take()
            except LanesClosedError:
                return
            if job.held_until <= self._loop.time():  # the loop stood still, or the broker was away
                job.lost = True
                outcome: Outcome = RELEASE
            else:
                outcome = await self._outcome(job)
            if isinstance(outcome, (RetryAfter, Release)) and job.key is not None:
                self._hold(job, outcome)
            else:
                self._settle(job, outcome)
                self._lanes.done(job)
            if self._intake is not None:
                self._intake.wake()
            if self._cancelling or self._is_torn_down():
                return
            if self._loop.time() - self._gave_way > _GIVE_WAY:
                self._gave_way = self._loop.time()
                await asyncio.sleep(0)  # handlers that wait for nothing would keep the loop to themselves

    def _is_torn_down(self) -> bool:
        """Whether everything is being cancelled by somebody else, such as the end of the event loop."""
        return any(task.done() for task in self._background)

    def _hold(self, job: Job, outcome: RetryAfter | Release) -> None:
        """Have a message handled again, and with it what comes after it: the broker gives both again, in order."""
        behind = self._lanes.hold(job)
        self._settle(job, outcome)
        for later in behind:
            self._settle(later, RELEASE)
        assert self._settler is not None
        self._settler.hurry()

    async def _outcome(self, job: Job) -> Outcome:
        delivery = job.delivery
        unexplained = delivery.deliveries - delivery.failures - 1
        if unexplained >= self.consumed.subscription.max_deliveries:
            text = f"killed its worker: it was delivered {delivery.deliveries} times, {unexplained} without an outcome"
            return self._park(job, parked(text, delivery.failures))
        try:
            if job.envelope is None:
                understand(job)
            assert job.envelope is not None
            entry = self.consumed.entries.get(job.envelope.type)
            if entry is None:
                self.ignored += 1
                return ACK
            job.context = context_of(job, self.name)
            event = decode(job.envelope, entry)
        except UnreadableMessageError as error:
            return self._park(job, parked(f"undecodable: {error}", delivery.failures, error.__cause__ or error))
        return await self._handled(job, job.context, entry, event)

    async def _handled(self, job: Job, context: Context, entry: Entry, event: Any) -> Outcome:
        began = self._loop.time()
        error = await self._call(job, context, self._calls[entry.cls], event, began)
        if self._shared.telling.hears("handled"):
            details = Handled(self.name, event, context, self._loop.time() - began, error)
            self._shared.telling.tell("handled", details)
        if error is None:
            return ACK
        if isinstance(error, (GivenBackError, SendingEndedError)):
            return RELEASE
        return self._failed(job, error)

    async def _call(self, job: Job, context: Context, call: Call, event: Any, began: float) -> BaseException | None:
        task = asyncio.current_task()
        assert task is not None
        job.task = task
        job.deadline = began + self.consumed.timeout
        self._running[task] = job
        if self._alarm is None:
            self._alarm = self._loop.call_at(job.deadline, self._ring)
        failure: BaseException | None = None
        try:
            await alone(call, context, event)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a handler raises decides what becomes of its message
            failure = error
        finally:
            job.task = None
            self._running.pop(task, None)
        if isinstance(failure, asyncio.CancelledError):
            failure = await self._why_cancelled(job, failure)
        elif failure is not None and self._cancelling:
            given = GivenBackError()  # drivers and middlewares make errors of their own of a cancel
            given.__cause__, failure = failure, given
        await _not_cancelled(task)
        return failure

    async def _why_cancelled(self, job: Job, error: asyncio.CancelledError) -> BaseException:
        """Tell a cancel that the worker asked for from one that came out of nowhere, which is a failure."""
        if job.expired:
            late = TimeoutError(
                f"{self.consumed.registration.name} was cancelled: it took longer than {self.consumed.timeout:g} s"
            )
            late.__cause__ = error
            return late
        if not self._cancelling:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)  # lets the other tasks end, if it was meant for all
        return GivenBackError() if self._cancelling or self._is_torn_down() else error

    def _ring(self) -> None:
        """Cancel what has taken too long."""
        now = self._loop.time()
        self._alarm = None
        for job in list(self._running.values()):
            if job.deadline <= now and not job.expired and job.task is not None:
                job.expired = True
                job.task.cancel()
        due = [job.deadline for job in self._running.values() if not job.expired]
        if due:
            self._alarm = self._loop.call_at(min(due), self._ring)

    # What becomes of a message

    def _failed(self, job: Job, error: BaseException) -> Outcome:
        attempt = job.delivery.failures + 1
        outcome = after_failure(error, attempt, self.consumed.retry)
        what = f"{self.name} failed on {job.message_id}, attempt {attempt}"
        if self._lossy:
            logger.error("%s; the broker delivers at most once, so it is lost", what, exc_info=error)
            return ACK
        if isinstance(outcome, Park):
            return self._park(job, outcome, error)
        assert isinstance(outcome, RetryAfter)
        logger.warning("%s (%s); again in %.3g s", what, in_words(error), outcome.delay)
        if self._shared.telling.hears("retried"):
            self._shared.telling.tell("retried", Retried(self.name, job.context, outcome.delay, error))
        return outcome

    def _park(self, job: Job, why: Park, error: BaseException | None = None) -> Outcome:
        text = "%s: message %s is lost: %s" if self._lossy else "%s: message %s becomes a dead letter: %s"
        told = None if isinstance(error, Reject) else error  # a rejection says all in its reason
        logger.error(text, self.name, job.message_id or "that can't be read", why.reason, exc_info=told)
        if self._shared.telling.hears("parked"):
            self._shared.telling.tell("parked", Parked(self.name, job.context, why))
        return ACK if self._lossy else why

    def _settle(self, job: Job, outcome: Outcome) -> None:
        assert self._settler is not None
        if self._lossy and outcome is RELEASE:
            text = "%s: message %s is lost: the worker ended before it was handled, and the broker takes nothing back"
            logger.warning(text, self.name, job.message_id or "that was not read yet")
        self._settler.add(job, outcome)

    def _was_settled(self, job: Job, outcome: Outcome, lost: bool) -> None:
        self._open.pop(id(job.delivery), None)
        if lost and not job.lost:
            self._warn_of_lost(job)
        if self._lanes.is_holder(job) and self._intake is not None:
            self._intake.after_this_receive(lambda: self._lanes.free(job))
        if self._intake is not None:
            self._intake.was_settled(job)
        if self._shared.telling.hears("settled"):
            self._shared.telling.tell("settled", Settled(self.name, job.delivery, job.message_id, outcome, lost))

    # Leases

    async def _renew(self, receiver: Receiver) -> None:
        lease = self._shared.broker.lease
        while True:
            await asyncio.sleep(3600.0 if lease is None else lease / 3)
            jobs = [job for job in self._open.values() if not job.lost]
            if lease is None or not jobs:
                self._shared.outage.forget("renew leases", self.name)
                continue
            held_until = self._loop.time() + lease
            try:
                lost = await receiver.renew([job.delivery for job in jobs])
            except BrokerError as error:
                self._shared.outage.down("renew leases", self.name, error)
                continue
            self._shared.outage.up("renew leases", self.name)
            for job in jobs:
                job.held_until = held_until
            for delivery in lost:
                one = self._open.get(id(delivery))
                if one is not None:
                    self._lose(one)

    def _lose(self, job: Job) -> None:
        if self._lanes.drop(job):
            self._open.pop(id(job.delivery), None)
            job.lost = True
            if self._intake is not None:
                self._intake.was_settled(job)
        else:
            self._warn_of_lost(job)

    def _warn_of_lost(self, job: Job) -> None:
        job.lost = True
        text = (
            "%s has lost the lease of message %s, so another worker may handle it too; its outcome here does not count"
        )
        logger.warning(text, self.name, job.message_id)

    def holds(self, context: Context) -> bool:
        """Whether the message of a context is still this consumer's own."""
        now = self._loop.time()
        return not any(job.lost or job.held_until <= now for job in self._running.values() if job.context is context)

    def spare(self, context: Context) -> None:
        """Let a message take as long as it needs: its handler has succeeded, and the broker is away."""
        for job in self._running.values():
            if job.context is context:
                job.deadline = float("inf")

    # Ending

    async def _end(
        self, taking: "asyncio.Task[None]", runners: "list[asyncio.Task[None]]", grace: Callable[[], float]
    ) -> None:
        """Receive no more, give back what has not begun, let finish what has, and cancel what takes too long."""
        await _cancelled([taking])
        for job in self._lanes.drain():
            self._settle(job, RELEASE)
        self._lanes.close()
        assert self._settler is not None
        self._settler.hurry()
        while self._running and (left := grace()) > 0:
            await asyncio.wait(runners, timeout=min(left, 0.2))
            if all(runner.done() for runner in runners):
                return
        self._cancelling = True
        for job in self._running.values():
            logger.warning("%s: message %s did not finish in time, and is given back", self.name, job.message_id)
        await _cancelled(runners)

    async def _leave(self, receiver: Receiver, settler: Settler) -> None:
        """Settle what is left, as far as the broker lets us, and give back the rest."""
        try:
            await asyncio.wait_for(settler.flush(), _LAST_FLUSH)
        except (BrokerError, asyncio.TimeoutError) as error:
            logger.warning(
                "%s: the last outcomes were not taken down (%s); those messages come again", self.name, error
            )
        try:
            await asyncio.wait_for(receiver.aclose(), _LAST_FLUSH)
        except (BrokerError, asyncio.TimeoutError) as error:
            logger.warning("%s did not end well (%s); what it had comes again when its lease ends", self.name, error)
        self._shared.outage.forget_all(self.name)


_GIVE_WAY = 0.01
_LAST_FLUSH = 5.0


class GivenBackError(asyncio.CancelledError):
    """Stands for a cancel that the worker asked for; never raised."""


async def _cancelled(tasks: "Iterable[asyncio.Future[Any]]") -> None:
    """Cancel tasks and wait for their end, whatever it is."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _not_cancelled(task: "asyncio.Task[Any]") -> None:
    """Forget the cancels that a handler has left behind for its task, so that no other message is hit by them."""
    if sys.version_info >= (3, 11):
        while task.cancelling():
            task.uncancel()
    while getattr(task, "_must_cancel", False):  # asked for, and not raised yet; there is no public way to tell
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)


def _raise_first(*tasks: "asyncio.Future[Any]") -> None:
    for task in tasks:
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            raise error
