"""`SQLAlchemyStore`: the port of stores on SQLAlchemy."""

import asyncio
import weakref
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated, Any, NamedTuple, TypeVar, get_args, get_origin

from sqlalchemy import URL, Connection, Engine, MetaData, Pool, select
from sqlalchemy.exc import DatabaseError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from diator.brokers import OutgoingMessage, ValidationIssue
from diator.containers import Container, key_of
from diator.errors import DiatorError, StoreError, StoreUnavailableError
from diator.options import FLAG, TEXT, Rule, is_count, optional, require
from diator.stores import OutboxDeadLetter, StoredMessage, StoreStatus
from diator_sqlalchemy._checks import (
    AUTOCOMMIT,
    IN_MEMORY,
    USE_A_FILE,
    Identity,
    can_lock_keys,
    check_sqlite,
    check_tables,
    claim,
    commits_each_statement,
    create_tables,
    default_schema,
    ensure_known_version,
    identity_of,
    is_autocommit,
    is_in_memory,
    missing_tables,
)
from diator_sqlalchemy._database import Database, is_of_database, is_temporary, translated
from diator_sqlalchemy._leases import lease, release
from diator_sqlalchemy._operations import dead_letters, purge, status
from diator_sqlalchemy._outbox import Outbox
from diator_sqlalchemy._sessions import engine_of, ensure_session
from diator_sqlalchemy._tables import MAX_NAME, StoreTables
from diator_sqlalchemy._transaction import JoinedTransaction
from diator_sqlalchemy._wakeups import listen, notify

T = TypeVar("T")

_MAX_PARTITIONS = 1_000


# Any: callers may be unchecked.
def _is_partitions(value: Any) -> bool:
    return is_count(value) and value <= _MAX_PARTITIONS


def _is_time(value: Any) -> bool:
    return isinstance(value, timedelta) and value > timedelta(0)


_SESSIONS = (AsyncSession, Session, AsyncConnection, Connection)
_NO_HINTS = (str, URL, Engine, AsyncEngine, sessionmaker, async_sessionmaker, *_SESSIONS)


# Any: callers may be unchecked.
def _is_hint(value: Any) -> bool:
    return not isinstance(value, _NO_HINTS)  # types of a container need not be classes


def _is_engine(value: Any) -> bool:
    return not isinstance(value, (str, URL))


def _is_prefix(value: Any) -> bool:
    return TEXT.fits(value) and not {"%", ":"} & set(value)  # some drivers read these as parameters


_RULES = {
    "session": Rule(_is_hint, "the type of the session that handlers use, such as AsyncSession"),
    "engine": Rule(_is_engine, "an engine, such as create_async_engine(url), or its type in the container"),
    "schema": optional(TEXT),
    "prefix": Rule(_is_prefix, "a text without %, : and control characters"),
    "partitions": Rule(_is_partitions, f"a whole number from 1 to {_MAX_PARTITIONS:,}"),
    "key_lock": FLAG,
    "keep_inbox": Rule(_is_time, "a timedelta longer than 0"),
}


_CHANGED = "the tables of the store were created again, or changed, while the app runs; they are checked again"


class _Connected(NamedTuple):
    """What is known once the tables were checked."""

    outbox: Outbox
    identity: Identity

    @property
    def channel(self) -> str:
        """The name under which PostgreSQL passes notifications on."""
        return f"diator_{self.identity.database_id}"


