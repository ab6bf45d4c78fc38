"""What a namespace consists of: queues, topics, and subscriptions with their filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from servicebus_test_server.messages import AmqpMessage

Scalar: TypeAlias = "str | int | float | bool | None"
Accepted: TypeAlias = "Scalar | tuple[Scalar, ...]"
"""One value, or several of which any will do (SQL ``IN``). ``None`` stands for "not there" (SQL ``IS NULL``)."""


class _Any:
    """Stands for "not looked at"."""


_ANY = _Any()


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Lets a message through when every condition given holds (a correlation filter with sets of values).

    Attributes:
        subject: The message's subject, which SQL filters call ``sys.Label``.
        session_id: The message's session.
        message_id: The message's id.
        correlation_id: The message's correlation id.
        to: The message's address.
        content_type: The message's content type.
        properties: Application properties by name.
    """

    subject: Accepted | _Any = _ANY
    session_id: Accepted | _Any = _ANY
    message_id: Accepted | _Any = _ANY
    correlation_id: Accepted | _Any = _ANY
    to: Accepted | _Any = _ANY
    content_type: Accepted | _Any = _ANY
    properties: Mapping[str, Accepted] = field(default_factory=dict[str, Accepted])

    def matches(self, message: AmqpMessage) -> bool:
        """Tell whether a message gets through."""
        names = ("subject", "session_id", "message_id", "correlation_id", "to", "content_type")
        conditions = [(getattr(self, name), message.properties.get(name)) for name in names]
        own = message.application_properties
        conditions += [(accepted, own.get(name)) for name, accepted in self.properties.items()]
        return all(_holds(accepted, value) for accepted, value in conditions)


def _holds(accepted: object, value: object) -> bool:
    if isinstance(accepted, _Any):
        return True
    return value in accepted if isinstance(accepted, tuple) else value == accepted


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """The options that queues and subscriptions share.

    Attributes:
        sessions: Every message needs a session id, every receiver a session.
        lock_seconds: How long a received message, or a session, is locked.
        max_delivery_count: After so many failed deliveries a message is dead-lettered.
        default_ttl: Seconds that a message lives at most; None for no limit.
        dead_letter_on_expiry: Messages that have lived too long are dead-lettered, not dropped.
        forward_to: The queue or topic that all messages go on to at once; nothing is received here then.
    """

    sessions: bool = False
    lock_seconds: float = 60.0
    max_delivery_count: int = 10
    default_ttl: float | None = None
    dead_letter_on_expiry: bool = False
    forward_to: str | None = None


@dataclass(frozen=True, slots=True)
class Queue(_Options):
    """A queue.

    Attributes:
        duplicate_window: Seconds in which a message id is taken once only; None for no detection.
        max_message_bytes: The size of the largest message and of the largest batch.
    """

    name: str
    duplicate_window: float | None = field(default=None, kw_only=True)
    max_message_bytes: int = field(default=262_144, kw_only=True)


@dataclass(frozen=True, slots=True)
class Subscription(_Options):
    """A subscription of a topic.

    Attributes:
        filters: A message is stored once when any of them lets it through; None lets everything through.
    """

    name: str
    filters: Sequence[Filter] | None = field(default=None, kw_only=True)

    def accepts(self, message: AmqpMessage) -> bool:
        """Tell whether a message belongs into the subscription."""
        return self.filters is None or any(each.matches(message) for each in self.filters)


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic. What no subscription accepts is dropped.

    Attributes:
        duplicate_window: Seconds in which a message id is taken once only; None for no detection.
        max_message_bytes: The size of the largest message and of the largest batch.
    """

    name: str
    subscriptions: Sequence[Subscription] = ()
    duplicate_window: float | None = field(default=None, kw_only=True)
    max_message_bytes: int = field(default=262_144, kw_only=True)


Entity: TypeAlias = Queue | Topic
