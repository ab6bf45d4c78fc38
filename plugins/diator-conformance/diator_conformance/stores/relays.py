"""Cases: what relays do with the outbox."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta

import pytest

from diator.stores.port import OperatesStore, Store, StoredMessage, partition_of
from diator_conformance.stores.bench import LONG, StoreOptions, StoreSuiteBase, case, ids_of


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


class Delayed(StoreSuiteBase):
    """Rows with a time wait for it."""

    @case()
    async def test_a_row_is_not_read_before_it_is_due(self) -> None:
        """It is then placed behind existing rows, by its time; until then, promote returns how long to wait."""
        store = await self.opened()
        held = await self.all_held(store)
        assert await store.promote(held) is None
        later, soon = self.message("a", after=2 * self.moment), self.message("a", after=self.moment)
        far = self.message("a", after=3600.0)
        await store.write([later, soon, far])
        assert await self.ids(store, held) == []
        seconds = await store.promote(held)
        assert seconds is not None
        assert 0 <= seconds <= self.moment
        assert await self.ids(store, held) == [], "a row was read before it was due"
        await asyncio.sleep(2 * self.moment + 0.05)
        await store.write([ready := self.message("a")])
        assert await self.ids(store, held) == [ready.id], "a row became ready without promote"
        seconds = await store.promote(held)
        assert seconds is not None
        assert 3500 < seconds <= 3600
        assert await self.ids(store, held) == ids_of([ready, soon, later])
        assert [await store.cancel(one.id) for one in (soon, far)] == [False, True]
        assert await store.promote(held) is None

    @case()
    async def test_a_unit_that_takes_long_stops_no_relay(self) -> None:
        """Not even one that has cancelled a row which is due; that row waits for its end."""
        store, other = await self.opened(), await self.opened()
        cancelled, due, ready = self.message("a", after=0.0), self.message("a", after=0.0), self.message("b")
        await store.write([cancelled, due, ready, *self.messages(300)])
        await asyncio.sleep(0.01)
        async with self.session(self.space, store) as session:
            transaction = self.join(store, session)
            await transaction.record_handled("handler", "1")
            assert await transaction.cancel(cancelled.id)
            await transaction.write([self.message("a"), self.message("a", after=0.0)])
            if not await self.has_many_writers(other):
                await self.rollback(session)
                pytest.skip("the database has one writer at a time")
            held = await asyncio.wait_for(self.all_held(other), 5)
            await asyncio.wait_for(other.promote(held), 5)
            seconds = await asyncio.wait_for(other.promote(held), 5)
            assert seconds is None or seconds > 0, "a relay would look at the row without a rest"
            rows = await other.read(held, 500)
            assert {due.id, ready.id} <= set(ids_of(rows))
            await asyncio.wait_for(other.reject(held, rows[0], "no"), 5)
            assert await asyncio.wait_for(other.delete(held, rows[1:]), 5) == len(rows) - 1
            await asyncio.wait_for(other.expire(10), 5)
            await asyncio.wait_for(other.release("relay"), 5)
            await self.rollback(session)
        held = await self.all_held(store)
        await store.promote(held)
        assert await self.ids(store, held) == [cancelled.id]

    @case()
    async def test_units_that_put_off_a_message_do_not_wait_for_each_other(self) -> None:
        """They cancel one, which may be gone already, and write another."""
        store, other = await self.opened(), await self.opened()
        async with self.session(self.space, store) as first, self.session(self.space, other) as second:
            one, two = self.join(store, first), self.join(other, second)
            await one.cancel("of nothing")
            if not await self.has_many_writers(other):
                await self.rollback(first)
                pytest.skip("the database has one writer at a time")
            await two.cancel("of nothing")
            for transaction in (one, two):
                await asyncio.wait_for(transaction.write([self.message("a", after=60)]), 5)

    async def has_many_writers(self, store: Store) -> bool:
        """Try whether a store can write while a unit has written."""
        writing = asyncio.ensure_future(store.write([self.message("b")]))
        await asyncio.wait([writing], timeout=self.moment)
        if not writing.done():
            writing.cancel()
            await asyncio.wait([writing])
        return not writing.cancelled() and writing.exception() is None

    @case()
    async def test_each_holder_promotes_its_own(self) -> None:
        """Others' rows wait for theirs."""
        store = await self.opened()
        held = await self.all_held(store)
        await store.write([self.message(f"{number}", after=0.0) for number in range(30)])
        await asyncio.sleep(0.01)
        (first, token), *_ = held.items()
        await store.promote({first: token})
        assert {row.partition for row in await store.read(held, 100)} == {first}
        await store.promote(held)
        assert len(await store.read(held, 100)) == 30


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
