"""The port of message brokers: what a plugin implements.

Events are published to a **topic**. Each handler has its own durable **subscription** to its topics.

*Publishing.* ``publish`` stores all messages, those of one key in the order given, in every subscription that their
topic has at that time; a topic without one drops them. If this fails, it raises `~diator.NotPublishedError` with the
outcome of each message. If a queue is full, it waits for room for at most ``timeout`` seconds; with
``wait_for_room=False`` it never waits, because the room may depend on its caller. Calls may overlap. The engine shields
them from cancellation, and cancels a call that exceeds its timeout.

*Receiving.* The receivers of one subscription, in any number of processes, compete for its messages. ``receive(limit)``
waits for messages and returns at most ``limit`` deliveries. One task at a time calls it, and may be cancelled at any
moment: messages already received are returned by the next call, or released. Every message on the wire is delivered: if
the broker cannot read one, it sets `Delivery.read_error`.

*Settling.* `ACK` removes a delivery. `RetryAfter` redelivers it after a delay, with one more failure, to this
subscription only. `MoveToDeadLetters` makes it a dead letter, in one step that a crash cannot split. `RELEASE` returns
it immediately and counts nothing. One call of ``settle`` takes many outcomes, in order, and may overlap with
``receive``. It may be repeated after an error or a cancellation: settled deliveries stay settled, and may be reported
as lost. It returns the deliveries whose lease was lost, and does not change these. If an outcome cannot be recorded, it
raises a permanent error and leaves the delivery unchanged, to be settled by a later call.

*Counts.* ``failures`` counts the `RetryAfter` outcomes of a message, ``deliveries`` its deliveries that were not
released. ``deliveries`` may be too high by messages in flight when a receiver or a connection ended.

*Leases.* A delivery belongs to its receiver for ``lease`` seconds from its delivery or last renewal; with ``None``, for
as long as the receiver is connected. Then it is redelivered with a higher delivery count, even if its process was
killed. An expired lease that no other receiver has acquired may still be settled and renewed, or be lost: both are
correct.

*Order.* In an ordered subscription, one receiver at a time holds the messages of a key, and loses their leases
together. Messages of one topic are delivered in order. A message to be retried is redelivered before the later ones of
its key, which wait in their places; other keys do not wait. Messages without a key have no order.

*Dead letters* (`KeepsDeadLetters`) belong to a subscription; one that does not exist has none. A replay delivers a dead
letter again to its subscription only, as new, with no failures, behind all waiting messages. While it waits, messages
published later may overtake it, even those of its key.

*Removing* (`ManagesSubscriptions`). A subscription outlives its handler. One without receivers can be removed with all
its messages; a receiver that is still open may fail, or create it again. Brokers with another prefix or namespace are
other brokers: none of their subscriptions are found or removed.

*Errors* of the driver become `~diator.BrokerError`, raised ``from`` the original, or `~diator.BrokerUnavailableError`
if retrying later can help. Any other error counts as a bug in the plugin, and as permanent.

*Lifecycle.* Subscriptions that need a missing capability are rejected at startup, without a call. ``connect`` and
``aclose`` are called once, however many apps of the process share the broker; a repeated call does nothing. After
``connect`` has raised `~diator.BrokerUnavailableError`, as after any outage, each later call connects by itself; after
any other error the engine calls ``aclose``. After ``aclose`` the broker can be opened again, in any event loop.
``apply`` creates what is missing and changes nothing that exists. ``aclose`` of the broker closes its receivers. A
closed receiver releases unsettled messages, and its pending ``receive`` returns nothing.
"""

import enum
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol, runtime_checkable

from diator.brokers.envelope import OutgoingMessage


class BrokerCapability(enum.Flag):
    """The capabilities of a broker. Read at startup, and by the suites in ``diator_conformance``."""

    DURABLE = enum.auto()
    """Stored messages survive the end of the processes that use the broker."""
    ACKNOWLEDGED = enum.auto()
    """A message remains until it is settled: at least once. Without it, only CONSUMER_GROUPS matters.

    Without it, or without DEAD_LETTERS, the app rejects subscriptions that are not `at_most_once`.
    """
    CONSUMER_GROUPS = enum.auto()
    """The workers of one subscription compete for its messages."""
    DELAYED_RETRY = enum.auto()
    """`RetryAfter` waits for its delay. Without it, the app rejects a `max_delay`, unless at most once."""
    DEAD_LETTERS = enum.auto()
    """`MoveToDeadLetters` stores a message, to be listed, replayed and purged; see `KeepsDeadLetters`."""
    ORDER_BY_KEY = enum.auto()
    """Order by key, across workers. Without it, the app rejects `ordered` subscriptions."""
    DUPLICATE_DETECTION = enum.auto()
    """The broker drops a message whose id was recently published to the topic."""
    BACKPRESSURE = enum.auto()
    """Publishing waits while a queue is full, so that memory does not grow."""
    SCHEDULES = enum.auto()
    """A message is delivered when it is `due`, not before; without it, publishing with a delay is rejected."""


