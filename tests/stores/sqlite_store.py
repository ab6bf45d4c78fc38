"""A store on the standard library's `sqlite3`: small, for tests, and the second one that the port is proven with.

Statements run in the event loop. SQLite has one writer: who finds it busy waits without holding the loop.
"""

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

from diator.brokers import OutgoingMessage, ValidationIssue
from diator.containers import Container
from diator.errors import EarlyCommitError, StoreError, StoreUnavailableError
from diator.stores import OutboxDeadLetter, PartitionStatus, StoredMessage, StoreStatus, partition_of

T = TypeVar("T")

VERSION = 1
_TABLES = """
CREATE TABLE diator_store (version INTEGER NOT NULL, partitions INTEGER NOT NULL, app TEXT);
CREATE TABLE diator_partitions (
    partition INTEGER PRIMARY KEY, token INTEGER NOT NULL DEFAULT 0, holder TEXT, until REAL NOT NULL DEFAULT 0
);
CREATE TABLE diator_relays (relay TEXT PRIMARY KEY, rank INTEGER NOT NULL, until REAL NOT NULL);
CREATE TABLE diator_outbox (
    position INTEGER PRIMARY KEY AUTOINCREMENT, partition INTEGER NOT NULL, id TEXT NOT NULL, topic TEXT NOT NULL,
    key TEXT, body BLOB NOT NULL, written REAL NOT NULL, due REAL
);
CREATE INDEX diator_outbox_ready ON diator_outbox (partition, position) WHERE due IS NULL;
CREATE INDEX diator_outbox_due ON diator_outbox (due) WHERE due IS NOT NULL;
CREATE TABLE diator_dead_letters (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, topic TEXT NOT NULL, key TEXT,
    body BLOB NOT NULL, error TEXT NOT NULL, dead_lettered REAL NOT NULL
);
CREATE TABLE diator_inbox (
    subscription TEXT NOT NULL, id TEXT NOT NULL, handled REAL NOT NULL, PRIMARY KEY (subscription, id)
) WITHOUT ROWID;
"""
_CURRENT = "SELECT partition FROM diator_partitions WHERE (partition, token) IN (VALUES {})"
_LATER = ("locked", "busy", "unable to open", "disk i/o", "is full")


class SQLiteSession(sqlite3.Connection):
    """A connection whose transaction a store may have joined."""

    joined: "SQLiteTransaction | None" = None

    def commit(self) -> None:
        if self.joined is not None:
            self.joined.ensure_may_commit()
        had_begun = self.in_transaction
        super().commit()
        if self.joined is not None and had_begun:
            self.joined.committed = True

    def rollback(self) -> None:
        if self.joined is not None and self.in_transaction:
            self.joined.rolled_back, self.joined.committed = True, False
        super().rollback()

    # Any: values of SQL have no common type.
    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        words = sql.upper().replace(";", " ").split()
        if words[:1] in (["COMMIT"], ["END"]):
            self.commit()
            return self.cursor()
        if words[:1] == ["ROLLBACK"] and "TO" not in words:
            self.rollback()
            return self.cursor()
        return super().execute(sql, parameters)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> Literal[False]:
        if kind is None:
            self.commit()
        else:
            self.rollback()
        return False


class SQLiteTransaction:
    """What a store does in the transaction of one unit of work."""

    def __init__(self, store: "SQLiteStore", session: SQLiteSession, *, own: bool) -> None:
        self.store, self.session, self._own = store, session, own
        self._may_commit = not own
        self.committed = self.rolled_back = False

    async def record_handled(self, subscription: str, message_id: str, /) -> bool:
        await self.store.begin(self.session)
        values = (subscription, message_id, self.store.clock())
        return self.session.execute("INSERT OR IGNORE INTO diator_inbox VALUES (?, ?, ?)", values).rowcount == 1

    async def write(self, messages: Sequence[OutgoingMessage], /) -> None:
        await self.store.begin(self.session)
        self.store.insert(self.session, messages)

    async def cancel(self, message_id: str, /) -> bool:
        await self.store.begin(self.session)
        return _cancel(self.session, message_id)

    def complete(self) -> None:
        self._may_commit = True

    def fail(self) -> None:
        self._may_commit = not self._own

    def ensure_may_commit(self) -> None:
        if not self._may_commit:
            text = "the session is committed before the events of its unit are written, or after the unit has failed"
            raise EarlyCommitError(f"{text}; nothing was committed; leave the commit to the code that provides it")


