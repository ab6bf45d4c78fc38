"""What can't be atomic is an error that says what to do, and tables that do not fit are named."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import Mock

import pytest
from diator_sqlalchemy import SQLAlchemyStore
from diator_sqlalchemy.testing.places import Place, SessionContainer, SessionScope, message
from sqlalchemy import AsyncAdaptedQueuePool, Connection, StaticPool, create_engine, event, make_url, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session

from diator import ConfigurationError, EarlyCommitError, NotCommittedError, StoreError, StoreUnavailableError
from diator.containers import Container, Key


@pytest.fixture(params=["sqlite-aiosqlite", "postgresql-asyncpg"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Place]:
    place = Place(f"{request.param}-AsyncSession", tmp_path)
    await place.create()
    yield place
    await place.close()


@pytest.fixture
async def engine(place: Place) -> Any:
    return place.engine()


@pytest.fixture
async def store(place: Place, engine: Any) -> AsyncGenerator[SQLAlchemyStore]:
    """A store that takes the engine of the session."""
    store = SQLAlchemyStore(AsyncSession)
    await store.create("shop", SessionContainer(place, engine))
    yield store
    await store.aclose()


async def open_again(place: Place, engine: Any, app: str = "shop", **options: Any) -> None:
    store = SQLAlchemyStore(AsyncSession, **options)
    try:
        await store.open(app, SessionContainer(place, engine))
    finally:
        await store.aclose()


async def write(store: SQLAlchemyStore, session: AsyncSession) -> None:
    await store.join(session, own=True).write([message("a")])


async def test_engine_that_commits_each_statement_is_rejected(place: Place, store: SQLAlchemyStore) -> None:
    options = {"isolation_level": "AUTOCOMMIT"}
    for engine in (place.engine(**options), place.engine().execution_options(**options)):
        async with AsyncSession(engine) as session:
            with pytest.raises(StoreError, match="AUTOCOMMIT mode"):
                await write(store, session)
    engine = place.engine(isolation_level="AUTOCOMMIT")
    issues = list(SQLAlchemyStore(AsyncSession, engine=engine).validate(SessionContainer(place, engine), "shop"))
    assert [issue.text for issue in issues] == ["the engine of the store is in AUTOCOMMIT mode"]
    async with AsyncSession(place.engine()) as session:
        await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        with pytest.raises(StoreError, match="AUTOCOMMIT mode"):
            await write(store, session)


async def test_session_of_another_database_is_rejected(place: Place, store: SQLAlchemyStore, tmp_path: Path) -> None:
    other = Place(f"{place.database}-{place.driver}-AsyncSession", tmp_path)
    await other.create()
    copy = SQLAlchemyStore(AsyncSession, schema=other.name if place.database == "postgresql" else None)
    if place.database == "sqlite":
        async with AsyncSession(other.engine()) as session:
            with pytest.raises(StoreError, match=r"another database than the store: it has no main\.diator_store"):
                await write(store, session)
        await copy.create("shop", SessionContainer(other, other.engine()))
        async with AsyncSession(other.engine()) as session:
            with pytest.raises(StoreError, match="another database than the store: its"):
                await write(store, session)
    await copy.aclose()
    await other.close()


async def test_tables_stay_those_of_the_store_where_names_lead_elsewhere(place: Place, store: SQLAlchemyStore) -> None:
    """Schemas of tenants change what a name without a schema means."""
    if place.database != "postgresql":
        pytest.skip("it has no schemas")
    await place.execute(f"CREATE SCHEMA {place.name}_tenant")
    engine = place.engine()
    translated = engine.execution_options(schema_translate_map={None: f"{place.name}_tenant"})
    for bind, statement in ((translated, None), (engine, f"SET search_path TO {place.name}_tenant")):
        async with AsyncSession(bind) as session:
            if statement:
                await session.execute(text(statement))
            transaction = store.join(session, own=True)
            await transaction.write([message("a")])
            transaction.complete()
            await session.commit()
    assert len(await store.read(await store.lease("relay", seconds=30, rank=0), 10)) == 2


@pytest.mark.parametrize(
    ("statements", "text"),
    [
        (["DROP TABLE diator_inbox"], r"tables of the store are missing: \w+\.diator_inbox; run `diator outbox create"),
        (["ALTER TABLE diator_outbox DROP COLUMN topic"], r"diator_outbox\.topic is missing, expected VARCHAR\(255\)"),
        (
            ["ALTER TABLE diator_outbox DROP COLUMN body", "ALTER TABLE diator_outbox ADD COLUMN body VARCHAR(10)"],
            r"diator_outbox\.body is VARCHAR\(10\), expected (BLOB|BYTEA)",
        ),
        (["UPDATE diator_store SET version = 2"], "is of version 2, and this diator-sqlalchemy knows 1; upgrade"),
        (
            ["UPDATE diator_store SET app = 'club'"],
            "belongs to the app 'club', and this one is 'shop'; give this app",
        ),
        (["UPDATE diator_store SET partitions = 4"], "created with partitions=4, and the app says partitions=16"),
    ],
)
async def test_tables_that_do_not_fit_are_named(
    place: Place, store: SQLAlchemyStore, engine: Any, statements: list[str], text: str
) -> None:
    await place.execute(*statements)
    with pytest.raises(StoreError, match=text) as raised:
        await open_again(place, engine)
    assert not isinstance(raised.value, StoreUnavailableError)


async def test_another_prefix_is_another_store(place: Place, store: SQLAlchemyStore, engine: Any) -> None:
    other = SQLAlchemyStore(AsyncSession, prefix="club_", partitions=2, engine=type(engine))
    assert len(await other.create("club", SessionContainer(place, engine))) == 7
    await other.write([message("a")])
    assert not await store.read(await store.lease("relay", seconds=30, rank=0), 10)
    await other.aclose()


async def test_commit_in_a_context_manager_of_the_session_raises(store: SQLAlchemyStore, engine: Any) -> None:
    async with AsyncSession(engine) as session:
        transaction = store.join(session, own=True)
        with pytest.raises(EarlyCommitError):
            async with session.begin():
                await session.execute(text("SELECT 1"))
        assert not transaction.committed


@pytest.mark.parametrize("statement", ["COMMIT", "\n commit", "END"])
async def test_commit_written_as_a_statement_raises(store: SQLAlchemyStore, engine: Any, statement: str) -> None:
    async with AsyncSession(engine) as session:
        transaction = store.join(session, own=True)
        assert await transaction.record_handled("shop.bill", "1")
        with pytest.raises(EarlyCommitError):
            await session.execute(text(statement))
    async with AsyncSession(engine) as session:
        assert await store.join(session, own=True).record_handled("shop.bill", "1")


async def test_rollback_written_as_a_statement_is_one(store: SQLAlchemyStore, engine: Any) -> None:
    async with AsyncSession(engine) as session:
        transaction = store.join(session, own=True)
        assert await transaction.record_handled("shop.bill", "1")
        for statement in ("SAVEPOINT here", "rollback to here", "ROLLBACK TO SAVEPOINT here"):
            await session.execute(text(statement))
        assert not transaction.rolled_back
        await session.execute(text("ROLLBACK"))
        assert transaction.rolled_back


async def test_commit_with_an_open_savepoint_raises_and_commits_nothing(store: SQLAlchemyStore, engine: Any) -> None:
    async with AsyncSession(engine) as session:
        transaction = store.join(session, own=True)
        with pytest.raises(EarlyCommitError):
            async with session.begin():
                await session.execute(text("INSERT INTO diator_inbox VALUES ('shop.bill', '1', 0)"))
                await session.begin_nested()
        assert not transaction.committed
    async with AsyncSession(engine) as session:
        assert await store.join(session, own=True).record_handled("shop.bill", "1")


async def test_session_on_a_connection_of_others_leaves_its_commit_to_them(store: SQLAlchemyStore, engine: Any) -> None:
    """As in tests that roll everything back at their end."""
    async with engine.connect() as connection:
        await connection.begin()
        async with AsyncSession(connection, join_transaction_mode="rollback_only") as session:
            transaction = store.join(session, own=True)
            await transaction.write([message("a")])
            transaction.complete()
            await session.commit()
            assert transaction.committed
            transaction.fail()
        await connection.commit()


@pytest.mark.parametrize("kind", [AsyncSession, AsyncConnection])
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_transaction_that_postgresql_has_aborted_is_not_committed(
    tmp_path: Path, driver: str, kind: type[AsyncSession | AsyncConnection]
) -> None:
    """It answers the commit with a rollback, and its drivers say nothing."""
    place = Place(f"postgresql-{driver}-{kind.__name__}", tmp_path)
    await place.create()
    engine = place.engine()
    store = SQLAlchemyStore(kind, engine=engine)
    await store.create("shop", SessionContainer(place, engine))
    wrong = text("INSERT INTO missing VALUES (1)")

    async with place.session(engine) as session:
        transaction = store.join(session, own=True)
        assert await transaction.record_handled("shop.bill", "1")
        with pytest.raises(ProgrammingError):
            await session.execute(wrong)
        transaction.complete()
        with pytest.raises(NotCommittedError, match=r"is aborted.*run what may fail in a savepoint"):
            await session.commit()
        assert not transaction.committed

    async with place.session(engine) as session:
        transaction = store.join(session, own=True)
        assert await transaction.record_handled("shop.bill", "1")
        with pytest.raises(ProgrammingError):
            async with session.begin_nested():
                await session.execute(wrong)
        transaction.complete()
        await session.commit()
        assert transaction.committed
    await store.aclose()
    await place.close()


async def test_rows_that_were_rolled_back_do_not_count_as_committed(store: SQLAlchemyStore, engine: Any) -> None:
    """If a commit fails, and another one succeeds that has nothing to commit."""
    async with AsyncSession(engine) as session:
        transaction = store.join(session, own=True)
        await transaction.write([message("a")])
        transaction.complete()
        await session.close()
        assert transaction.rolled_back
        await session.execute(text("SELECT 1"))
        await session.commit()
        assert not transaction.committed


async def test_session_without_an_engine_of_its_own_is_named(place: Place) -> None:
    container = SessionContainer(place, None)
    with pytest.raises(StoreError, match=r"no engine of its own.*SQLAlchemyStore\(AsyncSession, engine=engine\)"):
        await SQLAlchemyStore(AsyncSession).open("shop", container)


async def test_what_is_no_session_is_named(store: SQLAlchemyStore) -> None:
    with pytest.raises(
        StoreError, match="the container gave 'nothing' as the session of the store; expected an AsyncSession"
    ):
        store.join("nothing", own=True)


async def test_store_that_is_not_open_says_so() -> None:
    with pytest.raises(StoreError, match="the store is not open; enter the app first"):
        await SQLAlchemyStore(AsyncSession).write([message()])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"partitions": 0}, "SQLAlchemyStore got partitions=0; expected a whole number from 1 to 1,000"),
        ({"partitions": "4"}, "SQLAlchemyStore got partitions='4'; expected a whole number from 1 to 1,000"),
        ({"keep_inbox": 30}, "SQLAlchemyStore got keep_inbox=30; expected a timedelta longer than 0"),
        ({"key_lock": 1}, "SQLAlchemyStore got key_lock=1; expected True or False"),
        ({"prefix": None}, "SQLAlchemyStore got prefix=None; expected a text"),
        ({"prefix": "10%_"}, "SQLAlchemyStore got prefix='10%_'; expected a text without %, :"),
        ({"session": AsyncSession()}, "SQLAlchemyStore got session=.*; expected the type of the session"),
        ({"session": async_sessionmaker()}, "SQLAlchemyStore got session=.*; expected the type of the session"),
        ({"session": create_async_engine("sqlite+aiosqlite://")}, "got session=<.*Engine.*; expected the type"),
        ({"engine": "sqlite://u:secret@host"}, r"SQLAlchemyStore got engine='\*\*\*'; expected an engine, such as"),
        ({"engine": make_url("sqlite://u:secret@host")}, r"got engine=sqlite://u:\*\*\*@host; expected an engine"),
    ],
)
def test_options_are_checked(options: dict[str, Any], text: str) -> None:
    given: dict[str, Any] = {"session": AsyncSession, **options}
    with pytest.raises(ConfigurationError, match=text) as raised:
        SQLAlchemyStore(**given)
    assert "secret" not in str(raised.value)


async def test_factory_of_the_session_that_fails_is_named(
    place: Place, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one whose driver is not installed: that is no fault of the store."""

    async def resolve(_scope: SessionScope, _key: Key) -> Any:
        raise ModuleNotFoundError("No module named 'asyncpg'")

    monkeypatch.setattr(SessionScope, "resolve", resolve)
    text = "the container can't provide .*AsyncSession, which the store needs: ModuleNotFoundError: No module named"
    with pytest.raises(StoreError, match=text):
        await SQLAlchemyStore(AsyncSession).open("shop", SessionContainer(place, engine))


