"""The broker on Redis Pub/Sub. See `RedisPubSubBroker`."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any, Literal, get_args

from redis.asyncio import Redis

from diator.brokers import shielded
from diator.brokers.address import Parse, a_flag, a_number
from diator.brokers.envelope import Outgoing
from diator.brokers.port import Capability, DeadLetter, Status, Subscription, Topic
from diator.errors import BrokerError, BrokerUnavailableError, NotPublishedError
from diator.options import POSITIVE, TEXT, one_of, require
from diator_redis import _predecessor
from diator_redis._errors import translate
from diator_redis._link import Cut, Links, checked, field_of, pack
from diator_redis._listening import PredecessorReader, PubSubReceiver, Reader
from diator_redis._publisher import is_small
from diator_redis._settings import check_client, links_to, pool_of, shown, split

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
    def system(self) -> str:
        """The broker's name in telemetry."""
        return "redis"

    @property
    def address(self) -> str | None:
        """The server's address in telemetry."""
        return shown(self._address)

    @property
    def lease(self) -> None:
        """Deliveries are nobody's again."""
        return

    @property
    def max_message_bytes(self) -> int:
        """The size that a message may have."""
        return LARGEST

    # Life.

    async def connect(self) -> None:
        """Open, and see that the server answers. Raises `~diator.BrokerError`."""
        if self._links is None:
            self._links, self._lock = links_to(self._address, self._timeout, SETTINGS), asyncio.Lock()
        await self._links.call(b"PING")

    async def aclose(self) -> None:
        """Close all that was opened."""
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
        """Return the topics among these without a listener now. Raises `~diator.BrokerError`."""
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

    async def subscribe(self, subscription: Subscription, /) -> PubSubReceiver:
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

    def _reader(self, subscription: Subscription) -> Reader:
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
