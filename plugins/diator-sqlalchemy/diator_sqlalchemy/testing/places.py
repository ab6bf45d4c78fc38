"""What the tests of this package share: databases to work in, a container with a session, and messages."""

import atexit
import functools
import os
import uuid
from collections.abc import AsyncGenerator, Collection, Hashable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from typing_extensions import Self

from diator.brokers import OutgoingMessage
from diator.brokers.envelope import Envelope
from diator.containers import ContainerCapability, Key, Lifetime, ValidationResult
from diator_sqlalchemy.testing.servers import REQUIRED_VARIABLE, DatabaseServer, MariaDBServer, PostgresServer

SESSIONS: dict[str, Any] = {"AsyncSession": AsyncSession, "AsyncConnection": AsyncConnection}
SYNC_SESSIONS: dict[str, Any] = {"Session": Session, "Connection": Connection}
PLACES = [
    "sqlite-aiosqlite-AsyncSession",
    "sqlite-pysqlite-Connection",
    "postgresql-asyncpg-AsyncSession",
    "postgresql-psycopg-AsyncConnection",
    "postgresql-psycopg-Session",
    "mysql-asyncmy-AsyncSession",
    "mysql-aiomysql-AsyncSession",
]
"""A database, a driver, and what handlers write through."""


@functools.cache
def server(kind: type[DatabaseServer]) -> DatabaseServer:
    """Return the server that the tests of this process share."""
    try:
        started = PostgresServer(fsync="off") if kind is PostgresServer else kind()
    except FileNotFoundError as error:
        if os.environ.get(REQUIRED_VARIABLE):
            raise
        import pytest  # noqa: PLC0415 - only tests have it

        pytest.skip(str(error))
    atexit.register(started.close)
    return started


class Place:
    """An empty database, and how to reach it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.database, self.driver, kind = name.split("-")
        self.session_type: Any = {**SESSIONS, **SYNC_SESSIONS}[kind]
        self.is_async = kind in SESSIONS
        self.name = f"t{uuid.uuid4().hex[:12]}"
        self._folder = folder
        self._engines: list[Engine | AsyncEngine] = []

    @property
    def server(self) -> DatabaseServer:
        """The server that the database is on."""
        return server(PostgresServer if self.database == "postgresql" else MariaDBServer)

    @property
    def url(self) -> str:
        """The address of the database."""
        if self.database == "sqlite":
            return f"sqlite+{self.driver}:///{self._folder}/{self.name}.db"
        return self.server.url(self.driver, *([self.name] if self.database == "mysql" else []))

    async def create(self) -> None:
        """Create the database."""
        if self.database == "sqlite":
            await self.execute("PRAGMA journal_mode=WAL")
            return
        driver = self.driver if self.database == "mysql" else "asyncpg"
        engine = create_async_engine(self.server.url(driver), isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            kind = "DATABASE" if self.database == "mysql" else "SCHEMA"  # which PostgreSQL creates much faster
            await connection.execute(text(f"CREATE {kind} {self.name}"))
        await engine.dispose()

    def engine(self, **options: Any) -> Any:
        """Return a new engine, which the end of the test disposes of."""
        if self.driver == "asyncpg":
            options = {"connect_args": {"server_settings": {"search_path": self.name}}, **options}
        elif self.driver == "psycopg":
            options = {"connect_args": {"options": f"-c search_path={self.name}"}, **options}
        engine = create_async_engine(self.url, **options) if self.is_async else create_engine(self.url, **options)
        self._engines.append(engine)
        return engine

    async def execute(self, *statements: str) -> list[Any]:
        """Run statements on a connection of their own, and return the rows of the last."""
        if isinstance(engine := self.engine(), AsyncEngine):
            async with engine.begin() as connection:
                return await connection.run_sync(_execute, statements)
        with engine.begin() as connection:
            return _execute(connection, statements)

    async def close(self) -> None:
        """Dispose of the engines."""
        for engine in self._engines:
            if isinstance(engine, AsyncEngine):
                await engine.dispose()
            else:
                engine.dispose()

    @asynccontextmanager
    async def session(self, engine: Any) -> AsyncGenerator[Any]:
        """Open what handlers write through."""
        if self.session_type is AsyncConnection:
            async with engine.connect() as connection:
                yield connection
        elif self.session_type is Connection:
            with engine.connect() as connection:
                yield connection
        elif self.is_async:
            async with self.session_type(engine) as session:
                yield session
        else:
            with self.session_type(engine) as session:
                yield session


def _execute(connection: Connection, statements: Collection[str]) -> list[Any]:
    results = [connection.execute(text(statement)) for statement in statements]
    return [tuple(row) for row in results[-1]] if results[-1].returns_rows else []


# Any: sessions have methods of both kinds.
async def done(result: Any) -> Any:
    """Return a result, which is awaited if it can be."""
    return await result if hasattr(result, "__await__") else result


def message(key: str | None = None, *, topic: str = "shop.orders", after: float | None = None) -> OutgoingMessage:
    """Return a message."""
    envelope = Envelope(
        specversion="1.0",
        id=str(uuid.uuid4()),
        source="shop",
        type="shop.ordered",
        partitionkey=key,
        data=msgspec.Raw(b'{"number":1}'),
    )
    due = None if after is None else datetime.now(timezone.utc) + timedelta(seconds=after)
    return OutgoingMessage(topic, envelope, due=due)


class SessionContainer:
    """A container that knows one key, the session, and the engine."""

    capabilities = ContainerCapability.SCOPED | ContainerCapability.PROVIDED_VALUES | ContainerCapability.REUSABLE

    def __init__(self, place: Place, engine: Any) -> None:
        self._place, self._engine = place, engine

    def qualifier(self, _metadata: tuple[object, ...], /) -> Hashable | None:
        """Return that there is none."""
        return None

    def can_resolve(self, key: Key, /) -> bool:
        """Tell whether it is the session or the engine."""
        return key.hint in (self._place.session_type, type(self._engine))

    def lifetime(self, key: Key, /) -> Lifetime:
        """Return that the session is scoped."""
        return Lifetime.SCOPED if key.hint is self._place.session_type else Lifetime.SINGLETON

    def validate(self, _keys: Collection[Key], _provided: Collection[Key], /) -> ValidationResult:
        """Find nothing wrong."""
        return ValidationResult()

    def scope(self, provided: Mapping[Key, object], /) -> "SessionScope":
        """Return a scope with a session of its own."""
        return SessionScope(self._place, self._engine, provided)

    async def aclose(self) -> None:
        """Do nothing."""


class SessionScope:
    """Opens one session, commits it if its unit completes, and closes it."""

    def __init__(self, place: Place, engine: Any, provided: Mapping[Key, object]) -> None:
        self._place, self._engine, self._provided = place, engine, provided
        self._opened: Any = None
        self._session: Any = None

    async def __aenter__(self) -> Self:
        return self

    async def resolve(self, key: Key, /) -> Any:
        """Return the engine, or the session, which this opens."""
        if key in self._provided:
            return self._provided[key]
        if key.hint is type(self._engine):
            return self._engine
        if self._session is None:
            self._opened = self._place.session(self._engine)
            self._session = await self._opened.__aenter__()
        return self._session

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if self._session is not None:
            try:
                if kind is None:
                    await done(self._session.commit())
            finally:
                await self._opened.__aexit__(kind, error, trace)
