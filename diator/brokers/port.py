"""The port of message brokers: what a plugin gives, on one screen.

A **topic** carries events; a **subscription** is one handler's own, durable share of them. The contract:

*Publishing.* ``publish`` stores all messages, those of one key in the order given, or raises
`~diator.NotPublishedError`, which says what did not leave and of what nobody knows. It takes no longer than ``timeout``
seconds. Where a queue has no room it waits for some, but with ``wait_for_room=False`` it never does: its caller is a
consumer, on whom the room may depend. Calls may overlap, and a cancel does not interrupt one: it is raised when the
messages are stored, or have failed (`~diator.brokers.shielded` does that). Every subscription of the topic that existed
before gets each message; a topic without one drops it.

*Receiving.* ``subscribe`` gives a receiver; several, here and in other processes, share one subscription, and each
message is with one of them. ``receive(limit)`` waits until there is something and gives at most ``limit`` deliveries.
It is called by one task at a time and is safe to cancel: what it had taken is given by the next call, or given back.
Whatever stands on the wire is handed out, never raised: what a broker can't make sense of has `Delivery.damage`.

*Settling.* Each delivery is settled once: `ACK` removes it, `RetryAfter` has it delivered again after a delay and
counts a failure, `Park` makes it a dead letter, `RELEASE` gives it back at once and counts nothing. One call takes
many, in order, on the receiver that gave them, and may be repeated after an error or a cancel: what was settled then
stays as it is, and may be told as lost. It may overlap with ``receive``. It returns the deliveries whose lease was
lost: of those nothing is changed, since somebody else has them. A retry comes back to its own subscription only, never
through the topic, and is no duplicate of itself. An outcome that can't be recorded is an error that is no outage, and
leaves its delivery as it was: the others, and it with another outcome, are settled by calls that follow. What is parked
and what is acknowledged changes place in one step that no crash can come between.

*Leases.* A delivery belongs to its receiver for ``lease`` seconds, and longer each time that it is renewed. Then it is
delivered again, ``deliveries`` higher by one, also when the process that had it was killed. One that has run out while
nobody else has the message yet may still be settled and renewed, or be lost: both are right. ``None``: for as long as
the receiver is connected.

*Order.* In an ordered subscription a key is with one receiver at a time, so that its leases are lost together, and its
messages from one topic are handed out in order, several in one go or one by one. One that is to be retried comes back
before the later ones of its key, which the engine releases with it; they wait in place meanwhile, and no other key with
them. Messages without a key have no order. Needs `Capability.ORDERED`.

*Dead letters* belong to a subscription; one that does not exist has none. `replay` hands one out again to it alone, as
new, with no failures, behind all that wait.

*Errors.* Those of the driver become `~diator.BrokerError`, raised ``from`` the original;
`~diator.BrokerUnavailableError` where trying again later can help. A broker that was away is connected again by the
next call; nobody has to ask for it.

*Closing.* A receiver that is closed gives back at once what it has not settled, and a ``receive`` that waits ends with
nothing. ``aclose`` of the broker closes its receivers, and may be called more than once; ``connect`` then opens it
again, also in another event loop. Both are counted: a broker that two apps of one process share is closed with the
last. A ``connect`` that raises `~diator.BrokerUnavailableError`, or is cancelled, counts too: the app starts without
the broker, and closes it in the end. One that raises another `~diator.BrokerError` does not, and leaves nothing open.

*Start.* ``validate`` runs before ``connect``, touches no network, and refuses what the broker can't keep; nothing is
dropped in silence. ``apply`` creates what is missing and changes nothing that is there.
"""

import enum
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol, runtime_checkable

from diator.brokers.envelope import Outgoing


class Capability(enum.Flag):
    """What a broker keeps its promises on. Read when the app starts, and by the suites in ``diator_conformance``."""

    DURABLE = enum.auto()
    """What is stored survives the end of the processes that use the broker."""
    ACKNOWLEDGED = enum.auto()
    """A message stays until it is settled: at least once. Without it: at most once, and nothing below but GROUPS.

    Without it, ``validate`` refuses all that is not `at_most_once`; so it does without DEAD_LETTERS.
    """
    GROUPS = enum.auto()
    """The workers of one subscription share its messages."""
    DELAY = enum.auto()
    """`RetryAfter` waits for its delay. Without it, ``validate`` refuses a `max_delay`, unless at most once."""
    DEAD_LETTERS = enum.auto()
    """`Park` keeps a message, to be listed, replayed and purged."""
    ORDERED = enum.auto()
    """Order by key, across workers. Without it, ``validate`` refuses what is `ordered`."""
    DEDUPLICATES = enum.auto()
    """A message whose id was published to the topic not long ago is dropped."""
    BOUNDED = enum.auto()
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
    """Whether messages of one key are handed out in order, one at a time."""
    at_most_once: bool = False
    """Whether the handler accepts that messages get lost."""
    max_delay: float = 0.0
    """The longest delay of a retry, in seconds."""
    max_deliveries: int = 5
    """Beyond so many deliveries without an outcome the engine parks a message."""