class SQLiteStore:
    """Outbox and inbox in a file of SQLite. `session` is what containers register, scoped, with `sessions`."""

    session = SQLiteSession

    def __init__(
        self,
        path: Path | str,
        *,
        partitions: int = 16,
        keep_inbox: timedelta = timedelta(days=30),
        clock: Callable[[], float] = time.time,
        patience: float = 5.0,
    ) -> None:
        self.path, self.partitions, self.clock = path, partitions, clock
        self._keep_inbox, self._patience = keep_inbox, patience
        self._connection: SQLiteSession | None = None
        self._app: str | None = None

    # Life

    def validate(self, container: Container, app: str, /) -> Iterable[ValidationIssue]:
        if str(self.path) == ":memory:":
            yield ValidationIssue("each connection to ':memory:' has tables of its own", "give the store a path")
        if self._app not in (None, app):
            yield ValidationIssue(f"the apps {self._app!r} and {app!r} got the same store object", "make one for each")

    async def open(self, app: str, container: Container | None = None, /) -> None:
        self._app = app
        await self.connected()

    async def aclose(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def connect(self) -> SQLiteSession:
        """Make a session that has begun no transaction."""
        found = sqlite3.connect(
            self.path, timeout=0, isolation_level=None, check_same_thread=False, factory=SQLiteSession
        )
        found.execute("PRAGMA synchronous = NORMAL")
        return found

    @asynccontextmanager
    async def sessions(self) -> AsyncGenerator[SQLiteSession, None]:
        """Open a session in a transaction, which is committed at the end."""
        session = self.connect()
        try:
            await self.begin(session)
            with session:
                yield session
        finally:
            session.close()

    async def begin(self, session: sqlite3.Connection) -> None:
        """Begin a transaction that may write, unless there is one; wait while another one writes."""
        until = time.monotonic() + self._patience
        while not session.in_transaction:
            try:
                session.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
                await asyncio.sleep(0.002)

    # In units of work

    def join(self, session: SQLiteSession, /, *, own: bool) -> SQLiteTransaction:
        session.joined = SQLiteTransaction(self, session, own=own)
        return session.joined

    def insert(self, connection: sqlite3.Connection, messages: Sequence[OutgoingMessage]) -> None:
        now = self.clock()
        rows = [
            (
                partition_of(one, self.partitions),
                *(one.id, one.topic, one.key, one.structured),
                *(now, None if one.due is None else one.due.timestamp()),
            )
            for one in messages
        ]
        connection.executemany(
            "INSERT INTO diator_outbox (partition, id, topic, key, body, written, due) VALUES (?, ?, ?, ?, ?, ?, ?)",
            rows,
        )

    async def write(self, messages: Sequence[OutgoingMessage], /) -> None:
        await self._do(lambda connection: self.insert(connection, messages))

    async def cancel(self, message_id: str, /) -> bool:
        return await self._do(lambda connection: _cancel(connection, message_id))

    # For relays

    async def lease(self, relay: str, /, *, seconds: float, rank: int) -> Mapping[int, int]:
        now = self.clock()

        def work(connection: sqlite3.Connection) -> Mapping[int, int]:
            do = connection.execute
            do("DELETE FROM diator_relays WHERE until <= ?", (now,))
            do("INSERT OR REPLACE INTO diator_relays VALUES (?, ?, ?)", (relay, rank, now + seconds))
            for table in ("diator_relays", "diator_partitions"):  # if the clock has gone back
                do(f"UPDATE {table} SET until = min(until, ?)", (now + seconds,))
            ranks = [found for (found,) in do("SELECT rank FROM diator_relays")]
            sharing = ranks.count(rank) if rank == min(ranks) else 0
            share = -(-self.partitions // sharing) if sharing else 0
            do("UPDATE diator_partitions SET until = ? WHERE holder = ?", (now + seconds, relay))
            mine = [one for (one,) in do("SELECT partition FROM diator_partitions WHERE holder = ?", (relay,))]
            free = "SELECT partition FROM diator_partitions WHERE holder IS NULL OR until <= ? LIMIT ?"
            for partition in mine[share:]:
                do(_FREE + "partition = ?", (partition,))
            for (partition,) in do(free, (now, max(0, share - len(mine)))).fetchall():
                taken = (relay, now + seconds, partition)
                do("UPDATE diator_partitions SET holder = ?, until = ?, token = token + 1 WHERE partition = ?", taken)
            return dict(do("SELECT partition, token FROM diator_partitions WHERE holder = ?", (relay,)))

        return await self._do(work)

    async def release(self, relay: str, /) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.execute(_FREE + "holder = ?", (relay,))
            connection.execute("DELETE FROM diator_relays WHERE relay = ?", (relay,))

        await self._do(work)

    async def promote(self, held: Mapping[int, int], /) -> float | None:
        now, (current, tokens) = self.clock(), _current(held)

        def work(connection: sqlite3.Connection) -> float | None:
            ready = f"due <= ? AND partition IN ({current})"
            columns = "partition, id, topic, key, body"
            connection.execute(
                f"INSERT INTO diator_outbox ({columns}, written) "
                f"SELECT {columns}, due FROM diator_outbox WHERE {ready} ORDER BY due, position",
                (now, *tokens),
            )
            connection.execute(f"DELETE FROM diator_outbox WHERE {ready}", (now, *tokens))
            query = f"SELECT min(due) FROM diator_outbox WHERE due IS NOT NULL AND partition IN ({current})"
            (due,) = connection.execute(query, tokens).fetchone()
            return None if due is None else max(0.0, due - now)

        return await self._do(work)

    async def read(
        self, held: Mapping[int, int], limit: int, /, *, without: Collection[tuple[str, str | None]] = ()
    ) -> Sequence[StoredMessage]:
        current, tokens = _current(held)
        query = "SELECT partition, position, id, topic, key, body, written FROM diator_outbox WHERE due IS NULL "
        query += f"AND partition IN ({current}) AND (topic, ifnull(key, x'')) NOT IN ({_WAITING})"
        values = (*tokens, json.dumps(list(without)), limit)
        connection = await self.connected()
        with self._translated():
            rows = connection.execute(f"{query} ORDER BY position LIMIT ?", values).fetchall()
        return [StoredMessage._make((*found, _moment(written))) for *found, written in rows]

    async def delete(self, held: Mapping[int, int], rows: Sequence[StoredMessage], /) -> int:
        current, tokens = _current(held)
        query = f"DELETE FROM diator_outbox WHERE position = ? AND partition IN ({current})"
        values = [(row.position, *tokens) for row in rows]
        return await self._do(lambda connection: connection.executemany(query, values).rowcount)

    async def reject(self, held: Mapping[int, int], row: StoredMessage, error: str, /) -> None:
        now, (current, tokens) = self.clock(), _current(held)

        def work(connection: sqlite3.Connection) -> None:
            query = f"DELETE FROM diator_outbox WHERE position = ? AND partition IN ({current})"
            if connection.execute(query, (row.position, *tokens)).rowcount:
                columns = "(id, topic, key, body, error, dead_lettered)"
                letter = (row.id, row.topic, row.key, row.body, error, now)
                connection.execute(
                    f"INSERT OR REPLACE INTO diator_dead_letters {columns} VALUES (?, ?, ?, ?, ?, ?)", letter
                )

        await self._do(work)

    async def expire(self, limit: int, /) -> int:
        before = self.clock() - self._keep_inbox.total_seconds()
        old = "SELECT subscription, id FROM diator_inbox WHERE handled < ? LIMIT ?"
        query = f"DELETE FROM diator_inbox WHERE (subscription, id) IN ({old})"
        return await self._do(lambda connection: connection.execute(query, (before, limit)).rowcount)

    # For operators

    async def create(self, app: str, container: Container | None = None, /) -> Sequence[str]:
        self._app = app

        def work(connection: sqlite3.Connection) -> Sequence[str]:
            if _has_tables(connection):
                return ()
            for statement in filter(str.strip, _TABLES.split(";")):
                connection.execute(statement)
            connection.execute("INSERT INTO diator_store VALUES (?, ?, ?)", (VERSION, self.partitions, app))
            numbers = [(number,) for number in range(self.partitions)]
            connection.executemany("INSERT INTO diator_partitions (partition) VALUES (?)", numbers)
            return [name for (name,) in connection.execute(_NAMES)]

        with self._translated():
            connection = self.connect()
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return await self._do(work, connection)
        finally:
            connection.close()

    async def status(self) -> StoreStatus:
        def work(connection: sqlite3.Connection) -> StoreStatus:
            do, now = connection.execute, self.clock()
            waiting = dict(do("SELECT partition, count(*) FROM diator_outbox WHERE due IS NULL GROUP BY partition"))
            holders = do("SELECT partition, CASE WHEN until > ? THEN holder END FROM diator_partitions", (now,))
            partitions = [PartitionStatus(one, holder, waiting.get(one, 0)) for one, holder in sorted(holders)]
            (oldest,) = do("SELECT min(written) FROM diator_outbox WHERE due IS NULL").fetchone()
            age = None if oldest is None else max(0.0, now - oldest)
            (delayed,) = do("SELECT count(*) FROM diator_outbox WHERE due IS NOT NULL").fetchone()
            (letters,) = do("SELECT count(*) FROM diator_dead_letters").fetchone()
            (handled,) = do("SELECT count(*) FROM diator_inbox").fetchone()
            return StoreStatus(partitions, age, delayed, letters, handled)

        return await self._do(work)

    async def dead_letters(self, *, after: str | None = None, limit: int = 100) -> Sequence[OutboxDeadLetter]:
        query = "SELECT id, topic, key, body, error, dead_lettered FROM diator_dead_letters WHERE number > "
        query += "coalesce((SELECT number FROM diator_dead_letters WHERE id = ?), 0) ORDER BY number LIMIT ?"
        connection = await self.connected()
        with self._translated():
            rows = connection.execute(query, (after, limit)).fetchall()
        return [OutboxDeadLetter._make((*found, _moment(seconds))) for *found, seconds in rows]

    async def replay(self, ids: Collection[str], /) -> Collection[str]:
        now = self.clock()

        def work(connection: sqlite3.Connection) -> Collection[str]:
            found = [OutboxDeadLetter._make((*row, _moment(0))) for row in connection.execute(*_letters(ids))]
            for one in found:
                row = (partition_of(one, self.partitions), one.id, one.topic, one.key, one.body, now)
                connection.execute(
                    "INSERT INTO diator_outbox (partition, id, topic, key, body, written) VALUES (?, ?, ?, ?, ?, ?)",
                    row,
                )
                connection.execute("DELETE FROM diator_dead_letters WHERE id = ?", (one.id,))
            return [one.id for one in found]

        return await self._do(work)

    async def purge(self, ids: Collection[str], /) -> Collection[str]:
        def work(connection: sqlite3.Connection) -> Collection[str]:
            found = [row[0] for row in connection.execute(*_letters(ids))]
            connection.executemany("DELETE FROM diator_dead_letters WHERE id = ?", [(one,) for one in found])
            return found

        return await self._do(work)

    # Connections of its own

    async def connected(self) -> SQLiteSession:
        if self._connection is None:
            with self._translated():
                connection = self.connect()
            try:
                with self._translated():
                    self._check(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _check(self, connection: sqlite3.Connection) -> None:
        if not _has_tables(connection):
            raise StoreError(f"{self.path} has no tables of Diator; create them: diator outbox create module:app")
        version, partitions, app = connection.execute("SELECT version, partitions, app FROM diator_store").fetchone()
        if version != VERSION:
            text = f"the tables in {self.path} have version {version}; expected {VERSION}"
            raise StoreError(f"{text}; upgrade Diator, or the tables: diator outbox create module:app")
        if partitions != self.partitions:
            text = f"the tables in {self.path} have {partitions} partitions, and the store says {self.partitions}"
            raise StoreError(f"{text}; give it partitions={partitions}")
        if app != self._app:
            text = f"the tables in {self.path} belong to the app {app!r}, not to {self._app!r}"
            raise StoreError(f"{text}; give each app a file of its own")

    async def _do(self, work: Callable[[sqlite3.Connection], T], connection: SQLiteSession | None = None) -> T:
        connection = connection or await self.connected()
        with self._translated():
            await self.begin(connection)
            with connection:
                return work(connection)

    @contextmanager
    def _translated(self) -> Generator[None, None, None]:
        try:
            yield
        except sqlite3.Error as error:
            kind = StoreUnavailableError if self.is_temporary(error) else StoreError
            raise kind(f"{self.path}: {error}") from error

    @property
    def is_blocking(self) -> bool:
        return False  # it waits for locks in `begin`, which does not block

    def is_temporary(self, error: BaseException, /) -> bool:
        return isinstance(error, sqlite3.OperationalError) and any(word in str(error).lower() for word in _LATER)


_WAITING = "SELECT json_extract(value, '$[0]'), ifnull(json_extract(value, '$[1]'), x'') FROM json_each(?)"
_FREE = "UPDATE diator_partitions SET holder = NULL, until = 0, token = token + 1 WHERE "
_NAMES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'diator_%' ORDER BY name"


def _current(held: Mapping[int, int]) -> tuple[str, tuple[int, ...]]:
    """Give a query for the partitions that are still held, with its values."""
    if not held:
        return "SELECT 0 WHERE 0", ()
    return _CURRENT.format(", ".join(["(?, ?)"] * len(held))), tuple(part for pair in held.items() for part in pair)


def _cancel(connection: sqlite3.Connection, message_id: str) -> bool:
    query = "DELETE FROM diator_outbox WHERE id = ? AND due IS NOT NULL"
    return connection.execute(query, (message_id,)).rowcount > 0


def _letters(ids: Collection[str]) -> tuple[str, tuple[str, ...]]:
    """Give a query for dead letters, with its values."""
    columns, marks = "id, topic, key, body, error", ", ".join("?" * len(ids))
    return f"SELECT {columns} FROM diator_dead_letters WHERE id IN ({marks}) ORDER BY number", tuple(ids)


def _has_tables(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'diator_store'").fetchone() is not None


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)
