"""Where what is published goes to, and the publishers that wait for room there."""

import asyncio
from collections import OrderedDict

from diator.brokers.envelope import OutgoingMessage
from diator.brokers.memory.clock import Clock
from diator.brokers.memory.queues import Queue


class MemoryTopic:
    """The queues that get what is published to a topic. It drops ids of the last ``duplicate_window`` seconds."""

    def __init__(self, clock: Clock, duplicate_window: float) -> None:
        self.queues: list[Queue] = []
        self._clock = clock
        self._window = duplicate_window
        self._published: OrderedDict[str, float] = OrderedDict()
        """When each id is forgotten, the oldest first."""
        self.start()

    def start(self) -> None:
        """Begin in the event loop that runs."""
        self.turn = asyncio.Lock()
        """Held by the publisher that waits for room; others wait behind it, in the order in which they came."""

    @property
    def must_wait(self) -> bool:
        """Whether a publisher has to wait: for room, or for others that wait already."""
        if self.turn.locked():
            return True
        for queue in self.queues:  # noqa: SIM110 - asked for every message, and a generator costs
            if not queue.room.is_set():
                return True
        return False

    async def wait_for_room(self) -> None:
        """Wait until every queue has room, or the broker is closed."""
        while full := [queue for queue in self.queues if not queue.room.is_set()]:
            await full[0].room.wait()

    def is_duplicate(self, message: OutgoingMessage) -> bool:
        """Return whether the id of a message was published not long ago."""
        now = self._clock.now() if self._published else 0.0
        while self._published and next(iter(self._published.values())) <= now:
            self._published.popitem(last=False)
        return message.id in self._published

    def put(self, message: OutgoingMessage) -> None:
        """Give a message to every queue, whether it has room or not."""
        body, key = message.structured, message.key
        for queue in self.queues:
            queue.put(message.topic, body, key)
        if self._window:
            self._published[message.id] = self._clock.now() + self._window
