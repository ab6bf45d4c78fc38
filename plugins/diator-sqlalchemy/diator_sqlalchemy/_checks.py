"""What must be true of the database and its tables before the store works on them."""

import logging
import secrets
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Dialect, Engine, StaticPool, Table, func, inspect, select, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.sql.type_api import TypeEngine

from diator.errors import StoreError
from diator_sqlalchemy._statements import family, insert_missing
from diator_sqlalchemy._tables import VERSION, StoreTables

AUTOCOMMIT = (
    "the engine of the session is in AUTOCOMMIT mode, so data and events would not commit together; "
    "leave isolation_level and autocommit out, or set another"
)

_log = logging.getLogger("diator.stores")

_SUPPORTED = ("postgresql", "mysql", "sqlite")
_SCHEMAS = {"postgresql": "SELECT current_schema()", "mysql": "SELECT DATABASE()", "sqlite": "SELECT 'main'"}


def is_autocommit(options: Mapping[str, Any], dialect: Dialect) -> bool:
    """Tell whether an engine or a connection commits each statement by itself, given its execution options.

    The driver can't be asked: asyncpg's answers with another level.
    """
    level: object = options.get("isolation_level") or getattr(dialect, "_on_connect_isolation_level", None)
    return level == "AUTOCOMMIT"


IN_MEMORY = "a database of SQLite in memory belongs to one connection, and the relay needs one of its own"
USE_A_FILE = "use a file: sqlite+aiosqlite:///shop.db"


def is_in_memory(engine: Engine | AsyncEngine) -> bool:
    """Tell, without I/O, whether an engine is of SQLite in memory. A pool of many connections may have a file."""
    database = engine.url.database
    return (
        engine.dialect.name == "sqlite"
        and isinstance(engine.pool, StaticPool)
        and (not database or ":memory:" in database or engine.url.query.get("mode") == "memory")
    )


# Any: drivers have types of their own.
def commits_each_statement(driver: Any) -> bool:
    """Tell whether a connection of the driver was set to do so, which SQLAlchemy does not know.

    One of SQLite may have begun in spite of that, by a listener.
    """
    if hasattr(driver, "in_transaction"):
        asks_for_it = getattr(driver, "autocommit", None) is True or getattr(driver, "isolation_level", "") is None
        return asks_for_it and not driver.in_transaction
    if hasattr(driver, "get_autocommit"):  # of MySQL
        return bool(driver.get_autocommit())
    return getattr(driver, "autocommit", None) is True


_LOSES_ALL = frozenset({1020, 1206, 1213})
"""Errors of MySQL that undo the whole transaction: a snapshot that is too old, no room for locks, a deadlock."""
_MAY_LOSE_ALL = ("is full", "disk i/o", "interrupted", "out of memory")
"""The same of SQLite, which has then ended the transaction; so may a constraint that says so."""


def loses_transaction(connection: Connection, error: BaseException) -> bool:
    """Tell whether the database has undone the whole transaction of a statement, and goes on in another one."""
    kind = family(connection.dialect.name)
    if kind == "mysql":
        return bool(error.args) and error.args[0] in _LOSES_ALL
    if kind == "sqlite":
        may = type(error).__name__ == "IntegrityError" or any(word in str(error).lower() for word in _MAY_LOSE_ALL)
        return may and not getattr(connection.connection.driver_connection, "in_transaction", True)
    return False


def can_lock_keys(connection: Connection) -> bool:
    """Tell whether keys must be locked, other than on SQLite with its one writer. Raises `StoreError`."""
    kind = family(connection.dialect.name)
    if kind == "mysql":
        raise StoreError("key_lock=True is not supported on MySQL and MariaDB; leave it out")
    return kind == "postgresql"


def default_schema(connection: Connection) -> str:
    """Return the schema of names without one. Raises `StoreError` for a database that the store does not know."""
    kind = family(connection.dialect.name)
    if kind not in _SUPPORTED:
        raise StoreError(f"the store works on PostgreSQL, MySQL, MariaDB and SQLite, not on {connection.dialect.name}")
    schema = connection.scalar(text(_SCHEMAS[kind]))
    if not isinstance(schema, str):
        raise StoreError("the connection has no current schema; name one: SQLAlchemyStore(..., schema=...)")
    return schema


def create_tables(connection: Connection, tables: StoreTables) -> Sequence[str]:
    """Create the tables that are missing, and name them. Raises `StoreError` if the others are of a later version."""
    missing = missing_tables(connection, tables)
    if tables.store not in missing:
        ensure_known_version(connection, tables)
    for table in missing:
        table.create(connection)
    return [f"table {table.fullname}" for table in missing]


