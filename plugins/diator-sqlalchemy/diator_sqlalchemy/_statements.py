"""Statements that databases write differently, made so that SQLAlchemy compiles each of them once."""

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Connection,
    Delete,
    Insert,
    Integer,
    Table,
    TextClause,
    any_,
    bindparam,
    cast,
    func,
    insert,
    literal,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

Row = Mapping[str, object]

_CLOCKS = {
    "postgresql": "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)",
    "mysql": "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))",
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)",
}
_DUPLICATE = 1062
_MAX_ROWS = 100
"""Rows of one VALUES list: SQLite may take no more than 999 values."""


class Clock(FunctionElement[int]):
    """The clock of the database in microseconds since 1970. In a transaction it goes on."""

    type = BigInteger()
    inherit_cache = True


@compiles(Clock)
def _compile_clock(_element: Clock, compiler: SQLCompiler, **_: object) -> str:
    return _CLOCKS[family(compiler.dialect.name)]


def family(dialect: str) -> str:
    """Return the name that stands for a dialect: MariaDB's has two."""
    return "mysql" if dialect == "mariadb" else dialect


def one_of(connection: Connection, column: ColumnElement[Any], values: Collection[Any]) -> ColumnElement[bool]:
    """Return the condition that a column has one of these values: on PostgreSQL the same text for any number."""
    if connection.dialect.name == "postgresql":
        return column == any_(cast(literal(list(values), ARRAY(column.type)), ARRAY(column.type)))
    return column.in_(list(values))


class Inserts:
    """Inserts rows of any number into one table, with one statement. ``clock`` is the column that gets the time."""

    def __init__(self, table: Table, clock: str | None, *names: str) -> None:
        self._table, self._clock, self._names = table, clock, names
        self._unnest = self._from_arrays()
        self._lists: dict[int, TextClause] = {}

    def __call__(self, connection: Connection, rows: Sequence[Row]) -> None:
        if connection.dialect.name == "postgresql":
            connection.execute(self._unnest, {name: [row[name] for row in rows] for name in self._names})
            return
        for start in range(0, len(rows), _MAX_ROWS):
            some = rows[start : start + _MAX_ROWS]
            values = {f"{name}_{n}": row[name] for n, row in enumerate(some) for name in self._names}
            connection.execute(self._values(connection, len(some)), values)

    def _from_arrays(self) -> Insert:
        arrays = (
            cast(bindparam(name, type_=ARRAY(self._table.c[name].type)), ARRAY(self._table.c[name].type))
            for name in self._names
        )
        given = func.unnest(*arrays).table_valued(*self._names, with_ordinality="number", name="given")
        rows = given.render_derived()
        columns: list[ColumnElement[Any]] = [rows.c[name] for name in self._names]
        found = select(*columns, *([Clock()] if self._clock else ())).select_from(rows)
        return insert(self._table).from_select(self._columns, found.order_by(rows.c.number))

    @property
    def _columns(self) -> list[str]:
        return [*self._names, *([self._clock] if self._clock else ())]

    def _values(self, connection: Connection, count: int) -> TextClause:
        if count not in self._lists:
            quote = connection.dialect.identifier_preparer
            columns = ", ".join(map(quote.quote, self._columns))
            end = [_CLOCKS[family(connection.dialect.name)]] if self._clock else []
            rows = (", ".join([*(f":{name}_{n}" for name in self._names), *end]) for n in range(count))
            lists = ", ".join(f"({row})" for row in rows)
            self._lists[count] = text(f"INSERT INTO {quote.format_table(self._table)} ({columns}) VALUES {lists}")  # noqa: S608 - names of our own
        return self._lists[count]


class DeleteByPosition(Delete):
    """Deletes rows that it finds by their positions.

    MySQL would rather scan a table with few rows, and wait for one that a unit of work has inserted. Only the form for
    several tables can say how it finds them.
    """

    inherit_cache = True


@compiles(DeleteByPosition, "mysql", "mariadb")
def _compile_delete(element: DeleteByPosition, compiler: SQLCompiler, **options: Any) -> str:
    name = compiler.preparer.format_table(element.table)
    statement = str(compiler.visit_delete(element, **options))  # type: ignore[no-untyped-call]  # of SQLAlchemy
    return statement.replace(f"DELETE FROM {name}", f"DELETE {name} FROM {name} FORCE INDEX (PRIMARY)", 1)  # noqa: S608 - a name of our own


def insert_missing(connection: Connection, table: Table, *, clock: str | None = None, **row: object) -> bool:
    """Insert a row unless its key is there, and tell whether it was missing. Waits for others that insert the same.

    ``clock`` is the column that gets the time.
    """
    statement = _insertion(family(connection.dialect.name), table, clock)
    try:
        return connection.execute(statement, row).rowcount > 0
    except IntegrityError as error:  # of MySQL, where an error undoes one statement only
        if error.orig is None or error.orig.args[0] != _DUPLICATE:
            raise
        return False


@lru_cache(maxsize=100)  # to build it for each message would take as long as the database does
def _insertion(kind: str, table: Table, clock: str | None) -> Insert:
    if kind == "mysql":  # whose INSERT IGNORE would ignore all errors
        statement = insert(table)
    else:
        statement = (postgresql if kind == "postgresql" else sqlite).insert(table).on_conflict_do_nothing()
    timed = statement if clock is None else statement.values({clock: Clock()})
    return timed.execution_options(preserve_rowcount=True)


def lock_keys(connection: Connection, space: int, keys: Collection[int]) -> None:
    """Wait for transactions that have locked one of these numbers, on PostgreSQL. Both are of 32 bits."""
    given = func.unnest(cast(bindparam("keys", type_=ARRAY(Integer)), ARRAY(Integer))).column_valued("number")
    lock = func.pg_advisory_xact_lock(cast(bindparam("space"), Integer), given)
    connection.execute(select(lock).order_by(given), {"space": space, "keys": sorted(keys)})