class Topic(NamedTuple):
    """The destination of published events."""

    name: str
    types: tuple[str, ...]
    """The wire names, including aliases, of the events that this app publishes to it or handles from it."""


class Subscription(NamedTuple):
    """The subscription of one handler to its topics."""

    name: str
    topics: tuple[Topic, ...]
    ordered: bool = False
    """Whether messages of one key are delivered in order, one at a time."""
    at_most_once: bool = False
    """Whether the handler accepts that messages may be lost."""
    max_delay: float = 0.0
    """The longest delay of a retry, in seconds."""
    max_deliveries: int = 5
    """The engine dead-letters a message after this many deliveries without an outcome."""


class Delivery:
    """One delivered message, not yet read."""

    __slots__ = ("body", "deliveries", "failures", "headers", "key", "read_error", "receipt", "topic")

    def __init__(
        self,
        topic: str,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        key: str | None = None,
        failures: int = 0,
        deliveries: int = 1,
        read_error: str | None = None,
        receipt: Any = None,
    ) -> None:
        self.topic = topic
        self.body = body
        """The data in binary mode, the whole event in structured mode; see `diator.brokers.envelope`."""
        self.headers: Mapping[str, str] = headers or {}
        """The broker's own headers; in binary mode the attributes, with their plain names."""
        self.key = key
        """The key that orders it, if the broker knows it; otherwise the engine reads it from the message."""
        self.failures = failures
        """The number of failures recorded for it in this subscription (`RetryAfter`)."""
        self.deliveries = deliveries
        """The number of its deliveries, including this one, without those that were released. It may be too high."""
        self.read_error = read_error
        """Why the broker could not read it; the engine dead-letters it with this reason."""
        self.receipt = receipt
        """How the broker identifies this delivery. ``Any``: only the broker reads it."""

    def __repr__(self) -> str:
        return f"<Delivery from {self.topic}, {self.failures} failures, {self.deliveries} deliveries>"


@dataclass(frozen=True, slots=True)
class Ack:
    """The message was handled."""


@dataclass(frozen=True, slots=True)
class Release:
    """Return it unhandled, as if it had not been delivered."""


class RetryAfter(NamedTuple):
    """The handler failed; redeliver the message after ``delay`` seconds."""

    delay: float


class MoveToDeadLetters(NamedTuple):
    """The message cannot be handled; store it as a dead letter."""

    reason: str
    """``exhausted``, ``rejected``, ``undecodable``, ``delivered`` too often, and details for people."""
    error: str | None = None
    """The exception, as ``module.Class: text``."""
    traceback: str | None = None
    attempts: int = 0
    """The number of attempts of its handler."""


ACK = Ack()
RELEASE = Release()
Outcome = Ack | Release | RetryAfter | MoveToDeadLetters
Settlement = tuple[Delivery, Outcome]


class DeadLetter(NamedTuple):
    """A message that could not be handled, with everything that is known about it."""

    id: str
    """Identifies the dead letter within its subscription."""
    subscription: str
    topic: str
    failure: MoveToDeadLetters
    dead_lettered_at: datetime
    """With a time zone."""
    deliveries: int
    headers: Mapping[str, str]
    body: bytes
    """Headers and body as they were delivered."""


class SubscriptionStatus(NamedTuple):
    """The status of a subscription at the broker."""

    name: str
    exists: bool
    backlog: int | None = None
    """The number of unsettled messages, if the broker knows it."""
    dead_letters: int | None = None
    missing: tuple[str, ...] = ()
    """What ``apply`` would create, by the broker's own names."""
    oldest: float | None = None
    """The age of the oldest unsettled message in seconds, if the broker knows it."""


class ValidationIssue(NamedTuple):
    """Something that the broker does not support, such as a name."""

    text: str
    fix: str
    subscription: str | None = None
    """The name of the subscription, if the issue is about one."""


class Receiver(Protocol):
    """One worker's access to one subscription."""

    async def receive(self, limit: int, /) -> Sequence[Delivery]:
        """Wait for messages, and return at most ``limit`` of them. Raises `~diator.BrokerError`."""
        ...

    async def settle(self, settlements: Sequence[Settlement], /) -> Collection[Delivery]:
        """Settle many, in order; return those whose lease was lost. Raises `~diator.BrokerError`."""
        ...

    async def renew(self, deliveries: Sequence[Delivery], /) -> Collection[Delivery]:
        """Renew leases; return those that were already lost. Raises `~diator.BrokerError`."""
        ...

    async def aclose(self) -> None:
        """Release unsettled messages and close. Idempotent; does not raise if the broker is unavailable."""
        ...


