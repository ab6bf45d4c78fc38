"""Cases: opening and closing, wake-ups, and a database that is away."""

import asyncio
from collections.abc import Collection

import pytest

from diator.errors import StoreError, StoreUnavailableError
from diator.stores.port import OperatesStore, Store, WakesRelays
from diator_conformance.stores.bench import StoreOptions, StoreSuiteBase, case


class Life(StoreSuiteBase):
    """A store can be opened, closed, and opened again."""

    @case()
    async def test_it_implements_the_port(self) -> None:
        """All of it."""
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
        """What is in them stays."""
        store = await self.opened()
        await store.write([self.message()])
        other = self.new_store()
        assert isinstance(other, OperatesStore)
        assert list(await other.create(self.app, self.container(other))) == []
        await other.aclose()
        assert await self.ids(store, await self.all_held(store)) == ["0"]

    @case()
    async def test_tables_of_another_app_are_rejected(self) -> None:
        """Or one app would publish the events of another."""
        await self.opened()
        with pytest.raises(StoreError, match=self.app) as raised:
            await self.opened(self.new_store(), app="another")
        assert not isinstance(raised.value, StoreUnavailableError)

    @case()
    async def test_another_number_of_partitions_is_rejected(self) -> None:
        """Or keys would change partitions, and their order."""
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
