"""The store's own connections, apart from those that handlers use, and what the errors of drivers mean."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine

from diator.errors import DiatorError, StoreError, StoreUnavailableError
from diator_sqlalchemy._checks import AUTOCOMMIT, commits_each_statement
from diator_sqlalchemy._threads import in_thread

T = TypeVar("T")

_DRIVERS = frozenset({"asyncpg", "psycopg", "asyncmy", "aiomysql", "pymysql", "sqlite3", "aiosqlite"})
_LATER_STATES = ("08", "40", "53", "55", "57", "58", "25006")
"""SQLSTATEs of PostgreSQL, or their first two characters, after which trying again can help."""
_LATER_NUMBERS = frozenset(
    {
        *(1020, 1205, 1213, 1317, 1969, 3024),  # another transaction was in the way, or a statement took too long
        *(1040, 1041, 1047, 1053, 1077, 1158, 1159, 1160, 1161, 1203, 1226, 1927, 4031),  # the server or a connection
        *(1021, 1114, 1290, 1836),  # full, or read-only
    }
)
"""The same of MySQL and MariaDB; those of their clients begin with 2000."""
_LATER_WORDS = ("locked", "busy", "unable to open", "disk i/o", "is full")
"""The same of SQLite, whose errors have numbers only since Python 3.11."""


class Database:
    """Runs functions on connections of a pool like that of the engine, but another one: handlers can't use it up."""

    def __init__(self, engine: Engine | AsyncEngine) -> None:
        source = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
        self.engine = Engine(source.pool.recreate(), source.dialect, source.url, hide_parameters=source.hide_parameters)
        self.asynchronous = AsyncEngine(self.engine) if isinstance(engine, AsyncEngine) else None
        roll_back_when_cancelled(self.engine)
        if source.dialect.name != "sqlite":
            event.listen(self.engine, "connect", self._on_connect)

    # Any: drivers have types of their own.
    def _on_connect(self, connection: Any, record: Any) -> None:
        """Reject a driver that commits each statement: so do those of handlers. Look at what is committed now.

        With a snapshot, MySQL would lock the gaps between the rows, too.
        """
        if commits_each_statement(record.driver_connection):
            self.engine.dialect.do_terminate(connection)  # which SQLAlchemy 2.0 would leave open
            raise StoreError(AUTOCOMMIT)
        self.engine.dialect.set_isolation_level(connection, "READ COMMITTED")

    async def run(self, function: Callable[[Connection], T], *, single: bool = False) -> T:
        """Run a function in a transaction of its own. Raises `StoreError`.

        ``single`` functions need none: they execute one statement, or only read.
        """
        with translated():
            if self.asynchronous is None:
                return await in_thread(self._run, function, single)
            async with contextlib.AsyncExitStack() as stack:
                with self._connecting():
                    connection = await stack.enter_async_context(self.asynchronous.connect())
                return await connection.run_sync(_transact, function, single)

    def _run(self, function: Callable[[Connection], T], single: bool) -> T:
        with self._connecting():
            connection = self.engine.connect()
        with connection:
            return _transact(connection, function, single)

    @contextlib.contextmanager
    def _connecting(self) -> Generator[None]:
        """Raise what prevents a connection as `StoreError`: an unknown setting of a driver is a `TypeError`."""
        try:
            yield
        except DiatorError:
            raise
        except Exception as error:
            raise store_error(error, f"can't connect to {_address(self.engine.url)}") from error

    @contextlib.asynccontextmanager
    async def driver_connection(self) -> AsyncGenerator[Any]:
        """Open a connection of the driver that takes no place in the pool, and close it afterwards.

        ``Any``: each driver has its own.
        """
        if self.asynchronous is None:
            with self._connecting():
                plain = await in_thread(self.engine.connect)
            driver = plain.connection.driver_connection
            plain.detach()
            try:
                yield driver
            finally:
                _terminate(plain)
            return
        with self._connecting():
            connection = await self.asynchronous.connect()
        driver = (await connection.get_raw_connection()).driver_connection
        await connection.run_sync(Connection.detach)
        try:
            yield driver
        finally:
            await connection.run_sync(_terminate)
            await connection.close()

    async def aclose(self) -> None:
        """Close the connections."""
        if self.asynchronous is None:
            self.engine.dispose()
        else:
            await self.asynchronous.dispose()


