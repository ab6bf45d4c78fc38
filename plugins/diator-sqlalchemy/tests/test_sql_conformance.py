"""The store keeps the contract of the port, on each database and through each kind of session."""

import asyncio
import tempfile
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from diator_conformance import StoreOptions, StoreSuite
from diator_sqlalchemy import SQLAlchemyStore
from diator_sqlalchemy.testing import PostgresServer
from diator_sqlalchemy.testing.places import Place, done
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from diator.stores import Store


class SQLSuite(StoreSuite):
    """Gives each case a database of its own."""

    short_lease = 2.0
    moment = 1.0
    where: ClassVar[str]
    folder = tempfile.TemporaryDirectory(prefix="diator-sql-")
    places: ClassVar[dict[str, Place]] = {}
    engines: ClassVar[dict[str, Any]] = {}

    def make_store(self, space: str, wanted: StoreOptions) -> Store:
        if space not in self.places:
            place = self.places[space] = Place(self.where, Path(self.folder.name))
            self.engines[space] = self.make_engine(place)
        return SQLAlchemyStore(
            self.places[space].session_type,
            engine=self.engines[space],
            partitions=wanted.partitions,
            keep_inbox=wanted.keep_inbox,
        )

    def make_engine(self, place: Place) -> Any:
        return place.engine()

    async def set_up(self, space: str) -> None:
        self.make_store(space, StoreOptions())
        await self.places[space].create()

    async def clean_up(self, space: str) -> None:
        await self.places.pop(space).close()

    def session(self, space: str, store: Store) -> AbstractAsyncContextManager[Any]:
        return self.places[space].session(self.engines[space])

    async def commit(self, session: Any) -> None:
        await done(session.commit())

    async def rollback(self, session: Any) -> None:
        await done(session.rollback())

    async def savepoint(self, session: Any) -> None:
        savepoint = await done(session.begin_nested())
        await done(savepoint.commit())

    async def change(self, session: Any) -> None:
        await done(session.execute(text("UPDATE diator_partitions SET token = token")))

    async def misuse(self, session: Any) -> None:
        await done(session.execute(text("SELECT nothing FROM nowhere")))

    async def lose(self, session: Any) -> None:
        with pytest.raises(DBAPIError):
            await done(session.execute(text(self.loses)))

    loses: ClassVar[str] = "SELECT nothing FROM nowhere"
    """A statement after whose error nothing is left of the transaction."""


class OnPostgreSQL(SQLSuite):
    """Kills the server, where a case wants it, and starts it again."""

    @property
    def server(self) -> PostgresServer:
        server = self.places[self.space].server
        assert isinstance(server, PostgresServer)
        return server

    async def stop_server(self) -> None:
        self.server.kill()

    async def start_server(self) -> None:
        self.server.start()


class WithoutNotifications(SQLSuite):
    """A database in which the relays poll."""

    @pytest.mark.xfail(reason="the database has no notifications, so the store sends none")
    def test_all_that_listen_hear_the_partitions(self) -> None:
        super().test_all_that_listen_hear_the_partitions()

    @pytest.mark.xfail(reason="there is no connection that could be lost")
    def test_listening_ends_if_the_connection_is_lost(self) -> None:
        super().test_listening_ends_if_the_connection_is_lost()


class OnSQLite(WithoutNotifications):
    loses = "INSERT OR ROLLBACK INTO diator_inbox VALUES ('handler', '1', 0)"


class TestSQLite(OnSQLite):
    where = "sqlite-aiosqlite-AsyncSession"


class TestSQLiteConnection(OnSQLite):
    where = "sqlite-pysqlite-Connection"


class TestAsyncpg(OnPostgreSQL):
    where = "postgresql-asyncpg-AsyncSession"


class TestPsycopg(OnPostgreSQL):
    where = "postgresql-psycopg-AsyncConnection"


@pytest.mark.once
class TestSerializable(OnPostgreSQL):
    """A database whose transactions are serializable unless they say something else."""

    where = "postgresql-asyncpg-AsyncSession"

    def make_engine(self, place: Place) -> Any:
        settings = {"search_path": place.name, "default_transaction_isolation": "serializable"}
        return place.engine(connect_args={"server_settings": settings})

    @pytest.mark.xfail(reason="a snapshot does not show what is recorded meanwhile, so the message waits instead")
    def test_recording_waits_for_one_that_is_under_way(self) -> None:
        super().test_recording_waits_for_one_that_is_under_way()

    @pytest.mark.xfail(reason="of two sessions that change a row, one fails")
    def test_a_session_that_does_not_block_leaves_the_event_loop_running(self) -> None:
        super().test_a_session_that_does_not_block_leaves_the_event_loop_running()


@pytest.mark.once
class TestPsycopgSession(OnPostgreSQL):
    where = "postgresql-psycopg-Session"


class OnMariaDB(WithoutNotifications):
    async def stop_server(self) -> None:
        self.places[self.space].server.kill()

    async def start_server(self) -> None:
        self.places[self.space].server.start()

    async def lose(self, session: Any) -> None:
        """Wait for a transaction that waits for this one, and has changed more: that one goes on."""
        await session.execute(text("SELECT * FROM diator_partitions WHERE `partition` = 0 FOR UPDATE"))
        async with self.engines[self.space].connect() as other:
            rows = ", ".join(f"('{number}', 0, 0)" for number in range(50))
            await other.execute(text(f"INSERT INTO diator_relays VALUES {rows}"))
            statement = text("UPDATE diator_partitions SET token = token WHERE `partition` = 0")
            waiting = asyncio.ensure_future(other.execute(statement))
            await asyncio.sleep(self.moment)
            with pytest.raises(DBAPIError, match="Deadlock found"):
                await session.execute(text("INSERT INTO diator_relays VALUES ('0', 0, 0)"))
            await waiting
            await other.rollback()


@pytest.mark.once
class TestAsyncmy(OnMariaDB):
    where = "mysql-asyncmy-AsyncSession"


@pytest.mark.once
class TestAiomysql(OnMariaDB):
    where = "mysql-aiomysql-AsyncSession"
