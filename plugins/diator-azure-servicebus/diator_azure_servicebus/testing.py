"""For tests: creates the entities of an app on a server of the distribution ``servicebus-test-server``."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from servicebus_test_server import Queue, ServiceBusServer, Subscription, Topic

from diator_azure_servicebus._entities import MAX_DELIVERIES, Entity
from diator_azure_servicebus._topology import QueueCounts

__all__ = ["ServerTopology"]


class ServerTopology:
    """Creates the entities of a broker on a server: ``ServiceBusBroker(..., topology=ServerTopology(server))``."""

    def __init__(self, server: ServiceBusServer) -> None:
        self._server = server

    async def missing(self, entities: Sequence[Entity], /) -> Sequence[Entity]:
        """Find those that are not there."""
        return [entity for entity in entities if not self._is_there(entity)]

    async def create(self, entities: Sequence[Entity], /) -> None:
        """Create them."""
        for entity in entities:
            if entity.kind == "subscription":
                made = Subscription(entity.name, forward_to=entity.forward_to)
                self._server.add_subscription(str(entity.topic), made)
            else:
                self._server.add(_queue(entity) if entity.kind == "queue" else _topic(entity))

    async def counts(self, queues: Sequence[str], /) -> Sequence[QueueCounts | None]:
        """Count what is in queues."""
        return [self._count(queue) for queue in queues]

    async def unsubscribed(self, topics: Sequence[str], /) -> Sequence[str]:
        """Find the topics without a subscription."""
        return [topic for topic in topics if not self._server.has_subscriptions(topic)]

    async def forwarding(self) -> Sequence[Entity]:
        """List the subscriptions of topics that forward to a queue."""
        found = ((path.split("/"), target) for path, target in self._server.subscriptions())
        return [Entity("subscription", name, topic, forward_to=target) for (topic, _, name), target in found if target]

    async def delete(self, entity: Entity, /) -> None:
        """Delete one with its messages, if it is there."""
        with contextlib.suppress(LookupError):
            self._server.remove(entity.path)

    async def aclose(self) -> None:
        """Nothing is open."""

    def _is_there(self, entity: Entity) -> bool:
        try:
            self._server.counts(entity.path)
        except LookupError:
            return False
        return True

    def _count(self, queue: str) -> QueueCounts | None:
        try:
            found = self._server.counts(queue)
        except LookupError:
            return None
        return QueueCounts(found.active + found.locked + found.scheduled, found.dead)


def _queue(entity: Entity) -> Queue:
    return Queue(
        entity.name,
        sessions=bool(entity.sessions),
        lock_seconds=entity.lock_seconds,
        max_delivery_count=MAX_DELIVERIES,
        forward_to=entity.forward_to,
        duplicate_window=entity.duplicate_window or None,
    )


def _topic(entity: Entity) -> Topic:
    return Topic(entity.name, duplicate_window=entity.duplicate_window or None)
