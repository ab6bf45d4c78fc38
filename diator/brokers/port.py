"""The port of message brokers: what a plugin implements.

Events are published to a **topic**. A **subscription** is one handler's own, durable share of the events on its topics.

*Publishing.* ``publish`` stores all messages, those of one key in the order given, in every subscription that their
topic has by then; a topic without one drops them. If it can't, it raises `~diator.NotPublishedError`, which says what
became of each message. If a queue is full, it waits for room, at most ``timeout`` seconds; with ``wait_for_room=False``
it never waits, since the room may depend on its caller. Calls may overlap. The engine shields them from cancellation,
and cancels a call that exceeds its timeout.

*Receiving.* The receivers of one subscription, in any number of processes, compete for its messages. ``receive(limit)``
waits for messages and returns at most ``limit`` deliveries. One task at a time calls it, and may be cancelled at any
moment: what was taken is returned by the next call, or released. Everything on the wire is delivered: a message that
the broker can't read has `Delivery.read_error`.

*Settling.* `ACK` removes a delivery. `RetryAfter` delivers it again after a delay, with one more failure, to this
subscription only. `MoveToDeadLetters` makes it a dead letter, in one step that no crash can split. `RELEASE` returns it
at once and counts nothing. One call of ``settle`` takes many, in order, and may overlap with ``receive``. It may be
repeated after an error or a cancel: what was settled stays settled, and may be reported as lost. It returns the
deliveries whose lease was lost, and changes nothing of them. An outcome that can't be recorded raises a permanent error
and leaves its delivery as it was, to be settled by a later call.

*Counts.* ``failures`` counts the `RetryAfter` of a message, ``deliveries`` how often it was delivered and not released.
``deliveries`` may be higher by what was on its way when a receiver or a connection ended.

*Leases.* A delivery belongs to its receiver for ``lease`` seconds from its delivery or last renewal; ``None``: as long
as the receiver is connected. Then it is delivered again, with a higher delivery count, even if its process was killed.
An expired lease that no other receiver has acquired may still be settled and renewed, or be lost: both are right.

*Order.* In an ordered subscription one receiver at a time has the messages of a key, and loses their leases together.
Those of one topic are delivered in order. A message to be retried comes back before the later ones of its key, which
wait in their places; no other key waits with them. Messages without a key have no order.

*Dead letters* (`KeepsDeadLetters`) belong to a subscription; one that does not exist has none. A replay delivers one
again to its subscription only, as new, with no failures, behind all that wait. While it waits, what is published later
may come before it, also of its key.

*Removing* (`ManagesSubscriptions`). A subscription outlives the handler that it was made for. One without receivers can
be removed with all that it holds; a receiver that is still open may fail, or create it again. Brokers with another
prefix or namespace are other brokers: nothing of theirs is found or removed.

*Errors* of the driver become `~diator.BrokerError`, raised ``from`` the original, or `~diator.BrokerUnavailableError`
if trying again later can help. Any other error counts as a fault of the plugin, and as permanent.

*Life.* Unsupported subscriptions are rejected at startup by what `capabilities` lacks, without a call. ``connect`` and
``aclose`` are called once, however many apps of the process share the broker. A second call in a row changes nothing.
After ``connect`` has raised `~diator.BrokerUnavailableError`, as after any outage, each later call connects by itself;
after any other error the engine calls ``aclose``. After ``aclose`` the broker can be opened again, in any event loop.
``apply`` creates what is missing and changes nothing that exists. ``aclose`` of the broker closes its receivers; a
receiver that is closed releases what it has not settled, and its pending ``receive`` returns nothing.
"""

import enum
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol, runtime_checkable

from diator.brokers.envelope import OutgoingMessage


