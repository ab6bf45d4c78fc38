"""Cases: rows that wait for a time."""

import asyncio

import pytest

from diator.stores.port import Store
from diator_conformance.stores.bench import StoreSuiteBase, case, ids_of


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
