"""Topology: which entities are there, and making those that are not."""

import asyncio
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, Protocol

from azure.core.exceptions import AzureError, ClientAuthenticationError, ResourceExistsError, ResourceNotFoundError
from azure.servicebus.exceptions import MessagingEntityNotFoundError
from azure.servicebus.management import ServiceBusAdministrationClient

from diator.errors import BrokerError
from diator_azure_servicebus._entities import MAX_DELIVERIES, Entity
from diator_azure_servicebus._errors import PLAN, translate, translated
from diator_azure_servicebus._namespace import NamespaceClient

_NO_LIST = (
    "this connection to Service Bus can neither list nor remove subscriptions; connect with the right Manage "
    "(not with manage=False, a client, an async credential, or the emulator)"
)
_AT_ONCE = 8
"""Links that are tried at the same time."""


class QueueCounts(NamedTuple):
    """The numbers of messages in a queue."""

    waiting: int
    dead: int


class Topology(Protocol):
    """Manages the entities of a broker. Tests of applications pass another one."""

    async def missing(self, entities: Sequence[Entity], /) -> Sequence[Entity]:
        """Return the entities that do not exist. Raises `~diator.BrokerError`."""
        ...

    async def create(self, entities: Sequence[Entity], /) -> None:
        """Create entities, in this order. Raises `~diator.BrokerError`."""
        ...

    async def counts(self, queues: Sequence[str], /) -> Sequence[QueueCounts | None]:
        """Count the messages in queues; None if unknown."""
        ...

    async def unsubscribed(self, topics: Sequence[str], /) -> Sequence[str]:
        """Return the topics that certainly have no subscription. Raises `~diator.BrokerError`."""
        ...

    async def forwarding(self) -> Sequence[Entity]:
        """Return the subscriptions of topics that forward to a queue. Raises `~diator.BrokerError`."""
        ...

    async def delete(self, entity: Entity, /) -> None:
        """Delete an entity with its messages, if it exists. Raises `~diator.BrokerError`."""
        ...

    async def aclose(self) -> None:
        """Close everything that was opened."""
        ...


class ProbeTopology:
    """Looks by opening links, for which no right *Manage* is needed; creates nothing. For the emulator."""

    def __init__(self, client: NamespaceClient) -> None:
        self._client = client
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def missing(self, entities: Sequence[Entity], /) -> Sequence[Entity]:
        """Find those that are not there."""
        there = await asyncio.gather(*map(self._is_there, entities))
        return [entity for entity, found in zip(entities, there, strict=True) if not found]

    async def create(self, entities: Sequence[Entity], /) -> None:
        """Raise an error that names what is missing."""
        raise _cannot_create(entities)

    async def counts(self, queues: Sequence[str], /) -> Sequence[QueueCounts | None]:
        """Return no counts: the protocol of messages has none."""
        return [None] * len(queues)

    async def unsubscribed(self, topics: Sequence[str], /) -> Sequence[str]:  # noqa: ARG002 - as the protocol wants it
        """Find none: the protocol of messages has no list of subscriptions."""
        return ()

    async def forwarding(self) -> Sequence[Entity]:
        """Raise: the protocol of messages has no list of subscriptions."""
        raise BrokerError(_NO_LIST)

    async def delete(self, entity: Entity, /) -> None:  # noqa: ARG002 - as the protocol wants it
        """Raise: nothing can be deleted over the protocol of messages."""
        raise BrokerError(_NO_LIST)

    async def aclose(self) -> None:
        """Nothing is open."""

    async def _is_there(self, entity: Entity) -> bool:
        with translated(entity.path):
            try:
                async with self._turns:
                    has_sessions = await self._client.probe(entity)
            except MessagingEntityNotFoundError:
                return False
        _check_sessions(entity, has_sessions)
        return True


