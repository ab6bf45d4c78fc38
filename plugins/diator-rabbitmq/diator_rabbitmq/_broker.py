"""The broker on RabbitMQ. See `RabbitBroker`."""

import asyncio
from collections.abc import Collection, Iterable, Sequence

from diator.brokers.address import Parse, a_number, a_whole_number
from diator.brokers.envelope import OutgoingMessage
from diator.brokers.port import (
    BrokerCapability,
    DeadLetter,
    Subscription,
    SubscriptionStatus,
    Topic,
    ValidationIssue,
)
from diator.errors import BrokerError, BrokerUnavailableError, NotPublishedError
from diator.options import POSITIVE, TEXT, Rule, is_count, optional, require
from diator_rabbitmq._dead_letters import DeadLetters
from diator_rabbitmq._link import Link, Links
from diator_rabbitmq._names import Names, is_prefix
from diator_rabbitmq._ordered import OrderedReceiver
from diator_rabbitmq._publisher import publish
from diator_rabbitmq._receiver import PlainReceiver, RabbitReceiver
from diator_rabbitmq._settings import servers_of, split, tls_of
from diator_rabbitmq._subscriptions import Subscriptions
from diator_rabbitmq._topology import Topology, has_exchange, too_long

_MAX_HEARTBEAT = 3_600


def _is_heartbeat(value: object) -> bool:
    return is_count(value) and isinstance(value, int) and value <= _MAX_HEARTBEAT


_OPTIONS: dict[str, tuple[Parse, Rule]] = {
    "prefix": (str, Rule(is_prefix, "up to 40 letters, digits, dots, dashes and underscores")),
    "heartbeat": (a_whole_number, Rule(_is_heartbeat, f"a whole number of seconds from 1 to {_MAX_HEARTBEAT}")),
    "timeout": (a_number, POSITIVE),
    "cacertfile": (str, optional(TEXT)),
    "certfile": (str, optional(TEXT)),
    "keyfile": (str, optional(TEXT)),
}
SETTINGS: dict[str, Parse] = {name: parse for name, (parse, _) in _OPTIONS.items()}
"""The settings that an address may contain, and how each is parsed."""


