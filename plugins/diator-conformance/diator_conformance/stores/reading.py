"""Cases: the rows that a relay reads and deletes."""

import asyncio

from diator.stores.port import Store, StoredMessage, partition_of
from diator_conformance.stores.bench import StoreSuiteBase, case, ids_of


class Reading(StoreSuiteBase):
    """Rows are read in order, and remain until they are deleted."""

    @case()
    async def test_rows_of_a_partition_are_read_in_order_until_they_are_deleted(self) -> None:
        """In batches of any size."""
        store = await self.opened()
        held = await self.all_held(store)
        written = [self.message(f"{number % 5}") for number in range(40)]
        for start in range(0, 40, 10):
            await store.write(written[start : start + 10])
        assert await self.ids(store, held) == await self.ids(store, held)
        read: list[StoredMessage] = []
        while rows := await store.read(held, 7):
            assert len(rows) <= 7
            assert await store.delete(held, rows) == len(rows)
            assert await store.delete(held, rows) == 0, "rows were deleted twice"
            read += rows
        for partition in held:
            expected = [one.id for one in written if partition_of(one, self.wanted.partitions) == partition]
            assert [row.id for row in read if row.partition == partition] == expected

    @case()
    async def test_only_rows_of_held_partitions_are_read(self) -> None:
        """And nothing without any."""
        store = await self.opened()
        held = await self.all_held(store)
        await store.write([self.message(f"{number}") for number in range(30)])
        assert list(await store.read({}, 100)) == []
        assert await store.promote({}) is None
        for partition, token in held.items():
            rows = await store.read({partition: token}, 100)
            assert {row.partition for row in rows} <= {partition}

    @case()
    async def test_positions_order_rows_and_are_not_used_again(self) -> None:
        """A late delete of a deleted row must not affect another one."""
        store = await self.opened()
        held = await self.all_held(store)
        await store.write(self.messages(3, "a"))
        rows = await store.read(held, 10)
        assert [row.position for row in rows] == sorted({row.position for row in rows})
        assert await store.delete(held, rows) == 3
        await store.write(self.messages(3, "a"))
        assert await store.delete(held, rows) == 0, "a row got the position of one that was deleted"
        assert len(await store.read(held, 10)) == 3

    @case()
    async def test_keys_that_wait_are_left_out_and_take_no_room(self) -> None:
        """Those of their topic; a key of None means the rows without a key."""
        store = await self.opened()
        held = await self.all_held(store)
        waiting = [*self.messages(50, "a"), *self.messages(50)]
        others = [self.message("b"), self.message("a", topic="bills"), self.message(topic="bills")]
        await store.write([*waiting, *others])
        rows = await store.read(held, 5, without=[("orders", "a"), ("orders", None), ("nothing", "b")])
        assert sorted(ids_of(rows)) == sorted(ids_of(others))
        rows = await store.read(held, 200, without={("orders", None)})
        assert len(rows) == 53
        many = [("orders", f"key {number}") for number in range(5000)]
        assert len(await store.read(held, 200, without=many)) == 103

    @case()
    async def test_a_row_that_commits_late_is_read(self) -> None:
        """Positions are assigned before the commit, so a reader must not skip one that is not visible yet."""
        store, other = await self.opened(), await self.opened()
        held = await self.all_held(store)
        async with self.session(self.space, store) as late:
            transaction = self.join(store, late)
            await transaction.write([self.message("a")])
            second = asyncio.ensure_future(other.write([self.message("a")]))
            await asyncio.wait([second], timeout=self.moment)  # a database with one writer makes it wait
            rows = await store.read(held, 10)
            assert not rows if not second.done() else await store.delete(held, rows) == 1
            transaction.complete()
            await self.commit(late)
        await second
        read = {row.id for row in (*rows, *await store.read(held, 10))}
        assert read == {"0", "1"}

    @case()
    async def test_several_writers_lose_nothing(self) -> None:
        """While a relay reads and deletes; each key remains in the order of its writer."""
        store, writers = await self.opened(), [await self.opened() for _ in range(3)]
        held = await self.all_held(store)
        written: list[list[str]] = []

        async def write(key: str, writer: Store) -> None:
            mine = self.messages(self.message_count // 3, key)
            written.append(ids_of(mine))
            for message in mine:
                await writer.write([message])

        writing = asyncio.gather(*(write(f"{number}", writer) for number, writer in enumerate(writers)))
        read: list[StoredMessage] = []
        while not writing.done() or await store.read(held, 1):
            rows = await store.read(held, 50)
            read += rows
            assert await store.delete(held, rows) == len(rows)
            await asyncio.sleep(0)
        await writing
        for mine in written:
            assert [row.id for row in read if row.id in mine] == mine