class ManagementTopology:
    """Looks and creates over the management interface of a namespace, for which the right *Manage* is needed.

    The client is the one that blocks, in threads: the other needs aiohttp.
    """

    def __init__(self, client: ServiceBusAdministrationClient) -> None:
        self._client = client

    async def missing(self, entities: Sequence[Entity], /) -> Sequence[Entity]:
        """Find those that are not there. Raises `~diator.BrokerError` for one that is not as it must be."""
        found: list[Entity] = []
        for entity in entities:
            try:
                there = await asyncio.to_thread(self._get, entity)
            except ResourceNotFoundError:
                found.append(entity)
            except AzureError as error:
                raise _translated(error, entity.path) from error
            else:
                _check(entity, there)
        return found

    async def create(self, entities: Sequence[Entity], /) -> None:
        """Create entities."""
        for entity in entities:
            try:
                await asyncio.to_thread(self._create, entity)
            except ResourceExistsError:
                continue  # another process was faster
            except AzureError as error:
                raise _translated(error, entity.path) from error

    async def counts(self, queues: Sequence[str], /) -> Sequence[QueueCounts | None]:
        """Count; scheduled messages wait too."""
        return [await asyncio.to_thread(self._count, queue) for queue in queues]

    async def unsubscribed(self, topics: Sequence[str], /) -> Sequence[str]:
        """Find the topics without a subscription."""
        return [topic for topic in topics if not await asyncio.to_thread(self._has_subscriptions, topic)]

    async def forwarding(self) -> Sequence[Entity]:
        """List the subscriptions of topics that forward to a queue."""
        try:
            return await asyncio.to_thread(self._forwarding)
        except AzureError as error:
            raise _translated(error, "the subscriptions of its topics") from error

    async def delete(self, entity: Entity, /) -> None:
        """Delete an entity with its messages, if it is there."""
        try:
            await asyncio.to_thread(self._delete, entity)
        except ResourceNotFoundError:
            pass
        except AzureError as error:
            raise _translated(error, entity.path) from error

    async def aclose(self) -> None:
        """Close the client."""
        await asyncio.to_thread(self._client.close)

    def _get(self, entity: Entity) -> Any:
        if entity.kind == "queue":
            return self._client.get_queue(entity.name)
        if entity.kind == "topic":
            return self._client.get_topic(entity.name)
        return self._client.get_subscription(str(entity.topic), entity.name)

    def _create(self, entity: Entity) -> None:
        options: dict[str, Any] = {"max_delivery_count": MAX_DELIVERIES} if entity.kind != "topic" else {}
        if entity.forward_to is not None:
            options["forward_to"] = entity.forward_to
        if entity.duplicate_window:
            window = timedelta(seconds=entity.duplicate_window)
            options |= {"requires_duplicate_detection": True, "duplicate_detection_history_time_window": window}
        if entity.kind == "topic":
            self._client.create_topic(entity.name, support_ordering=True, **options)
        elif entity.kind == "queue":
            lock = timedelta(seconds=entity.lock_seconds)
            self._client.create_queue(
                entity.name, requires_session=bool(entity.sessions), lock_duration=lock, **options
            )
        else:
            self._client.create_subscription(str(entity.topic), entity.name, **options)

    def _forwarding(self) -> list[Entity]:
        found = ((topic.name, each) for topic in self._client.list_topics() for each in self._of_topic(topic.name))
        return [
            Entity("subscription", each.name, topic, forward_to=_entity_of(each.forward_to))
            for topic, each in found
            if each.forward_to
        ]

    def _of_topic(self, topic: str) -> Sequence[Any]:
        try:
            return list(self._client.list_subscriptions(topic))
        except ResourceNotFoundError:
            return ()  # deleted since it was listed

    def _delete(self, entity: Entity) -> None:
        if entity.topic is not None:
            self._client.delete_subscription(entity.topic, entity.name)
        else:
            self._client.delete_queue(entity.name)

    def _count(self, queue: str) -> QueueCounts | None:
        try:
            found = self._client.get_queue_runtime_properties(queue)
        except AzureError:
            return None
        waiting = (found.active_message_count or 0) + (found.scheduled_message_count or 0)
        return QueueCounts(waiting, found.dead_letter_message_count or 0)

    def _has_subscriptions(self, topic: str) -> bool:
        try:
            return self._client.get_topic_runtime_properties(topic).subscription_count != 0
        except ResourceNotFoundError:
            return False
        except AzureError as error:
            raise translate(error, topic) from error


def _check(entity: Entity, there: Any) -> None:
    """Refuse what would not work, and can't be changed by the app."""
    if entity.sessions is None:
        return
    _check_sessions(entity, bool(there.requires_session))
    lock = there.lock_duration
    if isinstance(lock, timedelta) and lock.total_seconds() < entity.lock_seconds:
        text = f"queue {entity.name!r} locks messages for {lock.total_seconds():g} s, but the broker has"
        fix = f"set lease={lock.total_seconds():g}, or raise the lock duration of the queue"
        raise BrokerError(f"{text} lease={entity.lock_seconds:g}; {fix}")


def _check_sessions(entity: Entity, has_sessions: bool) -> None:
    if entity.sessions is not None and has_sessions != entity.sessions:
        text = "has sessions, but its handler is not ordered" if has_sessions else "has no sessions"
        raise BrokerError(f"queue {entity.name!r} {text}, which can't be changed; delete it, or use another name")


def _entity_of(address: str) -> str:
    """Return the path in what an entity forwards to, which the service reports as an address in its namespace."""
    return address.partition("://")[2].partition("/")[2] if "://" in address else address


def _translated(error: AzureError, path: str) -> BrokerError:
    if isinstance(error, ClientAuthenticationError) or getattr(error, "status_code", None) in (401, 403):
        text = f"no right to manage {path!r} ({error}); {PLAN}; then set manage=False"
        return BrokerError(text)
    return translate(error, path)


def _cannot_create(entities: Collection[Entity]) -> BrokerError:
    names = ", ".join(repr(entity.path) for entity in entities)
    return BrokerError(f"Service Bus lacks {names}, and Diator cannot create entities over this connection; {PLAN}")
