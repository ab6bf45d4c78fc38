"""The tables. Times are microseconds since 1970 by the clock of the database: the same type in each of them."""

from datetime import datetime, timedelta, timezone
from typing import TypeAlias

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, SmallInteger, String, Table, Text
from sqlalchemy.dialects import mysql

VERSION = 1
"""The version of the tables. A store rejects tables of a later one."""
MAX_NAME = 255
MAX_KEY = 1_000
_MYSQL = ("mysql", "mariadb")
_Part: TypeAlias = Column[int] | Column[str] | Column[bytes] | Index
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def _text(length: int) -> String:
    """A text that is compared by its bytes: MySQL's own default ignores case."""
    exact = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return String(length).with_variant(exact, *_MYSQL)


def _bytes() -> LargeBinary:
    return LargeBinary().with_variant(mysql.LONGBLOB(), *_MYSQL)


def _position() -> Column[int]:
    """A number that grows. SQLite counts only a column of this very type, and must not use a number twice."""
    return Column("position", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)


class StoreTables:
    """The tables of one store, in one `MetaData`."""

    def __init__(self, metadata: MetaData, schema: str | None, prefix: str) -> None:
        self._metadata, self._schema, self._prefix = metadata, schema, prefix
        self.store = self._table(
            "store",
            Column("number", SmallInteger, primary_key=True, autoincrement=False),
            Column("version", Integer, nullable=False),
            Column("app", _text(MAX_NAME), nullable=False),
            Column("database_id", _text(32), nullable=False),
            Column("partitions", SmallInteger, nullable=False),
        )
        self.partitions = self._table(
            "partitions",
            Column("partition", SmallInteger, primary_key=True, autoincrement=False),
            Column("token", BigInteger, nullable=False),
            Column("holder", _text(MAX_NAME)),
            Column("expires", BigInteger, nullable=False),
        )
        self.relays = self._table(
            "relays",
            Column("relay", _text(MAX_NAME), primary_key=True),
            Column("rank", Integer, nullable=False),
            Column("expires", BigInteger, nullable=False),
        )
        self.inbox = self._table(
            "inbox",
            Column("subscription", _text(MAX_NAME), primary_key=True),
            Column("message_id", _text(MAX_NAME), primary_key=True),
            Column("handled_at", BigInteger, nullable=False),
            Index(f"ix_{prefix}inbox_handled_at", "handled_at"),
        )
        self.outbox, self.delayed, self.dead_letters = self._outbox(), self._delayed(), self._dead_letters()

    def _outbox(self) -> Table:
        index = Index(f"ix_{self._prefix}outbox_partition", "partition", "position")
        return self._messages("outbox", Column("written_at", BigInteger, nullable=False), index)

    def _delayed(self) -> Table:
        by_time = Index(f"ix_{self._prefix}delayed_due", "partition", "due")
        by_id = Index(f"ix_{self._prefix}delayed_id", "id")
        return self._messages("delayed", Column("due", BigInteger, nullable=False), by_time, by_id)

    def _dead_letters(self) -> Table:
        error = Column("error", Text().with_variant(mysql.LONGTEXT(charset="utf8mb4"), *_MYSQL), nullable=False)
        time = Column("dead_lettered_at", BigInteger, nullable=False)
        return self._messages("dead_letters", error, time, Index(f"ix_{self._prefix}dead_letters_id", "id"))

    def _messages(self, name: str, *more: _Part) -> Table:
        message = (
            _position(),
            Column("partition", SmallInteger, nullable=False),
            Column("id", _text(MAX_NAME), nullable=False),
            Column("topic", _text(MAX_NAME), nullable=False),
            Column("key", _text(MAX_KEY)),
            Column("body", _bytes(), nullable=False),
        )
        return self._table(name, *message, *more, positions=True)

    def _table(self, name: str, *parts: _Part, positions: bool = False) -> Table:
        return Table(self._prefix + name, self._metadata, *parts, schema=self._schema, sqlite_autoincrement=positions)

    @property
    def all(self) -> tuple[Table, ...]:
        """All of them."""
        own = (self.store, self.partitions, self.relays)
        return (*own, self.outbox, self.delayed, self.dead_letters, self.inbox)


def add_tables(metadata: MetaData, *, schema: str | None = None, prefix: str = "diator_") -> None:
    """Add the tables of the store to your own metadata, so that Alembic creates and upgrades them.

    Pass the same ``schema`` and ``prefix`` as to `SQLAlchemyStore`.
    """
    StoreTables(metadata, schema, prefix)


def microseconds(moment: datetime) -> int:
    """Return a time as the tables hold it."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def moment(value: int) -> datetime:
    """Return what the tables hold as a time, in UTC."""
    return _EPOCH + timedelta(microseconds=value)