@runtime_checkable
class Broker(Protocol):
    """A plugin for one broker. The docstring of the module is its contract."""

    @property
    def capabilities(self) -> BrokerCapability:
        """The capabilities of this broker. They never change."""
        ...

    @property
    def system(self) -> str:
        """The broker's name in telemetry, ``messaging.system`` of OpenTelemetry, such as ``redis``."""
        ...

    @property
    def address(self) -> str | None:
        """The server's address in telemetry, such as ``localhost:6379``, without secrets; ``None`` if there is none."""
        ...

    @property
    def lease(self) -> float | None:
        """The seconds for which a delivery belongs to its receiver. The engine renews leases after a third of it."""
        ...

    @property
    def max_message_bytes(self) -> int | None:
        """The maximum size of `OutgoingMessage.structured` in bytes, if there is one; checked before commits."""
        ...

    async def connect(self) -> None:
        """Open. Raises `~diator.BrokerUnavailableError`, or `~diator.BrokerError` for permanent errors."""
        ...

    async def aclose(self) -> None:
        """Close everything that ``connect`` and ``subscribe`` have opened. Idempotent."""
        ...

    async def publish(
        self, messages: Sequence[OutgoingMessage], /, *, timeout: float, wait_for_room: bool = True
    ) -> None:
        """Store messages. Raises `~diator.NotPublishedError` from the `~diator.BrokerError` that prevented it."""
        ...

    async def apply(self, subscriptions: Sequence[Subscription], topics: Sequence[Topic] = (), /) -> Sequence[str]:
        """Create what is missing, and return the names of what was created. Raises `~diator.BrokerError`."""
        ...

    async def status(self, subscriptions: Sequence[Subscription], /) -> Sequence[SubscriptionStatus]:
        """Return the status of subscriptions, without changing anything. Raises `~diator.BrokerError`."""
        ...

    async def subscribe(self, subscription: Subscription, /) -> Receiver:
        """Open a receiver; ``apply`` has been called before. Raises `~diator.BrokerError`."""
        ...


@runtime_checkable
class KeepsDeadLetters(Protocol):
    """Optional: a broker with `BrokerCapability.DEAD_LETTERS`. `SubscriptionStatus.dead_letters` is their number."""

    async def dead_letters(
        self, subscription: Subscription, /, *, after: str | None = None, limit: int = 100
    ) -> Sequence[DeadLetter]:
        """Return the next page: at most ``limit`` dead letters, oldest first; an empty page is the end.

        ``after`` is the id of the last one on the previous page, which may no longer exist. Raises
        `~diator.BrokerError`.
        """
        ...

    async def replay(self, subscription: Subscription, ids: Collection[str], /) -> Collection[str]:
        """Deliver dead letters again; return the ids of those that still existed. Raises `~diator.BrokerError`."""
        ...

    async def purge(self, subscription: Subscription, ids: Collection[str], /) -> Collection[str]:
        """Delete dead letters; return the ids of those that still existed. Raises `~diator.BrokerError`."""
        ...


@runtime_checkable
class ManagesSubscriptions(Protocol):
    """Optional: a broker that can list its subscriptions, and remove those that no app needs."""

    async def other_subscriptions(self, used: Sequence[Subscription], /) -> Sequence[SubscriptionStatus]:
        """Return the status of every subscription at the broker except these. Raises `~diator.BrokerError`.

        The names are those that `remove_subscription` accepts. Queues of other programs are not subscriptions.
        """
        ...

    async def remove_subscription(self, name: str, /) -> bool:
        """Delete a subscription with its messages and dead letters; return false if it does not exist.

        Its topics and their other subscriptions remain. Raises `~diator.BrokerError`.
        """
        ...


@runtime_checkable
class Validates(Protocol):
    """Optional: a broker with its own rules, for example for names. Missing capabilities are checked without it."""

    def validate(self, subscriptions: Sequence[Subscription], topics: Sequence[Topic], /) -> Iterable[ValidationIssue]:
        """Return a `ValidationIssue` for each rule that these subscriptions and published topics break. No network."""
        ...


@runtime_checkable
class FindsUnsubscribed(Protocol):
    """Optional: a broker that can report topics without a subscription. Diator warns once for each topic."""

    async def unsubscribed(self, topics: Collection[str], /) -> Collection[str]:
        """Return the topics among these that certainly have no subscription now. Raises `~diator.BrokerError`."""
        ...
