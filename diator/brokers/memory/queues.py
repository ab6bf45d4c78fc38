"""The messages of one subscription: what waits, what waits for a time, and what is dead."""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from functools import partial
from itertools import count

from diator.brokers.memory.clock import Clock
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

    __slots__ = ("key", "out", "queued", "waiting")

    def __init__(self, key: str) -> None:
        self.key = key
        self.waiting: deque[QueuedMessage] = deque()
        self.out = 0
        """How many are with a receiver."""
        self.queued = False
        """Whether it stands in the queue to be served."""

    def take(self, limit: int) -> Iterator[QueuedMessage]:
        """Hand out at most so many, up to one that waits for a time."""
        while limit and self.waiting and not self.waiting[0].delayed:
            self.out += 1
            limit -= 1
            yield self.waiting.popleft()

    def give_back(self, message: QueuedMessage) -> None:
        """Put one back in its place; `out` counts it until the queue lets go of it."""
        place = 0  # only what came back before it can be older
        while place < len(self.waiting) and self.waiting[place].number < message.number:
            place += 1
        self.waiting.insert(place, message)


class Queue:
    """The messages of one subscription. Every operation takes the same time, however many wait."""

    def __init__(self, name: str, clock: Clock, capacity: int, *, ordered: bool) -> None:
        self.name = name
        self.ordered = ordered
        self._since: dict[int, float] = {}
        """When each message came that is not settled, by its number, the oldest first."""
        self.letters: dict[str, tuple[DeadLetter, QueuedMessage]] = {}
        self._clock = clock
        self._capacity = capacity
        self._numbers = count(1)
        self._ready: deque[QueuedMessage | KeyQueue] = deque()
        self._lanes: dict[str, KeyQueue] = {}
        self.start()

    def start(self) -> None:
        """Begin in the event loop that runs: those who waited in another one are gone."""
        self.stored, self.room = asyncio.Event(), asyncio.Event()
        """Set while there is something to take, and while fewer messages than the capacity are not settled."""
        if self._ready:
            self.stored.set()
        if self.size < self._capacity:
            self.room.set()

    def wake(self) -> None:
        """End every wait, such as one for something to take. Who waits looks again at what it waits for."""
        self.stored.set()
        self.room.set()

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
        if len(self._since) >= self._capacity:
            self.room.clear()
        if key is None or not self.ordered:
            self._make_ready(QueuedMessage(topic, body, number, None))
        else:
            lane = self._lanes.get(key) or self._lanes.setdefault(key, KeyQueue(key))
            lane.waiting.append(QueuedMessage(topic, body, number, lane))
            self._offer(lane)

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
        if not self._ready:
            self.stored.clear()
        return taken

    def remove(self, message: QueuedMessage) -> None:
        """Forget a message that is out."""
        del self._since[message.number]
        if len(self._since) < self._capacity:
            self.room.set()
        if message.lane is not None:
            self._let_go(message.lane)

    def give_back(self, messages: Sequence[QueuedMessage]) -> None:
        """Put messages that are out back in their places."""
        for message in reversed(messages):
            if message.lane is None:
                self._ready.appendleft(message)
                self.stored.set()
            else:
                message.lane.give_back(message)
                self._let_go(message.lane)

    def delay(self, message: QueuedMessage, seconds: float) -> None:
        """Have a message that is out wait for a time; its key waits with it."""
        message.delayed = True
        if message.lane is not None:
            message.lane.give_back(message)
            self._let_go(message.lane)
        self._clock.call_at(self._clock.now() + seconds, partial(self._end_delay, message))

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

    def _let_go(self, lane: KeyQueue) -> None:
        lane.out -= 1
        self._offer(lane)

    def _offer(self, lane: KeyQueue) -> None:
        if lane.out or lane.queued:
            return
        if not lane.waiting:
            del self._lanes[lane.key]
        elif not lane.waiting[0].delayed:
            lane.queued = True
            self._make_ready(lane)

    def _end_delay(self, message: QueuedMessage, _: float) -> None:
        message.delayed = False
        if message.lane is None:
            self._make_ready(message)
        else:
            self._offer(message.lane)

    def _make_ready(self, one: QueuedMessage | KeyQueue) -> None:
        self._ready.append(one)
        self.stored.set()
