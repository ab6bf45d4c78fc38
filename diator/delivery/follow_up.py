"""Follow-ups: the brokered events that a handler of a brokered event publishes. They leave before the ack."""

from collections import Counter
from collections.abc import Sequence
from typing import Protocol
from uuid import NAMESPACE_OID, uuid5

from diator.brokers.envelope import Outgoing
from diator.context import Context, current
from diator.delivery.outage import Backoff, Outage
from diator.delivery.publisher import Publisher
from diator.errors import BrokerUnavailableError, NotPublishedError, PublishError
from diator.messages import Event


class SendingEndedError(Exception):
    """The lease was lost while follow-ups could not be sent: the message is handled anew by whoever has it now."""


class Guard(Protocol):
    """What a consumer knows of the message that is being handled."""

    def holds(self, context: Context, /) -> bool:
        """Whether it is still its own."""
        ...

    def spare(self, context: Context, /) -> None:
        """Let it take as long as it needs."""
        ...


class FollowUps:
    """The ``Sending`` of one subscription (see `diator.engine.events`).

    Ids derive from what was delivered, so that those of a second run are the same, and duplicate detection can tell. A
    broker that is away is an outage, not a failure of the handler: only the sending is tried again.
    """

    def __init__(self, publisher: Publisher, subscription: str, outage: Outage) -> None:
        self._publisher = publisher
        self._subscription = subscription
        self._outage = outage
        self.guard: Guard | None = None
        """The consumer, once there is one."""

    def admit(self, cls: type[Event]) -> None:
        """Get ready for a class of events."""
        self._publisher.admit(cls)

    def encode(self, events: Sequence[Event], published: bool) -> list[Outgoing]:  # noqa: ARG002 - the protocol's
        """Make messages of events."""
        context = current.get()
        assert context is not None, "a consumer sets a context"
        numbers: Counter[type[Event]] = Counter()
        messages: list[Outgoing] = []
        for event in events:
            numbers[type(event)] += 1
            event_id = self._id_of(context, type(event), numbers[type(event)])
            cause, correlation, headers = context.message_id, context.correlation_id, context.headers
            messages.append(self._publisher.seal(event, event_id, cause, correlation, headers))
        return messages

    def _id_of(self, context: Context, cls: type[Event], number: int) -> str:
        name = self._publisher.wire_name(cls)
        return str(uuid5(NAMESPACE_OID, f"{context.message_id}\n{self._subscription}\n{name}\n{number}"))

    async def send(self, messages: Sequence[Outgoing], events: Sequence[Event]) -> None:
        """Hand messages to the broker, for as long as it takes.

        Raises `PublishError` where the broker refuses them for good, `SendingEndedError` where the lease is lost.
        """
        context = current.get()
        if context is not None and self.guard is not None:
            self.guard.spare(context)
        backoff = Backoff()
        left, of = list(messages), dict(zip((message.id for message in messages), events, strict=True))
        while True:
            try:
                await self._publisher.send(left, [of[message.id] for message in left])
            except PublishError as error:
                left = self._left(error, left)
                if not left:
                    return
                await backoff.wait()
            else:
                self._outage.up("publish", self._subscription)
                return

    def _left(self, error: PublishError, left: list[Outgoing]) -> list[Outgoing]:
        """What is to be sent again; raises where that is of no use."""
        failed = error.__cause__
        assert isinstance(failed, NotPublishedError)
        context = current.get()
        if context is None or self.guard is None or not isinstance(failed.__cause__, BrokerUnavailableError):
            raise error
        if not self.guard.holds(context):
            raise SendingEndedError from error
        self._outage.down("publish", self._subscription, failed.__cause__)
        again = {message.id for message in (*failed.unsent, *failed.unknown)}
        return [message for message in left if message.id in again]
