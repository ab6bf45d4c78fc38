"""Units of work with `SQLAlchemyStore` on SQLite: its sessions do what the core expects of a store."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from diator_sqlalchemy import SQLAlchemyStore, add_tables
from dishka import Provider, Scope, make_async_container, provide  # pyright: ignore[reportUnknownVariableType] - dishka's
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from diator import (
    CallNext,
    Command,
    Diator,
    EarlyCommitError,
    NotCommittedError,
    NotificationEvent,
    Publish,
    Query,
    Retry,
    contract,
)
from diator.brokers import MemoryBroker
from tests.brokered import Flaky, Watch


class Base(DeclarativeBase):
    pass


class Row(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int]


add_tables(Base.metadata)


@dataclass(frozen=True)
class Order(Command[None]):
    number: int = 7


@dataclass(frozen=True)
class CountOrders(Query[int]): ...


@contract("shop.ordered", key="number")
@dataclass(frozen=True)
class Ordered(NotificationEvent):
    number: int


@contract("shop.billed")
@dataclass(frozen=True)
class Billed(NotificationEvent):
    number: int


async def commit(session: AsyncSession) -> None:
    await session.commit()


class Sessions(Provider):
    scope = Scope.REQUEST

    def __init__(self, engine: AsyncEngine, commits: Callable[[AsyncSession], Any]) -> None:
        super().__init__()
        self.engine = engine
        self.commits = commits

    @provide
    async def session(self) -> AsyncGenerator[AsyncSession, BaseException | None]:
        async with AsyncSession(self.engine, expire_on_commit=False) as session:
            error = yield session
            if error is None:
                await self.commits(session)


class SyncSessions(Provider):
    scope = Scope.REQUEST

    def __init__(self, engine: Any) -> None:
        super().__init__()
        self.engine = engine

    @provide
    def session(self) -> Generator[Session, BaseException | None, None]:
        with Session(self.engine) as session:
            error = yield session
            if error is None:
                session.commit()


class Bench:
    def __init__(self, app: Diator, path: Path, broker: Flaky, watch: Watch) -> None:
        self.app = app
        self.path = path
        self.broker = broker
        self.watch = watch

    def column(self, sql: str) -> list[Any]:
        """What another connection sees."""
        connection = sqlite3.connect(self.path)
        try:
            return [value for (value,) in connection.execute(sql)]
        finally:
            connection.close()

    @property
    def orders(self) -> list[int]:
        return self.column("SELECT number FROM orders ORDER BY id")

    @property
    def stored(self) -> int:
        (count,) = self.column("SELECT count(*) FROM diator_outbox")
        return int(count)

    @asynccontextmanager
    async def delivering(self, number: int = 7) -> AsyncGenerator[None]:
        """Run a worker that gets one message, until its handler has ended."""
        other = Diator("other", broker=self.broker)
        async with self.app, self.app.worker(), other:
            await other.publish(Ordered(number))
            await self.watch.until(lambda: bool(self.watch.of("settled")))
            yield


def enable_wal(connection: Any, _: object) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA busy_timeout=5000")


Make = Callable[..., Bench]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Make]:
    made: list[Engine | AsyncEngine] = []
    yield partial(make_bench, tmp_path, made)
    for engine in made:
        await engine.dispose() if isinstance(engine, AsyncEngine) else engine.dispose()


def make_bench(
    folder: Path,
    engines: list[Engine | AsyncEngine],
    *,
    commits: Callable[[AsyncSession], Any] = commit,
    sync: bool = False,
) -> Bench:
    path, broker, watch = folder / "shop.db", Flaky(MemoryBroker(duplicate_window=0)), Watch()
    made = create_engine(f"sqlite:///{path}")
    event.listen(made, "connect", enable_wal)
    Base.metadata.create_all(made)
    engines.append(made)
    if sync:
        container, store = make_async_container(SyncSessions(made)), SQLAlchemyStore(Session, engine=made)
    else:
        engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
        event.listen(engine.sync_engine, "connect", enable_wal)
        engines.append(engine)
        container = make_async_container(Sessions(engine, commits))
        store = SQLAlchemyStore(AsyncSession, engine=engine)
    options: dict[str, Any] = {"retry": Retry(attempts=2, delay=0.01, jitter=0), "hooks": [watch], "relay": False}
    return Bench(Diator("shop", container=container, broker=broker, store=store, **options), path, broker, watch)


async def test_data_and_event_commit_together(bench: Make) -> None:
    shop = bench()

    @shop.app.command
    async def order(command: Order, session: AsyncSession, publish: Publish[Ordered]) -> None:
        session.add(Row(number=command.number))
        async with session.begin_nested():
            session.add(Row(number=8))
        publish(Ordered(command.number))

    async with shop.app:
        await shop.app.send(Order())
        assert (shop.orders, shop.stored) == ([7, 8], 1)


@pytest.mark.parametrize("how", ["commit", "begin"])
async def test_a_commit_in_the_handler_raises_there(bench: Make, how: str) -> None:
    shop = bench()

    @shop.app.command
    async def order(command: Order, session: AsyncSession, publish: Publish[Ordered]) -> None:
        publish(Ordered(command.number))
        if how == "begin":
            async with session.begin():
                session.add(Row(number=command.number))
        else:
            session.add(Row(number=command.number))
            await session.commit()
        raise AssertionError

    async with shop.app:
        with pytest.raises(EarlyCommitError):
            await shop.app.send(Order())
        assert (shop.orders, shop.stored) == ([], 0)


async def test_a_middleware_that_commits_a_failed_unit_is_stopped(bench: Make) -> None:
    async def nothing(session: AsyncSession) -> None: ...

    shop = bench(commits=nothing)

    @shop.app.middleware(inside=True)
    async def commits(message: Command[Any], call_next: CallNext, session: AsyncSession) -> Any:
        result = await call_next(message)
        await session.commit()
        return result

    @shop.app.middleware(inside=True)
    async def swallows(message: Command[Any], call_next: CallNext) -> Any:
        try:
            await call_next(message)
        except RuntimeError:
            return None

    @shop.app.middleware(inside=True)
    async def fails(message: Command[Any], call_next: CallNext) -> Any:
        await call_next(message)
        if message == Order(8):
            raise RuntimeError

    @shop.app.command
    async def order(command: Order, session: AsyncSession, publish: Publish[Ordered]) -> None:
        session.add(Row(number=command.number))
        publish(Ordered(command.number))

    async with shop.app:
        with pytest.raises(EarlyCommitError):
            await shop.app.send(Order(8))
        assert (shop.orders, shop.stored) == ([], 0)
        await shop.app.send(Order(7))
        assert (shop.orders, shop.stored) == ([7], 1)


async def test_a_unit_that_nothing_commits_is_an_error(bench: Make) -> None:
    async def nothing(session: AsyncSession) -> None: ...

    shop = bench(commits=nothing)

    @shop.app.command
    async def order(command: Order, session: AsyncSession, publish: Publish[Ordered]) -> None:
        publish(Ordered(command.number))

    async with shop.app:
        with pytest.raises(NotCommittedError, match="its AsyncSession was not committed"):
            await shop.app.send(Order())
        assert shop.stored == 0


async def test_a_rollback_in_a_handler_keeps_its_message_recorded(bench: Make) -> None:
    shop = bench()

    @shop.app.on_event
    async def bill(event: Ordered, session: AsyncSession, publish: Publish[Billed]) -> None:
        session.add(Row(number=1))
        await session.flush()
        await session.rollback()
        session.add(Row(number=2))
        publish(Billed(2))

    async with shop.delivering():
        assert (shop.orders, shop.stored, shop.column("SELECT count(*) FROM diator_inbox")) == ([2], 1, [1])
        assert shop.watch.outcomes() == ["Ack"]


async def test_a_message_that_comes_again_does_not_run(bench: Make) -> None:
    shop = bench()

    @shop.app.on_event
    async def bill(event: Ordered, session: AsyncSession) -> None:
        session.add(Row(number=event.number))

    async with shop.delivering():
        ((messages, _, _),) = shop.broker.publications
        await shop.broker.publish(messages, timeout=5)
        await shop.watch.until(lambda: len(shop.watch.of("settled")) == 2)
        assert shop.orders == [7]
        assert [details.repeated for details in shop.watch.of("handled")] == [False, True]


async def test_a_failed_flush_at_the_end_fails_the_unit_and_stores_nothing(bench: Make) -> None:
    shop = bench()

    @shop.app.command
    async def order(command: Order, session: AsyncSession, publish: Publish[Ordered]) -> None:
        session.add(Row(id=1, number=command.number))
        publish(Ordered(command.number))

    async with shop.app:
        await shop.app.send(Order(1))
        with pytest.raises(Exception, match="UNIQUE constraint failed"):
            await shop.app.send(Order(2))
        assert (shop.orders, shop.stored) == ([1], 1)


async def test_a_commit_that_fails_for_a_deferred_constraint_stores_nothing(bench: Make) -> None:
    shop = bench()
    connection = sqlite3.connect(shop.path)
    connection.execute("CREATE TABLE lines (number INTEGER REFERENCES orders (id) DEFERRABLE INITIALLY DEFERRED)")
    connection.close()

    @shop.app.command
    async def order(command: Order, session: AsyncSession, publish: Publish[Ordered]) -> None:
        await session.execute(text("PRAGMA foreign_keys=ON"))
        await session.execute(text("INSERT INTO lines VALUES (99)"))
        publish(Ordered(command.number))

    async with shop.app:
        with pytest.raises(Exception, match="FOREIGN KEY constraint failed"):
            await shop.app.send(Order(1))
        assert (shop.column("SELECT count(*) FROM lines"), shop.stored) == ([0], 0)


async def test_a_sync_session_and_handler_commit_with_their_events(bench: Make) -> None:
    shop = bench(sync=True)

    @shop.app.command(thread=True)
    def order(command: Order, session: Session, publish: Publish[Ordered]) -> None:
        session.add(Row(number=command.number))
        publish(Ordered(command.number))
        if command.number == 8:
            session.commit()

    async with shop.app:
        await shop.app.send(Order(7))
        assert (shop.orders, shop.stored) == ([7], 1)
        with pytest.raises(EarlyCommitError):
            await shop.app.send(Order(8))
        assert (shop.orders, shop.stored) == ([7], 1)
        await shop.app.publish(Billed(1))
        assert shop.stored == 2


async def test_handlers_that_block_the_event_loop_are_rejected_at_startup(bench: Make) -> None:
    shop = bench(sync=True)

    @shop.app.command
    def order(command: Order, session: Session) -> None: ...

    @shop.app.on_event
    async def bill(event: Ordered, session: Session) -> None: ...

    @shop.app.query
    def count(query: CountOrders, session: Session) -> int:
        return 0

    @shop.app.on_event(thread=True)
    def ship(event: Ordered, session: Session) -> None: ...

    @shop.app.on_event(once=False)
    def mail(event: Ordered) -> None: ...

    found = {problem.text.split()[2]: problem for problem in shop.app.check()}
    assert {name: (problem.code, problem.severity, problem.fix) for name, problem in found.items()} == {
        "order": ("blocking-session", "error", "add thread=True, or use a session of asyncio"),
        "bill": (
            "blocking-session",
            "error",
            "write it with plain `def`, and add thread=True, or use a session of asyncio",
        ),
        "count": ("blocking-session", "warning", "add thread=True"),
    }
    text = "order uses Session, whose statements block the event loop: one that waits for a row that another unit"
    assert text in found["order"].text
    assert not list(bench(sync=False).app.check())


async def test_commit_of_a_sync_session_waits_for_locks_outside_the_event_loop(bench: Make) -> None:
    shop, first_has_lock, second_has_run = bench(sync=True), threading.Event(), threading.Event()

    @shop.app.command(thread=True)
    def order(command: Order, session: Session, publish: Publish[Ordered]) -> None:
        session.add(Row(number=command.number))
        if command.number == 1:
            session.flush()
            first_has_lock.set()
            assert second_has_run.wait(10)
            time.sleep(0.2)
        else:
            second_has_run.set()  # what it has added is written at the end

    async with shop.app:
        first = asyncio.ensure_future(shop.app.send(Order(1)))
        await asyncio.to_thread(first_has_lock.wait)
        await asyncio.gather(first, shop.app.send(Order(2)))
        assert shop.orders == [1, 2]


async def test_commands_that_overlap_keep_their_own_transactions(bench: Make) -> None:
    shop = bench()

    @shop.app.command
    async def order(command: Order, session: AsyncSession, publish: Publish[Ordered]) -> None:
        publish(Ordered(command.number))
        await asyncio.sleep(0)
        if command.number % 2:
            raise RuntimeError
        session.add(Row(number=command.number))

    async with shop.app:
        await asyncio.gather(*(shop.app.send(Order(number)) for number in range(10)), return_exceptions=True)
        assert (sorted(shop.orders), shop.stored) == ([0, 2, 4, 6, 8], 5)
