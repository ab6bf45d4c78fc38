"""The broker. See `NatsBroker`."""

import asyncio
import time
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timezone
from functools import partial

from diator.brokers.address import Parse, a_number, a_whole_number
from diator.brokers.envelope import OutgoingMessage
from diator.brokers.port import (
    BrokerCapability,
    DeadLetter,
    Subscription,
    SubscriptionStatus,
    Topic,
    ValidationIssue,
)
from diator.errors import BrokerError, NotPublishedError
from diator.options import COUNT, POSITIVE, SECONDS, Rule, is_a, optional, require
from diator_nats._access import MAX_MESSAGE_BYTES, NOT_CONNECTED, Access
from diator_nats._connection import Record
from diator_nats._dead_letters import DeadLetters
from diator_nats._errors import FAILURES, InDoubtError, translate
from diator_nats._names import MAX_NAME, Names, encode, lane_of
from diator_nats._receiver import NatsReceiver
from diator_nats._scheduling import DUE, Mover
from diator_nats._settings import EXAMPLE, options_of, servers_of, split
from diator_nats._subscriptions import Subscriptions


def _is_prefix(value: object) -> bool:
    return isinstance(value, str) and value != "" and encode(value) == value


_PREFIX = Rule(_is_prefix, "letters, digits, - and _")
_FILE = optional(Rule(is_a(str), "the path of a file"))
_OPTIONS: dict[str, tuple[Parse, Rule]] = {
    "prefix": (str, _PREFIX),
    "lease": (a_number, POSITIVE),
    "timeout": (a_number, POSITIVE),
    "duplicate_window": (a_number, SECONDS),
    "replicas": (a_whole_number, COUNT),
    "tls_ca": (str, _FILE),
    "credentials": (str, _FILE),
}
SETTINGS: dict[str, Parse] = {name: parse for name, (parse, _) in _OPTIONS.items()}
"""The settings that an address may contain, and how each is parsed."""

_ALWAYS = (
    BrokerCapability.DURABLE
    | BrokerCapability.ACKNOWLEDGED
    | BrokerCapability.CONSUMER_GROUPS
    | BrokerCapability.DELAYED_RETRY
    | BrokerCapability.DEAD_LETTERS
    | BrokerCapability.ORDER_BY_KEY
    | BrokerCapability.SCHEDULES
)


