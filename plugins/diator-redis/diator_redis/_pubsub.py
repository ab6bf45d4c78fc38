"""The broker on Redis Pub/Sub. See `RedisPubSubBroker`."""

from collections.abc import Collection, Iterator, Sequence
from typing import Literal, get_args

from redis.asyncio import Redis

from diator.brokers.address import Parse, a_flag, a_number
from diator.brokers.envelope import OutgoingMessage
from diator.brokers.port import BrokerCapability, Delivery, Subscription, SubscriptionStatus, Topic
from diator.options import POSITIVE, TEXT, one_of, require
from diator_redis import _legacy
from diator_redis._channels import Channels, PubSubReceiver
from diator_redis._client import Client, as_mapping, checked
from diator_redis._publisher import Commands
from diator_redis._scripts import Command
from diator_redis._server import ServerBroker
from diator_redis._settings import split_settings

Wire = Literal["cloudevents", "diator-0.1"]


SETTINGS: dict[str, Parse] = dict.fromkeys(("prefix", "wire", "channel_prefix"), str)
SETTINGS.update(timeout=a_number, tls=a_flag)
_OPTIONS = {"prefix": TEXT, "wire": one_of(*get_args(Wire)), "channel_prefix": TEXT, "timeout": POSITIVE}


class RedisPubSubBroker(ServerBroker):
    """Events by Redis Pub/Sub: at most once, to every worker that listens at that moment.

    Nothing is stored: a message without a listener is lost, a failure is not retried, and each worker of a subscription
    gets every message. `RedisBroker` has none of these limits.

    Args:
        url_or_client: An address (``redis://``, ``rediss://``, ``unix://``) or a `redis.asyncio.Redis`, which stays
            open.
        prefix: The prefix of all channels.
        wire: ``"diator-0.1"`` writes and reads the format of diator 0.1, so that its publishers and subscribers
            keep working.
        channel_prefix: The prefix of the channels of diator 0.1.
        timeout: Seconds to wait for an answer before Redis counts as unavailable.
    """

    capabilities = BrokerCapability(0)
    lease = None
    max_message_bytes = 8 * 1024 * 1024
    """Redis disconnects a subscriber that is 8 MB behind for a minute (``client-output-buffer-limit``)."""

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
        super().__init__(url_or_client, timeout, SETTINGS)
        self._prefix, self._wire, self._channel_prefix = prefix, wire, channel_prefix
        self._applied: set[str] = set()

    @classmethod
    def from_url(cls, url: str) -> "RedisPubSubBroker":
        """Make a broker from an address: ``redis+pubsub://host:6379/0?wire=diator-0.1``; ``tls=true`` for TLS."""
        bare, settings = split_settings(url, SETTINGS)
        scheme = "rediss" if settings.pop("tls", False) else "redis"
        return cls(f"{scheme}://{bare.partition('://')[2]}", **settings)

    def __repr__(self) -> str:
        return f"<RedisPubSubBroker {self._prefix} {self._wire}>"

    # Publishing.

    def _open(self, client: Client) -> Commands:  # noqa: ARG002 - nothing depends on the connection
        return self._commands

    def _commands(self, messages: Sequence[OutgoingMessage]) -> Iterator[tuple[Sequence[int], Command]]:
        for location, message in enumerate(messages):
            if self._wire == "diator-0.1":
                channel, body = _legacy.write(self._channel_prefix, message)
            else:
                channel, body = self._channel(message.topic), message.structured
            yield [location], (b"PUBLISH", channel.encode(), body)

    def _channel(self, topic: str) -> str:
        return f"{self._prefix}:{topic}"

    # Subscriptions.

    async def apply(self, subscriptions: Sequence[Subscription], topics: Sequence[Topic] = (), /) -> Sequence[str]:  # noqa: ARG002 - as the port wants it
        """Record the subscriptions. There is nothing to create: a channel exists while a client listens."""
        self._applied.update(subscription.name for subscription in subscriptions)
        return ()

    async def unsubscribed(self, topics: Collection[str], /) -> Collection[str]:
        """Return the topics among these without a listener now. Raises `~diator.BrokerError`."""
        client, names = self._opened(), list(topics)
        if self._wire == "diator-0.1" or await client.greet(is_cluster_fine=True):
            return ()  # NUMSUB does not count listeners to patterns or at other nodes
        channels = [self._channel(name).encode() for name in names]
        counts, patterns = await client.send((b"PUBSUB", b"NUMSUB", *channels), (b"PUBSUB", b"NUMPAT"))
        if checked(patterns):
            return ()
        listeners = as_mapping(checked(counts))
        return [name for name, channel in zip(names, channels, strict=True) if not listeners.get(channel)]

    async def status(self, subscriptions: Sequence[Subscription], /) -> Sequence[SubscriptionStatus]:
        """Return which subscriptions were applied here: the server does not store any."""
        return [
            SubscriptionStatus(subscription.name, exists=subscription.name in self._applied)
            for subscription in subscriptions
        ]

    async def subscribe(self, subscription: Subscription, /) -> PubSubReceiver:
        """Start listening. Raises `~diator.BrokerError`."""
        channels = self._channels(subscription)
        receiver = PubSubReceiver(self._opened(), subscription.name, channels, self._receivers.discard)
        await receiver.open()
        self._receivers.add(receiver)
        return receiver

    def _channels(self, subscription: Subscription) -> Channels:
        if self._wire == "diator-0.1":
            return _legacy.channels(self._channel_prefix, subscription)
        topics = {self._channel(topic.name).encode(): topic.name for topic in subscription.topics}

        def read(channel: bytes, body: bytes) -> Delivery:
            return Delivery(topics[channel], body)

        return Channels([*topics], are_patterns=False, read=read)
