"""Follow-ups: the brokered events that a handler of a brokered event publishes. They leave before the ack."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from uuid import NAMESPACE_OID, uuid5

from diator._keys import Key
from diator.context import Context
from diator.delivery.outage import Backoff, OutageTracker
from diator.delivery.publisher import Publisher
from diator.delivery.work_queue import NEVER, current_job
from diator.engine.outbound import Outbound, SendingUnit
from diator.engine.unit import Delay
from diator.errors import BrokerUnavailableError, NotPublishedError, PublishError
from diator.messages import Event


class ReleasedError(Exception):
    """The message is to be released: its handler is not known to have failed, so that counts nothing."""


class FollowUpSender:
    """The `diator.engine.outbound.EventSender` of one subscription.

    Ids derive from what was delivered, so that those of a second run are the same, and duplicate detection can tell. A
    unavailable broker is an outage, not a failure of the handler: only sending is retried.
    """

    keys: Collection[Key] = ()
    begin = None
    sees_deliveries = False

    def __init__(self, publisher: Publisher, subscription: str, outage: OutageTracker) -> None:
        self._publisher = publisher
        self._subscription = subscription
        self._outage = outage
        self.cancel = publisher.cancel

    def prepare(self, cls: type[Event]) -> None:
        """Get ready for a class of events."""
        self._publisher.prepare(cls)

    def collect(self, unit: SendingUnit, event: Event, after: Delay | None, headers: Mapping[str, str] | None) -> None:
        """Append an event that the handler published. Raises as `Publisher.collect` does."""
        cls = type(event)
        before = next((one.number for one in reversed(unit.outbound) if type(one.event) is cls), 0)
        outbound = self._publisher.outbound(event, self._id_of(unit.context, cls, before + 1), after, headers)
        outbound.number = before + 1
        unit.outbound.append(outbound)

    async def hand_over(self, unit: SendingUnit) -> None:
        """Seal what is outbound."""
        await self._publisher.hand_over(unit)

    def _id_of(self, context: Context, cls: type[Event], number: int) -> str:
        name = self._publisher.wire_name(cls)
        return str(uuid5(NAMESPACE_OID, f"{context.message_id}\n{self._subscription}\n{name}\n{number}"))

    async def send(self, unit: SendingUnit) -> None:
        """Hand what is outbound to the broker, for as long as it takes.

        Raises `PublishError` if the broker rejects it permanently, `ReleasedError` if the lease is lost.
        """
        current_job.get().deadline = NEVER  # the handler has succeeded
        backoff = Backoff()
        left: Sequence[Outbound] = unit.outbound
        while True:
            try:
                await self._publisher.publish(left, wait_for_room=False)
            except PublishError as error:
                left = self._left(error, left)
                if not left:
                    return
                await backoff.wait()
            else:
                self._outage.record_success("publish", self._subscription)
                return

    def _left(self, error: PublishError, left: Sequence[Outbound]) -> list[Outbound]:
        """What is to be sent again; raises where that is of no use."""
        failed = error.__cause__
        assert isinstance(failed, NotPublishedError)
        if not isinstance(failed.__cause__, BrokerUnavailableError):
            raise error
        job = current_job.get()
        if job.lost or job.lease_ends <= asyncio.get_running_loop().time():
            raise ReleasedError from error  # the worker that holds it now handles the message again
        self._outage.record_failure("publish", self._subscription, failed.__cause__)
        again = {message.id for message in (*failed.unsent, *failed.unknown)}
        return [one for one in left if one.id in again]
