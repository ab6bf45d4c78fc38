"""Who holds which partition: a relay's fair share, and what the holder of a token may still change."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, Select, bindparam, delete, select, tuple_, update

from diator_sqlalchemy._statements import Clock, insert_missing, one_of
from diator_sqlalchemy._tables import StoreTables


class _Partition(NamedTuple):
    number: int
    token: int
    holder: str | None
    expires: int


def current(tables: StoreTables) -> Select[int]:
    """Return the statement that finds those of the partitions whose token is still the current one; see `bound`."""
    table = tables.partitions
    pair = tuple_(table.c.partition, table.c.token)
    return select(table.c.partition).where(pair.in_(bindparam("held", expanding=True)))


def bound(held: Mapping[int, int]) -> dict[str, list[tuple[int, int]]]:
    """Return what a statement that has `current` in it is executed with."""
    return {"held": list(held.items())}


def lock_current(connection: Connection, tables: StoreTables, held: Mapping[int, int]) -> Collection[int]:
    """Find them, and keep their tokens current until the commit."""
    found = current(tables).order_by(tables.partitions.c.partition)
    return connection.scalars(found.with_for_update(), bound(held)).all()


def lease(connection: Connection, tables: StoreTables, relay: str, seconds: float, rank: int) -> Mapping[int, int]:
    """Renew what a relay holds, take or give up what makes its share, and return the tokens."""
    table = tables.partitions
    columns = (table.c.partition, table.c.token, table.c.holder, table.c.expires)
    rows = connection.execute(select(*columns).order_by(table.c.partition).with_for_update())
    partitions = [_Partition(*row) for row in rows]
    now = connection.scalars(select(Clock())).one()  # read behind the lock, which may have taken long
    expires = now + round(seconds * 1_000_000)
    share = _share(_alive(connection, tables, relay, rank, now, expires), relay, rank, len(partitions))
    own = [partition for partition in partitions if partition.holder == relay]
    free = (one for one in partitions if one.holder is None or (one.expires < now and one.holder != relay))
    # The clock has gone back: their holders may be alive, and have a whole lease to renew them.
    ahead = [one for one in partitions if one.expires > expires and one.holder != relay]
    kept, given = own[:share], own[share:]
    taken = [partition for partition, _ in zip(free, range(share - len(kept)), strict=False)]
    _update(connection, tables, ahead, expires=expires)
    _update(connection, tables, given, holder=None, expires=0)
    _update(connection, tables, kept, expires=expires)
    _update(connection, tables, taken, holder=relay, expires=expires, token=table.c.token + 1)
    return {one.number: one.token for one in kept} | {one.number: one.token + 1 for one in taken}


def release(connection: Connection, tables: StoreTables, relay: str) -> None:
    """Give up all that a relay holds."""
    held = tables.partitions.c.holder == relay
    connection.execute(update(tables.partitions).where(held).values(holder=None, expires=0))
    connection.execute(delete(tables.relays).where(tables.relays.c.relay == relay))


def _alive(
    connection: Connection, tables: StoreTables, relay: str, rank: int, now: int, expires: int
) -> dict[str, int]:
    """Note that a relay is alive, and return the ranks of all that are."""
    table = tables.relays
    noted = update(table).where(table.c.relay == relay).values(rank=rank, expires=expires)
    if not connection.execute(noted).rowcount:
        insert_missing(connection, table, relay=relay, rank=rank, expires=expires)
    connection.execute(delete(table).where(table.c.expires < now))
    rows = connection.execute(select(table.c.relay, table.c.rank, table.c.expires)).all()
    if any(row[2] > expires for row in rows):  # the clock has gone back
        connection.execute(update(table).where(table.c.expires > expires).values(expires=expires))
    return {row[0]: row[1] for row in rows}


def _share(alive: Mapping[str, int], relay: str, rank: int, partitions: int) -> int:
    """Return how many partitions a relay may hold: those of the lowest rank share them all."""
    lowest = min(alive.values())
    if rank > lowest:
        return 0
    sharing = sorted(name for name, its in alive.items() if its == lowest)
    return partitions // len(sharing) + (sharing.index(relay) < partitions % len(sharing))


def _update(connection: Connection, tables: StoreTables, partitions: Sequence[_Partition], **values: object) -> None:
    table = tables.partitions
    if partitions:
        numbers = [partition.number for partition in partitions]
        connection.execute(update(table).where(one_of(connection, table.c.partition, numbers)).values(**values))
