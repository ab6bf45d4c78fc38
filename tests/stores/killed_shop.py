"""The application under test in `test_kills.py`: each process writes, relays and handles, until it is killed.

``python -m tests.stores.killed_shop BROKER DATABASE ROLE``; it ends cleanly at SIGTERM.
"""

import asyncio
import logging
import os
import random
import signal
import sqlite3
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from diator_dishka import DishkaContainer
from diator_redis import RedisBroker
from diator_sqlalchemy import SQLAlchemyStore
from dishka import Provider, Scope, make_async_container
from sqlalchemy import CursorResult, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from diator import Command, Diator, NotificationEvent, Publish, Retry, contract
from diator.delivery import relay
from tests.stores.sqlite_store import SQLiteSession, SQLiteStore

KEYS = 20
LEASE = 6.0
TABLES = {
    "orders": "CREATE TABLE orders (number INTEGER NOT NULL, customer INTEGER NOT NULL, n INTEGER NOT NULL)",
    "counters": "CREATE TABLE counters (customer INTEGER PRIMARY KEY, n INTEGER NOT NULL)",
    "bills": "CREATE TABLE bills ({id}, customer INTEGER NOT NULL, n INTEGER NOT NULL)",
    "shipments": "CREATE TABLE shipments ({id}, customer INTEGER NOT NULL, n INTEGER NOT NULL)",
}
IDS = {
    "sqlite": "id INTEGER PRIMARY KEY AUTOINCREMENT",
    "postgresql": "id BIGSERIAL PRIMARY KEY",
    "mysql": "id BIGINT PRIMARY KEY AUTO_INCREMENT",
}


class Rows(Protocol):
    """What handlers write through, whatever is below."""

    async def run(self, sql: str, *values: int) -> Sequence[Any]: ...


class SQLiteRows:
    def __init__(self, session: SQLiteSession, store: SQLiteStore) -> None:
        self._session, self._store = session, store

    async def run(self, sql: str, *values: int) -> Sequence[Any]:
        await self._store.begin(self._session)
        return self._session.execute(sql, values).fetchall()


class Database(Protocol):
    store: Any  # as Diator takes it
    provider: Provider

    async def create(self) -> None: ...

    async def query(self, sql: str) -> Sequence[Any]: ...


