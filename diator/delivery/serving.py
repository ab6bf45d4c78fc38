"""Serving: what one receiver gives, from its opening to its closing."""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from diator.brokers.port import RELEASE, Capability, Delivery, Outcome, Receiver, Release, RetryAfter
from diator.delivery.alone import Call
from diator.delivery.catalog import Consumed
from diator.delivery.error_texts import described
from diator.delivery.fate import Fate
from diator.delivery.handling import Handling
from diator.delivery.intake import Intake
from diator.delivery.lanes import Job, Lanes, LanesClosedError
from diator.delivery.leases import Leases
from diator.delivery.reading import understand
from diator.delivery.settler import Settler
from diator.delivery.shared import Shared
from diator.errors import BrokerError, UnreadableMessageError
from diator.hooks import Received

logger = logging.getLogger("diator")

_GIVE_WAY = 0.01
"""Seconds after which handlers that wait for nothing give way to the event loop."""
_LAST = 5.0
"""Seconds that the last settling, and closing, may take."""

Task = asyncio.Task[None]


class Serving:
    """Takes messages in, has so many handled at a time, and settles them.

    A task takes in (`Intake`), one settles (`Settler`), one renews (`Leases`), and ``concurrency`` of them handle
    (`Handling`) what the lanes give them next (`Lanes`).
    """

    def __init__(self, consumed: Consumed, calls: Mapping[type, Call], shared: Shared, receiver: Receiver) -> None:
        self._consumed = consumed
        self._receiver = receiver
        self._telling = shared.telling
        self._outage = shared.outage
        lossy = Capability.ACKNOWLEDGED not in shared.broker.capabilities
        self._fate = Fate(consumed.name, consumed.retry, shared.telling, lossy=lossy)
        self._lanes = Lanes()
        self._settler = Settler(consumed.name, receiver, self._were_settled, shared.outage)
        self._intake = Intake(receiver, consumed, self._lanes, shared)
        self._lanes.when_idle = self._intake.wake
        self._background: list[Task] = []
        self.leases = Leases(consumed.name, shared.broker.lease, shared.outage, self._lose)
        self.handling = Handling(consumed, calls, self._fate, self._is_torn_down)
        self.is_receiving = True
        """Whether it takes messages."""
        self._gave_way = 0.0
        self._loop = asyncio.get_running_loop()

    async def run(self, stopping: asyncio.Event, grace: Callable[[], float]) -> None:
        """Serve until ``stopping`` is set, or something breaks; then close the receiver."""
        start = asyncio.ensure_future
        background = self._background = [start(self._settler.run()), start(self.leases.run(self._receiver))]
        runners = [start(self._runner()) for _ in range(self._consumed.concurrency)]
        taking = start(self._intake.run(self._take_in, self._give_back))
        waiting = start(stopping.wait())
        try:
            await asyncio.wait({taking, waiting, *runners, *background}, return_when=asyncio.FIRST_COMPLETED)
            await self._end(taking, runners, grace)
        finally:
            self.is_receiving = False
            self.handling.cancelling = True
            try:
                await self._settler.at_rest(_LAST)
            finally:
                await _cancelled([waiting, taking, *runners, *background])
                await self._leave()
        _raise_first(taking, *runners, *background)

    # Taking in

    def _take_in(self, deliveries: Sequence[Delivery]) -> None:
        if self._telling.hears("received"):
            self._telling.tell("received", Received(self._consumed.name, deliveries))
        ordered, held_until = self._consumed.subscription.ordered, self.leases.begin()
        for delivery in deliveries:
            job = Job(delivery, held_until)
            self.leases.add(job)
            if ordered:
                with suppress(UnreadableMessageError):  # told when its turn comes
                    job.key = understand(job).partitionkey
                if self._lanes.is_held(job.key):
                    self._return(job)
                    continue
            self._lanes.add(job)

    def _give_back(self, deliveries: Iterable[Delivery]) -> None:
        for delivery in deliveries:
            job = Job(delivery)
            self.leases.add(job)
            self._return(job)

    def _return(self, job: Job) -> None:
        """Give back what has just come, before more is received: what comes later of its key would overtake it."""
        self._intake.returns(job)
        self._settle(job, RELEASE)
        self._settler.hurry()

    # Running

    async def _runner(self) -> None:
        lanes, settler, intake, handling = self._lanes, self._settler, self._intake, self.handling
        task = asyncio.current_task()
        assert task is not None
        while True:
            job = lanes.take_now()
            if job is None:
                settler.hurry()
                try:
                    job = await lanes.take()
                except LanesClosedError:
                    return
            if self.leases.holds(job):
                outcome = await handling.outcome(job, task)
            else:  # the loop stood still, or the broker was away
                job.lost, outcome = True, RELEASE
            if job.key is not None and isinstance(outcome, (RetryAfter, Release)):
                self._hold(job, outcome)
            else:
                self._settle(job, outcome)
                lanes.done(job)
            intake.wake()
            if handling.cancelling:
                return
            now = self._loop.time()
            if now - self._gave_way > _GIVE_WAY:
                self._gave_way = now
                await asyncio.sleep(0)  # handlers that wait for nothing would keep the loop to themselves

    def _is_torn_down(self) -> bool:
        """Whether everything is being cancelled by somebody else, such as the end of the event loop."""
        settling, renewing = self._background
        return settling.done() or renewing.done()

    def _hold(self, job: Job, outcome: RetryAfter | Release) -> None:
        """Have a message handled again, and with it what comes after it: the broker gives both again, in order."""
        behind = self._lanes.hold(job)
        self._settle(job, outcome)
        for later in behind:
            self._settle(later, RELEASE)
        self._settler.hurry()

    def _settle(self, job: Job, outcome: Outcome) -> None:
        if outcome is RELEASE:
            self._fate.released(job)
        self._settler.add(job, outcome)

    def _were_settled(self, settled: Sequence[tuple[Job, Outcome]], lost: Collection[int]) -> None:
        """Let go of what the broker has taken down. ``lost`` are the identities of deliveries."""
        self.leases.remove(job for job, _ in settled)
        for job, _ in settled:
            if id(job.delivery) in lost and not job.lost:
                self._has_lost(job)
            if job.key is not None and self._lanes.is_holder(job):
                self._intake.after_this_receive(partial(self._lanes.free, job))
        self._intake.were_settled(job for job, _ in settled)
        self._fate.settled(settled, lost)

    def _lose(self, job: Job) -> None:
        """Take out a job whose lease was lost; one that runs goes on, and its outcome does not count."""
        if self._lanes.drop(job):
            self.leases.remove((job,))
            job.lost = True
            self._intake.were_settled((job,))
        else:
            self._has_lost(job)

    def _has_lost(self, job: Job) -> None:
        job.lost = True
        self._fate.lost(job)

    # Ending

    async def _end(self, taking: Task, runners: list[Task], grace: Callable[[], float]) -> None:
        """Receive no more, give back what has not begun, let finish what has, and cancel what takes too long."""
        self.is_receiving = False
        await _cancelled([taking])
        for job in self._lanes.drain():
            self._settle(job, RELEASE)
        self._lanes.close()
        self._settler.hurry()
        while self.handling.running and (left := grace()) > 0:
            await asyncio.wait(runners, timeout=min(left, 0.2))
            if all(runner.done() for runner in runners):
                return
        self.handling.cancelling = True
        for job in self.handling.running:
            self._fate.cut_short(job)
        await _cancelled(runners)

    async def _leave(self) -> None:
        """Settle what is left, as far as the broker lets us, and give back the rest."""
        name, settled = self._consumed.name, False
        try:
            with suppress(asyncio.TimeoutError):
                settled = await asyncio.wait_for(self._settler.flush(), _LAST)
        finally:
            if not settled:
                logger.warning("%s: the last outcomes were not taken down; those messages come again", name)
            await self._close()

    async def _close(self) -> None:
        name, text = (
            self._consumed.name,
            "%s did not end cleanly (%s); its messages are redelivered when their lease expires",
        )
        try:
            await asyncio.wait_for(self._receiver.aclose(), _LAST)
        except BrokerError as error:
            logger.warning(text, name, described(error))
        except asyncio.TimeoutError:
            logger.warning(text, name, f"its receiver did not close within {_LAST:g} s")
        self._outage.forget_all(name)


async def _cancelled(tasks: "Iterable[asyncio.Future[Any]]") -> None:
    """Cancel tasks and wait for their end, whatever it is."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _raise_first(*tasks: "asyncio.Future[Any]") -> None:
    for task in tasks:
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            if isinstance(error, Exception):
                raise error
            # As it is, asyncio would end the loop with it once more, or nothing would start the consumer again.
            raise RuntimeError(f"a task was ended by {type(error).__qualname__}") from error
