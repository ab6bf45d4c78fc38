"""Leases: messages stay this worker's own for as long as it has them, and it knows when they are not."""

import asyncio
from collections.abc import Callable, Iterable

from diator.brokers.port import Receiver
from diator.context import Context
from diator.delivery.lanes import Job
from diator.delivery.outage import Outage
from diator.errors import BrokerError

_RENEW = "renew leases"
_NEVER = float("inf")


class Leases:
    """What was received from one receiver and is not settled, by the identity of the delivery."""

    def __init__(self, name: str, lease: float | None, outage: Outage, lose: Callable[[Job], None]) -> None:
        self._name = name
        self._lease = lease
        self._outage = outage
        self._lose = lose
        """Called for each that was lost."""
        self._open: dict[int, Job] = {}
        self._loop = asyncio.get_running_loop()

    def begin(self) -> float:
        """When the leases of what comes now will end, by the loop's clock."""
        return _NEVER if self._lease is None else self._loop.time() + self._lease

    def add(self, job: Job) -> None:
        """Renew the lease of a job from now on."""
        self._open[id(job.delivery)] = job

    def remove(self, jobs: Iterable[Job]) -> None:
        """Renew them no more."""
        for job in jobs:
            self._open.pop(id(job.delivery), None)

    def holds(self, job: Job) -> bool:
        """Whether a job is still this worker's own, for all it knows."""
        return not job.lost and job.held_until > self._loop.time()

    def holds_all(self, running: Iterable[Job], context: Context) -> bool:
        """Whether the message of a context is."""
        return all(self.holds(job) for job in running if job.context is context)

    async def run(self, receiver: Receiver) -> None:
        """Renew until cancelled, three times in each lease."""
        while True:
            await asyncio.sleep(3600.0 if self._lease is None else self._lease / 3)
            jobs = [job for job in self._open.values() if not job.lost]
            if self._lease is None or not jobs:
                self._outage.forget(_RENEW, self._name)
                continue
            held_until = self.begin()
            try:
                lost = await receiver.renew([job.delivery for job in jobs])
            except BrokerError as error:
                self._outage.down(_RENEW, self._name, error)
                continue
            self._outage.up(_RENEW, self._name)
            for job in jobs:
                job.held_until = held_until
            for job in [self._open[id(delivery)] for delivery in lost if id(delivery) in self._open]:
                self._lose(job)
