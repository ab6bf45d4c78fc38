"""The suite for store plugins is proven with stores that are wrong in one way each."""

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from diator_conformance import StoreSuite

from diator import StoreError
from diator.brokers import OutgoingMessage, ValidationIssue
from diator.brokers.envelope import Envelope
from diator.stores import StoredMessage, StoreStatus
from tests.stores.sqlite_store import SQLiteSession, SQLiteStore, SQLiteTransaction
from tests.stores.test_sqlite_store import SQLiteSuite


class Mutant(NamedTuple):
    """A store with one defect, and a case that must catch it."""

    store: type[SQLiteStore]
    case: str
    says: str


MUTANTS: list[Mutant] = []


def caught_by(*cases: str, says: str = "") -> Callable[[type[Any]], type[Any]]:
    """Say which cases must catch the defect of a store, or of the transactions of an otherwise right one.

    ``says`` is part of what they say.
    """

    def add(defective: type[Any]) -> type[Any]:
        store = defective
        if issubclass(defective, SQLiteTransaction):

            class Joins(SQLiteStore):
                def join(self, session: SQLiteSession, /, *, own: bool) -> SQLiteTransaction:
                    session.joined = defective(self, session, own=own)
                    return session.joined

            Joins.__name__ = defective.__name__
            store = Joins
        MUTANTS.extend(Mutant(store, case, says) for case in cases)
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


@caught_by("an_outage_is_temporary", says="counts as permanent")
@caught_by("a_database_that_is_away_is_reported_as_such_and_found_again")
class CallsOutagesPermanent(SQLiteStore):
    def is_temporary(self, error: BaseException, /) -> bool:
        return False


@caught_by("a_programming_error_is_permanent", says="a bug') counts as temporary")
class CallsBugsTemporary(SQLiteStore):
    def is_temporary(self, error: BaseException, /) -> bool:
        return isinstance(error, Exception)


@caught_by("a_programming_error_is_permanent", says="CancelledError() counts as temporary")
class CallsCancelsTemporary(SQLiteStore):
    def is_temporary(self, error: BaseException, /) -> bool:
        return super().is_temporary(error) or isinstance(error, asyncio.CancelledError)


@caught_by("a_programming_error_is_permanent", says="syntax error') counts as temporary")
class CallsMisuseTemporary(SQLiteStore):
    def is_temporary(self, error: BaseException, /) -> bool:
        return isinstance(error, sqlite3.Error)


@caught_by("a_session_that_does_not_block_leaves_the_event_loop_running", says="the event loop stood still")
class BlocksTheEventLoop(SQLiteStore):
    async def begin(self, session: sqlite3.Connection) -> None:
        until = time.monotonic() + 1.5
        while not session.in_transaction and time.monotonic() < until:
            with suppress(sqlite3.OperationalError):
                session.execute("BEGIN IMMEDIATE")
                return
            time.sleep(0.01)  # noqa: ASYNC251 - that is the defect
        await super().begin(session)


@caught_by("a_session_that_does_not_block_leaves_the_event_loop_running", says="DID NOT RAISE")
class SaysThatItBlocks(SQLiteStore):
    @property
    def is_blocking(self) -> bool:
        return True


@caught_by("writing_nothing_writes_nothing")
class WritesARowForNothing(SQLiteTransaction):
    async def write(self, messages: Sequence[OutgoingMessage], /) -> None:
        envelope = Envelope(specversion="1.0", id="none", source="suite", type="none", data=msgspec.Raw(b"{}"))
        await super().write(messages or [OutgoingMessage("orders", envelope)])


@caught_by("an_object_serves_one_app")
class ServesAnyApp(SQLiteStore):
    def validate(self, container: Any, app: str, /) -> Iterable[ValidationIssue]:
        return ()


@caught_by("it_implements_the_port")
class FindsFaults(SQLiteStore):
    def validate(self, container: Any, app: str, /) -> Iterable[ValidationIssue]:
        yield ValidationIssue("nothing is wrong", "do nothing")


@caught_by("it_can_be_opened_again_in_any_event_loop")
class ClosesForEver(SQLiteStore):
    is_closed = False

    async def aclose(self) -> None:
        await super().aclose()
        self.is_closed = True

    async def connected(self) -> SQLiteSession:
        if self.is_closed:
            raise StoreError("closed")
        return await super().connected()


