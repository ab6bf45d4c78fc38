"""The namespace: which stores and send targets there are, and what becomes of a message that is sent to one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from servicebus_test_server.amqp.values import Value
from servicebus_test_server.declarations import Entity, Queue, Subscription
from servicebus_test_server.errors import NOT_ALLOWED, NOT_FOUND, SIZE_EXCEEDED, RefusalError, not_found
from servicebus_test_server.messages import AmqpMessage
from servicebus_test_server.stored import now
from servicebus_test_server.stores import Store
from servicebus_test_server.timers import Timers

DEAD_LETTERS = "$DeadLetterQueue"
TRANSFER_DEAD_LETTERS = "$Transfer/$DeadLetterQueue"


@dataclass(frozen=True, slots=True)
class Target:
    """A store that a send target feeds, and which messages it takes.

    ``onward`` finds the send target that everything is forwarded to, if it is, whose path is ``forward_to``.
    """

    store: Store
    accepts: Callable[[AmqpMessage], bool]
    onward: Callable[[], SendTarget] | None = None
    forward_to: str | None = None

    def put(self, message: AmqpMessage) -> None:
        """Store a message, or forward it; what the next entity refuses becomes a dead letter of this one."""
        if self.onward is None:
            self.store.put(message)
            return
        try:
            self.onward().publish([message])
        except RefusalError as refusal:
            self.store.refuse(message, refusal.description)


class Duplicates:
    """Message ids that were seen within a window of time. A message without an id is never a duplicate."""

    def __init__(self, window: float | None) -> None:
        self._window = None if window is None else round(window * 1000)
        self._seen: set[Value] = set()
        self._ends: Timers[Value] = Timers()

    def first(self, message: AmqpMessage) -> bool:
        """Note a message; tell whether its id is new."""
        moment = now()
        for message_id in self._ends.due(moment):
            self._seen.discard(message_id)
        if self._window is None or message.message_id is None:
            return True
        if message.message_id in self._seen:
            return False
        self._seen.add(message.message_id)
        self._ends.add(moment + self._window, message.message_id)
        return True


class SendTarget:
    """What messages are sent to: a queue or a topic.

    Attributes:
        path: Its name.
        max_message_bytes: The size of the largest message and of the largest batch.
        backlog: Where scheduled messages wait.
    """

    def __init__(self, path: str, entity: Entity, backlog: Store, targets: Sequence[Target]) -> None:
        self.path = path
        self.max_message_bytes = entity.max_message_bytes
        self.backlog = backlog
        self.targets = list(targets)
        self._duplicates = Duplicates(entity.duplicate_window)
        self._sessions = isinstance(entity, Queue) and entity.sessions
        backlog.activate = self._fan_out

    def publish(self, messages: Iterable[AmqpMessage]) -> None:
        """Store messages, all or none. Those with a time in the future are scheduled; duplicates are dropped.

        Raises:
            RefusalError: One is too large, or has no session id where the queue requires sessions.
        """
        for message in self._checked(messages):
            due = message.scheduled_for
            if not self._duplicates.first(message):
                continue
            if due is not None and due > now():
                self.backlog.schedule(message, due)
            else:
                self._fan_out(message)

    def schedule(self, messages: Iterable[tuple[AmqpMessage, int]]) -> list[int]:
        """Keep messages until they are due, in ms since 1970; return the numbers to cancel them by."""
        pairs = list(messages)
        self._checked(message for message, _ in pairs)
        # a duplicate gets the number 0, which can be cancelled no more than a message that does not exist
        return [self.backlog.schedule(each, due) if self._duplicates.first(each) else 0 for each, due in pairs]

    def _checked(self, messages: Iterable[AmqpMessage]) -> list[AmqpMessage]:
        checked = list(messages)
        for message in checked:
            if message.size > self.max_message_bytes:
                raise RefusalError(SIZE_EXCEEDED, f"{message.size} bytes; {self.path} takes {self.max_message_bytes}")
            if self._sessions and message.session_id is None:
                raise RefusalError(NOT_ALLOWED, f"{self.path} requires sessions and the message has no session id")
        return checked

    def _fan_out(self, message: AmqpMessage) -> None:
        for target in self.targets:
            if target.accepts(message):
                target.put(message)


class Namespace:
    """All entities. Paths are compared without regard to case.

    ``wake`` is called when ``pump`` should be called soon.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._stores: dict[str, Store] = {}
        self._send_targets: dict[str, SendTarget] = {}
        self._changed: dict[Store, None] = {}

    def add(self, entity: Entity) -> None:
        """Create an entity.

        Raises:
            ValueError: There is one of this name.
        """
        if entity.name.lower() in self._send_targets:
            raise ValueError(f"the namespace has an entity {entity.name!r} already")
        if isinstance(entity, Queue):
            backlog = self._add_store(entity.name, entity)
            targets = [Target(backlog, lambda _message: True, self._onward(entity))]
        else:
            backlog = Store(entity.name, Queue(entity.name), self._note)
            targets = [self._target(entity.name, subscription) for subscription in entity.subscriptions]
        self._send_targets[entity.name.lower()] = SendTarget(entity.name, entity, backlog, targets)

    def check(self) -> None:
        """See that all that is forwarded has a place to go to.

        Raises:
            ValueError: An entity forwards to what is not there, or to a subscription.
        """
        for target in (each for send_target in self._send_targets.values() for each in send_target.targets):
            try:
                if target.onward is not None:
                    target.onward()
            except RefusalError as refusal:
                raise ValueError(f"{target.store.path!r} can't forward: {refusal.description}") from None

    def add_subscription(self, topic: str, subscription: Subscription) -> None:
        """Create a subscription of a topic. It gets what is sent from now on.

        Raises:
            ValueError: There is no such topic, or it has a subscription of this name.
        """
        send_target = self._send_targets.get(topic.lower())
        if send_target is None or topic.lower() in self._stores:
            raise ValueError(f"the namespace has no topic {topic!r}")
        send_target.targets.append(self._target(send_target.path, subscription))

    def remove(self, path: str) -> list[str]:
        """Delete a queue, a topic or a subscription with all its messages; return the paths that are gone.

        Raises:
            RefusalError: There is no such entity.
        """
        gone = [store.path for store in self._stores.values() if store.path.lower() == path.lower()]
        send_target = self._send_targets.pop(path.lower(), None)
        if send_target is not None:
            gone = [
                send_target.path,
                *(target.store.path for target in send_target.targets if target.store.path != send_target.path),
            ]
        if not gone:
            raise RefusalError(NOT_FOUND, not_found(path))
        gone += [f"{each}/{queue}" for each in gone for queue in (DEAD_LETTERS, TRANSFER_DEAD_LETTERS)]
        for each in gone:
            self._stores.pop(each.lower(), None)
        for topic in self._send_targets.values():
            topic.targets = [target for target in topic.targets if target.store.path not in gone]
        return gone

    def subscriptions(self) -> list[tuple[str, str | None]]:
        """List the subscriptions of all topics: the path of each, and what it forwards to."""
        topics = [send_target for path, send_target in self._send_targets.items() if path not in self._stores]
        return [(target.store.path, target.forward_to) for send_target in topics for target in send_target.targets]

    def has_targets(self, path: str) -> bool:
        """Whether there is such an entity, and what is sent to it gets anywhere."""
        send_target = self._send_targets.get(path.lower())
        return send_target is not None and bool(send_target.targets)

    def send_target(self, path: str) -> SendTarget:
        """Find what messages can be sent to.

        Raises:
            RefusalError: There is no such entity, or it is one to receive from only.
        """
        send_target = self._send_targets.get(path.lower())
        if send_target is None:
            if path.lower() in self._stores:
                raise RefusalError(NOT_ALLOWED, f"{path!r} cannot be sent to")
            raise RefusalError(NOT_FOUND, not_found(path))
        return send_target

    def store(self, path: str) -> Store:
        """Find what can be received from.

        Raises:
            RefusalError: There is no such entity, or it is a topic.
        """
        store = self._stores.get(path.lower())
        if store is None:
            if path.lower() in self._send_targets:
                raise RefusalError(NOT_ALLOWED, f"{path!r} is a topic: receive from its subscriptions")
            raise RefusalError(NOT_FOUND, not_found(path))
        return store

    def backlog(self, path: str) -> Store:
        """Find the store that an entity's management node works on; for a topic, that of its scheduled messages."""
        send_target = self._send_targets.get(path.lower())
        return self.store(path) if send_target is None else send_target.backlog

    def stores(self) -> Iterator[Store]:
        """All stores, with those of the scheduled messages of topics."""
        yield from self._stores.values()
        yield from (send_target.backlog for path, send_target in self._send_targets.items() if path not in self._stores)

    def sweep(self) -> None:
        """Let end what has ended by now."""
        moment = now()
        for store in self.stores():
            store.sweep(moment)

    def pump(self) -> None:
        """Deliver in all stores where something has changed."""
        while self._changed:
            changed, self._changed = self._changed, {}
            for store in changed:
                store.pump()

    def _note(self, store: Store) -> None:
        if not self._changed:
            self._wake()
        self._changed[store] = None

    def _target(self, topic: str, subscription: Subscription) -> Target:
        path = f"{topic}/Subscriptions/{subscription.name}"
        if path.lower() in self._stores:
            raise ValueError(f"the topic {topic!r} has a subscription {subscription.name!r} already")
        store, onward = self._add_store(path, subscription), self._onward(subscription)
        return Target(store, subscription.accepts, onward, subscription.forward_to)

    def _onward(self, options: Queue | Subscription) -> Callable[[], SendTarget] | None:
        path = options.forward_to
        return None if path is None else lambda: self.send_target(path)

    def _add_store(self, path: str, options: Queue | Subscription) -> Store:
        store = Store(path, options, self._note)
        store.dead_letters = Store.of_dead_letters(f"{path}/{DEAD_LETTERS}", options, self._note)
        transfer = Store.of_dead_letters(f"{path}/{TRANSFER_DEAD_LETTERS}", options, self._note)
        for each in (store, store.dead_letters, transfer):
            self._stores[each.path.lower()] = each
        return store
