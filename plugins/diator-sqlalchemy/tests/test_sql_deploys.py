"""Tables that change while processes of the app run, as in a deployment: nothing is lost, and errors say what is."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from diator_sqlalchemy import SQLAlchemyStore
from diator_sqlalchemy.testing.places import Place, SessionContainer, message
from sqlalchemy.ext.asyncio import AsyncSession

from diator import StoreError, StoreUnavailableError
from diator.brokers import OutgoingMessage

TABLES = ("store", "partitions", "relays", "outbox", "delayed", "dead_letters", "inbox")


@pytest.fixture(params=["sqlite-aiosqlite", "postgresql-asyncpg"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Place]:
    place = Place(f"{request.param}-AsyncSession", tmp_path)
    await place.create()
    yield place
    await place.close()


class Processes:
    """Processes of the app, each with a store of its own."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.stores: list[SQLAlchemyStore] = []

    async def start(self, *, create: bool = False, **options: Any) -> SQLAlchemyStore:
        engine = self.place.engine()
        store = SQLAlchemyStore(AsyncSession, engine=engine, **options)
        self.stores.append(store)
        await (store.create if create else store.open)("shop", SessionContainer(self.place, engine))
        return store


@pytest.fixture
async def processes(place: Place) -> AsyncGenerator[Processes]:
    processes = Processes(place)
    yield processes
    for store in processes.stores:
        await store.aclose()


async def leased(store: SQLAlchemyStore) -> Any:
    return await store.lease("relay", seconds=30, rank=0)


def many() -> list[OutgoingMessage]:
    return [message(f"{number}") for number in range(50)]


@pytest.mark.parametrize(("before", "after"), [(16, 4), (4, 16)])
async def test_rows_of_another_number_of_partitions_are_relayed(
    place: Place, processes: Processes, before: int, after: int
) -> None:
    """Of a process that still runs, too, until its relay leases again; then it writes nothing more."""
    old = await processes.start(create=True, partitions=before)
    await old.write(rows := many())
    await place.execute(f"UPDATE diator_store SET partitions = {after}")
    await old.write(late := many())
    new = await processes.start(partitions=after)
    await new.write(more := many())
    with pytest.raises(StoreUnavailableError, match="created again, or changed, while the app runs"):
        await leased(old)
    with pytest.raises(StoreError, match=f"created with partitions={after}, and the app says partitions={before}"):
        await old.write(many())
    found = await new.read(await leased(new), 500)
    assert [row.id for row in found] == [one.id for one in (*rows, *late, *more)]


async def test_unit_writes_nothing_to_partitions_that_are_no_longer_there(place: Place, processes: Processes) -> None:
    """Rows that it has written before the change was seen are found when the next process starts."""
    old = await processes.start(create=True)
    async with AsyncSession(place.engine()) as session:
        await old.join(session, own=True).write([message()])  # its pool is known from now on
    await place.execute(*(f"DROP TABLE diator_{name}" for name in TABLES))
    new = await processes.start(create=True, partitions=1)
    await old.write(rows := many())
    with pytest.raises(StoreUnavailableError, match="created again, or changed, while the app runs"):
        await leased(old)
    async with AsyncSession(place.engine()) as session:
        with pytest.raises(StoreError, match="created with partitions=1, and the app says partitions=16; set"):
            await old.join(session, own=True).write([message()])
    assert len(await new.read(await leased(new), 100)) < len(rows)
    again = await processes.start(partitions=1)
    assert len(await again.read(await leased(again), 100)) == len(rows)


async def test_tables_that_were_created_again_are_used(place: Place, processes: Processes) -> None:
    old = await processes.start(create=True)
    await place.execute(*(f"DROP TABLE diator_{name}" for name in TABLES))
    await processes.start(create=True)
    with pytest.raises(StoreUnavailableError):
        await leased(old)
    engine = place.engine()
    async with AsyncSession(engine) as session:
        transaction = old.join(session, own=True)
        await transaction.write([message()])
        transaction.complete()
        await session.commit()
    assert len(await old.read(await leased(old), 10)) == 1


async def test_relay_leaves_tables_that_were_upgraded_to_a_newer_one(place: Place, processes: Processes) -> None:
    """The process writes its rows, which wait for that."""
    old = await processes.start(create=True)
    await place.execute("UPDATE diator_store SET version = 2", "DROP TABLE diator_inbox")
    with pytest.raises(StoreError, match="is of version 2, and this diator-sqlalchemy knows 1; upgrade") as raised:
        await leased(old)
    assert not isinstance(raised.value, StoreUnavailableError)
    await old.write(many())
    with pytest.raises(StoreError, match="is of version 2"):
        await processes.start(create=True)
    with pytest.raises(StoreError, match="tables of the store are missing"):  # nothing of this version was created
        await processes.start()