@caught_by("missing_tables_are_a_permanent_error_that_says_what_to_do")
class CreatesTablesSilently(SQLiteStore):
    async def open(self, app: str, container: Any = None, /) -> None:
        await self.create(app, container)
        await super().open(app, container)


@caught_by("creating_tables_that_are_there_changes_nothing")
class CreatesTablesAnew(SQLiteStore):
    async def create(self, app: str, container: Any = None, /) -> Sequence[str]:
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.remove(f"{self.path}{suffix}")
        return await super().create(app, container)


@caught_by("processes_create_the_tables_at_once")
class SaysThatItCreatedWhatWasThere(SQLiteStore):
    async def create(self, app: str, container: Any = None, /) -> Sequence[str]:
        return await super().create(app, container) or ["diator_outbox"]


@caught_by("another_number_of_partitions_is_rejected")
class TakesAnyPartitions(SQLiteStore):
    async def open(self, app: str, container: Any = None, /) -> None:
        try:
            await super().open(app, container)
        except StoreError as error:
            if "partitions" not in str(error):
                raise


class ChangesRows(SQLiteStore):
    def change(self, row: StoredMessage) -> StoredMessage:
        raise NotImplementedError

    async def read(
        self, held: Mapping[int, int], limit: int, /, *, without: Collection[tuple[str, str | None]] = ()
    ) -> Sequence[StoredMessage]:
        return [self.change(row) for row in await super().read(held, limit, without=without)]


@caught_by("a_row_keeps_all_that_was_written")
class TrimsKeys(ChangesRows):
    def change(self, row: StoredMessage) -> StoredMessage:
        return row._replace(key=row.key and row.key.rstrip())


@caught_by("a_row_keeps_all_that_was_written", says="written_at has no time zone")
class ForgetsTheTimeZone(ChangesRows):
    def change(self, row: StoredMessage) -> StoredMessage:
        return row._replace(written_at=row.written_at.replace(tzinfo=None))


@caught_by("savepoints_pass")
class TakesSavepointsForCommits(SQLiteStore):
    def connect(self) -> SQLiteSession:
        class Session(SQLiteSession):
            def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
                if sql.startswith("RELEASE") and self.joined is not None:
                    self.joined.ensure_may_commit()
                return super().execute(sql, parameters)

        return sqlite3.connect(self.path, timeout=0, isolation_level=None, factory=Session)


@caught_by("work_goes_on_after_a_rollback_in_the_unit")
class IsOverAfterARollback(SQLiteTransaction):
    def ensure_may_commit(self) -> None:
        if not self.rolled_back:
            super().ensure_may_commit()


@caught_by("recording_waits_for_one_that_is_under_way", says="it did not wait")
class RecordsAtOnce(SQLiteTransaction):
    async def record_handled(self, subscription: str, message_id: str, /) -> bool:
        connection = self.store.connect()
        values = (subscription, message_id, self.store.clock())
        found = connection.execute("INSERT OR IGNORE INTO diator_inbox VALUES (?, ?, ?)", values).rowcount == 1
        connection.close()
        return found


@caught_by("a_delayed_message_is_cancelled_by_itself")
class CancelsWhatIsGone(SQLiteStore):
    async def cancel(self, message_id: str, /) -> bool:
        await super().cancel(message_id)
        return True


@caught_by("nothing_and_many_are_written")
class WritesAtMostFiveHundred(SQLiteStore):
    def insert(self, connection: Any, messages: Sequence[OutgoingMessage]) -> None:
        super().insert(connection, messages[:500])


@caught_by("the_only_relay_holds_all_and_keeps_its_tokens")
class RenewsWithNewTokens(SQLiteStore):
    async def lease(self, relay: str, /, *, seconds: float, rank: int) -> Mapping[int, int]:
        await self.release(relay)
        return await super().lease(relay, seconds=seconds, rank=rank)


@caught_by("relays_that_lease_at_once_never_hold_the_same", says="several relays got the same token")
class LeasesToEveryRelay(SQLiteStore):
    async def lease(self, relay: str, /, *, seconds: float, rank: int) -> Mapping[int, int]:
        return dict.fromkeys(range(self.partitions), 1)


@caught_by("a_lease_that_is_renewed_lasts")
class NeverRenews(SQLiteStore):
    async def lease(self, relay: str, /, *, seconds: float, rank: int) -> Mapping[int, int]:
        if relay != "first":
            return await super().lease(relay, seconds=seconds, rank=rank)
        self.leased = getattr(self, "leased", None) or await super().lease(relay, seconds=seconds, rank=rank)
        return self.leased


