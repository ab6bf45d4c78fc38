"""Cases: opening and closing, wake-ups, and a database that is away."""

import asyncio
import time
from collections.abc import Collection, Sequence

import pytest

from diator.errors import StoreError, StoreUnavailableError
from diator.stores.port import OperatesStore, Store, WakesRelays
from diator_conformance.stores.bench import StoreOptions, StoreSuiteBase, case


class Life(StoreSuiteBase):
    """A store can be opened, closed, and opened again."""

    @case()
    async def test_it_implements_the_port(self) -> None:
        """All of its members exist."""
        store = self.new_store()
        assert isinstance(store, Store)
        assert store.partitions == self.wanted.partitions
        assert list(store.validate(self.container(store), self.app)) == []

    @case(loops=2)
    async def test_it_can_be_opened_again_in_any_event_loop(self) -> None:
        """Closing it twice changes nothing."""
        store = await self.opened()
        await store.write([self.message()])
        await store.aclose()
        await store.aclose()
        await self.opened(store)
        assert await self.held(store) or True
        await store.release("relay")
        await store.aclose()

    @case()
    async def test_missing_tables_are_a_permanent_error_that_says_what_to_do(self) -> None:
        """Creating them is never done silently."""
        self.space += "x"
        await self.set_up(self.space)
        store = self.new_store()
        try:
            with pytest.raises(StoreError, match="diator outbox create") as raised:
                await self.opened(store)
            assert not isinstance(raised.value, StoreUnavailableError)
            await store.aclose()
            await self.create_tables(store)
            await store.aclose()
            await self.opened(store)
        finally:
            await store.aclose()
            await self.clean_up(self.space)
            self.space = self.space.removesuffix("x")

    @case(needs=OperatesStore)
    async def test_creating_tables_that_are_there_changes_nothing(self) -> None:
        """Their rows remain."""
        store = await self.opened()
        await store.write([self.message()])
        other = self.new_store()
        assert isinstance(other, OperatesStore)
        assert list(await other.create(self.app, self.container(other))) == []
        await other.aclose()
        assert await self.ids(store, await self.all_held(store)) == ["0"]

    @case(needs=OperatesStore)
    async def test_processes_create_the_tables_at_once(self) -> None:
        """As those of a deployment do: none fails, and each table is created once."""
        self.space += "y"
        await self.set_up(self.space)
        stores = [self.new_store() for _ in range(4)]

        async def create(store: Store) -> Sequence[str]:
            assert isinstance(store, OperatesStore)
            return await store.create(self.app, self.container(store))

        try:
            made = await asyncio.gather(*map(create, stores))
            names = [name for each in made for name in each]
            assert names
            assert len(set(names)) == len(names)
            for store in stores:
                await store.aclose()
                await self.opened(store)
        finally:
            for store in stores:
                await store.aclose()
            await self.clean_up(self.space)
            self.space = self.space.removesuffix("y")

    @case()
    async def test_tables_of_another_app_are_rejected(self) -> None:
        """Otherwise one app would publish the events of another."""
        await self.opened()
        with pytest.raises(StoreError, match=self.app) as raised:
            await self.opened(self.new_store(), app="another")
        assert not isinstance(raised.value, StoreUnavailableError)

    @case()
    async def test_an_object_serves_one_app(self) -> None:
        """It is connected to the tables of the first, so another app would write its events there."""
        store = await self.opened()
        assert list(store.validate(self.container(store), self.app)) == []
        assert list(store.validate(self.container(store), "another")), "two apps may share the object"

    @case()
    async def test_another_number_of_partitions_is_rejected(self) -> None:
        """Otherwise keys would change partitions and lose their order."""
        await self.opened()
        with pytest.raises(StoreError, match="partitions"):
            await self.opened(self.new_store(StoreOptions(partitions=9)))

    @case()
    async def test_a_database_that_is_away_is_reported_as_such_and_found_again(self) -> None:
        """By each call, without another open."""
        store, late = await self.opened(), self.new_store()
        await store.write([self.message("a")])
        await self.stop_server()
        try:
            for call in (
                lambda: store.write([self.message()]),
                lambda: self.held(store),
                lambda: store.read({0: 1}, 10),
                lambda: self.opened(late),
            ):
                with pytest.raises(StoreUnavailableError):
                    await call()
        finally:
            await self.start_server()
        for one in (store, late):
            held = await self.held(one)
            assert len(held) == self.wanted.partitions
            await one.write([self.message("a")])
        assert len(await store.read(held, 10)) == 3


