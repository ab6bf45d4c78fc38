"""What a relay does with the rows that it has read: they are published and deleted, become dead letters, or wait."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, TypeVar

from diator._hooks import HookDispatcher
from diator.brokers.envelope import OutgoingMessage
from diator.delivery.error_texts import described
from diator.delivery.outage import UNEXPECTED_CANCEL
from diator.delivery.relay_failures import FailingKeys
from diator.errors import NotPublishedError, StoreUnavailableError, UnreadableMessageError
from diator.hooks import Relayed
from diator.stores.port import Store, StoredMessage

T = TypeVar("T")

logger = logging.getLogger("diator")

Publish = Callable[[Sequence[OutgoingMessage], float], Awaitable[None]]
"""Publishes messages within this many seconds. Raises `NotPublishedError`."""
Held = Mapping[int, int]
"""The tokens of the partitions that a relay holds."""


class RowPublisher:
    """Publishes the rows that one relay reads. What it does in the store, it does with the tokens that it is given."""

    def __init__(self, store: Store, publish: Publish, hooks: HookDispatcher, timeout: float) -> None:
        self._store = store
        self._publish = publish
        self._hooks = hooks
        self._timeout = timeout
        self.failing = FailingKeys()
        self._published: list[StoredMessage] = []
        """What was published, and could not be deleted yet."""

    async def pass_on(self, held: Held, rows: Sequence[StoredMessage]) -> bool:
        """Publish rows, and delete those that were published. Return whether that was all of them.

        Raises `StoreError`; what was published is deleted later, then.
        """
        readable = [(row, message) for row in rows if (message := await self._readable(held, row)) is not None]
        failed, rejected, error = await self._attempt([message for _, message in readable])
        published = [row for row, message in readable if message.id not in failed and message.id not in rejected]
        self._published += published
        self._report(published)
        if error is not None:
            self.failing.add([row for row, message in readable if message.id in failed], published, error)
            for row, message in readable:
                if message.id in rejected:
                    await self._reject(held, row, described(error.__cause__ or error))
        await self.delete(held)
        return error is None

    async def _attempt(
        self, messages: Sequence[OutgoingMessage]
    ) -> tuple[Collection[str], Collection[str], NotPublishedError | None]:
        """Publish, and return the ids of what was not published, and of what never will be."""
        try:
            if messages:
                await self._publish(messages, self._timeout)
        except NotPublishedError as error:
            failed = {message.id for message in (*error.unsent, *error.unknown)}
            return failed, {message.id for message in error.rejected}, error
        return (), (), None

    async def delete(self, held: Held) -> None:
        """Delete what was published. Raises `StoreError`."""
        if self._published:
            await answer_of(self._store.delete(held, self._published))
            self._published.clear()

    def forget(self, held: Held, before: Held) -> None:
        """Forget rows of partitions that have changed hands: their new holders publish them again."""
        self._published = [
            row for row in self._published if held.get(row.partition, -1) == before.get(row.partition, -2)
        ]

    async def _readable(self, held: Held, row: StoredMessage) -> OutgoingMessage | None:
        try:
            return OutgoingMessage.from_bytes(row.topic, row.body)
        except UnreadableMessageError as error:
            await self._reject(held, row, described(error))
            return None

    async def _reject(self, held: Held, row: StoredMessage, error: str) -> None:
        logger.error(
            "Moving message %s for %s to the dead letters of the outbox (%s); see: diator outbox dead-letters",
            *(row.id, row.topic, error),
            extra={"diator_message_id": row.id, "diator_topic": row.topic},
        )
        await answer_of(self._store.reject(held, row, error))

    def _report(self, published: Sequence[StoredMessage]) -> None:
        if published and self._hooks.has_listener("relayed"):
            age = datetime.now(timezone.utc) - min(row.written_at for row in published)
            self._hooks.emit("relayed", Relayed(published, max(0.0, age.total_seconds())))


STORE_TIMEOUT = 5.0
"""Seconds that one call of the store may take."""


async def answer_of(work: Coroutine[Any, Any, T]) -> T:
    """Await the answer of a store, which may hang, and whose driver may raise a cancel of its own."""
    call = asyncio.ensure_future(work)
    try:
        await asyncio.wait([call], timeout=STORE_TIMEOUT)
        if not call.done():
            raise StoreUnavailableError(f"no answer within {STORE_TIMEOUT:g} s")
        if call.cancelled():
            raise StoreUnavailableError(UNEXPECTED_CANCEL)
        return call.result()
    finally:
        if not call.done():
            call.cancel()
            await asyncio.wait([call], timeout=STORE_TIMEOUT)