@caught_by("a_lease_that_ends_too_late_is_shortened", says="a relay that was killed keeps its share")
class LeasesForAnHour(SQLiteStore):
    async def lease(self, relay: str, /, *, seconds: float, rank: int) -> Mapping[int, int]:
        return await super().lease(relay, seconds=3600.0, rank=rank)


@caught_by("only_rows_of_held_partitions_are_read")
class ReadsWhatItHeldBefore(SQLiteStore):
    async def lease(self, relay: str, /, *, seconds: float, rank: int) -> Mapping[int, int]:
        self.leased = await super().lease(relay, seconds=seconds, rank=rank)
        return self.leased

    async def read(
        self, held: Mapping[int, int], limit: int, /, *, without: Collection[tuple[str, str | None]] = ()
    ) -> Sequence[StoredMessage]:
        return await super().read(self.leased, limit, without=without)


class CreatesATableWithout(SQLiteStore):
    table: str
    without: str

    async def create(self, app: str, container: Any = None, /) -> Sequence[str]:
        created = await super().create(app, container)
        connection = self.connect()
        ((table,),) = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (self.table,))
        connection.execute(f"DROP TABLE {self.table}")
        connection.execute(table.replace(self.without, ""))
        connection.close()
        return created


@caught_by("positions_order_rows_and_are_not_used_again", says="the position of one that was deleted")
class UsesPositionsAgain(CreatesATableWithout):
    table, without = "diator_outbox", " AUTOINCREMENT"


@caught_by("dead_letters_with_the_same_id_are_one", says="a page begins again")
class KeepsTheSameDeadLetterTwice(CreatesATableWithout):
    table, without = "diator_dead_letters", " UNIQUE"


@caught_by("a_dead_letter_keeps_all_that_is_known")
class CutsErrors(SQLiteStore):
    async def reject(self, held: Mapping[int, int], row: StoredMessage, error: str, /) -> None:
        await super().reject(held, row, error[:5])


@caught_by("the_status_counts_what_is_there")
class CountsNoDelayedRows(SQLiteStore):
    async def status(self) -> StoreStatus:
        return (await super().status())._replace(delayed=0)


def suite_of(mutant: type[SQLiteStore], folder: Path) -> StoreSuite:
    class Suite(SQLiteSuite):
        moment = 0.1
        case_timeout = 15.0
        store_type = mutant

        def _path(self, space: str) -> Path:
            return folder / f"{space}.db"

    return Suite()


@pytest.mark.once
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.store.__name__}-{mutant.case}")
def test_a_wrong_store_is_caught(mutant: Mutant, tmp_path: Path) -> None:
    suite = suite_of(mutant.store, tmp_path)
    with pytest.raises((Exception, pytest.fail.Exception)) as raised:
        getattr(suite, f"test_{mutant.case}")()
    assert not isinstance(raised.value, (AttributeError, TypeError, pytest.skip.Exception)), raised.value
    assert mutant.says in str(raised.value)
    getattr(suite_of(SQLiteStore, tmp_path), f"test_{mutant.case}")()


NOT_PROVEN = {
    "a_row_that_commits_late_is_read": "SQLite has one writer at a time",
    "a_unit_that_takes_long_stops_no_relay": "SQLite has one writer at a time",
    "units_that_put_off_a_message_do_not_wait_for_each_other": "SQLite has one writer at a time",
    "a_transaction_that_the_database_has_undone_is_not_committed": "the store on sqlite3 knows no such error",
    "all_that_listen_hear_the_partitions": "SQLite has no notifications",
    "listening_ends_if_the_connection_is_lost": "SQLite has no notifications",
}


def test_each_case_is_proven_with_a_wrong_store() -> None:
    cases = {name.removeprefix("test_") for name in dir(StoreSuite) if name.startswith("test_")}
    assert cases - {mutant.case for mutant in MUTANTS} == NOT_PROVEN.keys()


def test_a_case_can_only_be_replaced_with_a_reason() -> None:
    def test_savepoints_pass(self: object) -> None: ...

    with pytest.raises(TypeError, match="replaces a case of the suite"):
        type("Replaces", (StoreSuite,), {"test_savepoints_pass": test_savepoints_pass})
