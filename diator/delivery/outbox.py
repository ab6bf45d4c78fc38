"""The outbox of an app: its store and its relay, open as long as the app runs."""

import asyncio
import logging
from collections.abc import Awaitable, Iterator, Sequence
from typing import TypeVar

from diator._hooks import HookDispatcher
from diator._keys import Key
from diator.brokers.envelope import OutgoingMessage
from diator.containers.port import Container
from diator.context import Context
from diator.delivery.catalog import ConsumerConfig
from diator.delivery.connection import translated
from diator.delivery.error_texts import described
from diator.delivery.follow_up import FollowUpSender
from diator.delivery.publisher import Publisher
from diator.delivery.relay import Relay
from diator.delivery.relay_wakeups import Notifier
from diator.delivery.store_checks import find_store, store_problems
from diator.delivery.store_sender import StoreSender
from diator.engine.check import CheckResult
from diator.engine.hints import key_of
from diator.errors import Problem, StoreError, StoreUnavailableError
from diator.hooks import Stored
from diator.options import ID, require
from diator.stores.port import WakesRelays, partition_of

T = TypeVar("T")

logger = logging.getLogger("diator")


class Outbox:
    """The store of one app, as all its senders use it."""

    def __init__(self, given: object, hooks: HookDispatcher, *, relays: bool) -> None:
        self.store = store = find_store(given)
        self.session = Key(store.session)
        """The key of the session; see `session_in`."""
        self.relay: Relay | None = None
        """What publishes here, while the app runs; none if other processes do it."""
        self._notifier = Notifier(store) if isinstance(store, WakesRelays) and not relays else None
        """What wakes those of other processes, if none runs here: a relay does that itself."""
        self._relays = relays
        self._comes_first = False
        self._hooks = hooks
        self.is_verified = False
        """Whether the session was seen to be one object in a whole scope."""
        self._has_warned = False
        self._users = 0

    def session_in(self, container: Container | None) -> Key:
        """Read the key of the session as this container understands it."""
        self.session = key_of(self.store.session, container)
        return self.session

    def problems(self, checked: CheckResult, app: str | None) -> Iterator[Problem]:
        """Find what would keep the store from being part of the units of work of an app."""
        return store_problems(self.store, checked, app)

    def create_sender(self, sealing: Publisher | FollowUpSender, config: ConsumerConfig | None = None) -> StoreSender:
        """Make what writes to the outbox what another sender seals; with the inbox of ``config``, if it has one."""
        return StoreSender(self, sealing, config)

    async def open(self, app: str, container: Container, timeout: float) -> None:
        """Open the store for one more user; if its database is unavailable, it opens by itself when it recovers.

        Raises `StoreError` for what is permanent, such as missing tables.
        """
        if not self._users:
            try:
                await self._open(app, container, timeout)
            except StoreUnavailableError as error:
                text = "the database of the store can't be reached (%s); the app starts, and connects when it recovers"
                logger.warning(text, described(error))
            except BaseException:
                await self.store.aclose()
                raise
        self._users += 1

    async def _open(self, app: str, container: Container, timeout: float) -> None:
        try:
            await asyncio.wait_for(self._answer("open", self.store.open(app, container)), timeout)
        except asyncio.TimeoutError as error:
            raise StoreUnavailableError(f"no answer within {timeout:g} s") from error

    def relay_here(self) -> None:
        """Make this process relay, regardless of the app's setting, before processes without a worker."""
        self._relays = self._comes_first = True
        self._notifier = None

    async def start_relay(self, publisher: Publisher) -> None:
        """Publish from now on what is stored, unless other processes do it."""
        if self._relays and self.relay is None:
            self.relay = Relay(self.store, publisher.relay, self._hooks, publisher.timeout)
            if self._comes_first:
                self.relay.enter_worker()
            await self.relay.start()

    async def stop_relay(self) -> None:
        """Publish what is stored, for some seconds at most, and release the partitions of this process."""
        if self.relay is not None:
            await self.relay.stop()
        if self._notifier is not None:
            await self._notifier.stop()

    async def close(self) -> None:
        """Close the store after its last user."""
        self._users -= 1
        if not self._users:
            await self.stop_relay()
            self.relay = None
            await self.store.aclose()

    async def write(self, messages: Sequence[OutgoingMessage], context: Context) -> None:
        """Write rows in a transaction of their own. Raises `StoreError`."""
        if context.causation_id is not None and not self._has_warned:
            self._has_warned = True
            logger.warning(_IN_A_HANDLER, messages[0].envelope.type)
        await self._answer("write", self.store.write(messages))
        self.written(messages, context)

    def written(self, messages: Sequence[OutgoingMessage], context: Context) -> None:
        """Report rows that are committed, and wake the relay."""
        if messages:
            if self._hooks.has_listener("stored"):
                self._hooks.emit("stored", Stored(messages, context))
            wakes = self.relay or self._notifier
            if wakes is not None:
                wakes.notify({partition_of(message, self.store.partitions) for message in messages})

    async def cancel(self, message_id: str) -> bool:
        """Cancel a delayed event in a transaction of its own; return whether it was in time. Raises `StoreError`."""
        require("app.cancel", {"message_id": ID}, {"message_id": message_id})
        return await self._answer("cancel", self.store.cancel(message_id))

    def _answer(self, call: str, answer: Awaitable[T]) -> Awaitable[T]:
        return translated(self.store, call, answer, StoreError)


_IN_A_HANDLER = (
    "app.publish was called for %s inside a handler: it uses a second connection and a transaction of its own, so the "
    "event is published even if the handler fails; use a parameter Publish[...] instead (logged once)"
)
