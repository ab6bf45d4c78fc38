"""The broker on Redis Streams. See `RedisBroker`."""

from collections.abc import Collection, Sequence
from functools import partial

from redis.asyncio import Redis

from diator.brokers.address import Parse, a_number, a_whole_number, or_none
from diator.brokers.port import BrokerCapability, DeadLetter, Subscription, Topic
from diator.errors import BrokerError
from diator.options import COUNT, POSITIVE, TEXT, Rule, optional, require
from diator_redis._client import Client, as_mapping
from diator_redis._dead_letters import as_dead_letter, is_id
from diator_redis._keys import KeyNames
from diator_redis._publisher import Commands
from diator_redis._receiver import StreamReceiver
from diator_redis._scripts import REPLAY
from diator_redis._settings import split
from diator_redis._subscriptions import StreamSubscriptions
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
"""The settings of an address, and how each is read."""

_LATER = BrokerCapability.DELAYED_RETRY | BrokerCapability.SCHEDULES | BrokerCapability.DEAD_LETTERS


class RedisBroker(StreamSubscriptions):
    """Events in Redis Streams: durable, acknowledged, ordered by key.

    Args:
        url_or_client: An address (``redis://``, ``rediss://``, ``unix://``) or a `redis.asyncio.Redis`, also one of a
            Sentinel. A client stays open when the broker closes.
        prefix: The beginning of the name of each key.
        lease: Seconds for which a delivery belongs to its receiver, unless it is renewed.
        max_length: Entries beyond which a stream loses those that all its subscriptions have settled; ``None``: never.
        max_age: Seconds after which entries that all subscriptions have settled are removed; ``None``: never.
        abandoned_after: Seconds after which a backlog that no worker reads is logged.
        timeout: Seconds that Redis may take to answer before it counts as unavailable.
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
        """Create a broker from an address whose query may have the settings: ``redis://host:6379/0?lease=60``."""
        bare, settings = split(url, SETTINGS)
        return cls(bare, **settings)

    def __repr__(self) -> str:
        return f"<RedisBroker {self._keys!r}>"

    def _open(self, client: Client) -> Commands:
        self._topics = Topics(client, self._keys, self.lease, self._limits)
        return self._topics.commands

    async def _greet(self, client: Client) -> None:
        await client.greet()

    async def _close(self) -> None:
        await self._topics.aclose()

    # Subscriptions.

    async def apply(self, subscriptions: Sequence[Subscription], topics: Sequence[Topic] = (), /) -> Sequence[str]:  # noqa: ARG002
        """Create what is missing, and name what was created. Raises `~diator.BrokerError`."""
        await self._opened().greet()  # the server may have been unavailable when `connect` asked
        created: list[str] = []
        for subscription in subscriptions:
            self._known.update(topic.name for topic in subscription.topics)
            created += await self._create(subscription)
        return created

    async def subscribe(self, subscription: Subscription, /) -> StreamReceiver:
        """Open a receiver. Raises `~diator.BrokerError`."""
        client = self._opened()
        self._known.update(topic.name for topic in subscription.topics)
        self._topics.read(subscription)
        restore = partial(self._restore, subscription)
        access = (client, self._keys, subscription, self.lease)
        receiver = StreamReceiver(*access, restore, self._receivers.discard)
        self._receivers.add(receiver)
        return receiver

    async def trim(self) -> None:
        """Trim the streams of all topics that were applied or subscribed to here, now. Raises `~diator.BrokerError`.

        Workers and publishers do it regularly.
        """
        self._opened()
        for name in sorted(self._known):
            await self._topics.trim(name)

    # Dead letters.

    async def dead_letters(
        self, subscription: Subscription, /, *, after: str | None = None, limit: int = 100
    ) -> Sequence[DeadLetter]:
        """Return a page of the dead letters of a subscription, oldest first. Raises `~diator.BrokerError`."""
        if after is not None and not is_id(after):
            raise BrokerError(f"{after!r} is not the id of a dead letter; pass one that a page contained")
        start = b"-" if after is None else b"(" + after.encode()
        stream = self._keys.dead(subscription.name)
        page = await self._opened().call(b"XRANGE", stream, start, b"+", b"COUNT", limit)
        return [as_dead_letter(subscription.name, id_.decode(), as_mapping(fields)) for id_, fields in page]

    async def replay(self, subscription: Subscription, ids: Collection[str], /) -> Collection[str]:
        """Deliver dead letters again; return the ids of those that were still there. Raises `~diator.BrokerError`."""
        client, keys = self._opened(), [self._keys.dead(subscription.name), self._keys.replayed(subscription.name)]
        return [one for one in ids if is_id(one) and await client.run(REPLAY, keys, [one])]

    async def purge(self, subscription: Subscription, ids: Collection[str], /) -> Collection[str]:
        """Delete dead letters; return the ids of those that were still there. Raises `~diator.BrokerError`."""
        client, stream = self._opened(), self._keys.dead(subscription.name)
        return [one for one in ids if is_id(one) and await client.call(b"XDEL", stream, one)]
