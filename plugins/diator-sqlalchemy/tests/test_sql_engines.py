"""Sessions with several engines, and engines with other levels of isolation."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from diator_sqlalchemy import SQLAlchemyStore
from diator_sqlalchemy.testing.places import Place, SessionContainer, message
from sqlalchemy import Column, Delete, Engine, Integer, MetaData, Table, Update, create_engine, insert, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session

from diator import StoreError, StoreUnavailableError

ENTRIES = Table("entries", MetaData(), Column("number", Integer, primary_key=True))


@pytest.fixture(params=["sqlite-aiosqlite", "postgresql-asyncpg", "postgresql-psycopg"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Place]:
    place = Place(f"{request.param}-AsyncSession", tmp_path)
    await place.create()
    await place.execute("CREATE TABLE entries (number INTEGER)")
    yield place
    await place.close()


@pytest.fixture
async def store(place: Place) -> AsyncGenerator[SQLAlchemyStore]:
    engine = place.engine()
    store = SQLAlchemyStore(AsyncSession, engine=engine)
    await store.create("shop", SessionContainer(place, engine))
    yield store
    await store.aclose()


async def add_entry(session: AsyncSession, engine: Any) -> None:
    await session.execute(insert(ENTRIES).values(number=1), bind_arguments={"bind": engine.sync_engine})


async def test_unit_that_changes_data_through_two_engines_is_rejected(place: Place, store: SQLAlchemyStore) -> None:
    """Each has a commit of its own, so that one may fail after the other."""
    engine, other = place.engine(), place.engine()
    text = r"changes data through Engine\(.*\) and writes to the store through Engine\(.*would not commit together"
    async with AsyncSession(engine) as session:
        transaction = store.join(session, own=True)
        await add_entry(session, other)
        with pytest.raises(StoreError, match=text):
            await transaction.write([message()])
    async with AsyncSession(engine) as session:
        transaction = store.join(session, own=True)
        assert await transaction.record_handled("shop.bill", "1")
        if place.database == "sqlite":  # whose one lock the unit has
            await session.execute(select(1), bind_arguments={"bind": other.sync_engine})
        with pytest.raises(StoreError, match=text):
            await add_entry(session, other)


async def test_unit_may_read_through_another_engine(place: Place, store: SQLAlchemyStore) -> None:
    engine, other = place.engine(), place.engine()
    async with AsyncSession(engine) as session:
        transaction = store.join(session, own=True)
        await session.execute(select(ENTRIES), bind_arguments={"bind": other.sync_engine})
        await add_entry(session, engine)
        await transaction.write([message()])
        transaction.complete()
        await session.commit()
        assert transaction.committed


async def test_unit_with_two_phase_commits_may_change_data_through_two_engines(
    place: Place, store: SQLAlchemyStore
) -> None:
    if place.driver != "psycopg":
        pytest.skip("the driver has no two-phase commits")
    engine, other = place.engine(), place.engine()
    async with AsyncSession(engine, twophase=True) as session:
        transaction = store.join(session, own=True)
        await add_entry(session, other)
        await transaction.write([message()])
        await session.rollback()


async def test_session_that_chooses_its_engine_writes_the_rows_where_it_changes_data(
    place: Place, store: SQLAlchemyStore
) -> None:
    leader, follower = place.engine(), create_engine("sqlite:////nowhere/follower.db")

    class RoutingSession(Session):
        def get_bind(self, mapper: Any = None, clause: Any = None, **_: Any) -> Engine:
            chosen: Engine = leader.sync_engine
            return chosen if self._flushing or isinstance(clause, (Update, Delete)) else follower

    async with AsyncSession(sync_session_class=RoutingSession) as session:
        transaction = store.join(session, own=True)
        await transaction.write([message()])
        transaction.complete()
        await session.commit()
    assert len(await store.read(await store.lease("relay", seconds=30, rank=0), 10)) == 1


async def test_session_without_an_engine_for_the_store_is_named(place: Place, store: SQLAlchemyStore) -> None:
    async with AsyncSession(binds={ENTRIES: place.engine()}) as session:
        with pytest.raises(StoreError, match=r"none for the store; name one: AsyncSession\(engine, binds="):
            await store.join(session, own=True).write([message()])


async def test_relays_do_not_fail_because_of_one_another(place: Place) -> None:
    """They use READ COMMITTED at any isolation level of the units of work; on a snapshot, one of two would fail."""
    if place.database == "sqlite":
        pytest.skip("it has one writer at a time")
    engine = place.engine(isolation_level="SERIALIZABLE")
    stores = [SQLAlchemyStore(AsyncSession, engine=engine) for _ in range(4)]
    for one in stores:
        await one.create("shop", SessionContainer(place, engine))

    async def relay(number: int) -> None:
        for _ in range(20):
            held = await stores[number].lease(f"{number}", seconds=30, rank=0)
            await stores[number].write([message("a"), message("b", after=0)])
            await stores[number].promote(held)
            await stores[number].delete(held, await stores[number].read(held, 10))

    await asyncio.gather(*(relay(number) for number in range(4)))
    for one in stores:
        await one.aclose()


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_unit_on_a_snapshot_is_unavailable_where_it_can_not_tell(
    place: Place, store: SQLAlchemyStore, level: str
) -> None:
    """The message is delivered again, and recognized then."""
    if place.database == "sqlite":
        pytest.skip("it has one writer at a time")
    engine = place.engine(isolation_level=level)
    async with AsyncSession(engine) as first, AsyncSession(engine) as second:
        one, two = store.join(first, own=True), store.join(second, own=True)
        await second.execute(text("SELECT 1 FROM entries"))  # its snapshot is from here on
        assert await one.record_handled("shop.bill", "1")
        one.complete()
        await first.commit()
        with pytest.raises(StoreUnavailableError, match="could not serialize access"):
            await two.record_handled("shop.bill", "1")


async def test_inbox_waits_for_a_server_that_can_be_written_to(place: Place, store: SQLAlchemyStore) -> None:
    """As a standby can't be until it is promoted."""
    if place.database == "sqlite":
        pytest.skip("it has no server")
    async with AsyncSession(place.engine(execution_options={"postgresql_readonly": True})) as session:
        with pytest.raises(StoreUnavailableError, match="in a read-only transaction"):
            await store.join(session, own=True).record_handled("shop.bill", "1")


@pytest.mark.parametrize("kind", [AsyncSession, AsyncConnection])
async def test_unit_whose_commit_fails_is_not_committed(tmp_path: Path, kind: type[Any]) -> None:
    """As those that are serializable may, even if the code that commits goes on."""
    place = Place(f"postgresql-psycopg-{kind.__name__}", tmp_path)
    await place.create()
    await place.execute("CREATE TABLE notes (number INTEGER UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    engine = place.engine()
    store = SQLAlchemyStore(kind, engine=engine)
    await store.create("shop", SessionContainer(place, engine))
    async with place.session(engine) as session:
        transaction = store.join(session, own=True)
        await session.execute(text("INSERT INTO notes VALUES (1), (1)"))
        await transaction.write([message()])
        transaction.complete()
        with pytest.raises(IntegrityError):
            await session.commit()
        assert not transaction.committed
    await store.aclose()
    await place.close()
