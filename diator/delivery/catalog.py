"""The catalog: what an app publishes and handles over its broker."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from diator.brokers.port import Subscription, Topic
from diator.delivery.codec import Codec, UnserializableError, codec_of
from diator.engine.arguments import with_defaults
from diator.engine.hints import format_hint
from diator.engine.registrations import Registration
from diator.engine.unreadable import in_words
from diator.engine.wiring import WiredCallable
from diator.errors import ConfigurationError, Problem
from diator.messages import Contract, ECSTEvent, Event, contract_of
from diator.retry import Retry


class Defaults(NamedTuple):
    """What an app says for all its handlers of brokered events."""

    retry: Retry
    concurrency: int
    timeout: float
    """In seconds."""
    max_deliveries: int
    publish_timeout: float
    """In seconds."""


class EventType(NamedTuple):
    """One class of brokered events."""

    cls: type[Event]
    contract: Contract
    codec: Codec
    kind: str
    topic: str

    @property
    def names(self) -> tuple[str, ...]:
        """The wire names that are read as this class."""
        return (self.contract.name, *self.contract.aliases)


class ConsumerConfig(NamedTuple):
    """One handler of brokered events, and how it is given them."""

    registration: Registration
    wired: WiredCallable
    subscription: Subscription
    entries: Mapping[str, EventType]
    """By every wire name that this handler takes."""
    retry: Retry
    concurrency: int
    timeout: float
    shared_topics: frozenset[str]
    """Topics on which events of other types are to be expected: contracts name them with ``topic=``."""
    once: bool = False
    """Whether the inbox of the app's store keeps the handler from running again for a message that it has handled."""

    @property
    def name(self) -> str:
        """The name of the subscription."""
        return self.subscription.name


class Catalog(NamedTuple):
    """Everything brokered of one app."""

    event_types: dict[type[Event], EventType]
    configs: tuple[ConsumerConfig, ...]
    topics: tuple[Topic, ...]
    """Where this app publishes to."""
    published: frozenset[type[Event]]
    """What it publishes, as far as its hints and ``app.publishes`` say."""
    handled: Mapping[Any, Registration]
    """What handlers name, each with the first of its handlers; subscriptions are of these classes and of their
    subclasses, as far as they were defined at startup. ``Any``: `Paid[Money]` is not a class."""
    problems: tuple[Problem, ...]


def describe_event(cls: type[Event], hint: Any = None) -> EventType:
    """Describe a class of events, with the type arguments of ``hint``.

    Raises `ConfigurationError` where it can't be serialized.
    """
    # Any: `Paid[Money]` is not a class.
    try:
        codec = codec_of(with_defaults(hint or cls))
    except UnserializableError as error:
        text = f"{format_hint(hint or cls)} can't be serialized: {error.what}"
        raise ConfigurationError([Problem("not-serializable", text, error.fix)]) from error
    except Exception as error:
        text = f"{format_hint(cls)} can't be inspected ({in_words(error)})"
        fix = "annotate each of its fields with a type that can be resolved, and use what its library supports"
        raise ConfigurationError([Problem("not-serializable", text, fix)]) from error
    contract = contract_of(cls)
    kind = "ecst" if issubclass(cls, ECSTEvent) else "notification"
    return EventType(cls, contract, codec, kind, contract.topic or contract.name)


def topics_of(entry: EventType) -> tuple[str, ...]:
    """Where events of a class may come from: where its contract names no topic, those of its former names too."""
    return (entry.contract.topic,) if entry.contract.topic else entry.names