class Claims(StoreSuiteBase):
    """The store describes its session and its errors correctly."""

    @case()
    async def test_an_outage_is_temporary(self) -> None:
        """Any error that the session raises."""
        store = await self.opened()
        await self.stop_server()
        try:
            with pytest.raises(Exception) as raised:  # noqa: PT011 - the driver's own
                async with self.session(self.space, store) as session:
                    await self.change(session)
            assert store.is_temporary(raised.value), f"{raised.value!r} counts as permanent"
        finally:
            await self.start_server()

    @case()
    async def test_a_programming_error_is_permanent(self) -> None:
        """Retrying would never help: neither with a database statement, nor with other code."""
        store = await self.opened()
        for error in (RuntimeError("a bug"), TypeError("a bug"), AssertionError(), asyncio.CancelledError()):
            assert not store.is_temporary(error), f"{error!r} counts as temporary"
        async with self.session(self.space, store) as session:
            with pytest.raises(Exception) as raised:  # noqa: PT011 - the driver's own
                await self.misuse(session)
            assert not store.is_temporary(raised.value), f"{raised.value!r} counts as temporary"

    @case()
    async def test_a_session_that_does_not_block_leaves_the_event_loop_running(self) -> None:
        """While its statement waits for a lock; otherwise the holder of the lock could not commit."""
        store = await self.opened()
        async with self.session(self.space, store) as first, self.session(self.space, store) as second:
            await self.change(first)
            if store.is_blocking:
                with pytest.raises(StopIteration):  # it has no point at which the loop could go on
                    self.commit(first).send(None)
                return
            began, waiting = time.monotonic(), asyncio.ensure_future(self.change(second))
            await asyncio.wait([waiting], timeout=self.moment)
            assert time.monotonic() - began < self.moment + 1, "the event loop stood still: the store must say so"
            assert not waiting.done(), "two sessions have changed the same row"
            await self.commit(first)
            await waiting

    @case()
    async def test_writing_nothing_writes_nothing(self) -> None:
        """It only has a session that blocks write what it holds back until its commit."""
        store = await self.opened()
        async with self.session(self.space, store) as session:
            transaction = self.join(store, session)
            await transaction.write([])
            transaction.complete()
            await self.commit(session)
        assert await self.ids(store, await self.all_held(store)) == []


class WakeUps(StoreSuiteBase):
    """Notifications between processes."""

    @case(needs=WakesRelays)
    async def test_all_that_listen_hear_the_partitions(self) -> None:
        """In other processes too, and as long as the block is open."""
        first, second = await self.opened(), await self.opened()
        assert isinstance(first, WakesRelays)
        assert isinstance(second, WakesRelays)
        heard: list[set[int]] = [set(), set()]

        def hear(number: int, partitions: Collection[int]) -> None:
            heard[number].update(partitions)

        async with first.listen(lambda found: hear(0, found)), second.listen(lambda found: hear(1, found)):
            await first.notify([1, 3])
            for _ in range(100):
                if heard == [{1, 3}, {1, 3}]:
                    break
                await asyncio.sleep(0.02)
            assert heard == [{1, 3}, {1, 3}]
        await first.notify([2])
        await asyncio.sleep(self.moment)
        assert heard == [{1, 3}, {1, 3}]

    @case(needs=WakesRelays)
    async def test_listening_ends_if_the_connection_is_lost(self) -> None:
        """So that the relay listens again."""
        store = await self.opened()
        assert isinstance(store, WakesRelays)

        async def listen() -> None:
            assert isinstance(store, WakesRelays)
            async with store.listen(lambda _: None):
                await asyncio.get_running_loop().create_future()

        listening = asyncio.ensure_future(listen())
        await asyncio.sleep(self.moment)
        assert not listening.done()
        try:
            await self.stop_server()
            await asyncio.wait([listening], timeout=10)
            assert listening.done(), "the block did not end"
            assert isinstance(listening.exception(), StoreUnavailableError)
        finally:
            await self.start_server()
            listening.cancel()
