"""Lease renewal: messages stay with this worker while it handles them, and it knows when they do not."""

import asyncio
from collections.abc import Iterable, Sequence

from diator.brokers.port import Delivery, Receiver
from diator.delivery.outage import OutageTracker
from diator.delivery.outcome_reporter import OutcomeReporter
from diator.delivery.work_queue import NEVER, Job
from diator.errors import BrokerError

_RENEW = "renew leases"


class LeaseRenewer:
    """Owns what was received from one receiver and is not settled.

    A job whose lease is lost while it waits is released when its turn comes, and so are those of its key behind it:
    some may have been received since, and must not be handled first. A job that runs already goes on, and its outcome
    does not count.
    """

    def __init__(
        self,
        name: str,
        lease: float | None,
        receiver: Receiver,
        reporter: OutcomeReporter,
        outage: OutageTracker,
    ) -> None:
        self._name = name
        self._lease = lease
        self._receiver = receiver
        self._reporter = reporter
        self._outage = outage
        self._open: dict[int, Job] = {}
        """By the identity of the delivery."""
        self._loop = asyncio.get_running_loop()

    def start(self, deliveries: Iterable[Delivery]) -> list[Job]:
        """Renew the leases of what was just received from now on."""
        lease_ends = self._next_expiry()
        jobs = [Job(delivery, lease_ends) for delivery in deliveries]
        for job in jobs:
            self._open[id(job.delivery)] = job
        return jobs

    def finish(self, jobs: Iterable[Job]) -> None:
        """Stop renewing the leases of jobs that are settled."""
        for job in jobs:
            self._open.pop(id(job.delivery), None)
            job.finish()

    def has_expired(self, job: Job) -> bool:
        """Return whether a lease has expired, such as while the event loop stood still; then it counts as lost."""
        job.lost = job.lost or job.lease_ends <= self._loop.time()
        return job.lost

    def lose(self, job: Job) -> None:
        """Note that the broker has given the lease of a job to another worker."""
        if job.lost:
            return
        job.lost = True
        if job.context is not None:  # its handler has started
            self._reporter.lease_lost(job)

    async def run(self) -> None:
        """Renew until cancelled, three times in each lease."""
        while True:
            await asyncio.sleep(3600.0 if self._lease is None else self._lease / 3)
            jobs = [job for job in self._open.values() if not job.lost]
            if self._lease is None or not jobs:
                self._outage.forget(_RENEW, self._name)
                continue
            await self._renew(jobs)

    async def _renew(self, jobs: Sequence[Job]) -> None:
        lease_ends = self._next_expiry()
        try:
            lost = await self._receiver.renew([job.delivery for job in jobs])
        except BrokerError as error:
            self._outage.record_failure(_RENEW, self._name, error)
            return
        self._outage.record_success(_RENEW, self._name)
        for job in jobs:
            job.lease_ends = lease_ends
        for job in [self._open[id(delivery)] for delivery in lost if id(delivery) in self._open]:
            if not job.is_decided:  # else it may be that its outcome was just recorded; settling tells
                self.lose(job)

    def _next_expiry(self) -> float:
        return NEVER if self._lease is None else self._loop.time() + self._lease
