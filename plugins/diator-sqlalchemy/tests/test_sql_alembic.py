"""Tables that Alembic creates are those that the store expects, and its autogenerate finds no difference."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata, produce_migrations
from alembic.migration import MigrationContext
from alembic.operations import Operations
from diator_sqlalchemy import SQLAlchemyStore, add_tables
from diator_sqlalchemy.testing.places import Place, SessionContainer
from sqlalchemy import Connection, MetaData
from sqlalchemy.ext.asyncio import AsyncSession

CONVENTION = {"pk": "pk_%(table_name)s", "ix": "ix_%(column_0_label)s", "uq": "uq_%(table_name)s_%(column_0_name)s"}


@pytest.fixture(params=["sqlite-aiosqlite", "postgresql-asyncpg", "mysql-asyncmy"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Place]:
    place = Place(f"{request.param}-AsyncSession", tmp_path)
    await place.create()
    yield place
    await place.close()


def differences(connection: Connection, metadata: MetaData) -> list[object]:
    options = {"compare_type": True, "compare_server_default": True}
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


def upgrade(connection: Connection, metadata: MetaData) -> None:
    """Do what a migration does that autogenerate has written: create what is missing."""
    operations = Operations(MigrationContext.configure(connection))
    script = produce_migrations(operations.migration_context, metadata)
    assert script.upgrade_ops is not None
    for operation in script.upgrade_ops.ops:
        for one in getattr(operation, "ops", [operation]):
            operations.invoke(one)


async def test_autogenerate_finds_no_difference_to_what_the_store_creates(place: Place) -> None:
    engine = place.engine()
    store = SQLAlchemyStore(AsyncSession, engine=engine, prefix="shop_")
    await store.create("shop", SessionContainer(place, engine))
    await store.aclose()
    metadata = MetaData(naming_convention=CONVENTION)
    add_tables(metadata, prefix="shop_")
    async with engine.connect() as connection:
        assert await connection.run_sync(differences, metadata) == []


async def test_store_opens_on_what_a_migration_has_created(place: Place) -> None:
    engine = place.engine()
    metadata = MetaData(naming_convention=CONVENTION)
    add_tables(metadata)
    async with engine.begin() as connection:
        await connection.run_sync(upgrade, metadata)
    async with engine.connect() as connection:
        assert await connection.run_sync(differences, metadata) == []
    store = SQLAlchemyStore(AsyncSession, engine=engine)
    assert await store.create("shop", SessionContainer(place, engine)) == []
    assert len(await store.lease("relay", seconds=30, rank=0)) == 16
    await store.aclose()


async def test_schema_is_that_of_the_metadata(place: Place) -> None:
    if place.database != "postgresql":
        pytest.skip("it has no schemas")
    await place.execute(f"CREATE SCHEMA {place.name}_events")
    metadata, engine = MetaData(), place.engine()
    add_tables(metadata, schema=f"{place.name}_events")
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    store = SQLAlchemyStore(AsyncSession, engine=engine, schema=f"{place.name}_events")
    await store.open("shop", SessionContainer(place, engine))
    await store.aclose()