class BrokerCapability(enum.Flag):
    """What a broker keeps its promises on. Read when the app starts, and by the suites in ``diator_conformance``."""

    DURABLE = enum.auto()
    """What is stored survives the end of the processes that use the broker."""
    ACKNOWLEDGED = enum.auto()
    """A message stays until it is settled: at least once. Without it: at most once, and nothing below but GROUPS.

    Without it, and without DEAD_LETTERS, the app rejects subscriptions that are not `at_most_once`.
    """
    CONSUMER_GROUPS = enum.auto()
    """The workers of one subscription share its messages."""
    DELAYED_RETRY = enum.auto()
    """`RetryAfter` waits for its delay. Without it, the app rejects a `max_delay`, unless at most once."""
    DEAD_LETTERS = enum.auto()
    """`MoveToDeadLetters` keeps a message, to be listed, replayed and purged; see `KeepsDeadLetters`."""
    ORDER_BY_KEY = enum.auto()
    """Order by key, across workers. Without it, the app rejects what is `ordered`."""
    DUPLICATE_DETECTION = enum.auto()
    """A message whose id was published to the topic not long ago is dropped."""
    BACKPRESSURE = enum.auto()
    """A full queue makes publishing wait, so that memory does not grow."""
    SCHEDULES = enum.auto()
    """A message is delivered when it is `due`, not before; without it, publishing with a delay is rejected."""


class Topic(NamedTuple):
    """Where events are published to."""

    name: str
    keyed: bool
    """Whether the events on it, as far as this app knows them, are ordered by a key."""
    types: tuple[str, ...]
    """The wire names, aliases included, of what this app publishes to it or handles from it."""


class Subscription(NamedTuple):
    """One handler's share of the events on its topics."""

    name: str
    topics: tuple[Topic, ...]
    ordered: bool = False
    """Whether messages of one key are delivered in order, one at a time."""
    at_most_once: bool = False
    """Whether the handler accepts that messages get lost."""
    max_delay: float = 0.0
    """The longest delay of a retry, in seconds."""
    max_deliveries: int = 5
    """The engine dead-letters a message after this many deliveries without an outcome."""


class Delivery:
    """One message as it is delivered, not yet read."""

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
        """The broker's own headers; in binary mode the attributes, by their plain names."""
        self.key = key
        """The key that it is ordered by, if the broker knows it; else the engine reads it from the message."""
        self.failures = failures
        """How many failures were recorded for it in this subscription (`RetryAfter`)."""
        self.deliveries = deliveries
        """How often it was delivered, this time included; what was released does not count.

        It may be higher by what was on its way when a receiver or a connection ended.
        """
        self.read_error = read_error
        """What the broker could not make sense of; the engine dead-letters it with this reason."""
        self.receipt = receipt
        """What the broker knows it by. ``Any``: it is the broker's own."""

    def __repr__(self) -> str:
        return f"<Delivery from {self.topic}, {self.failures} failures, {self.deliveries} deliveries>"


@dataclass(frozen=True, slots=True)
class Ack:
    """It is done."""


@dataclass(frozen=True, slots=True)
class Release:
    """Return it unhandled, as if it had not been delivered."""


class RetryAfter(NamedTuple):
    """It failed; deliver it again after ``delay`` seconds."""

    delay: float


class MoveToDeadLetters(NamedTuple):
    """It can't be handled; keep it as a dead letter."""

    reason: str
    """``exhausted``, ``rejected``, ``undecodable``, ``delivered`` too often, and what else a person should know."""
    error: str | None = None
    """The exception, as ``module.Class: text``."""
    traceback: str | None = None
    attempts: int = 0
    """How often a handler was tried."""


ACK = Ack()
RELEASE = Release()
Outcome = Ack | Release | RetryAfter | MoveToDeadLetters
Settlement = tuple[Delivery, Outcome]


class DeadLetter(NamedTuple):
    """A message that could not be handled, with everything that is known of it."""

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
    """How a subscription stands at the broker."""

    name: str
    exists: bool
    backlog: int | None = None
    """Messages not yet settled, if the broker can tell."""
    dead_letters: int | None = None
    missing: tuple[str, ...] = ()
    """What ``apply`` would create, by the broker's own names."""
    oldest: float | None = None
    """The age of the oldest message that is not settled, in seconds, if the broker knows it."""


class ValidationIssue(NamedTuple):
    """What a broker can't keep."""

    text: str
    fix: str
    subscription: str | None = None
    """Whose, if it concerns one."""


class Receiver(Protocol):
    """One worker's access to one subscription."""

    async def receive(self, limit: int, /) -> Sequence[Delivery]:
        """Wait for messages, and give at most ``limit`` of them. Raises `~diator.BrokerError`."""
        ...

    async def settle(self, settlements: Sequence[Settlement], /) -> Collection[Delivery]:
        """Settle many, in order; give those whose lease was lost. Raises `~diator.BrokerError`."""
        ...

    async def renew(self, deliveries: Sequence[Delivery], /) -> Collection[Delivery]:
        """Renew leases; give those that were lost already. Raises `~diator.BrokerError`."""
        ...

    async def aclose(self) -> None:
        """Release unsettled messages and close. Idempotent; does not raise if the broker is unavailable."""
        ...