class SQLiteDatabase:
    """A file, through the standard library."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.store = store = SQLiteStore(path)

        def rows(session: SQLiteSession) -> Rows:
            return SQLiteRows(session, store)

        self.provider = Provider(scope=Scope.REQUEST)
        self.provider.provide(self.session, provides=SQLiteSession)
        self.provider.provide(rows, provides=Rows)

    async def session(self) -> AsyncGenerator[SQLiteSession, BaseException | None]:
        session = self.store.connect()
        try:
            error = yield session
            if error is None:
                session.commit()
        finally:
            session.close()

    async def create(self) -> None:
        await self.store.create("shop")
        connection = sqlite3.connect(self.path)
        for table in TABLES.values():
            connection.execute(table.format(id=IDS["sqlite"]))
        connection.executemany("INSERT INTO counters VALUES (?, 0)", [(key,) for key in range(KEYS)])
        connection.commit()
        connection.close()

    async def query(self, sql: str) -> Sequence[Any]:
        connection = sqlite3.connect(self.path, timeout=30)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()


class SQLAlchemyDatabase:
    """A server or a file, through SQLAlchemy and a driver for asyncio."""

    def __init__(self, url: str) -> None:
        options: dict[str, Any] = {} if url.startswith("sqlite") else {"pool_pre_ping": True, "pool_size": 20}
        self.engine = engine = create_async_engine(url, **options)
        self.store = SQLAlchemyStore(AsyncSession, engine=engine)

        async def session() -> AsyncGenerator[AsyncSession, BaseException | None]:
            async with AsyncSession(engine) as found:
                error = yield found
                if error is None:
                    await found.commit()

        self.provider = Provider(scope=Scope.REQUEST)
        self.provider.provide(session, provides=AsyncSession)
        self.provider.provide(SQLAlchemyRows, provides=Rows)

    async def create(self) -> None:
        kind = self.engine.dialect.name
        if kind == "sqlite":
            async with self.engine.connect() as connection:
                await connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        await self.store.create("shop", DishkaContainer(make_async_container(self.provider)))
        async with self.engine.begin() as connection:
            for table in TABLES.values():
                await connection.execute(text(table.format(id=IDS[kind])))
            for key in range(KEYS):
                await connection.execute(text("INSERT INTO counters VALUES (:key, 0)"), {"key": key})
        await self.store.aclose()
        await self.engine.dispose()

    async def query(self, sql: str) -> Sequence[Any]:
        async with self.engine.connect() as connection:
            found = [tuple(row) for row in await connection.execute(text(sql))]
        await self.engine.dispose()
        return found


class SQLAlchemyRows:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def run(self, sql: str, *values: int) -> Sequence[Any]:
        named = sql
        for number in range(len(values)):
            named = named.replace("?", f":v{number}", 1)
        found = await self._session.execute(text(named), {f"v{number}": value for number, value in enumerate(values)})
        return [tuple(row) for row in found] if isinstance(found, CursorResult) and found.returns_rows else ()


@dataclass(frozen=True)
class PlaceOrder(Command[None]):
    number: int
    key: int


@contract("shop.placed", key="key")
@dataclass(frozen=True)
class Placed(NotificationEvent):
    key: int
    n: int


@contract("shop.billed", key="key")
@dataclass(frozen=True)
class Billed(NotificationEvent):
    key: int
    n: int


def database_of(address: str) -> Any:
    return SQLAlchemyDatabase(address) if "://" in address else SQLiteDatabase(address)


def make_app(broker: str, database: Any) -> Diator:
    app = Diator(
        "shop",
        broker=RedisBroker(broker, lease=LEASE, max_length=None),
        container=make_async_container(database.provider),
        store=database.store,
        retry=Retry(attempts=10_000, delay=0.05, factor=1.0),
        max_deliveries=10_000,
        event_timeout=60.0,
    )

    @app.command
    async def place(command: PlaceOrder, rows: Rows, publish: Publish[Placed]) -> None:
        await rows.run("UPDATE counters SET n = n + 1 WHERE customer = ?", command.key)
        ((n,),) = await rows.run("SELECT n FROM counters WHERE customer = ?", command.key)
        await rows.run("INSERT INTO orders VALUES (?, ?, ?)", command.number, command.key, n)
        publish(Placed(command.key, n))
        may_fail()

    @app.on_event(ordered=True)
    async def bill(event: Placed, rows: Rows, publish: Publish[Billed]) -> None:
        await rows.run("INSERT INTO bills (customer, n) VALUES (?, ?)", event.key, event.n)
        publish(Billed(event.key, event.n))
        may_fail()

    @app.on_event(ordered=True)
    async def ship(event: Billed, rows: Rows) -> None:
        await rows.run("INSERT INTO shipments (customer, n) VALUES (?, ?)", event.key, event.n)
        may_fail()

    return app


class Unlucky(Exception): ...


def may_fail() -> None:
    if random.random() < 0.02:
        raise Unlucky


async def main(broker: str, address: str, role: str) -> None:
    for name, seconds in {"LEASE": LEASE, "_THIRD": LEASE / 3}.items():
        setattr(relay, name, seconds)  # or a killed process would hold things up for too long
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    app = make_app(broker, database_of(address))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app)
        if "handles" in role:
            await stack.enter_async_context(app.worker(grace=5.0))
        while not ending.is_set():
            if "writes" in role:
                await asyncio.gather(*(write(app) for _ in range(3)))
            await asyncio.sleep(0.1)


async def write(app: Diator) -> None:
    try:
        await app.send(PlaceOrder(random.randrange(10**9), random.randrange(KEYS)))
    except Unlucky:
        pass
    except Exception as error:  # noqa: BLE001 - the database may be away; what was committed counts
        logging.getLogger("shop").warning("not placed: %r", error)
        await asyncio.sleep(0.2)


if __name__ == "__main__":
    logging.basicConfig(filename=Path(os.environ["SHOP_LOG"]), format=f"%(asctime)s {os.getpid()} %(message)s")
    asyncio.run(main(*sys.argv[1:]))
