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

    __slots__ = ("body", "delayed", "deliveries", "failures", "key_queue", "number", "topic")

    def __init__(self, topic: str, body: bytes, number: int, key_queue: "KeyQueue | None") -> None:
        self.topic = topic
        self.body = body
        self.number = number
        """Its place in the queue."""
        self.key_queue = key_queue
        self.failures = 0
        self.deliveries = 0
        self.delayed = False
        """Whether it waits for a time."""


class KeyQueue:
    """The messages of one key, in order. While some of them are in flight, no others are delivered."""

    __slots__ = ("in_flight", "key", "queued", "waiting")

    def __init__(self, key: str) -> None:
        self.key = key
        self.waiting: deque[QueuedMessage] = deque()
        self.in_flight = 0
        """How many a receiver has."""
        self.queued = False
        """Whether it stands in the queue to be served."""

    def take(self, limit: int) -> Iterator[QueuedMessage]:
        """Deliver at most this many messages, up to one that waits for a time."""
        while limit and self.waiting and not self.waiting[0].delayed:
            self.in_flight += 1
            limit -= 1
            yield self.waiting.popleft()

    def release(self, message: QueuedMessage) -> None:
        """Put one back in its place; `in_flight` counts it until the queue offers the key again."""
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
        self.dead_letters: dict[str, tuple[DeadLetter, QueuedMessage]] = {}
        self._clock = clock
        self._capacity = capacity
        self._numbers = count(1)
        self._ready: deque[QueuedMessage | KeyQueue] = deque()
        self._key_queues: dict[str, KeyQueue] = {}
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
            key_queue = self._key_queues.get(key) or self._key_queues.setdefault(key, KeyQueue(key))
            key_queue.waiting.append(QueuedMessage(topic, body, number, key_queue))
            self._offer(key_queue)

    def take(self, limit: int) -> list[QueuedMessage]:
        """Deliver at most this many messages; keys share the limit."""
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
        """Forget a message that is in flight."""
        del self._since[message.number]
        if len(self._since) < self._capacity:
            self.room.set()
        if message.key_queue is not None:
            self._count_back(message.key_queue)

    def release(self, messages: Sequence[QueuedMessage]) -> None:
        """Put messages that are in flight back in their places."""
        for message in reversed(messages):
            if message.key_queue is None:
                self._ready.appendleft(message)
                self.stored.set()
            else:
                message.key_queue.release(message)
                self._count_back(message.key_queue)

    def delay(self, message: QueuedMessage, seconds: float) -> None:
        """Let a message that is in flight wait for a time; its key waits with it."""
        message.delayed = True
        if message.key_queue is not None:
            message.key_queue.release(message)
            self._count_back(message.key_queue)
        self._clock.call_at(self._clock.now() + seconds, partial(self._end_delay, message))

    def dead_letter(self, message: QueuedMessage, failure: MoveToDeadLetters) -> None:
        """Make a message that is in flight a dead letter."""
        self.remove(message)
        letter = DeadLetter(
            id=str(next(self._numbers)),
            subscription=self.name,
            topic=message.topic,
            failure=failure,
            dead_lettered_at=datetime.now(timezone.utc),
            deliveries=message.deliveries,
            headers={},
            body=message.body,
        )
        self.dead_letters[letter.id] = (letter, message)

    def replay(self, letter_id: str) -> bool:
        """Add a dead letter at the end, as new."""
        _, message = self.dead_letters.pop(letter_id, (None, None))
        if message is None:
            return False
        self.put(message.topic, message.body, message.key_queue.key if message.key_queue else None)
        return True

    def _count_back(self, key_queue: KeyQueue) -> None:
        key_queue.in_flight -= 1
        self._offer(key_queue)

    def _offer(self, key_queue: KeyQueue) -> None:
        if key_queue.in_flight or key_queue.queued:
            return
        if not key_queue.waiting:
            del self._key_queues[key_queue.key]
        elif not key_queue.waiting[0].delayed:
            key_queue.queued = True
            self._make_ready(key_queue)

    def _end_delay(self, message: QueuedMessage, _: float) -> None:
        message.delayed = False
        if message.key_queue is None:
            self._make_ready(message)
        else:
            self._offer(message.key_queue)

    def _make_ready(self, one: QueuedMessage | KeyQueue) -> None:
        self._ready.append(one)
        self.stored.set()
