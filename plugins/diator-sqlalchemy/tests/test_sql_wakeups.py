"""Wake-ups between processes: LISTEN on PostgreSQL with each driver."""

import asyncio
from collections.abc import AsyncGenerator, Collection
from pathlib import Path

import pytest
from diator_sqlalchemy import SQLAlchemyStore
from diator_sqlalchemy.testing.places import Place, SessionContainer

from diator import StoreUnavailableError


@pytest.fixture(
    params=["postgresql-asyncpg-AsyncSession", "postgresql-psycopg-AsyncSession", "postgresql-psycopg-Session"]
)
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Place]:
    place = Place(request.param, tmp_path)
    await place.create()
    yield place
    await place.close()


@pytest.fixture
async def stores(place: Place) -> AsyncGenerator[list[SQLAlchemyStore]]:
    engine = place.engine()
    stores = [SQLAlchemyStore(place.session_type, engine=engine) for _ in "ab"]
    for store in stores:
        await store.create("shop", SessionContainer(place, engine))
    yield stores
    for store in stores:
        await store.aclose()


class Ear:
    """Hears notifications."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[Collection[int]] = asyncio.Queue()

    def __call__(self, partitions: Collection[int]) -> None:
        self.heard.put_nowait(partitions)


async def test_notification_reaches_the_relays_of_other_processes(stores: list[SQLAlchemyStore]) -> None:
    ear = Ear()
    async with stores[0].listen(ear):
        for partitions in ([3, 1], range(16)):
            await stores[1].notify(partitions)
            assert set(await asyncio.wait_for(ear.heard.get(), 10)) == set(partitions)


async def test_block_ends_with_an_error_if_the_connection_is_lost(place: Place, stores: list[SQLAlchemyStore]) -> None:
    ear = Ear()

    async def listen() -> None:
        async with stores[0].listen(ear):
            found = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
            assert await place.execute(found) == [(True,)]
            await asyncio.sleep(60)

    with pytest.raises(StoreUnavailableError, match="connection that listens for notifications was lost"):
        await asyncio.wait_for(listen(), 30)
    async with stores[0].listen(ear):  # and another one is opened
        await stores[1].notify([5])
        assert await asyncio.wait_for(ear.heard.get(), 10) == [5]


async def test_pool_of_one_connection_is_enough_to_listen_and_work(place: Place) -> None:
    engine = place.engine(pool_size=1, max_overflow=0, pool_timeout=1)
    store = SQLAlchemyStore(place.session_type, engine=engine)
    await store.create("shop", SessionContainer(place, engine))
    found = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
    async with store.listen(Ear()):
        assert len(await store.lease("relay", seconds=30, rank=0)) == 16
        assert await place.execute(found) == [(1,)]
    for _ in range(100):  # the server notices a moment later that it was closed
        if await place.execute(found) == [(0,)]:
            break
        await asyncio.sleep(0.05)
    else:
        raise AssertionError("the connection that listened is still open")
    await store.aclose()


async def test_cancel_from_outside_passes_through(stores: list[SQLAlchemyStore]) -> None:
    opened = asyncio.Event()

    async def listen() -> None:
        async with stores[0].listen(Ear()):
            opened.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(listen())
    await asyncio.wait_for(opened.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_database_without_notifications_lets_the_block_wait(tmp_path: Path) -> None:
    place = Place("sqlite-aiosqlite-AsyncSession", tmp_path)
    await place.create()
    engine = place.engine()
    store = SQLAlchemyStore(place.session_type, engine=engine)
    await store.create("shop", SessionContainer(place, engine))
    ear = Ear()
    async with store.listen(ear):
        await store.notify([1])
    assert ear.heard.empty()
    await store.aclose()
    await place.close()