@runtime_checkable
class Broker(Protocol):
    """A plugin: one way to reach one broker. The module's docstring is its contract."""

    @property
    def capabilities(self) -> BrokerCapability:
        """What this broker can do. Fixed for its life."""
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
        """For how many seconds a delivery is its receiver's own. The engine renews at a third of it."""
        ...

    @property
    def max_message_bytes(self) -> int | None:
        """The limit of a message's size (`OutgoingMessage.structured`) in bytes, if any; checked before commits."""
        ...

    async def connect(self) -> None:
        """Open. Raises `~diator.BrokerUnavailableError`, and `~diator.BrokerError` for what is permanent."""
        ...

    async def aclose(self) -> None:
        """Close everything that ``connect`` and ``subscribe`` have opened. Idempotent."""
        ...

    async def publish(
        self, messages: Sequence[OutgoingMessage], /, *, timeout: float, wait_for_room: bool = True
    ) -> None:
        """Store messages. Raises `~diator.NotPublishedError`, from the `~diator.BrokerError` that stood in the way."""
        ...

    async def apply(self, subscriptions: Sequence[Subscription], topics: Sequence[Topic] = (), /) -> Sequence[str]:
        """Create what is missing, and name what was created. Raises `~diator.BrokerError`."""
        ...

    async def status(self, subscriptions: Sequence[Subscription], /) -> Sequence[SubscriptionStatus]:
        """Tell how subscriptions stand, without changing anything. Raises `~diator.BrokerError`."""
        ...

    async def subscribe(self, subscription: Subscription, /) -> Receiver:
        """Open a receiver; ``apply`` has been called before. Raises `~diator.BrokerError`."""
        ...


@runtime_checkable
class KeepsDeadLetters(Protocol):
    """Optional: a broker with `BrokerCapability.DEAD_LETTERS`. `SubscriptionStatus.dead_letters` has their number."""

    async def dead_letters(
        self, subscription: Subscription, /, *, after: str | None = None, limit: int = 100
    ) -> Sequence[DeadLetter]:
        """Return the next page: at most ``limit`` dead letters, oldest first; an empty page is the end.

        ``after`` is the id of the last one of the page before, which may be gone by now. Raises `~diator.BrokerError`.
        """
        ...

    async def replay(self, subscription: Subscription, ids: Collection[str], /) -> Collection[str]:
        """Deliver dead letters again; return the ids of those that were still there. Raises `~diator.BrokerError`."""
        ...

    async def purge(self, subscription: Subscription, ids: Collection[str], /) -> Collection[str]:
        """Delete dead letters; return the ids of those that were still there. Raises `~diator.BrokerError`."""
        ...


@runtime_checkable
class ManagesSubscriptions(Protocol):
    """Optional: a broker that can list its subscriptions, and remove one that no app needs."""

    async def other_subscriptions(self, used: Sequence[Subscription], /) -> Sequence[SubscriptionStatus]:
        """Return the status of every subscription at the broker except these. Raises `~diator.BrokerError`.

        The names are those that `remove_subscription` accepts. What only other programs use is not a subscription.
        """
        ...

    async def remove_subscription(self, name: str, /) -> bool:
        """Delete a subscription with its messages and dead letters; return false if there is none of this name.

        Its topics and their other subscriptions stay. Raises `~diator.BrokerError`.
        """
        ...


@runtime_checkable
class Validates(Protocol):
    """Optional: a broker with rules of its own, such as for names. What `capabilities` lacks is refused without it."""

    def validate(self, subscriptions: Sequence[Subscription], topics: Sequence[Topic], /) -> Iterable[ValidationIssue]:
        """Find what breaks a rule in these subscriptions, and in the topics that are published to. No network."""
        ...


@runtime_checkable
class FindsUnsubscribed(Protocol):
    """Optional: a broker that can report topics without a subscription. Diator warns once for each topic."""

    async def unsubscribed(self, topics: Collection[str], /) -> Collection[str]:
        """Return the topics among these that certainly have no subscription now. Raises `~diator.BrokerError`."""
        ...