class RabbitBroker:
    """Events in quorum queues of RabbitMQ: durable, acknowledged, ordered by key.

    Args:
        url: An address (``amqp://``, ``amqps://``), which may name several servers of a cluster.
        prefix: The prefix of the names of all exchanges and queues.
        heartbeat: Seconds between heartbeats; without one for about three times as long, a connection counts as lost.
        timeout: Seconds to wait for an answer before the server counts as unavailable.
        cacertfile: A file with trusted certificates, for ``amqps://``.
        certfile: A file with the client's own certificate, for ``amqps://``.
        keyfile: A file with its key.
    """

    system = "rabbitmq"
    capabilities = (
        BrokerCapability.DURABLE
        | BrokerCapability.ACKNOWLEDGED
        | BrokerCapability.CONSUMER_GROUPS
        | BrokerCapability.DELAYED_RETRY
        | BrokerCapability.DEAD_LETTERS
        | BrokerCapability.ORDER_BY_KEY
        | BrokerCapability.SCHEDULES
    )
    max_message_bytes = 8 * 1024 * 1024
    """RabbitMQ accepts messages up to 16 MB by default; a dead letter also contains its reason."""

    def __init__(
        self,
        url: str = "amqp://guest:guest@localhost",
        *,
        prefix: str = "diator",
        heartbeat: int = 10,
        timeout: float = 10.0,
        cacertfile: str | None = None,
        certfile: str | None = None,
        keyfile: str | None = None,
    ) -> None:
        given = {"prefix": prefix, "heartbeat": heartbeat, "timeout": timeout}
        given |= {"cacertfile": cacertfile, "certfile": certfile, "keyfile": keyfile}
        require("RabbitBroker", {name: rule for name, (_, rule) in _OPTIONS.items()}, given, "broker")
        self._servers = servers_of(url, heartbeat)
        self._tls = tls_of(self._servers, cacertfile, certfile, keyfile)
        self._timeout = timeout
        self._topology = Topology(Names(prefix))
        self._receivers: set[RabbitReceiver] = set()
        self._links: tuple[Links, Links] | None = None
        """To publish and manage, and to receive: a server that is short of memory reads nothing that is published."""

    @classmethod
    def from_url(cls, url: str) -> "RabbitBroker":
        """Make a broker from an address whose query may have the settings: ``amqp://host/vhost?prefix=shop``."""
        bare, settings = split(url, SETTINGS)
        return cls(bare, **settings)

    @property
    def address(self) -> str:
        """The server's address in telemetry."""
        return self._servers.shown

    @property
    def lease(self) -> float | None:
        """None: a delivery belongs to its receiver for as long as this is connected."""
        return None

    def __repr__(self) -> str:
        return f"<RabbitBroker {self._servers.shown} {self._topology.names.prefix!r}>"

    def validate(self, subscriptions: Sequence[Subscription], topics: Sequence[Topic], /) -> Iterable[ValidationIssue]:  # noqa: ARG002 - as the port wants it
        """Return delays that the server does not support."""
        for one, text, fix in too_long(subscriptions):
            yield ValidationIssue(text, fix, one.name)

    async def connect(self) -> None:
        """Open, and ensure that the server answers. Raises `~diator.BrokerError`."""
        if self._links is None:
            urls, timeout = self._servers.urls, self._timeout
            self._links = (Links(urls, self._tls, timeout), Links(urls, self._tls, timeout))
        await self._links[0].get()

    async def aclose(self) -> None:
        """Close everything that was opened."""
        if self._links is not None:
            await asyncio.gather(*(receiver.aclose() for receiver in list(self._receivers)))
            links, self._links = self._links, None
            await asyncio.gather(*(one.aclose() for one in links))

    def _opened(self) -> tuple[Links, Links]:
        if self._links is None:
            raise BrokerError("the broker is not connected: call connect() first")
        return self._links

    async def _link(self) -> Link:
        return await self._opened()[0].get()

    async def publish(
        self,
        messages: Sequence[OutgoingMessage],
        /,
        *,
        timeout: float,
        wait_for_room: bool = True,  # noqa: ARG002 - there is no room to wait for
    ) -> None:
        """Store messages. Raises `~diator.NotPublishedError`."""
        if not messages:
            return
        ends = asyncio.get_running_loop().time() + timeout
        try:
            link = self._opened()[0].current
            if link is None:  # seldom: a wait with a limit takes a task
                link = await asyncio.wait_for(self._link(), timeout)
        except BrokerError as error:
            raise NotPublishedError(messages) from error
        except asyncio.TimeoutError as error:
            late = BrokerUnavailableError(f"RabbitMQ: no connection within {timeout:g} s")
            late.__cause__ = error
            raise NotPublishedError(messages) from late
        await publish(link, self._topology, messages, ends)

    async def unsubscribed(self, topics: Collection[str], /) -> Collection[str]:
        """Return the topics among these from which no queue gets anything. Raises `~diator.BrokerError`."""
        link, exchange = await self._link(), self._topology.names.topic
        return [one for one in topics if one in link.dropped or not await has_exchange(link, exchange(one))]

    # Subscriptions.

    async def apply(self, subscriptions: Sequence[Subscription], topics: Sequence[Topic] = (), /) -> Sequence[str]:  # noqa: ARG002 - as the port wants it
        """Create what is missing, and return the names of what was created. Raises `~diator.BrokerError`."""
        subscribed = await self._subscriptions()
        return [name for one in subscriptions for name in await subscribed.create(one)]

    async def status(self, subscriptions: Sequence[Subscription], /) -> Sequence[SubscriptionStatus]:
        """Return the status of subscriptions. Raises `~diator.BrokerError`."""
        subscribed = await self._subscriptions()
        return [await subscribed.status(one) for one in subscriptions]

    async def other_subscriptions(self, used: Sequence[Subscription], /) -> Sequence[SubscriptionStatus]:
        """Return the status of every subscription under the prefix except these. Raises `~diator.BrokerError`."""
        return await (await self._subscriptions()).others({one.name for one in used})

    async def remove_subscription(self, name: str, /) -> bool:
        """Delete a subscription with its messages and dead letters; return false if it does not exist.

        Raises `~diator.BrokerError`.
        """
        return await (await self._subscriptions()).remove(name)

    async def _subscriptions(self) -> Subscriptions:
        return Subscriptions(await self._link(), self._topology)

    async def subscribe(self, subscription: Subscription, /) -> RabbitReceiver:
        """Open a receiver. Raises `~diator.BrokerError`."""
        links = self._opened()[1]
        await links.get()
        make = OrderedReceiver if subscription.ordered else PlainReceiver
        receiver = make(links.get, self._topology, subscription, self._receivers.discard)
        self._receivers.add(receiver)
        return receiver

    # Dead letters.

    async def dead_letters(
        self, subscription: Subscription, /, *, after: str | None = None, limit: int = 100
    ) -> Sequence[DeadLetter]:
        """Return a page of the dead letters of a subscription, oldest first. Raises `~diator.BrokerError`."""
        return await DeadLetters(await self._link(), self._topology.names, subscription).page(after, limit)

    async def replay(self, subscription: Subscription, ids: Collection[str], /) -> Collection[str]:
        """Deliver dead letters again; return the ids of those that still existed. Raises `~diator.BrokerError`."""
        return await DeadLetters(await self._link(), self._topology.names, subscription).remove(ids, replay=True)

    async def purge(self, subscription: Subscription, ids: Collection[str], /) -> Collection[str]:
        """Delete dead letters; return the ids of those that still existed. Raises `~diator.BrokerError`."""
        return await DeadLetters(await self._link(), self._topology.names, subscription).remove(ids, replay=False)