class Delivery:
    """One message as it is handed out, not yet understood by anybody."""

    __slots__ = ("body", "damage", "deliveries", "failures", "headers", "receipt", "topic")

    def __init__(
        self,
        topic: str,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        failures: int = 0,
        deliveries: int = 1,
        damage: str | None = None,
        receipt: Any = None,
    ) -> None:
        self.topic = topic
        self.body = body
        """The data in binary mode, the whole event in structured mode; see `diator.brokers.envelope`."""
        self.headers: Mapping[str, str] = headers or {}
        """The broker's own headers; in binary mode the attributes, by their plain names."""
        self.failures = failures
        """How many failures were recorded for it in this subscription (`RetryAfter`)."""
        self.deliveries = deliveries
        """How often it was handed out, this time included; what was given back does not count."""
        self.damage = damage
        """What the broker could not make sense of; the engine parks it with this reason."""
        self.receipt = receipt
        """What the broker knows it by. ``Any``: it is the broker's own."""

    def __repr__(self) -> str:
        return f"<Delivery from {self.topic}, {self.failures} failures, {self.deliveries} deliveries>"


@dataclass(frozen=True, slots=True)
class Ack:
    """It is done."""


@dataclass(frozen=True, slots=True)
class Release:
    """Give it back, as if it had not been handed out."""


class RetryAfter(NamedTuple):
    """It failed; deliver it again after ``delay`` seconds."""

    delay: float


class Park(NamedTuple):
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
Outcome = Ack | Release | RetryAfter | Park
Settlement = tuple[Delivery, Outcome]


class DeadLetter(NamedTuple):
    """A message that could not be handled, with everything that is known of it."""

    id: str
    """Identifies the dead letter within its subscription."""
    subscription: str
    topic: str
    why: Park
    parked_at: datetime
    """With a time zone."""
    deliveries: int
    headers: Mapping[str, str]
    body: bytes
    """Headers and body as they were delivered."""


class Status(NamedTuple):
    """How a subscription stands at the broker."""

    name: str
    exists: bool
    waiting: int | None = None
    """Messages not yet settled, if the broker can tell."""
    dead_letters: int | None = None
    missing: tuple[str, ...] = ()
    """What ``apply`` would create, by the broker's own names."""


class Refusal(NamedTuple):
    """What a broker can't keep."""

    text: str
    remedy: str
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
        """Give back what was not settled, and end. Idempotent; never raises for a broker that is away."""
        ...


@runtime_checkable
class Broker(Protocol):
    """A plugin: one way to reach one broker. The module's docstring is its contract."""

    @property
    def capabilities(self) -> Capability:
        """What this broker can do. Fixed for its life."""
        ...

    @property
    def lease(self) -> float | None:
        """For how many seconds a delivery is its receiver's own. The engine renews at a third of it."""
        ...

    @property
    def max_message_bytes(self) -> int | None:
        """The size that a message (`Outgoing.structured`) may have, where there is a limit; checked before commits."""
        ...

    def validate(self, subscriptions: Sequence[Subscription], topics: Sequence[Topic], /) -> Iterable[Refusal]:
        """Find what of these subscriptions, and of the topics that are published to, can't be kept."""
        ...

    async def connect(self) -> None:
        """Open. Raises `~diator.BrokerUnavailableError`, and `~diator.BrokerError` for what is refused for good."""
        ...

    async def aclose(self) -> None:
        """Close everything that ``connect`` and ``subscribe`` have opened. Idempotent."""
        ...

    async def publish(self, messages: Sequence[Outgoing], /, *, timeout: float, wait_for_room: bool = True) -> None:
        """Store messages. Raises `~diator.NotPublishedError`, from the `~diator.BrokerError` that stood in the way."""
        ...

    async def apply(self, subscriptions: Sequence[Subscription], topics: Sequence[Topic] = (), /) -> Sequence[str]:
        """Create what is missing, and name what was created. Raises `~diator.BrokerError`."""
        ...

    async def status(self, subscriptions: Sequence[Subscription], /) -> Sequence[Status]:
        """Tell how subscriptions stand, without changing anything. Raises `~diator.BrokerError`."""
        ...

    async def subscribe(self, subscription: Subscription, /) -> Receiver:
        """Open a receiver; ``apply`` has been called before. Raises `~diator.BrokerError`."""
        ...

    def dead_letters(self, subscription: Subscription, /) -> AsyncIterator[DeadLetter]:
        """Read the dead letters of a subscription, oldest first. Raises `~diator.BrokerError`."""
        ...

    async def replay(self, subscription: Subscription, letter: DeadLetter, /) -> bool:
        """Have one delivered again, to its subscription only; false where it is gone. Raises `~diator.BrokerError`."""
        ...

    async def purge(self, subscription: Subscription, letter: DeadLetter, /) -> bool:
        """Delete one for good; false where it is gone. Raises `~diator.BrokerError`."""
        ...


@runtime_checkable
class FindsUnsubscribed(Protocol):
    """Optional: a broker that can report topics without a subscription. Diator warns once for each topic."""

    async def unsubscribed(self, topics: Collection[str], /) -> Collection[str]:
        """Return the topics among these that certainly have no subscription now. Raises `~diator.BrokerError`."""
        ...
