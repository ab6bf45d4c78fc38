"""The broker: what it offers, its settings, and the port."""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

from azure.servicebus.aio import ServiceBusClient
from typing_extensions import Self

from diator.brokers import (
    BrokerCapability,
    DeadLetter,
    OutgoingMessage,
    Receiver,
    Subscription,
    SubscriptionStatus,
    Topic,
    ValidationIssue,
)
from diator.errors import BrokerError, ConfigurationError, NotPublishedError
from diator_azure_servicebus._client_factory import ClientFactory
from diator_azure_servicebus._dead_letters import DeadLetters
from diator_azure_servicebus._entities import Entity, EntityPlanner
from diator_azure_servicebus._names import RETRY, path_of
from diator_azure_servicebus._namespace import NamespaceClient
from diator_azure_servicebus._publisher import Publisher
from diator_azure_servicebus._receiver import QueueReceiver
from diator_azure_servicebus._sessions import SessionReceiver
from diator_azure_servicebus._settings import Settings, read_url
from diator_azure_servicebus._topology import Topology

_OVERHEAD = 16_384
"""Bytes that are left free in each message, for its annotations, and for why it may become a dead letter."""


class ServiceBusBroker:
    """Azure Service Bus, over one client that stays open.

    Args:
        namespace: The name of a namespace, with or without ``.servicebus.windows.net``, which uses ``credential``; or a
            connection string; or an open client, which stays open when the broker is closed.
        credential: A credential of azure-identity; ``DefaultAzureCredential`` by default.
        layout: ``"topics"``: each handler has a queue, and a subscription of each of its topics that forwards to it; or
            ``"queues"``: each topic is one queue, for at most one handler, as in the Basic tier.
        prefix: The prefix of the names of all entities.
        lease: The lock duration of the queues in seconds, at most 300. It must be the one with which they were created.
        sessions: Whether the key of an event is the id of a session, so that handlers can be ordered by key. Otherwise
            it is the partition key.
        max_sessions: The number of keys that an ordered handler in one process holds at a time; each is a connection.
        max_session_hold: The longest delay of a retry of an ordered handler, in seconds, for which its session is held.
        duplicate_window: Seconds for which topics drop messages with a repeated id; 0 for never. It cannot be changed
            for an existing topic.
        max_message_bytes: The maximum size of a message in the tier. Above 1 MiB (Premium), such messages are sent
            alone.
        manage: Whether ``apply`` may create entities, which requires the right *Manage* and aiohttp.
        topology: Replaces the management of entities in tests.
    """

    def __init__(
        self,
        namespace: str | ServiceBusClient,
        *,
        credential: Any = None,
        layout: Literal["topics", "queues"] = "topics",
        prefix: str = "",
        lease: float = 60.0,
        sessions: bool = True,
        max_sessions: int = 16,
        max_session_hold: float = 600.0,
        duplicate_window: float = 0.0,
        max_message_bytes: int = 262_144,
        manage: bool = True,
        topology: Topology | None = None,
    ) -> None:
        self._settings = Settings(
            layout,
            prefix,
            lease,
            sessions,
            max_sessions,
            max_session_hold,
            duplicate_window,
            max_message_bytes,
            manage,
        )
        if problems := self._settings.problems():
            raise ConfigurationError(problems)
        self._client_factory = ClientFactory(namespace, credential, self._settings)
        self._planner = EntityPlanner(self._settings)
        self._given_topology = topology
        self._client: NamespaceClient | None = None
        self._topology: Topology | None = topology
        self._receivers: dict[Receiver, None] = {}
        self._letters: dict[str, DeadLetters] = {}
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Create a broker from an address: ``azure-servicebus://my-namespace?lease=30``.

        ``azure-servicebus://?connection_string_env=NAME`` reads the connection string from the environment, when the
        broker is opened. The query may contain all settings except ``credential`` and ``topology``. Raises
        `~diator.ConfigurationError`.
        """
        given, settings = read_url(url)
        namespace: Any = given  # a variable is only for addresses: in code the string itself can be given
        return cls(namespace, **settings)

    def __repr__(self) -> str:
        return f"<ServiceBusBroker {self._client_factory.namespace}>"

    # What it is.

    @property
    def capabilities(self) -> BrokerCapability:
        """The capabilities: ``ORDER_BY_KEY`` with ``sessions``, ``DUPLICATE_DETECTION`` with a window."""
        kept = (
            BrokerCapability.DURABLE
            | BrokerCapability.ACKNOWLEDGED
            | BrokerCapability.CONSUMER_GROUPS
            | BrokerCapability.DELAYED_RETRY
        )
        kept |= BrokerCapability.DEAD_LETTERS | BrokerCapability.SCHEDULES
        kept |= BrokerCapability.ORDER_BY_KEY if self._settings.sessions else BrokerCapability(0)
        return kept | (BrokerCapability.DUPLICATE_DETECTION if self._settings.duplicate_window else BrokerCapability(0))

    @property
    def system(self) -> str:
        """The broker's name in telemetry."""
        return "servicebus"

    @property
    def address(self) -> str | None:
        """The server's address in telemetry; None until a connection string is read from the environment."""
        name = self._client_factory.namespace
        return None if name.startswith("$") else name

    @property
    def lease(self) -> float:
        """The lock duration of the queues: seconds for which a delivery belongs to its receiver."""
        return self._settings.lease

    @property
    def max_message_bytes(self) -> int:
        """The maximum size of a message."""
        return self._settings.max_message_bytes - _OVERHEAD

    def validate(self, subscriptions: Sequence[Subscription], topics: Sequence[Topic], /) -> Iterable[ValidationIssue]:
        """Return what is not supported."""
        refusals = list(self._planner.refusals(subscriptions, topics))
        for one in subscriptions:
            if one.ordered and one.max_delay > self._settings.max_session_hold:
                held = self._settings.max_session_hold
                text = f"{one.name!r} is ordered by key and retries after up to {one.max_delay:g} s, for which its"
                text = f"{text} session would be held; the broker holds one for {held:g} s (max_session_hold)"
                refusals.append(
                    ValidationIssue(text, "shorten the delays of its retries, or raise max_session_hold", one.name)
                )
        return refusals

    def entities(self, subscriptions: Sequence[Subscription], topics: Sequence[Topic] = (), /) -> Sequence[Entity]:
        """Return all entities that must exist in the namespace, each before those that need it."""
        return self._planner.entities(subscriptions, topics)

    # Life.

    async def connect(self) -> None:
        """Open, and ensure that a server listens.

        Raises `~diator.BrokerUnavailableError` if none does; the broker is open regardless, and works as soon as one
        does.
        """
        if self._client is None:
            client = self._client_factory.client()
            self._topology = self._given_topology or self._client_factory.topology(client)
            self._publisher = Publisher(client)
            self._client = client
        await self._client.dial()

    async def aclose(self) -> None:
        """Close everything that was opened. Cancellation does not interrupt it, and another call waits for its end."""
        if self._client is not None:
            closing = self._close(self._client, self._topology, [*self._receivers, *self._letters.values()])
            self._client, self._letters = None, {}
            self._closing = asyncio.ensure_future(closing)
        if self._closing is not None and not self._closing.done():
            await asyncio.shield(self._closing)

    async def _close(
        self, client: NamespaceClient, topology: Topology | None, others: "Sequence[Receiver | DeadLetters]"
    ) -> None:
        await asyncio.gather(*(one.aclose() for one in others))
        if topology is not None:
            await topology.aclose()
        await client.aclose()

    def _open_client(self) -> NamespaceClient:
        if self._client is None:
            raise BrokerError("the broker is not connected; call `connect` first")
        return self._client

    # Messages.

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
        if self._client is None:
            raise NotPublishedError(messages) from BrokerError("the broker is not connected; call `connect` first")
        await self._publisher.publish(messages, timeout)

    async def subscribe(self, subscription: Subscription, /) -> Receiver:
        """Open a receiver. Raises `~diator.BrokerError`."""
        client = self._open_client()
        queue = self._planner.queue_of(subscription)
        receiver: Receiver
        if subscription.ordered:
            receiver = SessionReceiver(client, queue, subscription, self._forget)
        else:
            sdk = await client.receiver(queue)
            retries = client.sender(self._planner.retries_of(subscription))
            receiver = QueueReceiver(sdk, retries, subscription, self._settings.lease, self._forget)
        self._receivers[receiver] = None
        return receiver

    def _forget(self, receiver: Receiver) -> None:
        self._receivers.pop(receiver, None)

    # Entities.

    async def apply(self, subscriptions: Sequence[Subscription], topics: Sequence[Topic] = (), /) -> Sequence[str]:
        """Create what is missing, if ``manage`` allows it; otherwise report it. Raises `~diator.BrokerError`."""
        topology = self._open_topology()
        missing = await topology.missing(self._planner.entities(subscriptions, topics))
        if missing:
            await topology.create(missing)
        return [entity.path for entity in missing]

    async def status(self, subscriptions: Sequence[Subscription], /) -> Sequence[SubscriptionStatus]:
        """Return the status of subscriptions; counts only if the broker may manage the namespace."""
        topology = self._open_topology()
        queues = [self._planner.queue_of(one) for one in subscriptions]
        counts = await topology.counts(queues)
        found: list[SubscriptionStatus] = []
        for one, queue, count in zip(subscriptions, queues, counts, strict=True):
            missing = tuple(entity.path for entity in await topology.missing(self._planner.entities([one])))
            waiting, dead = count if count is not None else (None, None)
            found.append(SubscriptionStatus(one.name, queue not in missing, waiting, dead, missing))
        return found

    async def other_subscriptions(self, used: Sequence[Subscription], /) -> Sequence[SubscriptionStatus]:
        """Return the status of every subscription in the namespace, with this prefix, except these.

        Requires the right *Manage*. With ``layout="queues"`` there are none: the queue of a topic is its subscription.
        """
        mine = {self._planner.queue_of(one).lower() for one in used}
        found = {name: str(entities[0].forward_to) for name, entities in (await self._stored()).items()}
        found = {name: queue for name, queue in found.items() if queue.lower() not in mine}
        counts = await self._open_topology().counts(list(found.values()))
        return [
            SubscriptionStatus(name, True, *(count or (None, None))) for name, count in zip(found, counts, strict=True)
        ]

    async def remove_subscription(self, name: str, /) -> bool:
        """Delete a subscription: its queues, and the subscriptions that forward to them. Requires the right *Manage*.

        Raises `~diator.BrokerError`, which names the parts that still exist.
        """
        forwarding = (await self._stored()).get(name)
        if forwarding is None:
            return False
        queue = Entity("queue", str(forwarding[0].forward_to))
        if letters := self._letters.pop(queue.path, None):
            await letters.aclose()
        # The queue last: until then nothing is forwarded to an entity that is gone.
        left = [Entity("queue", queue.name + RETRY), *forwarding, queue]
        while left:
            try:
                await self._open_topology().delete(left[0])
            except BrokerError as error:
                rest = ", ".join(entity.path for entity in left)
                raise type(error)(f"{error}; of subscription {name!r} this is left to delete: {rest}") from error
            del left[0]
        return True

    async def _stored(self) -> Mapping[str, Sequence[Entity]]:
        if self._settings.layout == "queues":
            return {}
        return self._planner.queues_of(await self._open_topology().forwarding())

    def _open_topology(self) -> Topology:
        self._open_client()
        assert self._topology is not None, "made by connect"
        return self._topology

    async def unsubscribed(self, topics: Collection[str], /) -> Collection[str]:
        """Return the topics without a subscription, if the broker may manage the namespace."""
        topology = self._open_topology()
        if self._settings.layout == "queues":
            return ()
        names = {path_of(name, self._settings.prefix): name for name in topics}
        return [names[path] for path in await topology.unsubscribed(list(names))]

    # Dead letters.

    async def dead_letters(
        self, subscription: Subscription, /, *, after: str | None = None, limit: int = 100
    ) -> Sequence[DeadLetter]:
        """Return a page of the dead letters of a subscription, oldest first."""
        return await self._letters_of(subscription).page(subscription, after, limit)

    async def replay(self, subscription: Subscription, ids: Collection[str], /) -> Collection[str]:
        """Deliver dead letters again, to this subscription only; return the ids of those that still existed."""
        target = self._open_client().sender(self._planner.queue_of(subscription))
        return await self._letters_of(subscription).replay(ids, target)

    async def purge(self, subscription: Subscription, ids: Collection[str], /) -> Collection[str]:
        """Delete dead letters; return the ids of those that still existed."""
        return await self._letters_of(subscription).purge(ids)

    def _letters_of(self, subscription: Subscription) -> DeadLetters:
        queue = self._planner.queue_of(subscription)
        if queue not in self._letters:
            self._letters[queue] = DeadLetters(self._open_client(), queue)
        return self._letters[queue]
