"""The broker on Redis Pub/Sub. See `RedisPubSubBroker`."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from typing import Any, Literal, get_args

from redis import exceptions as redis_errors
from redis.asyncio import Redis

from diator.brokers import shielded
from diator.brokers.address import Parse, a_flag, a_number
from diator.brokers.envelope import Outgoing
from diator.brokers.port import (
    Ack,
    Capability,
    DeadLetter,
    Delivery,
    Refusal,
    Settlement,
    Status,
    Subscription,
    Topic,
)
from diator.errors import BrokerError, BrokerUnavailableError, NotPublishedError, UnreadableMessageError
from diator.options import POSITIVE, TEXT, one_of, require
from diator_redis import _predecessor
from diator_redis._errors import translate
from diator_redis._link import Cut, Links, checked, field_of, pack
from diator_redis._publisher import is_small
from diator_redis._settings import check_client, links_to, pool_of, split

logger = logging.getLogger("diator.redis")

Wire = Literal["cloudevents", "diator-0.1"]


SETTINGS: dict[str, Parse] = {
    "prefix": str,
    "wire": str,
    "channel_prefix": str,
    "timeout": a_number,
    "tls": a_flag,
}
_OPTIONS = {"prefix": TEXT, "wire": one_of(*get_args(Wire)), "channel_prefix": TEXT, "timeout": POSITIVE}
LARGEST = 8 * 1024 * 1024
"""Redis disconnects a subscriber that is 8 MB behind for a minute (``client-output-buffer-limit``)."""


class RedisPubSubBroker:
    """Events by Redis Pub/Sub: at most once, to every worker that listens at that moment.

    Nothing is stored: what nobody hears is lost, a failure is not retried, and several workers of one subscription each
    get every message. `RedisBroker` has none of these limits.

    Args:
        url_or_client: An address (``redis://``, ``rediss://``, ``unix://``) or a `redis.asyncio.Redis`, which stays
            open.
        prefix: How the name of each channel begins.
        wire: ``"diator-0.1"`` writes and reads what diator 0.1 did, so that its publishers and subscribers keep
            working.
        channel_prefix: How the channels of diator 0.1 begin.
        timeout: How many seconds Redis may take to answer before it counts as away.
    """

    def __init__(
        self,
        url_or_client: str | Redis = "redis://localhost:6379",
        *,
        prefix: str = "diator",
        wire: Wire = "cloudevents",
        channel_prefix: str = "python_diator_channel",
        timeout: float = 5.0,
    ) -> None:
        given = {"prefix": prefix, "wire": wire, "channel_prefix": channel_prefix, "timeout": timeout}
        require("RedisPubSubBroker", _OPTIONS, given, "broker")
        if isinstance(url_or_client, str):
            pool_of(url_or_client, timeout, SETTINGS)
        else:
            check_client(url_or_client)
        self._address = url_or_client
        self._prefix, self._wire, self._channel_prefix, self._timeout = prefix, wire, channel_prefix, timeout
        self._opened = 0
        self._links: Links | None = None
        self._lock = asyncio.Lock()
        self._receivers: set[PubSubReceiver] = set()
        self._applied: set[str] = set()

    @classmethod
    def from_url(cls, url: str) -> "RedisPubSubBroker":
        """Make a broker from an address: ``redis+pubsub://host:6379/0?wire=diator-0.1``; ``tls=true`` for TLS."""
        bare, settings = split(url, SETTINGS)
        scheme = "rediss" if settings.pop("tls", False) else "redis"
        return cls(f"{scheme}://{bare.partition('://')[2]}", **settings)

    def __repr__(self) -> str:
        return f"<RedisPubSubBroker {self._prefix} {self._wire}>"

    @property
    def capabilities(self) -> Capability:
        """What this broker can do: none of what can be declared."""
        return Capability(0)

    @property
    def lease(self) -> None:
        """Deliveries are nobody's again."""
        return

    @property
    def max_message_bytes(self) -> int:
        """The size that a message may have."""
        return LARGEST

    def validate(self, subscriptions: Sequence[Subscription], topics: Sequence[Topic], /) -> Iterable[Refusal]:  # noqa: ARG002
        """Refuse what needs messages to be kept."""
        use = "use RedisBroker (redis://)"
        for one in subscriptions:
            if not one.at_most_once:
                text = f"Redis Pub/Sub keeps nothing, so subscription {one.name!r} can lose messages"
                yield Refusal(text, f'{use}, or accept it with delivery="at-most-once"', one.name)
            if one.ordered:
                text = f"Redis Pub/Sub gives subscription {one.name!r} no order by key across workers"
                yield Refusal(text, f"{use}, or do without it with ordered=False", one.name)

    # Life.

    async def connect(self) -> None:
        """Open, and see that the server answers. Raises `~diator.BrokerError`."""
        if not self._opened:
            self._links, self._lock = links_to(self._address, self._timeout, SETTINGS), asyncio.Lock()
        self._opened += 1
        try:
            await self._open_links().call(b"PING")
        except BrokerUnavailableError:
            raise
        except BrokerError:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Close all that was opened."""
        if not self._opened:
            return
        self._opened -= 1
        if self._opened:
            return
        await asyncio.gather(*(receiver.aclose() for receiver in list(self._receivers)))
        links, self._links = self._links, None
        if links is not None:
            await links.aclose()

    def _open_links(self) -> Links:
        if self._links is None:
            raise BrokerError("the broker is not connected: call connect() first")
        return self._links

    # Publishing.

    async def publish(self, messages: Sequence[Outgoing], /, *, timeout: float, wait_for_room: bool = True) -> None:  # noqa: ARG002
        """Send messages to whoever listens. Raises `~diator.NotPublishedError`."""
        links = self._links
        if not messages:
            return
        if links is None or self._lock.locked() or not links.has_ready or not is_small(messages):
            await shielded(self._publish(messages, timeout))
        else:
            # Nothing is waited for but the replies, which a cancel does not interrupt: a task would double the cost.
            await self._publish(messages, timeout, to_the_end=True)

    async def _publish(self, messages: Sequence[Outgoing], timeout: float, to_the_end: bool = False) -> None:
        loop = asyncio.get_running_loop()
        ends = loop.time() + timeout
        try:
            links = self._open_links()
            if self._lock.locked():
                await asyncio.wait_for(self._lock.acquire(), timeout)
            else:
                await self._lock.acquire()
        except (BrokerError, asyncio.TimeoutError) as error:
            cause = error if isinstance(error, BrokerError) else BrokerUnavailableError("others publish for too long")
            raise NotPublishedError(messages) from cause
        link = links.take()
        replies: list[Any] = []
        lost: Cut | None = None
        try:
            data = b"".join([pack(b"PUBLISH", *self._written(message)) for message in messages])
            left = min(max(ends - loop.time(), 0.001), links.timeout)
            cancelled = await link.exchange(data, len(messages), replies, left, to_the_end=to_the_end)
        except Cut as cut:
            lost, cancelled = cut, cut.cancelled
        finally:
            links.put(link)
            self._lock.release()
        failure = self._failure(messages, replies, lost)
        if cancelled is not None:
            raise cancelled from failure
        if failure is not None:
            raise failure from failure.__cause__

    def _written(self, message: Outgoing) -> tuple[str, bytes]:
        if self._wire == "diator-0.1":
            return _predecessor.channel_of(self._channel_prefix, message), _predecessor.write(message)
        return self._channel(message.topic), message.structured

    def _failure(
        self, messages: Sequence[Outgoing], replies: Sequence[Any], cut: Cut | None
    ) -> NotPublishedError | None:
        """Tell what did not leave."""
        refused = [(one, reply) for one, reply in zip(messages, replies, strict=False) if isinstance(reply, Exception)]
        rest = messages[len(replies) :]
        unsent = [one for one, _ in refused] + ([] if cut is None or cut.sent else list(rest))
        unknown = list(rest) if cut is not None and cut.sent else []
        if not unsent and not unknown:
            return None
        original = refused[0][1] if cut is None else cut.error
        failure = NotPublishedError(unsent, unknown)
        failure.__cause__ = translate(original)
        failure.__cause__.__cause__ = original
        return failure

    def _channel(self, topic: str) -> str:
        return f"{self._prefix}:{topic}"

    # Subscriptions.

    async def apply(self, subscriptions: Sequence[Subscription], topics: Sequence[Topic] = (), /) -> Sequence[str]:  # noqa: ARG002
        """Note that they are known; there is nothing to create, as a channel exists while somebody listens."""
        self._applied.update(subscription.name for subscription in subscriptions)
        return ()

    async def unsubscribed(self, topics: Collection[str], /) -> Collection[str]:
        """Return those of these topics to which nobody listens now. Raises `~diator.BrokerError`."""
        links, names = self._open_links(), list(topics)
        if self._wire == "diator-0.1" or await links.greet(is_cluster_fine=True):
            return ()  # who listens to patterns, or at another node of a cluster, is not known by channel
        channels = [self._channel(name).encode() for name in names]
        counts, patterns = await links.send(pack(b"PUBSUB", b"NUMSUB", *channels), pack(b"PUBSUB", b"NUMPAT"))
        if checked(patterns):
            return ()
        return [name for name, channel in zip(names, channels, strict=True) if not field_of(checked(counts), channel)]

    async def status(self, subscriptions: Sequence[Subscription], /) -> Sequence[Status]:
        """Tell which were applied here: the server knows none."""
        return [Status(subscription.name, exists=subscription.name in self._applied) for subscription in subscriptions]

    async def subscribe(self, subscription: Subscription, /) -> "PubSubReceiver":
        """Begin to listen. Raises `~diator.BrokerError`."""
        links = self._open_links()
        receiver = PubSubReceiver(links, subscription, self._reader(subscription), self._receivers.discard)
        try:
            await receiver.open()
        except BaseException:
            await receiver.aclose()
            raise
        self._receivers.add(receiver)
        return receiver

    def _reader(self, subscription: Subscription) -> "Reader":
        if self._wire == "diator-0.1":
            return PredecessorReader(self._channel_prefix, subscription)
        return Reader({self._channel(topic.name).encode(): topic.name for topic in subscription.topics})

    # Dead letters.

    async def dead_letters(self, subscription: Subscription, /) -> AsyncIterator[DeadLetter]:  # noqa: ARG002
        """Give none: there are none."""
        for letter in list[DeadLetter]():
            yield letter

    async def replay(self, subscription: Subscription, letter: DeadLetter, /) -> bool:  # noqa: ARG002
        """Tell that it is gone."""
        return False

    async def purge(self, subscription: Subscription, letter: DeadLetter, /) -> bool:  # noqa: ARG002
        """Tell that it is gone."""
        return False


class Reader:
    """What is listened to, and how it is read."""

    pattern = False

    def __init__(self, channels: dict[bytes, str]) -> None:
        self.channels = channels

    def read(self, channel: bytes, body: bytes) -> Delivery | None:
        """Give the delivery that a message is; ``None`` for what does not concern this subscription."""
        topic = self.channels.get(channel)
        return None if topic is None else Delivery(topic, body)


class PredecessorReader(Reader):
    """Reads all that diator 0.1 publishes, and leaves out what this subscription has no topic for."""

    pattern = True

    def __init__(self, prefix: str, subscription: Subscription) -> None:
        escaped = "".join(f"\\{letter}" if letter in "*?[]\\^-" else letter for letter in prefix)
        super().__init__({f"{escaped}:*".encode(): ""})
        self._prefix = prefix
        self._topics = {name: topic.name for topic in subscription.topics for name in topic.types}
        self._first = subscription.topics[0].name if subscription.topics else ""

    def read(self, channel: bytes, body: bytes) -> Delivery | None:  # noqa: ARG002 - the name says it all
        """Give the delivery that a message is, as a CloudEvent."""
        try:
            envelope = _predecessor.read(body, self._prefix)
        except UnreadableMessageError as error:
            return Delivery(self._first, body, damage=str(error))
        topic = self._topics.get(envelope.type)
        return None if topic is None else Delivery(topic, _predecessor.structured(envelope))


class PubSubReceiver:
    """Listens for one subscription, on a connection of its own."""

    def __init__(
        self,
        links: Links,
        subscription: Subscription,
        reader: Reader,
        closed: Callable[["PubSubReceiver"], None],
    ) -> None:
        self._timeout = links.timeout
        self._client: Any = Redis(connection_pool=links.pool)
        self._name = subscription.name
        self._reader = reader
        self._closed = closed
        self._pubsub: Any = None
        self._taken: list[Delivery] = []
        self._reading: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()
        self._lost_at: float | None = None

    async def open(self) -> None:
        """Begin to listen. Raises `~diator.BrokerError`."""
        try:
            await asyncio.wait_for(self._listen(), self._timeout)
        except (redis_errors.RedisError, OSError, asyncio.TimeoutError) as error:
            await self._drop()
            raise translate(error) from error

    async def receive(self, limit: int, /) -> Sequence[Delivery]:
        """Wait for messages, and give at most ``limit`` of them. Raises `~diator.BrokerError`."""
        loop = asyncio.get_running_loop()
        while not self._ended.is_set():
            if self._taken:
                found, self._taken = self._taken[:limit], self._taken[limit:]
                return found
            reading = self._reading = self._reading or loop.create_task(self._read(limit))
            ended = loop.create_task(self._ended.wait())
            try:
                await asyncio.wait({reading, ended}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                ended.cancel()
            if reading.done() and not self._ended.is_set():
                self._reading = None
                reading.result()
        return ()

    async def settle(self, settlements: Sequence[Settlement], /) -> Collection[Delivery]:
        """Do nothing: a message is gone with its delivery. What should have come again is logged."""
        for delivery, outcome in settlements:
            if not isinstance(outcome, Ack):
                word = type(outcome).__name__
                logger.warning("%s: a message from %s is lost: Pub/Sub has no %s", self._name, delivery.topic, word)
        return ()

    async def renew(self, deliveries: Sequence[Delivery], /) -> Collection[Delivery]:  # noqa: ARG002
        """Do nothing: nobody else can get them."""
        return ()

    async def aclose(self) -> None:
        """Listen no more. Idempotent."""
        self._ended.set()
        task, self._reading = self._reading, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._drop()
        self._closed(self)

    # Listening.

    async def _read(self, limit: int) -> None:
        try:
            if self._pubsub is None:
                await asyncio.wait_for(self._listen(), self._timeout)
            await self._wait()
            while len(self._taken) < limit and await self._next(0.0):
                pass
        except (redis_errors.RedisError, OSError, asyncio.TimeoutError) as error:
            self._lost_at = self._lost_at or asyncio.get_running_loop().time()
            await self._drop()
            raise translate(error) from error

    async def _wait(self) -> None:
        """Wait for one message that concerns this subscription. A silent server is asked whether it is there."""
        asked = False
        while not self._taken and not self._ended.is_set():
            if await self._next(self._timeout):
                asked = False
            elif asked:
                raise redis_errors.TimeoutError("the server did not answer in time")
            else:
                asked = True
                await self._pubsub.ping()

    async def _next(self, timeout: float) -> bool:
        """Take the next message there is; tell whether there was one."""
        message: Any = await self._pubsub.get_message(timeout=timeout)
        if message is None:
            return False
        if message["type"] in ("message", "pmessage"):
            delivery = self._reader.read(_as_bytes(message["channel"]), _as_bytes(message["data"]))
            if delivery is not None:
                self._taken.append(delivery)
        return True

    async def _listen(self) -> None:
        """Subscribe, and wait until the server has confirmed it."""
        pubsub: Any = self._client.pubsub()
        self._pubsub = pubsub
        subscribe = pubsub.psubscribe if self._reader.pattern else pubsub.subscribe
        await subscribe(*self._reader.channels)
        missing = len(self._reader.channels)
        while missing:
            message: Any = await pubsub.get_message(timeout=self._timeout)
            missing -= message is not None and message["type"] in ("subscribe", "psubscribe")
        if self._lost_at is not None:
            gap = asyncio.get_running_loop().time() - self._lost_at
            self._lost_at = None
            logger.warning("%s did not listen for %.1f s: what was published meanwhile is lost to it", self._name, gap)

    async def _drop(self) -> None:
        pubsub, self._pubsub = self._pubsub, None
        if pubsub is not None:
            with contextlib.suppress(redis_errors.RedisError, OSError, asyncio.TimeoutError):
                await asyncio.wait_for(pubsub.aclose(), 1.0)


def _as_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")
