"""The outbox of an app: its store, open as long as the app or a test of it runs, and what wakes the relay."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TypeVar

from diator._hooks import HookDispatcher
from diator._keys import Key
from diator.brokers.envelope import OutgoingMessage
from diator.containers.port import Container
from diator.delivery.error_texts import described
from diator.engine.hints import key_of
from diator.errors import DiatorError, StoreError, StoreUnavailableError
from diator.options import ID, require
from diator.stores.port import Store, partition_of

T = TypeVar("T")

logger = logging.getLogger("diator")


class Outbox:
    """The store of one app, as all its senders use it."""

    def __init__(self, store: Store, hooks: HookDispatcher, *, relay: bool) -> None:
        self.store = store
        self.hooks = hooks
        self.relay = relay
        """Whether this process relays, too."""
        self.session = Key(store.session)
        """The key of the session; see `session_in`."""
        self.wake: Callable[[Collection[int]], None] = _wake_nothing
        """Called with partitions that have new rows, after they were committed."""
        self.is_verified = False
        """Whether the session was seen to be one object in a whole scope."""
        self._users = 0

    def session_in(self, container: Container | None) -> Key:
        """Read the key of the session as this container understands it."""
        self.session = key_of(self.store.session, container)
        return self.session

    async def open(self, app: str, container: Container, timeout: float) -> None:
        """Open the store for one more user; if its database is unavailable, it opens by itself when it recovers.

        Raises `StoreError` for what is permanent, such as missing tables.
        """
        if not self._users:
            try:
                await self._open(app, container, timeout)
            except StoreUnavailableError as error:
                text = (
                    "the database of the store can't be reached (%s); the app starts, and needs it for what it handles"
                )
                logger.warning(text, described(error))
            except BaseException:
                await self.store.aclose()
                raise
        self._users += 1

    async def _open(self, app: str, container: Container, timeout: float) -> None:
        try:
            await asyncio.wait_for(translated(self.store, "open", self.store.open(app, container)), timeout)
        except asyncio.TimeoutError as error:
            raise StoreUnavailableError(f"no answer within {timeout:g} s") from error

    async def drain(self) -> None:
        """Let the relay publish what is stored, and release its partitions."""

    async def close(self) -> None:
        """Close the store after its last user."""
        self._users -= 1
        if not self._users:
            await self.store.aclose()

    async def write(self, messages: Sequence[OutgoingMessage]) -> None:
        """Write rows in a transaction of their own. Raises `StoreError`."""
        await translated(self.store, "write", self.store.write(messages))
        self.notify(messages)

    def notify(self, messages: Sequence[OutgoingMessage]) -> None:
        """Wake the relay for rows that are committed."""
        if messages:
            partitions = self.store.partitions
            self.wake({partition_of(message, partitions) for message in messages})

    async def cancel(self, message_id: str) -> bool:
        """Cancel a delayed event in a transaction of its own; return whether it was in time. Raises `StoreError`."""
        require("app.cancel", {"message_id": ID}, {"message_id": message_id})
        return await translated(self.store, "cancel", self.store.cancel(message_id))


async def translated(store: Store, call: str, answer: Awaitable[T]) -> T:
    """Await a call of a store. An error that is not of Diator is a fault of the plugin, and is permanent."""
    try:
        return await answer
    except DiatorError:
        raise
    except Exception as error:
        text = f"{type(store).__name__}.{call} failed unexpectedly: {described(error)}; this is a fault of the plugin"
        raise StoreError(text) from error


def _wake_nothing(_partitions: Collection[int]) -> None:
    """Stand for a relay where none runs: those of other processes poll."""
