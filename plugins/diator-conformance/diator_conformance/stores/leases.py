"""Cases: the leases by which relays share the partitions of the outbox."""

import asyncio
from collections.abc import Mapping

from diator.stores.port import Store
from diator_conformance.stores.bench import StoreOptions, StoreSuiteBase, case


class Leases(StoreSuiteBase):
    """Each partition has one holder at a time."""

    @case()
    async def test_the_only_relay_holds_all_and_keeps_its_tokens(self) -> None:
        """Renewing changes nothing."""
        store = await self.opened()
        held = await self.all_held(store)
        for _ in range(3):
            assert await self.held(store) == held

    @case(StoreOptions(partitions=7))
    async def test_relays_share_the_partitions(self) -> None:
        """Each renews in turn. Then they hold about the same number of partitions, and no partition has two holders."""
        stores = [await self.opened() for _ in range(3)]
        await self.all_held(stores[0], "relay 0")
        for _ in range(2):
            for number, store in enumerate(stores):
                await self.held(store, f"relay {number}")
        held = [await self.held(store, f"relay {number}") for number, store in enumerate(stores)]
        assert sorted(partition for one in held for partition in one) == list(range(7))
        assert sorted(map(len, held)) in ([2, 2, 3], [1, 3, 3])

    @case()
    async def test_relays_that_lease_at_once_never_hold_the_same(self) -> None:
        """In any order of their leases."""
        stores = [await self.opened() for _ in range(4)]
        holders: dict[tuple[int, int], set[int]] = {}
        for _ in range(10):
            held = await asyncio.gather(*(self.held(store, f"relay {number}") for number, store in enumerate(stores)))
            for number, one in enumerate(held):
                for lease in one.items():
                    holders.setdefault(lease, set()).add(number)
        assert {partition for partition, _ in holders} == set(range(4))
        twice = {lease: found for lease, found in holders.items() if len(found) > 1}
        assert not twice, f"several relays got the same token of a partition: {twice}"

    @case()
    async def test_what_is_released_is_free_at_once(self) -> None:
        """With other tokens for its next holder."""
        store = await self.opened()
        first = await self.all_held(store, "first")
        await store.release("first")
        await store.release("first")
        second = await self.all_held(store, "second")
        assert all(second[partition] > first[partition] for partition in first), "a token did not grow"

    @case()
    async def test_a_lease_that_has_ended_goes_to_another_relay(self) -> None:
        """Neither before nor much later."""
        store = await self.opened()
        first = await self.held(store, "first", seconds=self.short_lease)
        assert await self.held(store, "second", rank=0) == {}
        await asyncio.sleep(self.short_lease + 0.1)
        second = await self.all_held(store, "second")
        assert all(second[partition] > first[partition] for partition in first), "a token did not grow"
        await self.nothing_works(store, first)

    @case()
    async def test_a_lease_that_ends_too_late_is_shortened(self) -> None:
        """As if the clock of the database had gone back: the share of a killed relay must not wait for the old time."""
        store = await self.opened()
        await self.held(store, "killed", seconds=3600.0)
        await self.held(store, "frozen", seconds=3600.0)
        assert not await self.held(store, "other", seconds=self.short_lease), "a relay may be alive, and got no time"
        await asyncio.sleep(1.2 * self.short_lease)
        held = await self.held(store, "other", seconds=self.short_lease)
        assert set(held) == set(range(4)), "a relay that was killed keeps its share"

    @case()
    async def test_a_lease_that_is_renewed_lasts(self) -> None:
        """For its seconds, from the last renewal."""
        store = await self.opened()
        for _ in range(4):
            held = await self.held(store, "first", seconds=self.short_lease)
            await asyncio.sleep(self.short_lease / 2)
            assert await self.held(store, "second") == {}
            await store.release("second")
            assert len(held) == self.wanted.partitions

    @case()
    async def test_relays_of_the_lowest_rank_come_first(self) -> None:
        """Other relays hold nothing while one of them exists, and all partitions afterwards."""
        store = await self.opened()
        assert len(await self.held(store, "web", rank=1)) == self.wanted.partitions
        await self.held(store, "worker", rank=0)
        assert await self.held(store, "web", rank=1) == {}
        assert len(await self.held(store, "worker", rank=0)) == self.wanted.partitions
        assert await self.held(store, "web", rank=1) == {}
        await store.release("worker")
        assert len(await self.held(store, "web", rank=1)) == self.wanted.partitions
        assert len(await self.held(store, "web", rank=0)) == self.wanted.partitions

    async def nothing_works(self, store: Store, stale: Mapping[int, int]) -> None:
        """Check that a holder of old tokens can do nothing."""
        held = await self.held(store, "second")
        await store.write([self.message("a"), self.message("b", after=0.0)])
        rows = await store.read(held, 10)
        assert rows
        assert list(await store.read(stale, 10)) == [], "rows were read with an old token"
        assert await store.delete(stale, rows) == 0, "rows were deleted with an old token"
        await store.reject(stale, rows[0], "it is not mine")
        await store.promote(stale)
        assert list(await store.read(held, 10)) == list(rows), "something was changed with an old token"
        await asyncio.sleep(0.01)
        await store.promote(held)
        assert len(await store.read(held, 10)) == len(rows) + 1
