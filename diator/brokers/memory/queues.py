"""The messages of one subscription: what waits, what waits for a time, and what is dead."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from heapq import heappop, heappush
from itertools import count

from diator.brokers.memory.clock import Alarm, Clock
from diator.brokers.port import DeadLetter, MoveToDeadLetters


class QueuedMessage:
    """One message in one subscription."""

    __slots__ = ("body", "delayed", "deliveries", "failures", "lane", "number", "topic")

    def __init__(self, topic: str, body: bytes, number: int, lane: "KeyQueue | None") -> None:
        self.topic = topic
        self.body = body
        self.number = number
        """Its place in the queue."""
        self.lane = lane
        self.failures = 0
        self.deliveries = 0
        self.delayed = False
        """Whether it waits for a time."""


class KeyQueue:
    """The messages of one key, in order. While some of them are out, no others are handed out."""

    __slots__ = ("_returned", "key", "out", "queued", "waiting")

    def __init__(self, key: str) -> None:
        self.key = key
        self.waiting: deque[QueuedMessage] = deque()
        self.out = 0
        """How many are with a receiver."""
        self.queued = False
        """Whether it stands in the queue to be served."""
        # Those that came back are older than all that wait, and come back in any order.
        self._returned: list[tuple[int, QueuedMessage]] = []

    @property
    def head(self) -> QueuedMessage | None:
        """The next message, if there is one."""
        if self._returned:
            return self._returned[0][1]
        return self.waiting[0] if self.waiting else None

    def take(self, limit: int) -> Iterator[QueuedMessage]:
        """Hand out at most so many, up to one that waits for a time."""
        while limit and (head := self.head) is not None and not head.delayed:
            if self._returned:
                heappop(self._returned)
            else:
                self.waiting.popleft()
            self.out += 1
            limit -= 1
            yield head

    def give_back(self, message: QueuedMessage) -> None:
        """Put one back in its place; `out` counts it until the queue lets go of it."""
        heappush(self._returned, (message.number, message))


class Queue:
    """The messages of one subscription. Every operation takes the same time, however many wait."""

    def __init__(self, name: str, clock: Clock, *, ordered: bool) -> None:
        self.name = name
        self.ordered = ordered
        self._since: dict[int, float] = {}
        """When each message came that is not settled, by its number, the oldest first."""
        self.letters: dict[str, tuple[DeadLetter, QueuedMessage]] = {}
        self.when_room: list[Callable[[], None]] = []
        """Called when messages were settled."""
        self._clock = clock
        self._numbers = count(1)
        self._ready: deque[QueuedMessage | KeyQueue] = deque()
        self._lanes: dict[str, KeyQueue] = {}
        self._delayed: list[tuple[float, int, QueuedMessage]] = []
        self._alarm = Alarm(clock, self._requeue_due)
        self._waiting: dict[asyncio.Future[None], None] = {}
        self._woken: asyncio.Future[None] | None = None

    @property
    def size(self) -> int:
        """How many messages are not settled."""
        return len(self._since)

    @property
    def oldest(self) -> float | None:
        """The age of the oldest message that is not settled, in seconds."""
        return self._clock.now() - next(iter(self._since.values())) if self._since else None

    def put(self, topic: str, body: bytes, key: str | None) -> None:
        """Add a message at the end."""
        number = next(self._numbers)
        self._since[number] = self._clock.now()
        if key is None or not self.ordered:
            self._ready.append(QueuedMessage(topic, body, number, None))
        else:
            lane = self._lanes.get(key) or self._lanes.setdefault(key, KeyQueue(key))
            lane.waiting.append(QueuedMessage(topic, body, number, lane))
            self._offer(lane)
        if self._waiting:
            self.wake()

    def take(self, limit: int) -> list[QueuedMessage]:
        """Hand out at most so many messages; keys share in them."""
        taken: list[QueuedMessage] = []
        while self._ready and len(taken) < limit:
            first = self._ready.popleft()
            if isinstance(first, QueuedMessage):
                taken.append(first)
            else:
                first.queued = False
                taken += first.take(max(1, (limit - len(taken)) // (len(self._ready) + 1)))
        for message in taken:
            message.deliveries += 1
        if self._ready and self._waiting:
            self.wake()
        return taken

    def remove(self, message: QueuedMessage) -> None:
        """Forget a message that is out."""
        del self._since[message.number]
        if message.lane is not None:
            self._let_go(message.lane)

    def give_back(self, messages: Sequence[QueuedMessage]) -> None:
        """Put messages that are out back in their places."""
        for message in reversed(messages):
            if message.lane is None:
                self._ready.appendleft(message)
            else:
                message.lane.give_back(message)
                self._let_go(message.lane)
        self.wake()

    def delay(self, message: QueuedMessage, seconds: float) -> None:
        """Have a message that is out wait for a time; its key waits with it."""
        message.delayed = True
        if message.lane is not None:
            message.lane.give_back(message)
            self._let_go(message.lane)
        due = self._clock.now() + seconds
        heappush(self._delayed, (due, message.number, message))
        self._alarm.set(due)

    def park(self, message: QueuedMessage, why: MoveToDeadLetters) -> None:
        """Make a message that is out a dead letter."""
        self.remove(message)
        letter = DeadLetter(
            id=str(next(self._numbers)),
            subscription=self.name,
            topic=message.topic,
            failure=why,
            dead_lettered_at=datetime.now(timezone.utc),
            deliveries=message.deliveries,
            headers={},
            body=message.body,
        )
        self.letters[letter.id] = (letter, message)

    def replay(self, letter_id: str) -> bool:
        """Add a dead letter at the end, as new."""
        _, message = self.letters.pop(letter_id, (None, None))
        if message is None:
            return False
        self.put(message.topic, message.body, message.lane.key if message.lane else None)
        return True

    def tell_room(self) -> None:
        """Have publishers look whether there is room; called once for a batch that was settled."""
        for callback in self.when_room:
            callback()

    def start(self) -> None:
        """Go on with the delays, after the clock was started."""
        if self._delayed:
            self._alarm.set(self._delayed[0][0])

    def stop(self) -> None:
        """Leave the event loop, in which no receiver waits any longer."""
        self._alarm.cancel()
        self._waiting.clear()
        self._woken = None

    def wait(self) -> "asyncio.Future[None]":
        """Give a future that is done when there may be something to take; `leave` must be called for it."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[future] = None
        return future

    def stop_waiting(self, future: "asyncio.Future[None]") -> None:
        """Wait no more."""
        self._waiting.pop(future, None)
        if self._woken is future:
            self._woken = None

    def wake(self) -> None:
        """Wake one who waits, if there is something. Who has taken enough of it wakes the next."""
        if self._woken is None and self._ready:
            # One may be done that has been cancelled, and does not know it yet.
            self._woken = next((future for future in self._waiting if not future.done()), None)
            if self._woken is not None:
                self._woken.set_result(None)

    def _let_go(self, lane: KeyQueue) -> None:
        lane.out -= 1
        self._offer(lane)

    def _offer(self, lane: KeyQueue) -> None:
        if lane.out or lane.queued:
            return
        head = lane.head
        if head is None:
            del self._lanes[lane.key]
        elif not head.delayed:
            lane.queued = True
            self._ready.append(lane)

    def _requeue_due(self, now: float) -> None:
        """Let in what has waited for its time."""
        while self._delayed and self._delayed[0][0] <= now:
            message = heappop(self._delayed)[2]
            message.delayed = False
            if message.lane is None:
                self._ready.append(message)
            else:
                self._offer(message.lane)
        self.start()
        self.wake()
