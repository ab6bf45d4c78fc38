"""Scheduled messages: kept beside the stream of their topic until they are due, then appended to it.

Publishing stores them. Each process that has published some, and each worker, appends those that are due to the streams
of the topics that it knows. A script does both at once, so a message is appended once, whichever of them comes first.
"""

from diator.errors import BrokerError, BrokerUnavailableError
from diator_redis._keeper import Keeper
from diator_redis._keys import Keys
from diator_redis._link import Links
from diator_redis._scripts import MOVE

BATCH = 100
"""Messages that one script moves at most, since a script blocks the server."""


class Scheduling:
    """Manages the scheduled messages of the topics that this process publishes to or reads."""

    def __init__(self, links: Links, keys: Keys, lease: float) -> None:
        self._links, self._keys, self._lease = links, keys, lease
        self._topics: set[str] = set()
        self._keeper: Keeper | None = None

    def expect(self, topic: str, delay: float) -> None:
        """Look after a topic from now on, which may have something due in so many seconds."""
        self._topics.add(topic)
        if self._keeper is None:
            self._keeper = Keeper(self._keep, self._lease)
        self._keeper.expect(delay)

    async def _keep(self) -> float | None:
        """Move what is due; return the seconds until the next one. A topic that fails does not stop the others."""
        due: list[float] = []
        failure: BrokerError | None = None
        for topic in sorted(self._topics):
            try:
                due += await self._move(topic)
            except BrokerUnavailableError:
                raise
            except BrokerError as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return min(due, default=None)

    async def _move(self, topic: str) -> list[float]:
        keys = [self._keys.events(topic), self._keys.due(topic), self._keys.scheduled(topic)]
        moved, next_due = BATCH, -1
        while moved >= BATCH:
            moved, next_due = await self._links.run(MOVE, keys, [BATCH])
        return [next_due / 1000] if next_due >= 0 else []

    async def aclose(self) -> None:
        """End."""
        if self._keeper is not None:
            await self._keeper.aclose()
