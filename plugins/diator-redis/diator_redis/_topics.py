"""The streams of topics: publishing, immediately or at a given time, and trimming.

Scheduled messages are stored beside the stream until they are due. Each process that has scheduled some, and each
worker, appends the due messages of the topics that it knows. One script removes and appends, so a message is appended
once. Workers trim periodically, publishers after many messages, since a topic may have no workers.
"""

import asyncio
import contextlib
import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone

from diator.brokers.envelope import OutgoingMessage
from diator.brokers.port import Subscription
from diator.errors import BrokerError, BrokerUnavailableError
from diator_redis._client import Client
from diator_redis._keys import KeyNames
from diator_redis._periodic_task import PeriodicTask
from diator_redis._scripts import DELIVER_DUE, PUBLISH, TRIM, Argument, Command

logger = logging.getLogger("diator.redis")

MAX_DUE = 100
"""Messages that one script moves at most, since a script blocks the server."""
TRIM_PERIOD = 20.0
TRIM_MESSAGES = 1_000
"""A worker trims a stream after this many seconds, a publisher after this many messages."""


class Topics:
    """The topics that this process publishes to or reads."""

    def __init__(self, client: Client, keys: KeyNames, lease: float, limits: Sequence[float | None]) -> None:
        self._client, self._keys, self._lease = client, keys, lease
        max_length, *seconds = limits
        self._limits = [-1 if one is None else int(one) for one in (max_length, *(s and s * 1000 for s in seconds))]
        self._published: Counter[str] = Counter()
        self._trim_at: dict[str, float] = {}
        """When to trim each topic next, on the loop's clock."""
        self._read: set[str] = set()
        self._retries: set[str] = set()
        """Subscriptions that may have delayed retries."""
        self._reported: set[tuple[str, bytes]] = set()
        self._maintenance: PeriodicTask | None = None

    # Publishing.

    def commands(self, messages: Sequence[OutgoingMessage]) -> Iterator[tuple[Sequence[int], Command]]:
        """Return commands that store messages, one for each topic, with the positions of its messages."""
        topics: dict[str, list[int]] = {}
        for place, message in enumerate(messages):
            topics.setdefault(message.topic, []).append(place)
        for topic, places in topics.items():
            self._published[topic] += len(places)
            if self._published[topic] >= TRIM_MESSAGES:
                self._published[topic], self._trim_at[topic] = 0, 0.0
                self.maintain(topic, 0.0)
            yield places, self._command(topic, [messages[place] for place in places])

    def _command(self, topic: str, messages: Sequence[OutgoingMessage]) -> Command:
        stream, first = self._keys.events(topic), messages[0]
        if len(messages) == 1 and first.due is None:
            key = () if first.key is None else (b"k", first.key.encode())
            return (b"XADD", stream, b"*", b"e", first.structured, *key)
        arguments: list[Argument] = []
        for one in messages:
            due = b"" if one.due is None else self._due(topic, one.due)
            arguments += (one.structured, (one.key or "").encode(), due)
        return PUBLISH.command(self._keys.topic(topic), arguments)

    def _due(self, topic: str, due: datetime) -> bytes:
        """Return the millisecond when a message is due; empty if it is due already."""
        delay = (due - datetime.now(timezone.utc)).total_seconds()
        if delay <= 0:
            return b""
        self.maintain(topic, delay)
        return b"%.3f" % (due.timestamp() * 1000)

    # Maintenance.

    def add_subscription(self, subscription: Subscription) -> None:
        """Maintain a subscription that a worker reads, and its topics."""
        self._retries.add(subscription.name)
        topics = [topic.name for topic in subscription.topics]
        self._read.update(topics)
        for topic in topics:
            self._trim_at.setdefault(topic, 0.0)
            self.maintain(topic, 0.0)

    def maintain(self, topic: str, delay: float) -> None:
        """Maintain a topic from now on; its next message may be due in this many seconds."""
        self._trim_at.setdefault(topic, math.inf)
        if self._maintenance is None:
            self._maintenance = PeriodicTask(self._maintain, min(max(self._lease / 10, 0.05), 3.0))
        self.expect(delay)

    def expect(self, delay: float) -> None:
        """Append due messages after this many seconds at the latest."""
        if self._maintenance is not None:
            self._maintenance.expect(delay)

    async def _maintain(self) -> float | None:
        """Return the seconds until the next message is due. A topic that fails does not stop the others."""
        waits: list[float] = []
        failure: BrokerError | None = None
        subscriptions = [(self._keys.retries(name), None) for name in sorted(self._retries)]
        for keys, topic in [*((self._keys.topic(one), one) for one in sorted(self._trim_at)), *subscriptions]:
            try:
                waits += await self._move(keys)
                if topic is not None:
                    await self._trim_in_time(topic)
            except BrokerUnavailableError:
                raise
            except BrokerError as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return min(waits, default=None)

    async def _move(self, keys: Sequence[bytes]) -> list[float]:
        moved, wait = MAX_DUE, -1
        while moved >= MAX_DUE:
            moved, wait = await self._client.run(DELIVER_DUE, keys, [MAX_DUE])
        return [wait / 1000] if wait >= 0 else []

    async def _trim_in_time(self, topic: str) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._trim_at[topic]:
            self._trim_at[topic] = now + TRIM_PERIOD if topic in self._read else math.inf
            # A process without the permission to trim leaves it to the workers.
            with contextlib.suppress(*(() if topic in self._read else (BrokerError,))):
                await self.trim(topic)

    async def trim(self, topic: str) -> None:
        """Trim a topic now. Raises `~diator.BrokerError`."""
        for group, age in await self._client.run(TRIM, [self._keys.events(topic)], self._limits):
            if (topic, group) not in self._reported:
                self._reported.add((topic, group))
                names = (self._keys.events(topic).decode(), group.decode(errors="backslashreplace"))
                logger.warning(
                    "subscription %r has no worker: its oldest message in stream %r has waited for %.0f s, and the "
                    "stream can't be trimmed until it is read; if no app needs the subscription, remove it with: "
                    "diator subscriptions remove module:app; if it is a group of another program, with: "
                    "redis-cli XGROUP DESTROY '%s' '%s'",
                    *(names[1], names[0], float(age) / 1000, *names),
                )

    async def aclose(self) -> None:
        """Stop the maintenance."""
        if self._maintenance is not None:
            await self._maintenance.aclose()