def check_tables(connection: Connection, tables: StoreTables) -> None:
    """Raise `StoreError` if a table or a column is missing, or has another type."""
    missing = [table.fullname for table in missing_tables(connection, tables)]
    if missing:
        fix = "run `diator outbox create module:app`, or add them to Alembic's metadata with add_tables and migrate"
        raise StoreError(f"tables of the store are missing: {', '.join(missing)}; {fix}")
    wrong = [text for table in tables.all for text in _wrong_columns(connection, table)]
    if wrong:
        raise StoreError(f"tables of the store differ from what is expected: {'; '.join(wrong)}; migrate them")


def missing_tables(connection: Connection, tables: StoreTables) -> Sequence[Table]:
    """Return the tables that do not exist."""
    there = set(inspect(connection).get_table_names(schema=tables.store.schema))
    return [table for table in tables.all if table.name not in there]


def _wrong_columns(connection: Connection, table: Table) -> Sequence[str]:
    there = {column["name"]: column["type"] for column in inspect(connection).get_columns(table.name, table.schema)}
    found = {column: there.get(column.name) for column in table.columns}
    return [
        f"{column} is {kind or 'missing'}, expected {column.type.compile(connection.dialect)}"
        for column, kind in found.items()
        if not _fits(column.type, kind)
    ]


def _fits(expected: TypeEngine[object], found: TypeEngine[object] | None) -> bool:
    try:
        return found is not None and found.python_type is expected.python_type
    except NotImplementedError:  # a type of which SQLAlchemy knows nothing
        return False


class Identity(NamedTuple):
    """Whose the tables are, and which: if all of this is the same, so are the tables."""

    app: str
    partitions: int
    database_id: str


def claim(connection: Connection, tables: StoreTables, app: str, partitions: int) -> Identity:
    """Make the tables those of an app, or check that they are. Raises `StoreError`."""
    table = tables.store
    random_id = secrets.token_hex(16)
    insert_missing(connection, table, number=1, version=VERSION, app=app, partitions=partitions, database_id=random_id)
    ensure_known_version(connection, tables)
    found = identity_of(connection, tables)
    assert found is not None
    if found.app != app:
        text = f"{table.fullname} belongs to the app {found.app!r}, and this one is {app!r}"
        raise StoreError(f'{text}; give this app tables of its own: SQLAlchemyStore(..., prefix="{app}_")')
    if found.partitions != partitions:
        text = f"{table.fullname} was created with partitions={found.partitions}, and the app says {partitions=}"
        raise StoreError(f"{text}; set partitions={found.partitions}")
    there = set(connection.scalars(select(tables.partitions.c.partition)))
    for number in set(range(_partitions_in_use(connection, tables, partitions))) - there:
        insert_missing(connection, tables.partitions, partition=number, token=0, expires=0)
    return found


def _partitions_in_use(connection: Connection, tables: StoreTables, partitions: int) -> int:
    """Return the number of partitions, or an earlier one if there are rows of it, which relays read, too."""
    last = (connection.scalar(select(func.max(table.c.partition))) for table in (tables.outbox, tables.delayed))
    return max(partitions, *(0 if number is None else number + 1 for number in last))


def identity_of(connection: Connection, tables: StoreTables) -> Identity | None:
    """Return the identity of the tables; none if they are empty."""
    columns = (tables.store.c.app, tables.store.c.partitions, tables.store.c.database_id)
    row = connection.execute(select(*columns)).first()
    return None if row is None else Identity._make(row)


def ensure_known_version(connection: Connection, tables: StoreTables) -> None:
    """Raise `StoreError` if the tables are of a later version."""
    table = tables.store
    version = connection.scalar(select(table.c.version))
    if version is not None and version > VERSION:
        text = f"{table.fullname} is of version {version}, and this diator-sqlalchemy knows {VERSION}"
        raise StoreError(f"{text}; upgrade diator-sqlalchemy")


def check_sqlite(connection: Connection) -> None:
    """Raise `StoreError` for a database in memory, and log what makes writers fail instead of wait."""
    file = connection.exec_driver_sql("SELECT file FROM pragma_database_list WHERE name = 'main'").scalar()
    if not file:
        raise StoreError(f"{IN_MEMORY}; {USE_A_FILE}")
    mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
    if mode != "wal":
        text = "The SQLite database is in journal_mode=%s, where readers and writers block each other"
        _log.warning(f'{text}; run once: sqlite3 %s "PRAGMA journal_mode=WAL"', mode, shlex.quote(str(file)))
    if not connection.exec_driver_sql("PRAGMA busy_timeout").scalar():
        text = "The SQLite connections have no busy timeout, so units fail while another one writes"
        _log.warning(f"{text}; set one: connect_args={{'timeout': 5}}")
