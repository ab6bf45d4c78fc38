"""A broker with faults: the port around another broker."""

from collections.abc import Collection, Iterable, Sequence

from diator.brokers.envelope import OutgoingMessage
from diator.brokers.port import (
    Broker,
    BrokerCapability,
    DeadLetter,
    FindsUnsubscribed,
    KeepsDeadLetters,
    Receiver,
    Subscription,
    SubscriptionStatus,
    Topic,
    Validates,
    ValidationIssue,
)
from diator.delivery.connection import connection_of
from diator.errors import BrokerUnavailableError, NotPublishedError
from diator.testing.activity import ActivityTracker
from diator.testing.faults import Injection
from diator.testing.faulty_receiver import FaultyReceiver
from diator.testing.late_deliveries import LateDeliveries, away

_OPEN_TIMEOUT = 3600.0
"""Seconds; the session has a limit of its own."""


class FaultyBroker:
    """Any broker, with the faults of an injection."""

    def __init__(self, inner: Broker, injection: Injection, activity: ActivityTracker) -> None:
        self._inner = inner
        self._connection = connection_of(inner)  # the app may run over it too
        self._is_open = False
        self._injection = injection
        self._late = LateDeliveries(injection, activity)

    @property
    def capabilities(self) -> BrokerCapability:
        """Those of the inner broker, as all that follows."""
        return self._inner.capabilities

    @property
    def system(self) -> str:
        """The broker's name in telemetry."""
        return self._inner.system

    @property
    def address(self) -> str | None:
        """The server's address in telemetry."""
        return self._inner.address

    @property
    def lease(self) -> float | None:
        """For how many seconds a delivery is its receiver's own."""
        return self._inner.lease

    @property
    def max_message_bytes(self) -> int | None:
        """The limit of a message's size."""
        return self._inner.max_message_bytes

    async def connect(self) -> None:
        """Open."""
        if not self._is_open:
            try:
                await self._connection.open(_OPEN_TIMEOUT)
            except BrokerUnavailableError:
                self._is_open = True  # it counts as a user
                raise
            self._is_open = True

    async def aclose(self) -> None:
        """Close the receivers, and the inner broker if the app does not use it."""
        for receiver in tuple(self._late.receivers):
            await receiver.aclose()
        if self._is_open:
            self._is_open = False
            await self._connection.close()

    async def publish(
        self, messages: Sequence[OutgoingMessage], /, *, timeout: float, wait_for_room: bool = True
    ) -> None:
        """Store messages, unless the broker is unavailable."""
        self._late.published(messages)
        outages = [fault for message in messages if (fault := self._injection.fault("outage", message.id)) is not None]
        if outages:  # one for all of them: the wait for the end of another grows each time
            for outage in outages:
                self._late.happened(outage)
            for receiver in self._late.receivers:
                receiver.take_away(outages[0])
            raise NotPublishedError(messages) from away(outages[0].line)
        await self._inner.publish(messages, timeout=timeout, wait_for_room=wait_for_room)

    async def apply(self, subscriptions: Sequence[Subscription], topics: Sequence[Topic] = (), /) -> Sequence[str]:
        """Create what is missing."""
        return await self._inner.apply(subscriptions, topics)

    async def status(self, subscriptions: Sequence[Subscription], /) -> Sequence[SubscriptionStatus]:
        """Tell how subscriptions stand."""
        return await self._inner.status(subscriptions)

    async def subscribe(self, subscription: Subscription, /) -> Receiver:
        """Open a receiver with faults."""
        acknowledged = BrokerCapability.ACKNOWLEDGED in self.capabilities
        inner = await self._inner.subscribe(subscription)
        return FaultyReceiver(inner, subscription, self._injection, self._late, acknowledged=acknowledged)

    # What is optional: the app asks only for what the capabilities have, or is told nothing.

    async def dead_letters(
        self, subscription: Subscription, /, *, after: str | None = None, limit: int = 100
    ) -> Sequence[DeadLetter]:
        """Return a page of dead letters."""
        assert isinstance(self._inner, KeepsDeadLetters)
        return await self._inner.dead_letters(subscription, after=after, limit=limit)

    async def replay(self, subscription: Subscription, ids: Collection[str], /) -> Collection[str]:
        """Deliver dead letters again."""
        assert isinstance(self._inner, KeepsDeadLetters)
        return await self._inner.replay(subscription, ids)

    async def purge(self, subscription: Subscription, ids: Collection[str], /) -> Collection[str]:
        """Delete dead letters."""
        assert isinstance(self._inner, KeepsDeadLetters)
        return await self._inner.purge(subscription, ids)

    def validate(self, subscriptions: Sequence[Subscription], topics: Sequence[Topic], /) -> Iterable[ValidationIssue]:
        """Find what breaks a rule of the inner broker."""
        return self._inner.validate(subscriptions, topics) if isinstance(self._inner, Validates) else ()

    async def unsubscribed(self, topics: Collection[str], /) -> Collection[str]:
        """Return the topics that certainly have no subscription."""
        return await self._inner.unsubscribed(topics) if isinstance(self._inner, FindsUnsubscribed) else ()
