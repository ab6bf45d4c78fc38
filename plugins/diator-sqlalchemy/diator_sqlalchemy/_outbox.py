"""The outbox and the inbox as statements on one connection, which is a unit's own or one of the store's."""

import hashlib
import zlib
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Table,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal,
    not_,
    or_,
    select,
    tuple_,
)

from diator.brokers import OutgoingMessage
from diator.errors import StoreError
from diator.stores import StoredMessage, partition_of
from diator_sqlalchemy._leases import bound, current, lock_current
from diator_sqlalchemy._statements import (
    Clock,
    DeleteByPosition,
    Inserts,
    Row,
    family,
    insert_missing,
    lock_keys,
    one_of,
)
from diator_sqlalchemy._tables import MAX_KEY, MAX_NAME, StoreTables, microseconds, moment

_MESSAGE = ("partition", "id", "topic", "key", "body")
_MAX_DUE = 500
"""Rows that become ready in one transaction."""
_LOCKED = 0.1
"""Seconds until a relay looks again at a row that is due, and that a unit of work has locked to cancel it."""


class Outbox:
    """What is done with the rows. ``key_lock`` adds the order of commit for units that write the same key at once."""

    def __init__(self, tables: StoreTables, partitions: int, *, key_lock: bool) -> None:
        self.tables = tables
        self._partitions = partitions
        self._key_lock = key_lock
        self._space = _signed(str(tables.outbox))
        self._insert_ready = Inserts(tables.outbox, "written_at", *_MESSAGE)
        self._insert_delayed = Inserts(tables.delayed, None, *_MESSAGE, "due")
        self._current = current(tables)
        table = tables.outbox
        columns = [table.c[name] for name in ("partition", "position", "id", "topic", "key", "body", "written_at")]
        found = select(*columns).where(table.c.partition.in_(self._current))
        # Made once: to build it for each read would take as long as the database does.
        self._first = found.order_by(table.c.position).limit(bindparam("limit", type_=Integer))

    def write(self, connection: Connection, messages: Sequence[OutgoingMessage]) -> None:
        """Insert rows: one statement for those that are ready, one for the delayed."""
        rows = [self._row(message) for message in messages]
        ready = [row for row in rows if row["due"] is None]
        delayed = [row for row in rows if row["due"] is not None]
        if ready:
            if self._key_lock:
                lock_keys(connection, self._space, {_signed(row["key"]) for row in ready if row["key"] is not None})
            self._insert_ready(connection, ready)
        if delayed:
            self._insert_delayed(connection, delayed)

    def _row(self, message: OutgoingMessage) -> Row:
        for what, value, limit in (("topic", message.topic, MAX_NAME), ("key", message.key, MAX_KEY)):
            if value is not None and (len(value) > limit or "\0" in value):
                shown = f"of {len(value):,} characters" if len(value) > limit else f"{value!r} with a NUL character"
                text = (
                    f"{message.envelope.type} has a {what} {shown}; expected at most {limit:,} characters, without NUL"
                )
                raise StoreError(f"{text}; choose a shorter {what}, such as an id")
        return {
            "partition": partition_of(message, self._partitions),
            "id": message.id,
            "topic": message.topic,
            "key": message.key,
            "body": message.structured,
            "due": None if message.due is None else microseconds(message.due),
        }

    def cancel(self, connection: Connection, message_id: str) -> bool:
        """Delete a delayed row."""
        table = self.tables.delayed
        if family(connection.dialect.name) != "mysql":
            return connection.execute(delete(table).where(table.c.id == message_id)).rowcount > 0
        # There, a delete by the id locks out units that write other delayed messages: those that cancel one and write
        # another would meet in deadlocks.
        positions = connection.scalars(select(table.c.position).where(table.c.id == message_id)).all()
        theirs = one_of(connection, table.c.position, positions)
        return bool(positions) and connection.execute(DeleteByPosition(table).where(theirs)).rowcount > 0

    def read(
        self, connection: Connection, held: Mapping[int, int], limit: int, without: Collection[tuple[str, str | None]]
    ) -> Sequence[StoredMessage]:
        """Select the first rows of the partitions that are held, in order."""
        found = self._first if not without else self._first.where(*_without(self.tables.outbox, without))
        return [_stored(row) for row in connection.execute(found, {**bound(held), "limit": limit})]

    def delete(self, connection: Connection, held: Mapping[int, int], rows: Sequence[StoredMessage]) -> int:
        """Delete rows of partitions that are held."""
        table = self.tables.outbox
        theirs = one_of(connection, table.c.position, [row.position for row in rows])
        still = table.c.partition.in_(self._current)
        return connection.execute(DeleteByPosition(table).where(theirs, still), bound(held)).rowcount

    def reject(self, connection: Connection, held: Mapping[int, int], row: StoredMessage, error: str) -> None:
        """Move a row to the dead letters."""
        tables = self.tables
        if row.partition in lock_current(connection, tables, held):
            noted: dict[str, ColumnElement[Any]] = {
                "error": literal(error.replace("\0", "\\0")),
                "dead_lettered_at": Clock(),
            }
            _move(connection, tables.outbox, tables.dead_letters, [row.position], noted)

    def next_due(self, connection: Connection, held: Mapping[int, int]) -> float | None:
        """Return the seconds until a row is due, 0 if one is."""
        table = self.tables.delayed
        ours = table.c.partition.in_(self._current)
        row = connection.execute(select(func.min(table.c.due), Clock()).where(ours), bound(held)).one()
        return None if row[0] is None else max(0.0, (row[0] - row[1]) / 1_000_000)

    def promote(self, connection: Connection, held: Mapping[int, int]) -> float | None:
        """Move rows that are due to the outbox."""
        table = self.tables.delayed
        ours = one_of(connection, table.c.partition, lock_current(connection, self.tables, held))
        order = (table.c.due, table.c.position)
        due = select(table.c.position).where(ours, table.c.due <= Clock()).order_by(*order).limit(_MAX_DUE)
        # Without those that a unit of work is cancelling: no relay may wait for the end of a unit.
        positions = connection.scalars(due.with_for_update(skip_locked=True)).all()
        if positions:
            _move(connection, table, self.tables.outbox, positions, {"written_at": Clock()}, order)
        wait = self.next_due(connection, held)
        return wait if positions or wait is None else max(_LOCKED, wait)

    def replay(self, connection: Connection, ids: Collection[str]) -> Collection[str]:
        """Move dead letters back to the outbox."""
        table = self.tables.dead_letters
        found = select(table.c.position, table.c.id).where(one_of(connection, table.c.id, ids))
        rows = connection.execute(found.order_by(table.c.position).with_for_update()).all()
        if rows:
            _move(connection, table, self.tables.outbox, [row[0] for row in rows], {"written_at": Clock()})
        return [row[1] for row in rows]

    def record_handled(self, connection: Connection, subscription: str, message_id: str) -> bool:
        """Insert a row of the inbox, unless it is there."""
        row = {"subscription": subscription, "message_id": _exact(message_id)}
        return insert_missing(connection, self.tables.inbox, clock="handled_at", **row)

    def expire(self, connection: Connection, keep: timedelta, limit: int) -> int:
        """Delete the oldest rows of the inbox that are older than is kept."""
        table = self.tables.inbox
        old = table.c.handled_at < Clock() - literal(keep // timedelta(microseconds=1))
        if family(connection.dialect.name) == "mysql":  # which can't delete by a key of two columns fast
            if not connection.scalar(select(exists().where(old))):
                return 0  # where few rows are there, a delete would wait for those that units of work have inserted
            few = delete(table).where(old).with_dialect_options(mysql_limit=limit, mariadb_limit=limit)
            return connection.execute(few).rowcount
        key = tuple_(table.c.subscription, table.c.message_id)
        first = select(table.c.subscription, table.c.message_id).where(old).order_by(table.c.handled_at).limit(limit)
        return connection.execute(delete(table).where(key.in_(first))).rowcount


# Any: values of SQL have no common type.
def _stored(row: Sequence[Any]) -> StoredMessage:
    return StoredMessage._make([*row[:-1], moment(row[-1])])


def _signed(text: object) -> int:
    """Return a number of 32 bits with a sign that stands for a text."""
    return zlib.crc32(str(text).encode()) - 2**31


def _without(table: Table, held: Collection[tuple[str, str | None]]) -> Sequence[ColumnElement[bool]]:
    keys = [(topic, key) for topic, key in held if key is not None]
    topics = [topic for topic, key in held if key is None]
    return (
        or_(table.c.key.is_(None), not_(tuple_(table.c.topic, table.c.key).in_(keys))),
        not_(and_(table.c.key.is_(None), table.c.topic.in_(topics))),
    )


# Any: expressions of columns of all types.
def _move(
    connection: Connection,
    source: Table,
    target: Table,
    positions: Sequence[int],
    values: Mapping[str, ColumnElement[Any]],
    order: Sequence[ColumnElement[Any]] = (),
) -> None:
    """Move rows, which get new positions in this order."""
    ours = one_of(connection, source.c.position, positions)
    rows = select(*(source.c[name] for name in _MESSAGE), *values.values()).where(ours)
    ordered = rows.order_by(*(order or (source.c.position,)))
    connection.execute(insert(target).from_select([*_MESSAGE, *values], ordered))
    connection.execute(DeleteByPosition(source).where(ours))


def _exact(message_id: str) -> str:
    """Return an id that fits the column and equals no other: other systems choose ids of any kind.

    A hash stands for those that are too long, and those with characters that a database rejects or ignores.
    """
    if len(message_id) <= MAX_NAME and message_id.isascii() and message_id.isprintable() and message_id[-1:] != " ":
        return message_id
    return "sha256:" + hashlib.sha256(message_id.encode(errors="surrogatepass")).hexdigest()
