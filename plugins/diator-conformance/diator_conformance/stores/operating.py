"""Cases: old rows of the inbox, rows that the broker rejects, and the status."""

import asyncio
from datetime import timedelta

from diator.stores.port import OperatesStore, partition_of
from diator_conformance.stores.bench import LONG, StoreOptions, StoreSuiteBase, case, ids_of


class Inbox(StoreSuiteBase):
    """Old rows of the inbox are deleted."""

    @case(StoreOptions(keep_inbox=timedelta(seconds=1)))
    async def test_old_rows_are_deleted_in_batches_and_young_ones_stay(self) -> None:
        """Then the message counts as new."""
        store = await self.opened()

        async def record(message_id: str) -> bool:
            async with self.session(self.space, store) as session:
                transaction = self.join(store, session)
                found = await transaction.record_handled("handler", message_id)
                transaction.complete()
                await self.commit(session)
                return found

        for number in range(5):
            assert await record(f"{number}")
        assert await store.expire(100) == 0
        await asyncio.sleep(1.1)
        assert await record("young")
        assert [await store.expire(3), await store.expire(3), await store.expire(3)] == [3, 2, 0]
        assert not await record("young")
        assert await record("0")


class Rejecting(StoreSuiteBase):
    """Rows that the broker rejects become dead letters."""

    @case()
    async def test_a_rejected_row_is_not_read_any_more(self) -> None:
        """Those around it are; rejecting it twice changes nothing."""
        store = await self.opened()
        held = await self.all_held(store)
        await store.write(self.messages(3, "a"))
        rows = await store.read(held, 10)
        await store.reject(held, rows[1], "too large")
        await store.reject(held, rows[1], "too large")
        assert await self.ids(store, held) == ["0", "2"]

    @case(needs=OperatesStore)
    async def test_a_dead_letter_keeps_all_that_is_known(self) -> None:
        """The oldest first, in pages."""
        store = await self.opened()
        assert isinstance(store, OperatesStore)
        held = await self.all_held(store)
        written = [self.message("ключ"), *self.messages(4), self.message("b" * 200)]
        await store.write(written)
        rows = {row.id: row for row in await store.read(held, 10)}
        for message in written:
            await store.reject(held, rows[message.id], f"error of {message.id}: 🔑" + "x" * 3000)
        letters = [*await store.dead_letters(limit=4)]
        letters += await store.dead_letters(after=letters[-1].id, limit=4)
        assert list(await store.dead_letters(after=letters[-1].id)) == []
        assert ids_of(letters) == ids_of(written)
        for letter, message in zip(letters, written, strict=True):
            assert (letter.topic, letter.key, letter.body) == (message.topic, message.key, message.structured)
            assert letter.error.startswith(f"error of {message.id}: 🔑x")
            assert letter.dead_lettered_at.tzinfo is not None

    @case(needs=OperatesStore)
    async def test_dead_letters_are_replayed_and_purged_once(self) -> None:
        """A replayed one is behind all existing rows."""
        store = await self.opened()
        assert isinstance(store, OperatesStore)
        held = await self.all_held(store)
        await store.write(self.messages(4, "a"))
        for row in (await store.read(held, 10))[:3]:
            await store.reject(held, row, "no")
        assert set(await store.replay(["0", "of nothing"])) == {"0"}
        assert set(await store.replay(["0"])) == set()
        assert set(await store.purge(["0", "1"])) == {"1"}
        assert set(await store.purge([])) == set()
        assert [one.id for one in await store.dead_letters()] == ["2"]
        rows = await store.read(held, 10)
        assert ids_of(rows) == ["3", "0"]
        await store.reject(held, rows[1], "again")  # it may come back
        assert [one.id for one in await store.dead_letters()] == ["2", "0"]

    @case(needs=OperatesStore)
    async def test_dead_letters_with_the_same_id_are_one(self) -> None:
        """Two runs of a handler without an inbox write the same follow-up; no page omits another one because of it."""
        store = await self.opened()
        assert isinstance(store, OperatesStore)
        held = await self.all_held(store)
        written = self.messages(4, "a")
        await store.write([*written, written[1]])
        for row in await store.read(held, 10):
            await store.reject(held, row, "no")
        letters = [*await store.dead_letters(limit=2)]
        while page := await store.dead_letters(after=letters[-1].id, limit=2):
            letters += page
            assert len(letters) <= 4, "a page begins again"
        assert sorted(ids_of(letters)) == ids_of(written)
        assert (await store.status()).dead_letters == 4
        assert set(await store.replay([written[1].id])) == {written[1].id}
        assert set(await store.purge([written[1].id])) == set()


class Status(StoreSuiteBase):
    """What operators see."""

    @case(needs=OperatesStore)
    async def test_the_status_counts_what_is_there(self) -> None:
        """With the holders of the partitions, and the age of the oldest row."""
        store = await self.opened()
        assert isinstance(store, OperatesStore)
        status = await store.status()
        assert [tuple(one) for one in status.partitions] == [(number, None, 0) for number in range(4)]
        assert (status.oldest, status.delayed, status.dead_letters, status.handled) == (None, 0, 0, 0)
        held = await self.all_held(store, "relay")
        await store.write([*self.messages(3, "a"), self.message("a", after=60), self.message("b")])
        (row,) = [row for row in await store.read(held, 10) if row.key == "b"]
        await store.reject(held, row, "no")
        async with self.session(self.space, store) as session:
            transaction = self.join(store, session)
            await transaction.record_handled("handler", "1")
            transaction.complete()
            await self.commit(session)
        await asyncio.sleep(self.moment)
        status = await store.status()
        assert [one.holder for one in status.partitions] == ["relay"] * 4
        mine = partition_of(self.message("a"), 4)
        assert [one.waiting for one in status.partitions] == [3 if number == mine else 0 for number in range(4)]
        assert status.oldest is not None
        assert self.moment * 0.9 < status.oldest < self.moment + 10
        assert (status.delayed, status.dead_letters, status.handled) == (1, 1, 1)
        await store.lease("relay", seconds=LONG, rank=0)
        await store.release("relay")
        assert [one.holder for one in (await store.status()).partitions] == [None] * 4