def test_prefix_may_be_empty() -> None:
    SQLAlchemyStore(AsyncSession, prefix="")


def begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def set_autocommit(connection: Any, _record: object) -> None:
    connection.autocommit = True


async def test_driver_that_commits_each_statement_is_rejected(
    place: Place, store: SQLAlchemyStore, tmp_path: Path
) -> None:
    """Where SQLAlchemy does not know."""
    if place.database == "sqlite":
        engine = place.engine(connect_args={"isolation_level": None})
        async with AsyncSession(engine) as session:
            with pytest.raises(StoreError, match="AUTOCOMMIT mode"):
                await write(store, session)
        async with AsyncSession(engine) as session:  # before the handler's first statement
            store.join(session, own=True)
            with pytest.raises(StoreError, match="AUTOCOMMIT mode"):
                await session.execute(text("SELECT 1"))
        event.listen(engine.sync_engine, "begin", begin)
        async with AsyncSession(engine) as session:
            await write(store, session)
        return
    other = Place("postgresql-psycopg-AsyncSession", tmp_path)
    other.name = place.name
    engine = other.engine()
    event.listen(engine.sync_engine, "connect", set_autocommit)
    async with AsyncSession(engine) as session:
        with pytest.raises(StoreError, match="AUTOCOMMIT mode"):
            await write(store, session)
    with pytest.raises(StoreError, match="AUTOCOMMIT mode") as raised:
        await open_again(place, engine)
    assert not isinstance(raised.value, StoreUnavailableError)
    await other.close()