class SQLAlchemyStore:
    """Outbox and inbox in the database that handlers write to through SQLAlchemy.

    ``session`` is the type that handlers depend on: ``AsyncSession``, ``Session``, ``AsyncConnection``, ``Connection``,
    a class derived from one, or an ``Annotated`` of one. ``engine`` is an engine, or a key for which the container
    returns one; the relay and events published outside a unit of work use it. By default it is the engine of the
    session. ``schema`` is the current one by default, and ``prefix`` is the prefix of the tables. The number of
    ``partitions`` is fixed when the tables are created. With ``key_lock`` on PostgreSQL, units of work that write
    events of one key at the same time wait for each other. ``keep_inbox`` is the time for which the inbox remembers
    handled messages.
    """

    # Any: hints have no common type.
    def __init__(
        self,
        session: Any,
        *,
        engine: Any = None,
        schema: str | None = None,
        prefix: str = "diator_",
        partitions: int = 16,
        key_lock: bool = False,
        keep_inbox: timedelta = timedelta(days=30),
    ) -> None:
        given = {"partitions": partitions, "key_lock": key_lock, "keep_inbox": keep_inbox}
        given |= {"session": session, "engine": "***" if isinstance(engine, str) else engine}  # it has a password
        require("SQLAlchemyStore", _RULES, {"schema": schema, "prefix": prefix, **given})
        self._session, self._engine = session, engine
        self._schema, self._prefix = schema, prefix
        self._partitions, self._key_lock, self._keep_inbox = partitions, key_lock, keep_inbox
        self._app = ""
        self._container: Container | None = None
        self._database: Database | None = None
        self._connected: _Connected | None = None
        self._connecting = asyncio.Lock()
        self._verified: weakref.WeakSet[Pool] = weakref.WeakSet()

    @property
    def session(self) -> Any:
        """The type of the session that handlers depend on."""
        return self._session

    @property
    def partitions(self) -> int:
        """The number of partitions."""
        return self._partitions

    @property
    def is_blocking(self) -> bool:
        """Whether the session uses a blocking driver."""
        hint = get_args(self._session)[0] if get_origin(self._session) is Annotated else self._session
        return isinstance(hint, type) and issubclass(hint, (Session, Connection))

    def validate(self, container: Container, app: str, /) -> Iterable[ValidationIssue]:
        """Return what cannot work, without I/O."""
        if len(app) > MAX_NAME:
            fix = f"choose one of at most {MAX_NAME} characters"
            yield ValidationIssue(f"the name of the app is {len(app)} characters long, and the store keeps it", fix)
        if self._app not in ("", app):
            fix = f'make one for each: SQLAlchemyStore(..., prefix="{app}_")'
            yield ValidationIssue(f"the apps {self._app!r} and {app!r} got the same store object", fix)
        if isinstance(self._engine, (Engine, AsyncEngine)):
            if is_autocommit(self._engine.get_execution_options(), self._engine.dialect):
                yield ValidationIssue("the engine of the store is in AUTOCOMMIT mode", "leave isolation_level out")
            if is_in_memory(self._engine):
                yield ValidationIssue(IN_MEMORY, USE_A_FILE)
        elif self._engine is not None and not container.can_resolve(key_of(self._engine, container.qualifier)):
            yield ValidationIssue(
                f"the container has no provider for {self._engine!r}, which is the engine of the store",
                "register it, or give the engine itself: SQLAlchemyStore(AsyncSession, engine=engine)",
            )

    async def open(self, app: str, container: Container, /) -> None:
        """Connect, and check the tables."""
        self._app, self._container = app, container
        await self._connect()

    async def create(self, app: str, container: Container, /) -> Sequence[str]:
        """Create missing tables."""
        self._app, self._container = app, container
        database = await self._find_database()
        missing: int | None = None
        while True:
            try:
                done = await database.run(lambda connection: create_tables(connection, self._tables(connection)))
            except StoreError:  # perhaps because another process creates them, too
                before, missing = missing, await database.run(self._count_missing)
                if before is not None and missing >= before:
                    raise
            else:
                await self._connect()
                return done

    def _count_missing(self, connection: Connection) -> int:
        return len(missing_tables(connection, self._tables(connection)))

    async def aclose(self) -> None:
        """Close the store's own connections."""
        database, self._database, self._connected = self._database, None, None
        self._connecting = asyncio.Lock()
        if database is not None:
            await database.aclose()

    async def _connect(self) -> _Connected:
        """Find the engine and check the tables, unless that was done."""
        if self._connected is not None:
            return self._connected
        async with self._connecting:
            if self._connected is None:
                database = await self._find_database()
                self._connected = await database.run(self._check)
            return self._connected

    async def _find_database(self) -> Database:
        if self._database is None:
            if self._container is None:
                raise StoreError("the store is not open; enter the app first: async with app")
            with translated():
                self._database = Database(await self._find_engine(self._container))
        return self._database

    async def _find_engine(self, container: Container) -> Engine | AsyncEngine:
        if isinstance(self._engine, (Engine, AsyncEngine)):
            return self._engine
        hint = self._session if self._engine is None else self._engine
        key = key_of(hint, container.qualifier)
        async with container.scope({}) as scope:
            try:
                found = await scope.resolve(key)
            except Exception as error:
                if isinstance(error, DiatorError) or is_of_database(error):
                    raise
                text = f"the container can't provide {key}, which the store needs: {type(error).__name__}: {error}"
                raise StoreError(text) from error
            if self._engine is None:
                return engine_of(ensure_session(found))
        if not isinstance(found, (Engine, AsyncEngine)):
            raise StoreError(
                f"the container gave {found!r} as the engine of the store; expected an engine of SQLAlchemy"
            )
        return found

    def _tables(self, connection: Connection) -> StoreTables:
        return StoreTables(MetaData(), self._schema or default_schema(connection), self._prefix)

    def _check(self, connection: Connection) -> _Connected:
        if connection.dialect.name == "sqlite":
            check_sqlite(connection)
        tables = self._tables(connection)
        check_tables(connection, tables)
        identity = claim(connection, tables, self._app, self._partitions)
        key_lock = self._key_lock and can_lock_keys(connection)
        return _Connected(Outbox(tables, self._partitions, key_lock=key_lock), identity)

    def join(self, session: Any, /, *, own: bool) -> JoinedTransaction:
        """Join the transaction of a unit of work."""
        return JoinedTransaction(ensure_session(session), self._outbox_on, self._connect, own=own)

    def _outbox_on(self, connection: Connection) -> Outbox:
        """Return what writes through the connection of a unit. Raises `StoreError` if it leads elsewhere."""
        connected = self._connected
        if connected is None:
            raise StoreUnavailableError(_CHANGED)
        if is_autocommit(connection.get_execution_options(), connection.dialect):
            raise StoreError(AUTOCOMMIT)
        pool = connection.engine.pool  # the engine may be one for this call, made by execution_options
        if pool not in self._verified:
            self._verify(connection, connected)
            self._verified.add(pool)
        return connected.outbox

    def _verify(self, connection: Connection, expected: _Connected) -> None:
        if commits_each_statement(connection.connection.driver_connection):
            raise StoreError(AUTOCOMMIT)
        table = expected.outbox.tables.store
        try:
            found = connection.scalar(select(table.c.database_id))
        except DatabaseError as error:
            raise StoreError(f"the session leads to another database than the store: it has no {table}") from error
        if found != expected.identity.database_id:
            raise StoreError(f"the session leads to another database than the store: its {table} is another one")

    def is_temporary(self, error: BaseException, /) -> bool:
        """Return whether retrying later can help."""
        return is_temporary(error)

    async def _run(self, function: Callable[[Connection, Outbox], T], *, single: bool = False) -> T:
        """Run a function on one of the store's own connections."""
        outbox = (await self._connect()).outbox
        database = await self._find_database()
        return await database.run(lambda connection: function(connection, outbox), single=single)

    async def write(self, messages: Sequence[OutgoingMessage], /) -> None:
        """Write rows in a separate transaction."""
        await self._run(lambda connection, outbox: outbox.write(connection, messages))

    async def cancel(self, message_id: str, /) -> bool:
        """Delete a delayed message in a separate transaction."""
        return await self._run(lambda connection, outbox: outbox.cancel(connection, message_id), single=True)

    async def lease(self, relay: str, /, *, seconds: float, rank: int) -> Mapping[int, int]:
        """Acquire or renew a relay's share. Raises `StoreError` if the tables have changed since they were checked."""

        def work(connection: Connection, outbox: Outbox) -> Mapping[int, int]:
            self._check_again(connection, outbox.tables)
            return lease(connection, outbox.tables, relay, seconds, rank)

        return await self._run(work)

    def _check_again(self, connection: Connection, tables: StoreTables) -> None:
        ensure_known_version(connection, tables)
        if self._connected is not None and identity_of(connection, tables) != self._connected.identity:
            self._connected = None  # units of work must not write to partitions that are not there
            self._verified.clear()
            raise StoreUnavailableError(_CHANGED)

    async def release(self, relay: str, /) -> None:
        """Release all leases of a relay."""
        await self._run(lambda connection, outbox: release(connection, outbox.tables, relay))

    async def promote(self, held: Mapping[int, int], /) -> float | None:
        """Make due rows ready."""
        wait = await self._run(lambda connection, outbox: outbox.next_due(connection, held), single=True)
        if wait is None or wait > 0:  # the usual case, which locks nothing
            return wait
        return await self._run(lambda connection, outbox: outbox.promote(connection, held))

    async def read(
        self, held: Mapping[int, int], limit: int, /, *, without: Collection[tuple[str, str | None]] = ()
    ) -> Sequence[StoredMessage]:
        """Read rows that are ready."""
        return await self._run(lambda connection, outbox: outbox.read(connection, held, limit, without), single=True)

    async def delete(self, held: Mapping[int, int], rows: Sequence[StoredMessage], /) -> int:
        """Delete published rows."""
        return await self._run(lambda connection, outbox: outbox.delete(connection, held, rows), single=True)

    async def reject(self, held: Mapping[int, int], row: StoredMessage, error: str, /) -> None:
        """Make a row a dead letter."""
        await self._run(lambda connection, outbox: outbox.reject(connection, held, row, error))

    async def expire(self, limit: int, /) -> int:
        """Delete expired rows of the inbox."""
        return await self._run(lambda connection, outbox: outbox.expire(connection, self._keep_inbox, limit))

    async def notify(self, partitions: Collection[int], /) -> None:
        """Notify all relays that these partitions have new rows, on PostgreSQL."""
        channel = (await self._connect()).channel
        await self._run(lambda connection, _: notify(connection, channel, partitions), single=True)

    @asynccontextmanager
    async def listen(self, heard: Callable[[Collection[int]], None], /) -> AsyncGenerator[None]:
        """Call ``heard`` with the partitions of each notification while the block is open."""
        connected, database = await self._connect(), await self._find_database()
        async with listen(database, connected.channel, heard):
            yield

    async def status(self) -> StoreStatus:
        """Return the status of the outbox and the inbox."""
        return await self._run(lambda connection, outbox: status(connection, outbox.tables), single=True)

    async def dead_letters(self, *, after: str | None = None, limit: int = 100) -> Sequence[OutboxDeadLetter]:
        """Return the next page of dead letters."""
        return await self._run(
            lambda connection, outbox: dead_letters(connection, outbox.tables, after, limit), single=True
        )

    async def replay(self, ids: Collection[str], /) -> Collection[str]:
        """Append dead letters to the outbox again."""
        return await self._run(lambda connection, outbox: outbox.replay(connection, ids))

    async def purge(self, ids: Collection[str], /) -> Collection[str]:
        """Delete dead letters."""
        return await self._run(lambda connection, outbox: purge(connection, outbox.tables, ids))
