"""The suite for store plugins is proven with stores that are wrong in one way each."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from diator_conformance import StoreOptions, StoreSuite

from diator.brokers import OutgoingMessage
from diator.stores import Store, StoredMessage
from tests.stores.sqlite_store import SQLiteSession, SQLiteStore, SQLiteTransaction
from tests.stores.test_sqlite_store import opened


class Mutant(NamedTuple):
    """A store with one defect, and a case that must catch it."""

    store: type[SQLiteStore]
    case: str


MUTANTS: list[Mutant] = []


def caught_by(*cases: str) -> Callable[[type[Any]], type[Any]]:
    """Say which cases must catch the defect of a store, or of the transactions of an otherwise right one."""

    def add(defective: type[Any]) -> type[Any]:
        store = defective
        if issubclass(defective, SQLiteTransaction):

            class Joins(SQLiteStore):
                def join(self, session: SQLiteSession, /, *, own: bool) -> SQLiteTransaction:
                    session.joined = defective(self, session, own=own)
                    return session.joined

            Joins.__name__ = defective.__name__
            store = Joins
        MUTANTS.extend(Mutant(store, case) for case in cases)
        return defective

    return add


@caught_by("a_commit_before_the_events_are_written_raises_and_commits_nothing")
class CommitsEarly(SQLiteTransaction):
    def ensure_may_commit(self) -> None: ...


@caught_by("a_commit_after_the_unit_has_failed_raises")
class CommitsAfterAFailure(SQLiteTransaction):
    def fail(self) -> None: ...


@caught_by("a_session_that_the_sender_brought_commits_when_the_sender_wants")
class GuardsTheSender(SQLiteTransaction):
    def __init__(self, store: SQLiteStore, session: SQLiteSession, *, own: bool) -> None:
        super().__init__(store, session, own=True)


@caught_by("rows_become_visible_when_the_transaction_commits", "what_is_rolled_back_was_never_there")
class WritesAtOnce(SQLiteTransaction):
    async def write(self, messages: Sequence[OutgoingMessage], /) -> None:
        await self.store.write(messages)


@caught_by("a_message_is_recorded_as_handled_once_for_each_subscription")
class ForgetsTheSubscription(SQLiteTransaction):
    async def record_handled(self, subscription: str, message_id: str, /) -> bool:
        return await super().record_handled("handler", message_id)


@caught_by("a_delayed_message_is_cancelled_with_the_unit")
class CancelsWhatIsReady(SQLiteTransaction):
    async def cancel(self, message_id: str, /) -> bool:
        await self.store.begin(self.session)
        return self.session.execute("DELETE FROM diator_outbox WHERE id = ?", (message_id,)).rowcount > 0


@caught_by("rows_of_a_partition_are_read_in_order_until_they_are_deleted", "several_writers_lose_nothing")
class ReadsTheLastFirst(SQLiteStore):
    async def read(
        self, held: Mapping[int, int], limit: int, /, *, without: Collection[tuple[str, str | None]] = ()
    ) -> Sequence[StoredMessage]:
        return list(reversed(await super().read(held, limit, without=without)))


@caught_by("keys_that_wait_are_left_out_and_take_no_room")
class LeavesOutAfterTheLimit(SQLiteStore):
    async def read(
        self, held: Mapping[int, int], limit: int, /, *, without: Collection[tuple[str, str | None]] = ()
    ) -> Sequence[StoredMessage]:
        return [row for row in await super().read(held, limit) if (row.topic, row.key) not in without]


@caught_by("a_lease_that_has_ended_goes_to_another_relay")
class IgnoresTokens(SQLiteStore):
    async def delete(self, held: Mapping[int, int], rows: Sequence[StoredMessage], /) -> int:
        connection = await self.connected()
        values = [(row.position,) for row in rows]
        return connection.executemany("DELETE FROM diator_outbox WHERE position = ?", values).rowcount


@caught_by("relays_share_the_partitions", "relays_of_the_lowest_rank_come_first")
class KeepsAll(SQLiteStore):
    async def lease(self, relay: str, /, *, seconds: float, rank: int) -> Mapping[int, int]:
        found = await super().lease(relay, seconds=seconds, rank=rank)
        self.first: Mapping[int, int] = getattr(self, "first", found)
        return self.first


@caught_by("relays_of_the_lowest_rank_come_first")
class KnowsNoRanks(SQLiteStore):
    async def lease(self, relay: str, /, *, seconds: float, rank: int) -> Mapping[int, int]:
        return await super().lease(relay, seconds=seconds, rank=0)


@caught_by("what_is_released_is_free_at_once")
class ReleasesNothing(SQLiteStore):
    async def release(self, relay: str, /) -> None: ...


@caught_by("a_row_is_not_read_before_it_is_due")
class NeverDelays(SQLiteStore):
    def insert(self, connection: Any, messages: Sequence[OutgoingMessage]) -> None:
        super().insert(connection, [OutgoingMessage(one.topic, one.envelope) for one in messages])


@caught_by("each_holder_promotes_its_own")
class PromotesNothing(SQLiteStore):
    async def promote(self, held: Mapping[int, int], /) -> float | None:
        return None


@caught_by("a_rejected_row_is_not_read_any_more")
class RejectsNothing(SQLiteStore):
    async def reject(self, held: Mapping[int, int], row: StoredMessage, error: str, /) -> None: ...


@caught_by("dead_letters_are_replayed_and_purged_once")
class ReplaysWhatIsGone(SQLiteStore):
    async def replay(self, ids: Collection[str], /) -> Collection[str]:
        await super().replay(ids)
        return ids


@caught_by("old_rows_are_deleted_in_batches_and_young_ones_stay")
class ExpiresWithoutALimit(SQLiteStore):
    async def expire(self, limit: int, /) -> int:
        return await super().expire(1000)


@caught_by("tables_of_another_app_are_rejected")
class TakesAnyTables(SQLiteStore):
    async def open(self, app: str, container: Any = None, /) -> None:
        await super().open("suite", container)


def suite_of(mutant: type[SQLiteStore], folder: Path) -> StoreSuite:
    class Suite(StoreSuite):
        moment = 0.1
        case_timeout = 15.0

        def make_store(self, space: str, wanted: StoreOptions) -> Store:
            return mutant(folder / f"{space}.db", partitions=wanted.partitions, keep_inbox=wanted.keep_inbox)

        def session(self, space: str, store: Store) -> AbstractAsyncContextManager[Any]:
            assert isinstance(store, SQLiteStore)
            return opened(store)

        async def commit(self, session: SQLiteSession) -> None:
            session.commit()

        async def rollback(self, session: SQLiteSession) -> None:
            session.rollback()

    return Suite()


@pytest.mark.once
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.store.__name__}-{mutant.case}")
def test_a_wrong_store_is_caught(mutant: Mutant, tmp_path: Path) -> None:
    suite = suite_of(mutant.store, tmp_path)
    with pytest.raises((Exception, pytest.fail.Exception)) as raised:
        getattr(suite, f"test_{mutant.case}")()
    assert not isinstance(raised.value, (AttributeError, TypeError, pytest.skip.Exception)), raised.value
    getattr(suite_of(SQLiteStore, tmp_path), f"test_{mutant.case}")()


def test_a_case_can_only_be_replaced_with_a_reason() -> None:
    def test_savepoints_pass(self: object) -> None: ...

    with pytest.raises(TypeError, match="replaces a case of the suite"):
        type("Replaces", (StoreSuite,), {"test_savepoints_pass": test_savepoints_pass})