@pytest.mark.parametrize(
    ("session", "blocks"),
    [(Session, True), (Connection, True), (Annotated[Session, "shop"], True), (AsyncSession, False)],
)
def test_sessions_that_block_the_event_loop_are_known(session: Any, blocks: bool) -> None:
    assert SQLAlchemyStore(session).is_blocking is blocks


async def test_sqlite_in_memory_is_rejected(tmp_path: Path) -> None:
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
    store = SQLAlchemyStore(AsyncSession, engine=engine)
    container = SessionContainer(Place("sqlite-aiosqlite-AsyncSession", tmp_path), engine)
    (issue,) = store.validate(container, "shop")
    assert "in memory belongs to one connection" in issue.text
    with pytest.raises(StoreError, match=r"in memory belongs to one connection.*use a file"):
        await store.create("shop", container)
    await store.aclose()
    await engine.dispose()


async def test_sqlite_that_does_not_wait_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/shop.db", connect_args={"timeout": 0})
    place = Place("sqlite-aiosqlite-AsyncSession", tmp_path)
    store = SQLAlchemyStore(AsyncSession, engine=engine)
    with caplog.at_level(logging.WARNING, "diator.stores"):
        await store.create("shop", SessionContainer(place, engine))
    assert [record.getMessage().partition(";")[0] for record in caplog.records] == [
        "The SQLite database is in journal_mode=delete, where readers and writers block each other",
        "The SQLite connections have no busy timeout, so units fail while another one writes",
    ]
    assert f'run once: sqlite3 {tmp_path}/shop.db "PRAGMA journal_mode=WAL"' in caplog.text
    await store.aclose()
    await engine.dispose()


