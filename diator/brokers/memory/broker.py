"""The broker in memory: what it offers, its addresses, and the port."""

import asyncio
from collections import deque
from collections.abc import Collection, Sequence
from datetime import datetime, timezone
from functools import partial
from itertools import islice

from typing_extensions import Self

from diator.brokers.address import Parse, a_number, a_whole_number, bad_address, read_address
from diator.brokers.envelope import OutgoingMessage
from diator.brokers.memory.clock import Clock
from diator.brokers.memory.queues import Queue
from diator.brokers.memory.receivers import MemoryReceiver
from diator.brokers.memory.topics import MemoryTopic
from diator.brokers.port import BrokerCapability, DeadLetter, Receiver, Subscription, SubscriptionStatus, Topic
from diator.errors import BrokerError, BrokerUnavailableError, NotPublishedError
from diator.options import COUNT, POSITIVE, SECONDS, require

_SETTINGS: dict[str, Parse] = {"capacity": a_whole_number, "lease": a_number, "duplicate_window": a_number}
_OPTIONS = {"capacity": COUNT, "lease": POSITIVE, "duplicate_window": SECONDS}
_EXAMPLE = "memory://, or with any of these: memory://?capacity=10000&lease=30&duplicate_window=60"


class MemoryBroker:
    """Stores messages in this object: for applications with one process, and for tests. They are lost with it.

    ``capacity`` is the number of messages in a subscription from which publishing to it waits. Messages count until
    they are settled; dead letters do not. Handlers that publish never wait, so they may exceed it.

    ``lease`` is the number of seconds after which an unsettled message is redelivered, unless its lease is renewed.

    ``duplicate_window`` is the number of seconds for which a topic drops messages with a repeated id.

    It may be used in several event loops, one after another: messages remain when it is closed, and its clock stops.
    """

    def __init__(self, capacity: int = 10_000, lease: float = 30.0, *, duplicate_window: float = 0.0) -> None:
        given = {"capacity": capacity, "lease": lease, "duplicate_window": duplicate_window}
        require("MemoryBroker", _OPTIONS, given, "broker")
        self._capacity = capacity
        self._lease = lease
        self._duplicate_window = duplicate_window
        self._is_open = False
        self._clock = Clock()
        self._queues: dict[str, Queue] = {}
        self._topics: dict[str, MemoryTopic] = {}
        self._receivers: dict[MemoryReceiver, None] = {}

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Create a broker from an address, such as ``memory://?capacity=1000&lease=5``. Raises `ConfigurationError`."""
        address = read_address(url, _SETTINGS, _EXAMPLE)
        if address.parts.scheme != "memory" or address.parts.netloc or address.parts.path.strip("/"):
            raise bad_address("the address of the broker in memory has a host or a path", f"write {_EXAMPLE}")
        return cls(**address.settings)

    @property
    def capabilities(self) -> BrokerCapability:
        """All except ``DURABLE``, and ``DUPLICATE_DETECTION`` only with a ``duplicate_window``."""
        kept = (
            BrokerCapability.ACKNOWLEDGED
            | BrokerCapability.CONSUMER_GROUPS
            | BrokerCapability.DELAYED_RETRY
            | BrokerCapability.DEAD_LETTERS
        )
        kept |= BrokerCapability.ORDER_BY_KEY | BrokerCapability.BACKPRESSURE | BrokerCapability.SCHEDULES
        return kept | BrokerCapability.DUPLICATE_DETECTION if self._duplicate_window else kept

    @property
    def system(self) -> str:
        """The broker's name in telemetry."""
        return "memory"

    @property
    def address(self) -> None:
        """None: there is no server."""
        return

    @property
    def lease(self) -> float | None:
        """The seconds for which a delivery belongs to its receiver."""
        return self._lease

    @property
    def max_message_bytes(self) -> int | None:
        """There is no limit."""
        return None

    async def connect(self) -> None:
        """Open: the clock continues, and delays with it."""
        if self._is_open:
            return
        self._is_open = True
        self._clock.start()
        for queue in self._queues.values():
            queue.start()
        for topic in self._topics.values():
            topic.start()

    async def aclose(self) -> None:
        """Close all receivers. Messages remain."""
        if not self._is_open:
            return
        self._is_open = False
        for receiver in tuple(self._receivers):
            receiver.close()
        for queue in self._queues.values():
            queue.wake()
        self._clock.stop()

    async def publish(
        self, messages: Sequence[OutgoingMessage], /, *, timeout: float, wait_for_room: bool = True
    ) -> None:
        """Store messages, each in all its subscriptions or in none. Raises `NotPublishedError`."""
        try:
            self._require_open()
        except BrokerError as error:
            raise NotPublishedError(messages) from error
        left = deque(message for message in messages if message.due is None or not self._schedule(message, message.due))
        self._put(left, wait_for_room)
        try:
            if left:
                await asyncio.wait_for(self._put_waiting(left), timeout)
        except asyncio.TimeoutError:
            raise NotPublishedError(tuple(left)) from self._no_room(left[0].topic, timeout)
        except BrokerUnavailableError as error:
            raise NotPublishedError(tuple(left)) from error

    async def apply(self, subscriptions: Sequence[Subscription], topics: Sequence[Topic] = (), /) -> Sequence[str]:  # noqa: ARG002 - as the port wants it
        """Create missing subscriptions, and missing topics of subscriptions. Raises `BrokerError`."""
        self._require_open()
        created: list[str] = []
        for subscription in subscriptions:
            created += self._missing(subscription)
            queue = self._queues.get(subscription.name) or self._create(subscription)
            if queue.ordered != subscription.ordered:
                raise BrokerError(_other_order(subscription))
            for name in dict.fromkeys(topic.name for topic in subscription.topics):
                topic = self._topics.get(name) or MemoryTopic(self._clock, self._duplicate_window)
                self._topics[name] = topic
                if queue not in topic.queues:
                    topic.queues.append(queue)
        return created

    async def status(self, subscriptions: Sequence[Subscription], /) -> Sequence[SubscriptionStatus]:
        """Return the status of subscriptions."""
        return [self._status(subscription) for subscription in subscriptions]

    async def other_subscriptions(self, used: Sequence[Subscription], /) -> Sequence[SubscriptionStatus]:
        """Return the status of every subscription except these."""
        names = {subscription.name for subscription in used}
        return [_status_of(queue) for queue in self._queues.values() if queue.name not in names]

    async def remove_subscription(self, name: str, /) -> bool:
        """Delete a subscription with its messages and dead letters; return false if it does not exist."""
        queue = self._queues.pop(name, None)
        if queue is None:
            return False
        for topic in self._topics.values():
            if queue in topic.queues:
                topic.queues.remove(queue)
        queue.wake()  # publishers that wait for its room go on
        return True

    async def subscribe(self, subscription: Subscription, /) -> Receiver:
        """Open a receiver. Raises `BrokerError` for a subscription that does not exist."""
        self._require_open()
        if subscription.name not in self._queues:
            raise BrokerError(f"there is no subscription {subscription.name!r}; create it with `apply`")
        return MemoryReceiver(self._queues[subscription.name], self._clock, self._lease, self._receivers)

    async def dead_letters(
        self, subscription: Subscription, /, *, after: str | None = None, limit: int = 100
    ) -> Sequence[DeadLetter]:
        """Return a page of the dead letters of a subscription, oldest first."""
        queue = self._queues.get(subscription.name)
        first = 0 if after is None else int(after) + 1
        letters = (letter for letter, _ in queue.dead_letters.values() if int(letter.id) >= first) if queue else ()
        return list(islice(letters, limit))

    async def replay(self, subscription: Subscription, ids: Collection[str], /) -> Collection[str]:
        """Deliver dead letters again, to this subscription only."""
        queue = self._queues.get(subscription.name)
        return [one for one in ids if queue is not None and queue.replay(one)]

    async def purge(self, subscription: Subscription, ids: Collection[str], /) -> Collection[str]:
        """Delete dead letters permanently."""
        queue = self._queues.get(subscription.name)
        return [one for one in ids if queue is not None and queue.dead_letters.pop(one, None) is not None]

    def _schedule(self, message: OutgoingMessage, due: datetime) -> bool:
        """Keep a message until it is due; return false if it is due already."""
        seconds = (due - datetime.now(timezone.utc)).total_seconds()
        if seconds <= 0:
            return False
        self._clock.call_at(self._clock.now() + seconds, partial(self._put_due, message))
        return True

    def _put_due(self, message: OutgoingMessage, _: float) -> None:
        """Publish a message that is due, even to a full queue, since no publisher is there to wait."""
        self._put(deque([message]), wait_for_room=False)

    async def unsubscribed(self, topics: Collection[str], /) -> Collection[str]:
        """Return the topics among these that have no subscription."""
        return [name for name in topics if name not in self._topics or not self._topics[name].queues]

    def _put(self, left: deque[OutgoingMessage], wait_for_room: bool = True) -> None:
        """Store messages, and take them off; stops at the first that has to wait."""
        while left:
            message = left[0]
            topic = self._topics.get(message.topic)
            if topic is not None and not topic.is_duplicate(message):
                if wait_for_room and topic.must_wait:
                    return
                topic.put(message)
            left.popleft()

    async def _put_waiting(self, left: deque[OutgoingMessage]) -> None:
        """Store messages when there is room, and take them off."""
        while left:
            topic = self._topics[left[0].topic]
            async with topic.turn:
                await topic.wait_for_room()
                if not self._is_open:
                    raise BrokerUnavailableError("the broker in memory was closed")
                if not topic.is_duplicate(left[0]):  # another publisher may have been faster
                    topic.put(left[0])
                left.popleft()
            self._put(left)

    def _require_open(self) -> None:
        if not self._is_open:
            raise BrokerError("the broker in memory is not connected; call `connect` first")

    def _create(self, subscription: Subscription) -> Queue:
        queue = Queue(subscription.name, self._clock, self._capacity, ordered=subscription.ordered)
        self._queues[queue.name] = queue
        return queue

    def _missing(self, subscription: Subscription) -> list[str]:
        queue = self._queues.get(subscription.name)
        missing = [] if queue else [subscription.name]
        for name in dict.fromkeys(topic.name for topic in subscription.topics):
            topic = self._topics.get(name)
            if topic is None or queue not in topic.queues:
                missing.append(f"{name} -> {subscription.name}")
        return missing

    def _status(self, subscription: Subscription) -> SubscriptionStatus:
        missing = tuple(self._missing(subscription))
        queue = self._queues.get(subscription.name)
        if queue is None:
            return SubscriptionStatus(subscription.name, exists=False, missing=missing)
        return _status_of(queue, missing)

    def _no_room(self, topic: str, timeout: float) -> BrokerError:
        full = ", ".join(queue.name for queue in self._topics[topic].queues if queue.size >= self._capacity)
        text = f"no capacity for topic {topic!r} within {timeout:g} s: {full} holds {self._capacity:,} messages"
        return BrokerUnavailableError(f"{text}; run more workers or raise the broker's capacity")


def _status_of(queue: Queue, missing: tuple[str, ...] = ()) -> SubscriptionStatus:
    return SubscriptionStatus(queue.name, True, queue.size, len(queue.dead_letters), missing, queue.oldest)


def _other_order(subscription: Subscription) -> str:
    has = "is not ordered" if subscription.ordered else "is ordered"
    return f"subscription {subscription.name!r} {has}, which can't be changed; use another name, or a new broker"
