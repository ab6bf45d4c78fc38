"""Cases: the part of a store in the transaction of a unit of work."""

import asyncio
from typing import Any

import pytest

from diator.errors import EarlyCommitError
from diator.stores.port import Store, Transaction, partition_of
from diator_conformance.stores.bench import StoreSuiteBase, case, has_committed, ids_of


class Units(StoreSuiteBase):
    """Units of work: rows commit with the unit, or not at all."""

    @case()
    async def test_rows_become_visible_when_the_transaction_commits(self) -> None:
        """Neither before, nor without a commit."""
        store, other = await self.opened(), await self.opened()
        held = await self.all_held(store)
        written = [self.message("a"), self.message("b"), self.message("a"), self.message()]
        async with self.session(self.space, store) as session:
            transaction = self.join(store, session)
            await transaction.write(written)
            transaction.complete()
            assert not has_committed(transaction)
            assert await self.ids(other, held) == [], "a row is visible before its commit"
            await self.commit(session)
            assert has_committed(transaction)
            assert not transaction.rolled_back
        rows = await store.read(held, 100)
        assert sorted(ids_of(rows)) == ids_of(written)

    @case()
    async def test_a_row_keeps_all_that_was_written(self) -> None:
        """Topic, key, id, and each byte of the body; and it says when it was written."""
        store = await self.opened()
        held = await self.all_held(store)
        keys = ("a", "A", "a ", " ", "", "ключ-🔑", "x" * 255, None, "'; --", "%_\\")
        written = [self.message(key, topic="t-é", data=b'"\xf0\x9f\x94\x91 \\u0000 \\ \' %s :x ?"') for key in keys]
        await store.write(written)
        rows = {row.id: row for row in await store.read(held, 100)}
        for message in written:
            row = rows[message.id]
            assert (row.topic, row.key, row.body) == (message.topic, message.key, message.structured)
            assert row.partition == partition_of(message, self.wanted.partitions)
            assert row.written_at.tzinfo is not None, "written_at has no time zone"
            assert message.envelope.time is None

    @case()
    async def test_what_is_rolled_back_was_never_there(self) -> None:
        """A session that closes without a commit has written nothing, and handled nothing."""
        store = await self.opened()
        for explicit in (True, False):
            async with self.session(self.space, store) as session:
                transaction = self.join(store, session)
                assert await transaction.record_handled("handler", "1"), "what was rolled back counts as handled"
                await transaction.write(self.messages(2, "a"))
                transaction.complete()
                if explicit:
                    await self.rollback(session)
                    assert transaction.rolled_back
            assert not transaction.committed
        assert await self.ids(store, await self.all_held(store)) == []

    @case()
    async def test_a_commit_before_the_events_are_written_raises_and_commits_nothing(self) -> None:
        """At the line that commits."""
        store = await self.opened()
        async with self.session(self.space, store) as session:
            transaction = self.join(store, session)
            await transaction.write(self.messages(1))
            with pytest.raises(EarlyCommitError):
                await self.commit(session)
            assert not transaction.committed
        assert await self.ids(store, await self.all_held(store)) == []

    @case()
    async def test_a_commit_after_the_unit_has_failed_raises(self) -> None:
        """Even if the unit was complete before, because an inner middleware may fail then."""
        store = await self.opened()
        for completes in (False, True):
            async with self.session(self.space, store) as session:
                transaction = self.join(store, session)
                await transaction.write(self.messages(1))
                if completes:
                    transaction.complete()
                transaction.fail()
                with pytest.raises(EarlyCommitError):
                    await self.commit(session)
                assert not transaction.committed
        assert await self.ids(store, await self.all_held(store)) == []

    @case()
    async def test_a_transaction_that_the_database_has_undone_is_not_committed(self) -> None:
        """Such as after a deadlock: the rest of it would be, without what came before the error."""
        store = await self.opened()
        async with self.session(self.space, store) as session:
            transaction = self.join(store, session)
            assert await transaction.record_handled("handler", "1")
            await self.lose(session)
            with pytest.raises(Exception):  # noqa: B017, PT011 - where it does is for the store to choose
                await self.finish(transaction, session)
            assert not transaction.committed
        assert await self.ids(store, await self.all_held(store)) == []

    async def finish(self, transaction: Transaction, session: Any) -> None:
        """Do what the core does at the end of a unit."""
        await transaction.write(self.messages(1))
        transaction.complete()
        await self.commit(session)

    @case()
    async def test_savepoints_pass(self) -> None:
        """They are not commits."""
        store = await self.opened()
        async with self.session(self.space, store) as session:
            transaction = self.join(store, session)
            await self.savepoint(session)
            await transaction.write(self.messages(1))
            await self.savepoint(session)
            assert not transaction.committed
            assert not transaction.rolled_back
            transaction.complete()
            await self.commit(session)
        assert await self.ids(store, await self.all_held(store)) == ["0"]

    @case()
    async def test_work_goes_on_after_a_rollback_in_the_unit(self) -> None:
        """Earlier rows are rolled back, and later ones are part of the same unit."""
        store = await self.opened()
        async with self.session(self.space, store) as session:
            transaction = self.join(store, session)
            await transaction.write([self.message("before")])
            await self.rollback(session)
            assert transaction.rolled_back
            assert await transaction.record_handled("handler", "1")
            await transaction.write([self.message("after")])
            with pytest.raises(EarlyCommitError):
                await self.commit(session)
        async with self.session(self.space, store) as session:
            transaction = self.join(store, session)
            await transaction.write([self.message("before")])
            await self.rollback(session)
            await transaction.write([self.message("after")])
            transaction.complete()
            await self.commit(session)
            assert transaction.committed
        rows = await store.read(await self.all_held(store), 100)
        assert [row.key for row in rows] == ["after"]

    @case()
    async def test_a_session_that_the_sender_brought_commits_when_the_sender_wants(self) -> None:
        """The unit does not own it."""
        store = await self.opened()
        async with self.session(self.space, store) as session:
            transaction = self.join(store, session, own=False)
            await transaction.write(self.messages(1))
            await self.commit(session)
        assert await self.ids(store, await self.all_held(store)) == ["0"]

    @case()
    async def test_a_message_is_recorded_as_handled_once_for_each_subscription(self) -> None:
        """By the whole id, and the whole name."""
        store = await self.opened()
        for subscription, message_id, is_new in (
            ("bill", "1", True),
            ("bill", "1", False),
            ("ship", "1", True),
            ("Bill", "1", True),
            ("bill", "1 ", True),
            ("bill", "é", True),
            ("bill", "e", True),
            ("bill", "é", False),
        ):
            async with self.session(self.space, store) as session:
                transaction = self.join(store, session)
                assert await transaction.record_handled(subscription, message_id) is is_new, (subscription, message_id)
                transaction.complete()
                await self.commit(session)

    @case()
    async def test_recording_waits_for_one_that_is_under_way(self) -> None:
        """If that commits, the message was handled; if it rolls back, it was not."""
        for commits in (True, False):
            first, second = await self.opened(), await self.opened()
            recording: asyncio.Task[bool] | None = None

            async def record(second: Store, commits: bool) -> bool:
                async with self.session(self.space, second) as session:
                    found = await self.join(second, session).record_handled("handler", f"{commits}")
                    await self.rollback(session)
                    return found

            async with self.session(self.space, first) as session:
                transaction = self.join(first, session)
                assert await transaction.record_handled("handler", f"{commits}")
                recording = asyncio.ensure_future(record(second, commits))
                await asyncio.wait([recording], timeout=self.moment)
                assert not recording.done(), "it did not wait for the transaction that has recorded the message"
                transaction.complete()
                await (self.commit(session) if commits else self.rollback(session))
            assert await recording is not commits

    @case()
    async def test_a_delayed_message_is_cancelled_with_the_unit(self) -> None:
        """Not if the unit rolls back; and never one that is ready, or not there."""
        store = await self.opened()
        delayed, ready = self.message("a", after=60), self.message("a")
        await store.write([delayed, ready])
        for commits in (False, True):
            async with self.session(self.space, store) as session:
                transaction = self.join(store, session)
                assert await transaction.cancel(delayed.id)
                assert not await transaction.cancel(ready.id)
                assert not await transaction.cancel("of nothing")
                transaction.complete()
                await (self.commit(session) if commits else self.rollback(session))
        assert not await store.cancel(delayed.id)
        assert await self.ids(store, await self.all_held(store)) == [ready.id]

    @case()
    async def test_a_delayed_message_is_cancelled_by_itself(self) -> None:
        """In a separate transaction, once."""
        store = await self.opened()
        delayed, ready = self.message("a", after=60), self.message("a")
        await store.write([delayed, ready])
        assert [await store.cancel(one.id) for one in (delayed, delayed, ready)] == [True, False, False]

    @case()
    async def test_nothing_and_many_are_written(self) -> None:
        """In order, in any number."""
        store = await self.opened()
        async with self.session(self.space, store) as session:
            transaction = self.join(store, session)
            await transaction.write([])
            written = self.messages(700, "a")
            await transaction.write(written)
            transaction.complete()
            await self.commit(session)
        assert await self.ids(store, await self.all_held(store)) == ids_of(written)