async def test_lost_connections_are_no_permanent_error(place: Place, store: SQLAlchemyStore) -> None:
    if place.database != "postgresql":
        pytest.skip("it has no server")
    await store.write([message("a")])
    await place.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    with pytest.raises(StoreUnavailableError):
        await store.write([message("a")])
    for _ in range(5):  # each connection of the pool may be a lost one
        with contextlib.suppress(StoreUnavailableError):
            await store.write([message("a")])
            return
    pytest.fail("no connection works again")


async def test_inbox_is_unavailable_while_its_session_can_not_connect(
    place: Place, store: SQLAlchemyStore, tmp_path: Path
) -> None:
    nowhere = (
        create_async_engine("postgresql+asyncpg://postgres@127.0.0.1:1/shop")
        if place.database == "postgresql"
        else create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/missing/shop.db")
    )
    async with AsyncSession(nowhere) as session:
        with pytest.raises(StoreUnavailableError) as raised:
            await store.join(session, own=True).record_handled("shop.bill", "4711")
    assert "4711" not in str(raised.value)  # an outage is logged once, whatever messages wait
    await nowhere.dispose()


async def test_inbox_is_unavailable_while_the_pool_is_used_up(place: Place, store: SQLAlchemyStore) -> None:
    engine = place.engine(poolclass=AsyncAdaptedQueuePool, pool_size=1, max_overflow=0, pool_timeout=0.1)
    async with engine.connect(), AsyncSession(engine) as session:
        with pytest.raises(StoreUnavailableError, match="QueuePool limit"):
            await store.join(session, own=True).record_handled("shop.bill", "1")
    async with AsyncSession(engine) as session:
        assert await store.join(session, own=True).record_handled("shop.bill", "1")


