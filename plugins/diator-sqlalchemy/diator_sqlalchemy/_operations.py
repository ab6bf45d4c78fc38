"""What operators ask of the tables."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, Table, delete, exists, func, select

from diator.stores import OutboxDeadLetter, PartitionStatus, StoreStatus
from diator_sqlalchemy._statements import Clock, one_of
from diator_sqlalchemy._tables import StoreTables, moment


def status(connection: Connection, tables: StoreTables) -> StoreStatus:
    """Count what is there."""
    outbox, leases = tables.outbox, tables.partitions
    counted = select(outbox.c.partition, func.count()).group_by(outbox.c.partition)
    waiting: dict[int, int] = {row[0]: row[1] for row in connection.execute(counted)}
    now = connection.scalars(select(Clock())).one()
    held = connection.execute(
        select(leases.c.partition, leases.c.holder, leases.c.expires).order_by(leases.c.partition)
    )
    oldest = connection.scalar(select(func.min(outbox.c.written_at)))
    return StoreStatus(
        partitions=[
            PartitionStatus(number, holder if expires >= now else None, waiting.get(number, 0))
            for number, holder, expires in held
        ],
        oldest=None if oldest is None else max(0.0, (now - oldest) / 1_000_000),
        delayed=_count(connection, tables.delayed),
        dead_letters=connection.scalars(select(func.count(tables.dead_letters.c.id.distinct()))).one(),
        handled=_count(connection, tables.inbox),
    )


def _count(connection: Connection, table: Table) -> int:
    return connection.scalars(select(func.count()).select_from(table)).one()


def dead_letters(
    connection: Connection, tables: StoreTables, after: str | None, limit: int
) -> Sequence[OutboxDeadLetter]:
    """Return a page of dead letters, oldest first. One whose predecessor is gone is the first.

    Several with the same id, such as a follow-up that was written by two runs, are one.
    """
    table = tables.dead_letters
    older = table.alias()
    is_first = ~exists().where(older.c.id == table.c.id, older.c.position < table.c.position)
    names = ("id", "topic", "key", "body", "error", "dead_lettered_at")
    page = select(*(table.c[name] for name in names)).where(is_first).order_by(table.c.position).limit(limit)
    if after is not None:
        before = select(func.min(table.c.position)).where(table.c.id == after).scalar_subquery()
        page = page.where(table.c.position > func.coalesce(before, 0))
    return [_dead_letter(row) for row in connection.execute(page)]


# Any: values of SQL have no common type.
def _dead_letter(row: Sequence[Any]) -> OutboxDeadLetter:
    return OutboxDeadLetter._make([*row[:-1], moment(row[-1])])


def purge(connection: Connection, tables: StoreTables, ids: Collection[str]) -> Collection[str]:
    """Delete dead letters."""
    table = tables.dead_letters
    theirs = one_of(connection, table.c.id, ids)
    found = connection.scalars(select(table.c.id).where(theirs).with_for_update()).all()
    connection.execute(delete(table).where(theirs))
    return found
