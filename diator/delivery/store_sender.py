"""The sender of an app with a store: what a unit of work publishes becomes rows of its own transaction.

A relay publishes the rows after the commit, so a broker that is unavailable fails no unit. In a worker the inbox comes
first: a row says that this subscription has handled the message, and commits with what the handler has done.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

from diator._keys import Key
from diator.brokers.envelope import OutgoingMessage
from diator.delivery.catalog import ConsumerConfig
from diator.delivery.error_texts import described
from diator.delivery.follow_up import FollowUpSender, ReleasedError
from diator.delivery.publisher import Publisher
from diator.delivery.relay_failures import Trouble
from diator.delivery.work_queue import current_job
from diator.engine.outbound import SendingUnit
from diator.engine.unit import Delay
from diator.errors import ConfigurationError, NotCommittedError, Problem, StoreError, StoreUnavailableError
from diator.messages import Event
from diator.options import ID, require
from diator.stores.port import Transaction

if TYPE_CHECKING:
    from diator.delivery.outbox import Outbox


_PAUSE = 0.5
"""Seconds before a message is released whose handling could not be recorded."""


class StoreSender:
    """Writes to the outbox what another sender collects and seals: an `diator.engine.outbound.EventPublisher`.

    ``sealing`` is the publisher of the app or, in a worker, what derives the ids of follow-ups for ``config``.
    """

    def __init__(
        self, outbox: "Outbox", sealing: Publisher | FollowUpSender, config: ConsumerConfig | None = None
    ) -> None:
        self._outbox = outbox
        self._sealing = sealing
        self._inbox = config.name if config is not None and config.once else None
        """The subscription whose messages the inbox knows, if it has one."""
        self._trouble = Trouble(f"the inbox of {self._inbox} can't be used", "its messages wait", StoreUnavailableError)
        self.keys: Collection[Key] = (outbox.session,)
        self.sees_deliveries = self._inbox is not None

    def prepare(self, cls: type[Event]) -> None:
        """Get ready for a class of events."""
        self._sealing.prepare(cls)

    def collect(self, unit: SendingUnit, event: Event, after: Delay | None, headers: Mapping[str, str] | None) -> None:
        """Append an event that a handler published. Raises as `Publisher.collect` does."""
        self._sealing.collect(unit, event, after, headers)

    def collect_published(self, unit: SendingUnit, events: Sequence[Event], after: Delay | None) -> None:
        """Append the events of one ``app.publish``."""
        assert isinstance(self._sealing, Publisher), "workers publish nothing directly"
        self._sealing.collect_published(unit, events, after)

    async def begin(self, _message: object, unit: SendingUnit) -> bool:
        """Take part in the transaction, and have the inbox recognize a message that was handled before.

        Raises `ReleasedError` if the inbox can't be used now: the message is delivered again, and nothing is counted.
        """
        try:
            transaction = await self._join(unit)
        except Exception as error:  # a provider may connect at once
            if self._inbox is None or not self._outbox.store.is_temporary(error):
                raise
            await self._release(StoreUnavailableError(f"its session can't be opened: {described(error)}"), error)
        if self._inbox is None or await self._record(transaction, self._inbox, _identity()):
            return True
        transaction.complete()
        unit.transaction = None  # nothing was recorded, so nothing has to be committed
        current_job.get().is_repeated = True
        return False

    async def _record(self, transaction: Transaction, subscription: str, message_id: str) -> bool:
        try:
            is_new = await transaction.record_handled(subscription, message_id)
        except StoreUnavailableError as error:
            await self._release(error, error)
        self._trouble.end()
        return is_new

    async def _release(self, trouble: StoreUnavailableError, cause: Exception) -> NoReturn:
        self._trouble.begin(trouble)
        await asyncio.sleep(_PAUSE)  # it is delivered again at once
        raise ReleasedError from cause

    async def _join(self, unit: SendingUnit) -> Transaction:
        key = self._outbox.session
        session = await unit.resolve(key)
        if not self._outbox.is_verified:
            if await unit.resolve(key) is not session:
                raise ConfigurationError([_changing_session(key)])
            self._outbox.is_verified = True
        transaction = unit.transaction = self._outbox.store.join(session, own=key not in unit.provided)
        return transaction

    async def hand_over(self, unit: SendingUnit) -> None:
        """Write what is outbound, and allow the commit.

        Raises what the database and its driver raise, and what `Publisher.hand_over` does.
        """
        await self._sealing.hand_over(unit)
        transaction = unit.transaction
        if transaction is None:  # of `app.publish` alone
            if self._outbox.session not in unit.provided:
                return
            transaction = await self._join(unit)
        elif self._inbox is not None and transaction.rolled_back:
            await self._record_again(transaction, self._inbox, _identity())
        if unit.outbound or self._outbox.store.is_blocking:
            await transaction.write([one.message for one in unit.outbound])
        transaction.complete()

    async def _record_again(self, transaction: Transaction, subscription: str, message_id: str) -> None:
        """Record what a rollback in the handler has undone with everything before it."""
        if not await transaction.record_handled(subscription, message_id):
            text = (
                f"{subscription} has handled message {message_id} in another worker, after the handler here rolled back"
            )
            raise StoreError(f"{text} its transaction and continued; its changes are rolled back")

    async def send(self, unit: SendingUnit) -> None:
        """Report what is stored, and wake the relay.

        Raises `NotCommittedError` for rows in a session of the unit's own that was not committed.
        """
        messages: list[OutgoingMessage] = [one.message for one in unit.outbound]
        if unit.transaction is None:
            if messages:
                await self._outbox.write(messages, unit.context)
        elif unit.transaction.committed:
            self._outbox.written(messages, unit.context)
        elif self._outbox.session not in unit.provided and (messages or self._inbox is not None):
            raise NotCommittedError(_not_committed(self._outbox.session, unit))

    async def cancel(self, unit: SendingUnit, message_id: str) -> bool:
        """Cancel a delayed event in the transaction of the unit; return whether it was in time."""
        require("publish.cancel", {"message_id": ID}, {"message_id": message_id})
        for outbound in unit.outbound:
            if outbound.id == message_id:
                unit.outbound.remove(outbound)
                return True
        assert unit.transaction is not None, "the unit has begun"
        return await unit.transaction.cancel(message_id)


def _identity() -> str:
    """What tells the message that is being handled from all others.

    Ids that Diator makes are unique; those of other programs are so together with their source, see
    https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md#id.
    """
    envelope = current_job.get().envelope
    assert envelope is not None, "a message that is handled has been read"
    return f"{envelope.id} {envelope.source}" if envelope.diatorkind is None else envelope.id


def _changing_session(key: Key) -> Problem:
    text = f"the container returned two objects for {key} in one scope, so handlers and the store would use two"
    return Problem("store-session", text, f"register {key} as scoped")


def _not_committed(session: Key, unit: SendingUnit) -> str:
    count, subscription = len(unit.outbound), unit.context.subscription
    lost = f"its data and {count} event{'s' if count > 1 else ''} are lost" if count else "its data is lost"
    where = "" if subscription is None else f" of {subscription}"
    text = f"the unit of work{where} ended without an error, but its {session} was not committed: {lost}"
    return f"{text}; commit in the provider of the session, or in a middleware with inside=True"