async def test_errors_of_the_session_that_may_pass_are_known(store: SQLAlchemyStore) -> None:
    assert store.is_temporary(ConnectionRefusedError())
    assert store.is_temporary(asyncio.TimeoutError())
    assert not store.is_temporary(ValueError())


async def test_setting_that_the_driver_does_not_know_is_named(place: Place) -> None:
    engine = place.engine(connect_args={"sslmode": "require"})
    store = SQLAlchemyStore(AsyncSession, engine=engine)
    with pytest.raises(StoreError, match=f"can't connect to {place.database}.*: TypeError: .*'sslmode'"):
        await store.open("shop", SessionContainer(place, engine))
    await store.aclose()


@pytest.mark.parametrize(
    ("create", "driver", "query"),
    [(create_engine, "psycopg", "?passfile=hidden"), (create_async_engine, "asyncpg", "")],
)
async def test_database_that_can_not_be_reached_is_named_without_secrets(create: Any, driver: str, query: str) -> None:
    engine = create(f"postgresql+{driver}://shop:secret@127.0.0.1:1/shop{query}")
    store = SQLAlchemyStore(AsyncSession, engine=engine)
    address = rf"can't connect to postgresql\+{driver}://shop:\*\*\*@127.0.0.1:1/shop: "
    with pytest.raises(StoreUnavailableError, match=address):
        await store.create("shop", Mock(spec=Container))
    await store.aclose()
