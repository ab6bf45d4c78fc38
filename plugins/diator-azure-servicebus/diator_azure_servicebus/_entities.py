"""Entities: what must exist in the namespace for an app's subscriptions and topics.

With the layout ``topics``, which is the usual one, each handler has a queue of its own. A topic has a subscription for
each handler, that forwards everything to this queue. So a retry or a replay can be sent to one handler alone, and what
waits for a handler waits in one place, whichever topics it came by. A queue ``<queue>.retry`` takes the retries: it
knows duplicates, so that one recorded twice after a crash comes once, and forwards them when they are due. Handlers
that are ordered by key have none: their queue has sessions, and the session waits.

With the layout ``queues`` there is one queue for each topic, with at most one handler: nothing is forwarded.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from diator.brokers import Subscription, Topic, ValidationIssue
from diator_azure_servicebus._names import RETRY, is_subscription_of, path_of, subscription_of
from diator_azure_servicebus._settings import Settings

MAX_DELIVERIES = 1_000
"""The service's own limit, which only guards against messages that no worker survives: the app's is far lower."""
RETRY_WINDOW = 600.0
"""Seconds for which a retry that is recorded again is known as a duplicate."""


class Entity(NamedTuple):
    """A queue, a topic, or the subscription of a topic."""

    kind: Literal["queue", "topic", "subscription"]
    name: str
    topic: str | None = None
    """The topic of a subscription."""
    sessions: bool | None = None
    """Whether a queue has sessions; ``None`` if this does not matter."""
    forward_to: str | None = None
    duplicate_window: float = 0.0
    lock_seconds: float = 60.0

    @property
    def path(self) -> str:
        """The full name."""
        return f"{self.topic}/Subscriptions/{self.name}" if self.topic else self.name


class _Owner(NamedTuple):
    """What an entity is for."""

    what: str
    path: str
    subscription: str | None


class EntityPlanner:
    """Plans the entities that subscriptions and topics need."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._prefix = settings.prefix

    def queue_of(self, subscription: Subscription) -> str:
        """Name the queue that a subscription receives from."""
        if self._settings.layout == "queues" and subscription.topics:
            return path_of(subscription.topics[0].name, self._prefix)
        return path_of(subscription.name, self._prefix)

    def retries_of(self, subscription: Subscription) -> str:
        """Name the queue that retries are sent to."""
        queue = self.queue_of(subscription)
        return queue if self._settings.layout == "queues" else queue + RETRY

    def entities(self, subscriptions: Iterable[Subscription], topics: Iterable[Topic] = ()) -> list[Entity]:
        """Return all that must exist, each before what needs it."""
        found: dict[str, Entity] = {}
        for subscription in subscriptions:
            for entity in self._of(subscription):
                found.setdefault(entity.path.lower(), entity)
        for topic in topics:
            entity = self._topic(topic)
            found.setdefault(entity.path.lower(), entity)
        return sorted(found.values(), key=_rank)

    def queues_of(self, forwarding: Iterable[Entity]) -> dict[str, list[Entity]]:
        """Return the queues of subscriptions, each with what forwards to it, and by the name without the prefix.

        A queue of another program, to which a subscription of another name forwards, is not one.
        """
        found: dict[str, list[Entity]] = {}
        for entity in forwarding:
            queue = str(entity.forward_to)
            if queue.lower().startswith(self._prefix.lower()) and is_subscription_of(entity.name, queue):
                found.setdefault(queue[len(self._prefix) :], []).append(entity)
        return found

    def _of(self, subscription: Subscription) -> Iterator[Entity]:
        queue, lock = self.queue_of(subscription), self._settings.lease
        if self._settings.layout == "queues":
            window = self._settings.duplicate_window
            yield Entity("queue", queue, sessions=subscription.ordered, duplicate_window=window, lock_seconds=lock)
            return
        yield Entity("queue", queue, sessions=subscription.ordered, lock_seconds=lock)
        if not subscription.ordered:
            yield Entity("queue", queue + RETRY, forward_to=queue, duplicate_window=RETRY_WINDOW)
        for topic in subscription.topics:
            yield self._topic(topic)
            name = subscription_of(subscription.name, self._prefix)
            yield Entity("subscription", name, path_of(topic.name, self._prefix), forward_to=queue)

    def _topic(self, topic: Topic) -> Entity:
        kind: Literal["queue", "topic"] = "topic" if self._settings.layout == "topics" else "queue"
        window = self._settings.duplicate_window
        return Entity(
            kind, path_of(topic.name, self._prefix), duplicate_window=window, lock_seconds=self._settings.lease
        )

    def refusals(self, subscriptions: Sequence[Subscription], topics: Sequence[Topic]) -> Iterator[ValidationIssue]:
        """Find names that meet in one entity, and what the layout can't do."""
        if self._settings.layout == "queues":
            yield from self._shared_topics(subscriptions)
        owners: dict[str, _Owner] = {}
        refused: set[str | None] = set()
        for owner in self._owners(subscriptions, topics):
            other = owners.setdefault(owner.path.lower(), owner)
            if other.what != owner.what and owner.subscription not in refused:
                refused.update((owner.subscription,) if owner.subscription else ())
                text = f"{owner.what} and {other.what} would share the entity {owner.path!r} of Service Bus"
                alike = "" if owner.path == other.path else ": Service Bus ignores case"
                yield ValidationIssue(text, f"rename one{alike}", owner.subscription)

    def _owners(self, subscriptions: Sequence[Subscription], topics: Sequence[Topic]) -> "Iterator[_Owner]":
        for topic in (*topics, *(topic for one in subscriptions for topic in one.topics)):
            yield _Owner(f"topic {topic.name!r}", path_of(topic.name, self._prefix), None)
        for one in subscriptions if self._settings.layout == "topics" else ():
            yield _Owner(f"subscription {one.name!r}", self.queue_of(one), one.name)
            if not one.ordered:
                yield _Owner(f"the queue for retries of {one.name!r}", self.retries_of(one), one.name)

    def _shared_topics(self, subscriptions: Sequence[Subscription]) -> Iterator[ValidationIssue]:
        owners: dict[str, str] = {}
        for one in subscriptions:
            if len(one.topics) > 1:
                names = ", ".join(topic.name for topic in one.topics)
                text = f"{one.name!r} has several topics ({names}), but each is a separate queue (layout='queues')"
                yield ValidationIssue(text, "use layout='topics', or a handler for each", one.name)
            for topic in one.topics:
                other = owners.setdefault(topic.name, one.name)
                if other != one.name:
                    text = (
                        f"{one.name!r} and {other!r} both handle {topic.name!r}, which is one queue (layout='queues')"
                    )
                    yield ValidationIssue(
                        text, "use layout='topics': only there each handler gets every event", one.name
                    )


def _rank(entity: Entity) -> int:
    if entity.kind == "queue":
        return 0 if entity.forward_to is None else 1
    return 2 if entity.kind == "topic" else 3
