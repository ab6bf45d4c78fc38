"""How a case gets its store, and the hooks of the plugin's author."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta, timezone
from itertools import count
from typing import Any, ClassVar, NamedTuple, TypeVar, cast
from uuid import uuid4

import msgspec
import pytest

from diator.brokers.envelope import Envelope, OutgoingMessage
from diator.containers.port import Container
from diator.stores.port import OperatesStore, OutboxDeadLetter, Store, StoredMessage, Transaction
from diator_conformance.overriding import Suite, own_case

# Any: of a coroutine, only what it returns matters to who awaits it. A session is the plugin's own (see Store.session).
S = TypeVar("S", bound="StoreSuiteBase")
T = TypeVar("T")


class StoreOptions(NamedTuple):
    """The settings that a case needs."""

    partitions: int = 4
    keep_inbox: timedelta = timedelta(days=30)


USUAL = StoreOptions()
LONG = 60.0
"""Seconds of a lease, where a case does not wait for its end."""


def case(
    wanted: StoreOptions = USUAL, *, needs: type | None = None, loops: int = 1
) -> Callable[[Callable[[S], Coroutine[Any, Any, None]]], Callable[[S], None]]:
    """Make a case of the suite. It runs in an event loop of its own, or in several, with tables of its own.

    ``needs`` is an optional protocol: the case skips if the store does not have it.
    """

    def decorate(body: Callable[[S], Coroutine[Any, Any, None]]) -> Callable[[S], None]:
        @own_case
        @functools.wraps(body)
        def run(self: S) -> None:
            self.play(lambda: body(self), wanted, needs, loops)

        return run

    return decorate


class StoreSuiteBase(Suite):
    """The base of all cases: the hooks of the plugin's author, and helpers for cases."""

    case_timeout: ClassVar[float] = 30.0
    """Seconds that a case may take before it fails."""
    short_lease: ClassVar[float] = 0.5
    """The lease in seconds, in cases that wait for its end."""
    moment: ClassVar[float] = 0.3
    """Seconds to wait for a row to become due, or to check that an operation waits."""
    message_count: ClassVar[int] = 200
    """The number of messages in the case with several writers."""

    app: ClassVar[str] = "suite"

    # What the author writes.

    def make_store(self, space: str, wanted: StoreOptions) -> Store:
        """Create a store that is not open. Implemented by the author of the plugin.

        Stores of the same ``space`` use the same tables, like two processes; stores of different spaces share nothing.
        A case may create several stores in its space.
        """
        raise NotImplementedError(f"write {type(self).__qualname__}.make_store: it makes the store under test")

    def session(self, space: str, store: Store) -> AbstractAsyncContextManager[Any]:
        """Open a session as the scope of a unit of work does. Exiting closes it without a commit.

        Implemented by the author.
        """
        raise NotImplementedError(f"write {type(self).__qualname__}.session: it opens what units of work write through")

    async def commit(self, session: Any) -> None:
        """Commit the transaction of a session. Implemented by the author."""
        raise NotImplementedError(f"write {type(self).__qualname__}.commit")

    async def rollback(self, session: Any) -> None:
        """Roll back the transaction of a session. Implemented by the author."""
        raise NotImplementedError(f"write {type(self).__qualname__}.rollback")

    async def savepoint(self, session: Any) -> None:  # noqa: ARG002 - for those who override it
        """Begin a savepoint and release it. Optional: the case that needs it is skipped without it."""
        pytest.skip("the author has written no savepoint")

    async def change(self, session: Any) -> None:  # noqa: ARG002 - for those who override it
        """Run a statement that locks a row, as a handler does, so that two sessions wait for each other. Optional."""
        pytest.skip("the author has written no change")

    async def misuse(self, session: Any) -> None:  # noqa: ARG002 - for those who override it
        """Run a statement that can never work, for example on a table that does not exist. Optional."""
        pytest.skip("the author has written no misuse")

    async def lose(self, session: Any) -> None:  # noqa: ARG002 - for those who override it
        """Run a statement with whose error the database undoes the whole transaction; go on after it. Optional."""
        pytest.skip("the author has written no lose")

    async def set_up(self, space: str) -> None:
        """Prepare an empty database, before the tables are created. Optional."""

    async def clean_up(self, space: str) -> None:
        """Delete everything that a case has left. Optional."""

    async def create_tables(self, store: Store) -> None:
        """Create the tables of a store that is not open. Optional for a store that `OperatesStore`."""
        assert isinstance(store, OperatesStore), f"write {type(self).__qualname__}.create_tables"
        await store.create(self.app, self.container(store))

    def container(self, store: Store) -> Container:  # noqa: ARG002 - for those who override it
        """Return the container with which the store is opened. Optional: most stores don't use it."""
        return cast("Container", NoContainer())  # which a store that uses it has to replace

    async def stop_server(self) -> None:
        """Make the database unreachable until `start_server`. Optional: cases that need it are skipped without it."""
        pytest.skip("the author has written no stop_server and start_server")

    async def start_server(self) -> None:
        """Make the database reachable again. Optional."""
        pytest.skip("the author has written no stop_server and start_server")

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run a case in a new event loop. Override it to use another kind of loop."""
        asyncio.run(main)

    # What cases are written with.

    def play(self, body: Callable[[], Awaitable[None]], wanted: StoreOptions, needs: type | None, loops: int) -> None:
        """Run the body of a case, once in each of several event loops, on its own tables."""
        self.space, self.wanted = f"t{uuid4().hex[:12]}", wanted
        self._numbers = count()
        for lap in range(loops):
            self.run(self._play(body, needs, first=lap == 0, last=lap == loops - 1))

    async def _play(self, body: Callable[[], Awaitable[None]], needs: type | None, *, first: bool, last: bool) -> None:
        self._opened: list[Store] = []
        store = self.new_store()
        if needs is not None and not isinstance(store, needs):
            pytest.skip(f"the store is not a {needs.__name__}")
        try:
            if first:
                await self.set_up(self.space)
                await self.create_tables(store)
            await asyncio.wait_for(body(), self.case_timeout)
        finally:
            for opened in (store, *self._opened):
                await opened.aclose()
            if last:
                await self.clean_up(self.space)

    def new_store(self, wanted: StoreOptions | None = None) -> Store:
        """Create another store for the tables of this case, as another process would; it is not open."""
        return self.make_store(self.space, wanted or self.wanted)

    async def opened(self, store: Store | None = None, app: str | None = None) -> Store:
        """Return an open store, which is closed at the end of the case."""
        store = store or self.new_store()
        self._opened.append(store)
        await store.open(app or self.app, self.container(store))
        return store

    def message(
        self, key: str | None = None, *, topic: str = "orders", after: float | None = None, data: bytes = b"{}"
    ) -> OutgoingMessage:
        """Create a message with a unique number as its id."""
        envelope = Envelope(
            specversion="1.0",
            id=f"{next(self._numbers)}",
            source="suite",
            type="order.placed",
            partitionkey=key,
            data=msgspec.Raw(data),
        )
        due = None if after is None else datetime.now(timezone.utc) + timedelta(seconds=after)
        return OutgoingMessage(topic, envelope, due=due)

    def messages(self, number: int, key: str | None = None) -> list[OutgoingMessage]:
        """Create several messages."""
        return [self.message(key) for _ in range(number)]

    async def held(
        self, store: Store, relay: str = "relay", *, rank: int = 0, seconds: float = LONG
    ) -> Mapping[int, int]:
        """Lease as one relay."""
        return await store.lease(relay, seconds=seconds, rank=rank)

    async def all_held(self, store: Store, relay: str = "relay") -> Mapping[int, int]:
        """Lease all partitions, as the only relay."""
        held = await self.held(store, relay)
        assert set(held) == set(range(self.wanted.partitions)), f"the only relay got {sorted(held)}"
        return held

    async def ids(self, store: Store, held: Mapping[int, int], limit: int = 1000) -> list[str]:
        """Read, and return the ids of the rows."""
        return [row.id for row in await store.read(held, limit)]

    def join(self, store: Store, session: Any, *, own: bool = True) -> Transaction:
        """Join the transaction of a session."""
        return store.join(session, own=own)


def ids_of(messages: Sequence[OutgoingMessage | StoredMessage | OutboxDeadLetter]) -> list[str]:
    """Return the ids of messages, rows or dead letters."""
    return [one.id for one in messages]


def has_committed(transaction: Transaction) -> bool:
    """Ask a transaction whether it was committed: type checkers take the property for a constant."""
    return transaction.committed


class NoContainer:
    """The container for a store that does not use one."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the store uses {name} of its container; write the suite's hook `container`")
