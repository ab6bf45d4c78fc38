"""The broker on Redis Streams. See `RedisBroker`."""

import secrets
from collections.abc import Collection, Sequence
from functools import partial

from redis.asyncio import Redis

from diator.brokers.address import Parse, a_number, a_whole_number, or_none
from diator.brokers.port import BrokerCapability, DeadLetter, Subscription, SubscriptionStatus, Topic
from diator.options import COUNT, POSITIVE, TEXT, Rule, optional, require
from diator_redis._client import Client
from diator_redis._dead_letters import DeadLetters
from diator_redis._keys import KeyNames
from diator_redis._publisher import Commands
from diator_redis._queues import Queues
from diator_redis._receiver import StreamReceiver
from diator_redis._server import ServerBroker
from diator_redis._settings import split_settings
from diator_redis._streams import Streams
from diator_redis._subscriptions import Subscriptions
from diator_redis._topics import Topics

_OPTIONS: dict[str, tuple[Parse, Rule]] = {
    "prefix": (str, TEXT),
    "lease": (a_number, POSITIVE),
    "max_length": (or_none(a_whole_number), optional(COUNT)),
    "max_age": (or_none(a_number), optional(POSITIVE)),
    "abandoned_after": (a_number, POSITIVE),
    "timeout": (a_number, POSITIVE),
}
SETTINGS: dict[str, Parse] = {name: parse for name, (parse, _) in _OPTIONS.items()}
"""The settings that an address may contain, and how each is parsed."""

_LATER = BrokerCapability.DELAYED_RETRY | BrokerCapability.SCHEDULES | BrokerCapability.DEAD_LETTERS


