"""The store on each database, and through each kind of session: what the port promises, in a few scenes."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from diator_sqlalchemy import SQLAlchemyStore
from diator_sqlalchemy.testing.places import PLACES, Place, SessionContainer, done, message
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from diator import EarlyCommitError, StoreError, StoreUnavailableError


@pytest.fixture(params=PLACES)
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Place]:
    place = Place(request.param, tmp_path)
    await place.create()
    yield place
    await place.close()


@pytest.fixture
async def engine(place: Place) -> Any:
    return place.engine()


@pytest.fixture
async def store(place: Place, engine: Any) -> AsyncGenerator[SQLAlchemyStore]:
    store = SQLAlchemyStore(place.session_type, engine=engine)
    await store.create("shop", SessionContainer(place, engine))
    yield store
    await store.aclose()


async def ids(store: SQLAlchemyStore) -> list[str]:
    held = await store.lease("relay", seconds=30, rank=0)
    return [row.id for row in await store.read(held, 100)]


async def test_rows_commit_with_the_unit_in_order(place: Place, store: SQLAlchemyStore, engine: Any) -> None:
    messages = [message("a"), message("b"), message("a"), message(None)]
    held = await store.lease("relay", seconds=30, rank=0)
    async with place.session(engine) as session:
        transaction = store.join(session, own=True)
        await transaction.write(messages)
        transaction.complete()
        assert await store.read(held, 100) == []
        await done(session.commit())
        assert transaction.committed
        assert not transaction.rolled_back
    rows = await store.read(held, 100)
    assert [row.id for row in rows] == [one.id for one in messages]
    assert [(row.topic, row.key, row.body) for row in rows] == [
        (one.topic, one.key, one.structured) for one in messages
    ]


async def test_rows_vanish_with_the_unit(place: Place, store: SQLAlchemyStore, engine: Any) -> None:
    async with place.session(engine) as session:
        transaction = store.join(session, own=True)
        await transaction.write([message("a")])
        transaction.complete()
        await done(session.rollback())
        assert transaction.rolled_back
        await done(session.commit())
        assert not transaction.committed
    assert await ids(store) == []


async def test_commit_before_the_events_are_written_raises_and_commits_nothing(
    place: Place, store: SQLAlchemyStore, engine: Any
) -> None:
    async with place.session(engine) as session:
        transaction = store.join(session, own=True)
        assert await transaction.record_handled("shop.bill", "1")
        async with savepoint(session):
            pass
        with pytest.raises(EarlyCommitError, match="before the events of its unit of work are written"):
            await done(session.commit())
        assert not transaction.committed
    async with place.session(engine) as session:
        assert await store.join(session, own=True).record_handled("shop.bill", "1")


async def test_savepoint_before_all_else_is_rolled_back_with_the_unit(
    place: Place, store: SQLAlchemyStore, engine: Any
) -> None:
    """The driver of SQLite begins no transaction for it."""
    async with place.session(engine) as session:
        store.join(session, own=True)
        async with savepoint(session):
            await done(session.execute(text("INSERT INTO diator_inbox VALUES ('shop.bill', '1', 0)")))
        await done(session.rollback())
    async with place.session(engine) as session:
        assert await store.join(session, own=True).record_handled("shop.bill", "1")


async def test_statement_that_commits_on_mysql_is_an_early_commit(
    place: Place, store: SQLAlchemyStore, engine: Any
) -> None:
    if place.database != "mysql":
        pytest.skip("its statements commit nothing")
    await place.execute("CREATE TABLE carts (number INTEGER)")
    async with place.session(engine) as session:
        transaction = store.join(session, own=True)
        assert await transaction.record_handled("shop.bill", "1")
        with pytest.raises(EarlyCommitError):
            await session.execute(text("TRUNCATE TABLE carts"))
        await session.execute(text("CREATE TEMPORARY TABLE cart (number INTEGER)"))
        transaction.complete()
        await session.execute(text("TRUNCATE TABLE carts"))
        assert transaction.committed


async def test_statement_that_took_too_long_may_pass(place: Place, store: SQLAlchemyStore, engine: Any) -> None:
    if place.database == "sqlite":
        pytest.skip("it has no limit of time")
    limited = {
        "mysql": ["SET max_statement_time = 0.1", "SELECT sleep(5) FROM diator_store"],
        "postgresql": ["SET statement_timeout = 100", "SELECT pg_sleep(5)"],
    }
    async with place.session(engine) as session:
        with pytest.raises(DBAPIError) as raised:
            for statement in limited[place.database]:
                await done(session.execute(text(statement)))
    assert store.is_temporary(raised.value)


async def test_inbox_is_unavailable_if_it_waits_too_long(place: Place, store: SQLAlchemyStore, engine: Any) -> None:
    """For a unit of work that handles the same message, and takes longer than the database waits for a lock."""
    limit = {
        "mysql": "SET innodb_lock_wait_timeout = 1",
        "postgresql": "SET lock_timeout = 100",
        "sqlite": "PRAGMA busy_timeout = 100",
    }
    async with place.session(engine) as first, place.session(engine) as second:
        assert await store.join(first, own=True).record_handled("shop.bill", "1")
        await done(second.execute(text(limit[place.database])))
        with pytest.raises(StoreUnavailableError):
            await store.join(second, own=True).record_handled("shop.bill", "1")


async def test_commit_of_the_connection_of_a_session_is_early_too(
    place: Place, store: SQLAlchemyStore, engine: Any
) -> None:
    async with place.session(engine) as session:
        transaction = store.join(session, own=True)
        assert await transaction.record_handled("shop.bill", "1")
        is_session = place.session_type in (AsyncSession, Session)
        connection = await done(session.connection()) if is_session else session
        with pytest.raises(EarlyCommitError):
            await done(connection.commit())
        assert not transaction.committed
    async with place.session(engine) as session:
        assert await store.join(session, own=True).record_handled("shop.bill", "1")


@asynccontextmanager
async def savepoint(session: Any) -> AsyncGenerator[None]:
    """Open a savepoint of a session of either kind."""
    nested = await done(session.begin_nested())
    yield
    await done(nested.commit())


async def test_message_is_recorded_as_handled_once(place: Place, store: SQLAlchemyStore, engine: Any) -> None:
    for subscription, message_id, is_new in [
        ("shop.bill", "1", True),
        ("shop.bill", "1", False),
        ("shop.ship", "1", True),
        ("shop.bill", "1 ", True),
        ("shop.bill", "ä\0" * 1_000, True),
        ("shop.bill", "ä\0" * 1_000, False),
    ]:
        async with place.session(engine) as session:
            transaction = store.join(session, own=True)
            assert await transaction.record_handled(subscription, message_id) is is_new, message_id
            transaction.complete()
            await done(session.commit())


async def test_delayed_message_becomes_ready_behind_those_that_are_there(store: SQLAlchemyStore) -> None:
    held = await store.lease("relay", seconds=30, rank=0)
    later, soon, far, ready = message("a", after=0.2), message("a", after=0.1), message("a", after=60), message("a")
    await store.write([later, soon, far])
    await store.write([ready])
    await asyncio.sleep(0.25)
    wait = await store.promote(held)
    assert wait is not None
    assert 50 < wait <= 60
    assert await ids(store) == [ready.id, soon.id, later.id]
    assert await store.cancel(far.id)
    assert not await store.cancel(far.id)
    assert await store.promote(held) is None


async def test_key_with_nul_is_rejected_before_the_insert(store: SQLAlchemyStore) -> None:
    with pytest.raises(StoreError, match=r"shop\.ordered has a key 'a\\x00' with a NUL"):
        await store.write([message("a\0")])
    with pytest.raises(StoreError, match="key of 1,001 characters; expected at most 1,000"):
        await store.write([message("a" * 1_001)])
    await store.write([message("ä" * 1_000)])
    assert len(await ids(store)) == 1


async def test_three_hundred_rows_are_written_at_once(store: SQLAlchemyStore) -> None:
    messages = [message("a") for _ in range(300)]
    await store.write(messages)
    held = await store.lease("relay", seconds=30, rank=0)
    rows = await store.read(held, 1_000)
    assert [row.id for row in rows] == [one.id for one in messages]
    assert await store.delete(held, rows) == 300


async def test_cancelled_statement_of_a_unit_leaves_nothing_locked(place: Place, store: SQLAlchemyStore) -> None:
    """SQLite ends the transaction of a closed connection with its last cursor, which the traceback has."""
    if not place.is_async:
        pytest.skip("what blocks can't be cancelled")
    engine, began = place.engine(), asyncio.Event()

    async def unit() -> None:
        async with place.session(engine) as session:
            await store.join(session, own=True).record_handled("shop.bill", "1")
            if place.database == "sqlite":
                connection = await (await session.connection()).get_raw_connection()
                await connection.driver_connection.create_function("sleep", 1, time.sleep)
            began.set()
            await session.execute(text(f"SELECT {SLEEP[place.database]}(2) UNION ALL SELECT NULL"))

    await store.write([message("a")])
    task = asyncio.ensure_future(unit())
    await began.wait()
    await asyncio.sleep(0.5)
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])
    async with place.session(place.engine()) as session:
        transaction = store.join(session, own=True)
        # MySQL goes on with a statement whose client has left.
        assert await asyncio.wait_for(transaction.record_handled("shop.bill", "1"), 10)
    del task  # which has the traceback


SLEEP = {"sqlite": "sleep", "postgresql": "pg_sleep", "mysql": "sleep"}
