"""Trimming: old entries go, but never one that a subscription has still to read or to settle.

It is done by workers now and then, and by publishers after many messages, since a topic may have no workers at all.
"""

import asyncio
import logging
from collections.abc import Sequence

from diator.errors import BrokerError
from diator_redis._entries import Stream
from diator_redis._keys import Keys
from diator_redis._link import Links
from diator_redis._scripts import TRIM

logger = logging.getLogger("diator.redis")

PERIOD = 20.0
"""How many seconds pass between two looks at a stream."""
MESSAGES = 1_000
"""After so many messages a publisher looks as well."""


class Trimmer:
    """Trims streams, and tells of groups that nobody reads."""

    def __init__(
        self, links: Links, keys: Keys, max_length: int | None, max_age: float | None, abandoned_after: float
    ) -> None:
        self._links, self._keys = links, keys
        self._arguments = (
            -1 if max_length is None else max_length,
            -1 if max_age is None else int(max_age * 1000),
            int(abandoned_after * 1000),
        )
        self._published: dict[str, int] = {}
        self._looked: dict[bytes, float] = {}
        self._reported: set[tuple[bytes, bytes]] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def published(self, topic: str, count: int) -> None:
        """Count published messages, and check the topic's stream from time to time."""
        number = self._published.get(topic, 0) + count
        if number >= MESSAGES:
            number = 0
            task = asyncio.get_running_loop().create_task(self._look_at_topic(topic))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._published[topic] = number

    async def look_after(self, streams: Sequence[Stream]) -> None:
        """Trim streams at which nobody has looked for a while. Raises `~diator.BrokerError`."""
        now = asyncio.get_running_loop().time()
        for stream in streams:
            if now - self._looked.get(stream.name, 0.0) >= PERIOD:
                self._looked[stream.name] = now
                await self.trim(stream.name)

    async def trim(self, stream: bytes) -> None:
        """Trim one stream. Raises `~diator.BrokerError`."""
        for group, backlog in await self._links.run(TRIM, [stream], list(self._arguments)):
            if (stream, group) not in self._reported:
                self._reported.add((stream, group))
                self._report(stream, group, float(backlog) / 1000)

    def _report(self, stream: bytes, group: bytes, age: float) -> None:
        logger.warning(
            "nobody reads subscription %r any more: its oldest message in stream %r waits for %.0f s, and the stream "
            "can't be trimmed until it is read; if the subscription is not needed any more, remove it: "
            "redis-cli XGROUP DESTROY '%s' '%s'",
            *(group.decode(errors="backslashreplace"), stream.decode(errors="backslashreplace"), age),
            *(stream.decode(errors="backslashreplace"), group.decode(errors="backslashreplace")),
        )

    async def _look_at_topic(self, topic: str) -> None:
        try:
            await self.trim(self._keys.events(topic))
        except BrokerError as error:
            logger.debug("trimming topic %r failed and is done later: %s", topic, error)

    async def aclose(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._tasks)