class RedisBroker(ServerBroker):
    """Events in Redis Streams: durable, acknowledged, ordered by key.

    Args:
        url_or_client: An address (``redis://``, ``rediss://``, ``unix://``) or a `redis.asyncio.Redis`, also one of a
            Sentinel. A client stays open when the broker closes.
        prefix: The prefix of all keys.
        lease: Seconds until a delivery expires unless its receiver renews it.
        max_length: Entries of a stream beyond which those that all subscriptions have settled are removed; ``None``:
            never.
        max_age: Seconds after which entries that all subscriptions have settled are removed; ``None``: never.
        abandoned_after: Seconds without a worker after which a backlog is reported.
        timeout: Seconds to wait for an answer before Redis counts as unavailable.
    """

    capabilities = (
        BrokerCapability.DURABLE
        | BrokerCapability.ACKNOWLEDGED
        | BrokerCapability.CONSUMER_GROUPS
        | BrokerCapability.ORDER_BY_KEY
        | _LATER
    )
    max_message_bytes = 16 * 1024 * 1024
    """Redis takes strings up to 512 MB, but serves no other client while a script copies one."""

    def __init__(
        self,
        url_or_client: str | Redis = "redis://localhost:6379",
        *,
        prefix: str = "diator",
        lease: float = 30.0,
        max_length: int | None = 10_000,
        max_age: float | None = None,
        abandoned_after: float = 86_400.0,
        timeout: float = 5.0,
    ) -> None:
        given = {"prefix": prefix, "lease": lease, "max_length": max_length}
        given |= {"max_age": max_age, "abandoned_after": abandoned_after, "timeout": timeout}
        require("RedisBroker", {name: rule for name, (_, rule) in _OPTIONS.items()}, given, "broker")
        super().__init__(url_or_client, timeout, SETTINGS)
        self.lease = lease
        """Seconds for which a delivery belongs to its receiver."""
        self._keys = KeyNames(prefix)
        self._limits = (max_length, max_age, abandoned_after)
        self._known: set[str] = set()

    @classmethod
    def from_url(cls, url: str) -> "RedisBroker":
        """Make a broker from an address whose query may have the settings: ``redis://host:6379/0?lease=60``."""
        bare, settings = split_settings(url, SETTINGS)
        return cls(bare, **settings)

    def __repr__(self) -> str:
        return f"<RedisBroker {self._keys!r}>"

    def _open(self, client: Client) -> Commands:
        self._topics = Topics(client, self._keys, self.lease, self._limits)
        self._subscriptions = Subscriptions(client, self._keys)
        return self._topics.commands

    async def _greet(self, client: Client) -> None:
        await client.greet()

    async def _close(self) -> None:
        await self._topics.aclose()

    # Subscriptions.

    async def apply(self, subscriptions: Sequence[Subscription], topics: Sequence[Topic] = (), /) -> Sequence[str]:  # noqa: ARG002 - as the port wants it
        """Create what is missing, and return the names of what was created. Raises `~diator.BrokerError`."""
        await self._opened().greet()  # the server may have been unavailable when `connect` asked
        created: list[str] = []
        for subscription in subscriptions:
            self._known.update(topic.name for topic in subscription.topics)
            created += await self._subscriptions.create(subscription)
        return created

    async def unsubscribed(self, topics: Collection[str], /) -> Collection[str]:
        """Return the topics among these without a subscription. Raises `~diator.BrokerError`."""
        self._opened()
        return await self._subscriptions.unsubscribed(topics)

    async def status(self, subscriptions: Sequence[Subscription], /) -> Sequence[SubscriptionStatus]:
        """Return the status of subscriptions. Raises `~diator.BrokerError`."""
        self._opened()
        return [await self._subscriptions.status(subscription) for subscription in subscriptions]

    async def other_subscriptions(self, used: Sequence[Subscription], /) -> Sequence[SubscriptionStatus]:
        """Return the status of every subscription under the prefix except these. Raises `~diator.BrokerError`."""
        self._opened()
        return await self._subscriptions.others(used)

    async def remove_subscription(self, name: str, /) -> bool:
        """Delete a subscription with its messages and dead letters; return false if it does not exist.

        Raises `~diator.BrokerError`.
        """
        self._opened()
        return await self._subscriptions.remove(name)

    async def subscribe(self, subscription: Subscription, /) -> StreamReceiver:
        """Open a receiver. Raises `~diator.BrokerError`."""
        client = self._opened()
        self._known.update(topic.name for topic in subscription.topics)
        self._topics.add_subscription(subscription)
        access = (client, self._keys, subscription, secrets.token_hex(8), self.lease)
        source = Queues(*access) if subscription.ordered else Streams(*access, self._topics.expect)
        restore = partial(self._subscriptions.restore, subscription)
        receiver = StreamReceiver(source, restore, self._receivers.discard)
        self._receivers.add(receiver)
        return receiver

    async def trim(self) -> None:
        """Trim the streams of all topics that this broker has applied or subscribed to.

        Workers and publishers trim periodically; call this only to trim immediately. Raises `~diator.BrokerError`.
        """
        self._opened()
        for name in sorted(self._known):
            await self._topics.trim(name)

    # Dead letters.

    async def dead_letters(
        self, subscription: Subscription, /, *, after: str | None = None, limit: int = 100
    ) -> Sequence[DeadLetter]:
        """Return a page of the dead letters of a subscription, oldest first. Raises `~diator.BrokerError`."""
        return await self._access(subscription).page(after, limit)

    async def replay(self, subscription: Subscription, ids: Collection[str], /) -> Collection[str]:
        """Deliver dead letters again; return the ids of those that still existed. Raises `~diator.BrokerError`."""
        dead_letters = self._access(subscription)
        return [one for one in ids if await dead_letters.replay(one)]

    async def purge(self, subscription: Subscription, ids: Collection[str], /) -> Collection[str]:
        """Delete dead letters; return the ids of those that still existed. Raises `~diator.BrokerError`."""
        dead_letters = self._access(subscription)
        return [one for one in ids if await dead_letters.purge(one)]

    def _access(self, subscription: Subscription) -> DeadLetters:
        return DeadLetters(self._opened(), self._keys, subscription)
