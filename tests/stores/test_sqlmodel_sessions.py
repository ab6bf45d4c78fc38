"""Handlers that ask for a session of SQLModel, whose tables and models are in its metadata with those of the store."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from diator_sqlalchemy import SQLAlchemyStore, add_tables
from dishka import Provider, Scope, make_async_container
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import Field, Session, SQLModel, col, create_engine, select
from sqlmodel.ext.asyncio.session import AsyncSession

from diator import Command, Diator, EarlyCommitError, NotificationEvent, Publish, Query, contract
from diator.brokers import MemoryBroker
from tests.brokered import Watch


class Order(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    number: int


add_tables(SQLModel.metadata)
BY_NUMBER = select(Order.number).order_by(col(Order.number))


@dataclass(frozen=True)
class Place(Command[None]):
    number: int


@dataclass(frozen=True)
class Numbers(Query[list[int]]): ...


@contract("shop.placed")
@dataclass(frozen=True)
class Placed(NotificationEvent):
    number: int


@dataclass
class Shop:
    app: Diator
    watch: Watch
    stored: Callable[[str], Awaitable[int]]
    """Counts the rows of a table of the store."""


def coroutines(app: Diator) -> None:
    @app.command
    async def place(command: Place, session: AsyncSession, publish: Publish[Placed]) -> None:
        session.add(Order(number=command.number))
        publish(Placed(command.number))
        if command.number < 0:
            await session.commit()

    @app.on_event
    async def double(event: Placed, session: AsyncSession) -> None:
        session.add(Order(number=2 * event.number))

    @app.query
    async def numbers(query: Numbers, session: AsyncSession) -> list[int]:
        found: Any = await session.exec(BY_NUMBER)  # pyright: ignore[reportUnknownMemberType] - SQLModel's
        return list(found)


def functions(app: Diator) -> None:
    @app.command(thread=True)
    def place(command: Place, session: Session, publish: Publish[Placed]) -> None:
        session.add(Order(number=command.number))
        publish(Placed(command.number))
        if command.number < 0:
            session.commit()

    @app.on_event(thread=True)
    def double(event: Placed, session: Session) -> None:
        session.add(Order(number=2 * event.number))

    @app.query(thread=True)
    def numbers(query: Numbers, session: Session) -> list[int]:
        found: Any = session.exec(BY_NUMBER)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - its
        return list(found)


@asynccontextmanager
async def asynchronous(path: Path, provider: Provider) -> AsyncGenerator[type]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")

    async def session() -> AsyncGenerator[AsyncSession, BaseException | None]:
        async with AsyncSession(engine) as session:
            error = yield session
            if error is None:
                await session.commit()

    provider.provide(session, provides=AsyncSession)
    yield AsyncSession
    await engine.dispose()


@asynccontextmanager
async def blocking(path: Path, provider: Provider) -> AsyncGenerator[type]:
    engine = create_engine(f"sqlite:///{path}")

    def session() -> Generator[Session, BaseException | None, None]:
        with Session(engine) as session:
            error = yield session
            if error is None:
                session.commit()

    provider.provide(session, provides=Session)
    yield Session
    engine.dispose()


@pytest.fixture(params=["AsyncSession", "Session"])
async def shop(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shop]:
    is_async, provider, watch = request.param == "AsyncSession", Provider(scope=Scope.REQUEST), Watch()
    setup = create_engine(f"sqlite:///{tmp_path}/shop.db")
    with setup.connect() as connection:
        connection.execute(text("PRAGMA journal_mode=WAL"))
    SQLModel.metadata.create_all(setup)

    async def stored(table: str) -> int:
        with setup.connect() as connection:
            return int(connection.execute(text(f"SELECT count(*) FROM diator_{table}")).scalar_one())

    async with (asynchronous if is_async else blocking)(tmp_path / "shop.db", provider) as session_type:
        container = make_async_container(provider)
        store: Any = SQLAlchemyStore(session_type)  # whose engine is that of the session
        app = Diator("shop", container=container, broker=MemoryBroker(duplicate_window=0), store=store, hooks=[watch])
        (coroutines if is_async else functions)(app)
        yield Shop(app, watch, stored)
    setup.dispose()


async def test_data_and_events_commit_together_and_take_effect_once(shop: Shop) -> None:
    assert list(shop.app.check()) == []
    async with shop.app, shop.app.worker():
        await shop.app.send(Place(1))
        await shop.watch.until(lambda: bool(shop.watch.of("settled")))
        assert await shop.app.send(Numbers()) == [1, 2]
        assert await shop.stored("inbox") == 1


async def test_a_commit_in_the_handler_raises_there(shop: Shop) -> None:
    async with shop.app:
        with pytest.raises(EarlyCommitError):
            await shop.app.send(Place(-1))
        assert await shop.app.send(Numbers()) == []
        assert await shop.stored("outbox") == 0
