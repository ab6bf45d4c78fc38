"""Where what is published goes to, and the publishers that wait for room there."""

import asyncio
from collections import OrderedDict
from functools import partial

from diator.brokers.envelope import OutgoingMessage
from diator.brokers.memory.clock import Clock
from diator.brokers.memory.queues import Queue


class DuplicateWindow:
    """The ids of the last ``window`` seconds."""

    def __init__(self, clock: Clock, window: float) -> None:
        self._clock = clock
        self._window = window
        self._seen: OrderedDict[str, float] = OrderedDict()

    def __contains__(self, message_id: str) -> bool:
        now = self._clock.now()
        while self._seen and next(iter(self._seen.values())) <= now:
            self._seen.popitem(last=False)
        return message_id in self._seen

    def add(self, message_id: str) -> None:
        """Remember one."""
        self._seen[message_id] = self._clock.now() + self._window


class MemoryTopic:
    """The queues that get what is published to a topic."""

    def __init__(self, clock: Clock, capacity: int, duplicate_window: float) -> None:
        self.queues: list[Queue] = []
        self._clock = clock
        self._capacity = capacity
        self._published = DuplicateWindow(clock, duplicate_window) if duplicate_window else None
        self._line: OrderedDict[asyncio.Future[bool], None] = OrderedDict()

    def add(self, queue: Queue) -> None:
        """Give this queue too what is published from now on."""
        self.queues.append(queue)
        queue.when_room.append(self.wake)

    def remove(self, queue: Queue) -> None:
        """Stop adding to this queue; publishers that wait for its room go on."""
        if queue in self.queues:
            self.queues.remove(queue)
            self.wake()

    @property
    def must_wait(self) -> bool:
        """Whether a publisher has to wait: for room, or for others that wait already."""
        return bool(self._line) or self.full

    @property
    def full(self) -> bool:
        """Whether a queue has no room."""
        for queue in self.queues:  # noqa: SIM110 - asked for every message, and a generator costs
            if queue.size >= self._capacity:
                return True
        return False

    def is_duplicate(self, message: OutgoingMessage) -> bool:
        """Tell whether a message is a duplicate."""
        return self._published is not None and message.id in self._published

    def put(self, message: OutgoingMessage) -> None:
        """Give a message to every queue, whether it has room or not."""
        body, key = message.structured, message.key
        for queue in self.queues:
            queue.put(message.topic, body, key)
        if self._published is not None:
            self._published.add(message.id)
        if self._line:
            self.wake()

    async def wait_for_room(self, deadline: float) -> bool:
        """Wait for one's turn and for room; false if they do not come in time. `put` must follow at once."""
        had_turn = False
        while self.full or (self._line and not had_turn):  # full again: a publisher that does not wait was faster
            if not await self._turn(deadline, first=had_turn):
                return False
            had_turn = True
        return True

    async def _turn(self, deadline: float, *, first: bool) -> bool:
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._line[turn] = None
        self._line.move_to_end(turn, last=not first)
        timer = self._clock.call_at(deadline, partial(_tell, turn, come=False))
        come = False
        try:
            come = await turn
        finally:
            if timer is not None:
                timer.cancel()
            del self._line[turn]
            if not come:
                self.wake()
        return come

    def wake(self) -> None:
        """Let the first of those who wait go on, if there is room."""
        if self._line and not self.full:
            _tell(next(iter(self._line)), come=True)

    def stop(self) -> None:
        """Send away all who wait."""
        for turn in self._line:
            _tell(turn, come=False)


def _tell(turn: "asyncio.Future[bool]", *, come: bool) -> None:
    if not turn.done():
        turn.set_result(come)