def _transact(connection: Connection, function: Callable[[Connection], T], single: bool) -> T:
    if connection.dialect.name == "postgresql":
        # AUTOCOMMIT saves two of three round trips, but leaves the level to the database. And a connection that returns
        # to the pool is reset to the level of the engine, at which relays would fail because of each other.
        # While the first connection is opened, SQLAlchemy does not know the level of the database.
        is_usual = getattr(connection.dialect, "default_isolation_level", None) == "READ COMMITTED"
        connection.execution_options(isolation_level="AUTOCOMMIT" if single and is_usual else "READ COMMITTED")
    with connection.begin():
        if connection.dialect.name == "sqlite" and not single:
            begin(connection, "BEGIN IMMEDIATE")  # a transaction that has read can't wait for the writer's lock
        return function(connection)


def _terminate(connection: Connection) -> None:
    """Close a connection that is not of the pool any more, as far as it can be closed."""
    driver = connection.connection.dbapi_connection
    connection.invalidate()
    connection.close()
    if driver is not None:
        with contextlib.suppress(Exception):  # it may be lost
            connection.dialect.do_terminate(driver)


def roll_back_when_cancelled(engine: Engine) -> None:
    """Have connections of SQLite roll back before SQLAlchemy closes them because a statement was cancelled.

    The driver's cursor lives on in the traceback, and SQLite ends the transaction of a connection that is closed only
    with its last statement: until the garbage collection, no other connection could write.
    """
    if engine.dialect.name == "sqlite":
        event.listen(engine.pool, "invalidate", _roll_back)  # which engines with other options share


# Any: drivers have types of their own.
def _roll_back(connection: Any, _record: object, _error: BaseException | None) -> None:
    with contextlib.suppress(Exception, asyncio.CancelledError):  # of another cancel: the first one is raised
        connection.rollback()


def begin(connection: Connection, statement: str = "BEGIN") -> None:
    """Begin a transaction of SQLite, whose driver does so before the first change alone."""
    if not getattr(connection.connection.driver_connection, "in_transaction", True):
        connection.exec_driver_sql(statement)


@contextlib.contextmanager
def translated() -> Generator[None]:
    """Raise the errors of drivers as `StoreError`."""
    try:
        yield
    except Exception as error:
        if not is_of_database(error):
            raise
        raise store_error(error) from error


def is_of_database(error: BaseException) -> bool:
    """Tell whether an error is of SQLAlchemy or its driver, whose own are passed on while it connects."""
    known = isinstance(error, (SQLAlchemyError, OSError, asyncio.TimeoutError))
    return known or type(error).__module__.partition(".")[0] in _DRIVERS


def is_temporary(error: BaseException) -> bool:
    """Tell whether an error is of the database, and may pass."""
    return is_of_database(error) and may_pass(error)


def store_error(error: BaseException, failure: str = "the database failed") -> StoreError:
    """Return what an error of the driver is for the core."""
    kind = StoreUnavailableError if may_pass(error) else StoreError
    return kind(f"{failure}: {type(error).__name__}: {_short(error)}")


def _address(url: URL) -> str:
    """Return the address without what may be secret."""
    host = url.query.get("host", "")  # of a socket
    return url.set(query={"host": host} if host else {}).render_as_string(hide_password=True)


def _short(error: BaseException) -> str:
    """Return the message of the driver alone: that of SQLAlchemy has the statement and its values."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return str(cause).strip()


_LATER_CLASSES = ("OperationalError", "InterfaceError", "InternalClientError")
"""The last is asyncpg's, of a connection that the server closes while it is used."""


def may_pass(error: BaseException) -> bool:
    """Tell whether the same may work later: the database is away, full, or another transaction was in the way."""
    if isinstance(error, (OSError, PoolTimeoutError, asyncio.TimeoutError)):  # one of the latter in Python 3.10 alone
        return True
    cause = error.orig if isinstance(error, DBAPIError) else error
    number = cause.args[0] if cause is not None and cause.args else None
    if isinstance(number, int):  # before the state, which says less of MySQL's errors
        return number in _LATER_NUMBERS or number in range(2000, 2100)
    state: object = getattr(cause, "sqlstate", None)
    if isinstance(state, str):
        return state.startswith(_LATER_STATES)
    if type(cause).__module__.startswith(("sqlite3", "aiosqlite")):
        return any(word in str(cause).lower() for word in _LATER_WORDS)
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return any(cls.__name__ in _LATER_CLASSES for cls in type(error).__mro__)