class NatsBroker:
    """Events in streams of NATS JetStream: durable, acknowledged, ordered by key.

    Args:
        url: The address of a server, or of several with commas between them: ``nats://user:password@host:4222``, with
            a token instead of both ``nats://token@host``, with TLS ``tls://host``.
        prefix: The prefix of the names of streams and subjects.
        lease: Seconds until a delivery expires unless its receiver renews it.
        timeout: Seconds to wait for an answer before the server counts as unavailable.
        duplicate_window: Seconds for which an event that is published again is dropped; 0 for never.
        replicas: The number of servers in a cluster that store each message.
        tls_ca: A file with the certificates of trusted authorities, instead of the system's.
        credentials: A file with a user's JWT and seed.
    """

    system = "nats"
    max_message_bytes = MAX_MESSAGE_BYTES

    def __init__(
        self,
        url: str = EXAMPLE,
        *,
        prefix: str = "diator",
        lease: float = 30.0,
        timeout: float = 5.0,
        duplicate_window: float = 0.0,
        replicas: int = 1,
        tls_ca: str | None = None,
        credentials: str | None = None,
    ) -> None:
        given = {"prefix": prefix, "lease": lease, "timeout": timeout, "duplicate_window": duplicate_window}
        given |= {"replicas": replicas, "tls_ca": tls_ca, "credentials": credentials}
        require("NatsBroker", {name: rule for name, (_, rule) in _OPTIONS.items()}, given, "broker")
        self._server, self._files = servers_of(url), (tls_ca, credentials)
        self._names, self._settings = Names(prefix), (timeout, duplicate_window, replicas)
        self.lease = lease
        """Seconds for which a delivery belongs to its receiver."""
        detects = BrokerCapability.DUPLICATE_DETECTION if duplicate_window else BrokerCapability(0)
        self.capabilities = _ALWAYS | detects
        self._detects = bool(duplicate_window)
        self._access: Access | None = None
        self._mover: Mover | None = None
        self._receivers: set[NatsReceiver] = set()

    @classmethod
    def from_url(cls, url: str) -> "NatsBroker":
        """Make a broker from an address whose query may have the settings: ``nats://host:4222?lease=60``."""
        bare, settings = split(url, SETTINGS)
        return cls(bare, **settings)

    def __repr__(self) -> str:
        return f"<NatsBroker {self.address}, prefix {self._names.prefix!r}>"

    @property
    def address(self) -> str:
        """The first server's address in telemetry."""
        return self._server.hosts[0]

    def validate(self, subscriptions: Sequence[Subscription], topics: Sequence[Topic], /) -> Iterable[ValidationIssue]:
        """Return names that are too long."""
        for topic in {topic.name: topic for some in (topics, *(one.topics for one in subscriptions)) for topic in some}:
            if len(encode(topic)) > MAX_NAME:
                yield ValidationIssue(f"topic {topic!r} {_TOO_LONG}", 'choose a shorter one: @contract(topic="...")')
        for one in subscriptions:
            if len(encode(one.name)) > MAX_NAME:
                text = f"subscription {one.name!r} {_TOO_LONG}"
                yield ValidationIssue(text, 'choose a shorter one: @app.on_event(subscription="...")', one.name)

    # Life.

    async def connect(self) -> None:
        """Open, and ensure that the server answers. Raises `~diator.BrokerError`."""
        if self._access is None:
            self._access = Access(self._names, partial(options_of, self._server, *self._files), *self._settings)
            self._subscriptions = Subscriptions(self._access, self.lease)
        await self._access.connection()

    async def aclose(self) -> None:
        """Close everything that was opened."""
        if self._access is None:
            return
        await asyncio.gather(*(receiver.aclose() for receiver in list(self._receivers)))
        access, self._access = self._access, None
        mover, self._mover = self._mover, None
        if mover is not None:
            await mover.aclose()
        await access.close()

    def _opened(self) -> Access:
        if self._access is None:
            raise BrokerError(NOT_CONNECTED)
        return self._access

    # Publishing.

    async def publish(
        self,
        messages: Sequence[OutgoingMessage],
        /,
        *,
        timeout: float,
        wait_for_room: bool = True,  # noqa: ARG002 - there is no room to wait for
    ) -> None:
        """Store messages. Raises `~diator.NotPublishedError`."""
        try:
            connection = self._opened().opened
            if connection is None:  # seldom: a wait with a limit takes a task
                began = time.monotonic()
                connection = await asyncio.wait_for(self._opened().connection(), timeout)
                timeout -= time.monotonic() - began
        except (BrokerError, *FAILURES) as error:
            raise NotPublishedError(messages) from translate(error)
        outcomes = await connection.put(map(self._record, messages), timeout)
        failed = [(one, why) for one, why in zip(messages, outcomes, strict=True) if not isinstance(why, int)]
        if failed:
            unknown = [one for one, why in failed if isinstance(why, InDoubtError)]
            unsent = [one for one, why in failed if not isinstance(why, InDoubtError)]
            raise NotPublishedError(unsent, unknown) from failed[0][1]

    def _record(self, message: OutgoingMessage) -> Record:
        lane, headers = lane_of(message.key), dict[str, str]()
        if self._detects:
            headers["Nats-Msg-Id"] = f"{encode(message.topic)} {encode(message.id)}"
        if message.due is not None and message.due > datetime.now(timezone.utc):
            headers[DUE] = repr(message.due.timestamp())
            return self._names.later(message.topic, lane), message.structured, headers
        return self._names.event(message.topic, lane), message.structured, headers or None

    # Subscriptions.

    async def apply(self, subscriptions: Sequence[Subscription], topics: Sequence[Topic] = (), /) -> Sequence[str]:  # noqa: ARG002 - as the port wants it
        """Create what is missing, and return the names of what was created. Raises `~diator.BrokerError`."""
        self._opened()
        return [name for one in subscriptions for name in await self._subscriptions.create(one)]

    async def status(self, subscriptions: Sequence[Subscription], /) -> Sequence[SubscriptionStatus]:
        """Return the status of subscriptions. Raises `~diator.BrokerError`."""
        self._opened()
        return [await self._subscriptions.status(one) for one in subscriptions]

    async def unsubscribed(self, topics: Collection[str], /) -> Collection[str]:
        """Return the topics among these without a subscription. Raises `~diator.BrokerError`."""
        self._opened()
        return await self._subscriptions.unsubscribed(topics)

    async def other_subscriptions(self, used: Sequence[Subscription], /) -> Sequence[SubscriptionStatus]:
        """Return the status of every subscription under the prefix except these. Raises `~diator.BrokerError`."""
        self._opened()
        return await self._subscriptions.others(used)

    async def remove_subscription(self, name: str, /) -> bool:
        """Delete a subscription with its messages and dead letters; return false if it does not exist.

        Raises `~diator.BrokerError`.
        """
        self._opened()
        return await self._subscriptions.remove(name)

    async def subscribe(self, subscription: Subscription, /) -> NatsReceiver:
        """Open a receiver. Raises `~diator.BrokerError`."""
        access = self._opened()
        await self._subscriptions.check(subscription, must_exist=True)
        self._mover = self._mover or Mover(access)
        receiver = NatsReceiver(access, self._subscriptions, subscription, self.lease, self._receivers.discard)
        self._receivers.add(receiver)
        return receiver

    # Dead letters.

    async def dead_letters(
        self, subscription: Subscription, /, *, after: str | None = None, limit: int = 100
    ) -> Sequence[DeadLetter]:
        """Return a page of the dead letters of a subscription, oldest first. Raises `~diator.BrokerError`."""
        return await DeadLetters(self._opened(), subscription).page(after, limit)

    async def replay(self, subscription: Subscription, ids: Collection[str], /) -> Collection[str]:
        """Deliver dead letters again; return the ids of those that still existed. Raises `~diator.BrokerError`."""
        return await DeadLetters(self._opened(), subscription).replay(ids)

    async def purge(self, subscription: Subscription, ids: Collection[str], /) -> Collection[str]:
        """Delete dead letters; return the ids of those that still existed. Raises `~diator.BrokerError`."""
        return await DeadLetters(self._opened(), subscription).purge(ids)


_TOO_LONG = f"has more than {MAX_NAME} characters as NATS takes them"
