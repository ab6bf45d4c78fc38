"""One database session for each unit of work: committed, rolled back and closed on real connections.

What was kept is read from the file, by a connection that Diator knows nothing of.
"""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dishka import Provider, Scope, make_async_container, provide  # pyright: ignore[reportUnknownVariableType] - dishka's
from sqlalchemy import Engine, ForeignKey, QueuePool, create_engine, event, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from diator import CallNext, Command, Diator, DomainEvent, Publish, Query


class Base(DeclarativeBase):
    pass


class Meeting(Base):
    __tablename__ = "meeting"
    title: Mapped[str] = mapped_column(primary_key=True)
    follows: Mapped[str | None] = mapped_column(
        ForeignKey("meeting.title", deferrable=True, initially="DEFERRED"), default=None
    )


class Meetings:
    """A repository, which the container builds."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session


@dataclass(frozen=True)
class Plan(Command[str]):
    title: str
    follows: str | None = None


@dataclass(frozen=True)
class PlanSeries(Command[str]):
    title: str


@dataclass(frozen=True)
class Planned(DomainEvent):
    title: str


@dataclass(frozen=True)
class ListTitles(Query[str]):
    pass


class BrokenError(Exception):
    """What the handlers of these tests fail with."""


class Database:
    """A file with its pool of connections, and a look at it from outside."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
        event.listen(self.engine.sync_engine, "connect", enforce_foreign_keys)
        self.committing = asyncio.Event()

    @property
    def titles(self) -> set[str]:
        """What is kept, as a connection of its own sees it."""
        with closing(sqlite3.connect(self.path)) as connection:
            return {title for (title,) in connection.execute("SELECT title FROM meeting")}

    @property
    def in_use(self) -> int:
        """How many connections are out of the pool."""
        return in_use(self.engine.sync_engine)


def in_use(engine: Engine) -> int:
    assert isinstance(engine.pool, QueuePool)
    return engine.pool.checkedout()


def enforce_foreign_keys(connection: Any, _: object) -> None:
    connection.execute("PRAGMA foreign_keys=ON")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(tmp_path / "meetings.db")
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield database
    assert database.in_use == 0, "a connection was not given back"
    await database.engine.dispose()


class Sessions(Provider):
    """The recipe of the documents: dishka sends what has failed the unit of work to the ``yield``."""

    scope = Scope.REQUEST
    meetings = provide(Meetings)

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.database = database

    @provide(scope=Scope.APP)
    def engine(self) -> AsyncEngine:
        return self.database.engine

    @provide(scope=Scope.APP)
    def sessions(self, engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
        return async_sessionmaker(engine, expire_on_commit=False)

    @provide
    async def session(
        self, sessions: async_sessionmaker[AsyncSession]
    ) -> AsyncGenerator[AsyncSession, BaseException | None]:
        async with sessions() as session:
            error = yield session
            if error is None:
                self.database.committing.set()
                await session.commit()


@pytest.fixture
def app(database: Database) -> Diator:
    return Diator(container=make_async_container(Sessions(database)))


async def store(session: AsyncSession, title: str) -> None:
    """Write it, visibly for this session only."""
    session.add(Meeting(title=title))
    await session.flush()


async def test_success_commits(app: Diator, database: Database) -> None:
    @app.command
    async def plan(command: Plan, session: AsyncSession) -> str:
        await store(session, command.title)
        assert database.titles == set()
        return "planned"

    async with app:
        assert await app.send(Plan("kick-off")) == "planned"
        assert database.titles == {"kick-off"}
        assert database.in_use == 0


async def test_an_error_of_the_handler_rolls_back(app: Diator, database: Database) -> None:
    error = BrokenError()

    @app.command
    async def plan(command: Plan, session: AsyncSession) -> str:
        await store(session, command.title)
        raise error

    async with app:
        with pytest.raises(BrokenError) as raised:
            await app.send(Plan("kick-off"))
        assert raised.value is error
        assert database.titles == set()


async def test_handler_events_repository_and_middleware_share_one_session(app: Diator, database: Database) -> None:
    seen: list[AsyncSession] = []

    @app.middleware(inside=True)
    async def note(message: Command[Any], call_next: CallNext, session: AsyncSession) -> Any:
        seen.append(session)
        await store(session, "noted")
        return await call_next(message)

    @app.command
    async def plan(command: Plan, session: AsyncSession, publish: Publish[Planned]) -> str:
        seen.append(session)
        await store(session, command.title)
        publish(Planned(command.title))
        return "planned"

    @app.on_event
    async def follow_up(event: Planned, meetings: Meetings) -> None:
        seen.append(meetings.session)
        assert await meetings.session.get(Meeting, event.title) is not None
        await store(meetings.session, f"after {event.title}")

    async with app:
        await app.send(Plan("kick-off"))
        assert database.titles == {"noted", "kick-off", "after kick-off"}
    assert len(set(map(id, seen))) == 1
    assert len(seen) == 3


async def test_a_failing_event_handler_rolls_back_the_command(app: Diator, database: Database) -> None:
    @app.command
    async def plan(command: Plan, session: AsyncSession, publish: Publish[Planned]) -> str:
        await store(session, command.title)
        publish(Planned(command.title))
        return "planned"

    @app.on_event
    async def follow_up(event: Planned, session: AsyncSession) -> None:
        await store(session, f"after {event.title}")

    @app.on_event
    async def refuse(event: Planned) -> None:
        raise BrokenError

    async with app:
        with pytest.raises(BrokenError):
            await app.send(Plan("kick-off"))
        assert database.titles == set()


async def test_events_published_from_outside_commit_together(app: Diator, database: Database) -> None:
    @app.on_event
    async def keep(event: Planned, session: AsyncSession) -> None:
        await store(session, event.title)

    async with app:
        await app.publish(Planned("first"), Planned("second"))
        assert database.titles == {"first", "second"}
        with pytest.raises(IntegrityError):
            await app.publish(Planned("third"), Planned("first"))
        assert database.titles == {"first", "second"}


async def test_a_nested_send_stands_when_the_outer_one_fails(app: Diator, database: Database) -> None:
    seen: list[AsyncSession] = []

    @app.command
    async def plan(command: Plan, session: AsyncSession) -> str:
        seen.append(session)
        await store(session, command.title)
        return "planned"

    @app.command
    async def plan_series(command: PlanSeries, session: AsyncSession, app: Diator) -> str:
        seen.append(session)
        await app.send(Plan("inner"))
        assert database.titles == {"inner"}
        await store(session, command.title)
        raise BrokenError

    async with app:
        with pytest.raises(BrokenError):
            await app.send(PlanSeries("outer"))
        assert database.titles == {"inner"}
    assert seen[0] is not seen[1]


async def test_a_nested_send_that_fails_takes_nothing_from_the_outer_one(app: Diator, database: Database) -> None:
    @app.command
    async def plan(command: Plan, session: AsyncSession) -> str:
        await store(session, command.title)
        raise BrokenError

    @app.command
    async def plan_series(command: PlanSeries, session: AsyncSession, app: Diator) -> str:
        with pytest.raises(BrokenError):
            await app.send(Plan("inner"))
        await store(session, command.title)
        return "planned"

    async with app:
        await app.send(PlanSeries("outer"))
        assert database.titles == {"outer"}


async def test_a_middleware_that_swallows_the_error_does_not_commit(app: Diator, database: Database) -> None:
    @app.middleware(inside=True)
    async def swallow(message: Command[Any], call_next: CallNext, session: AsyncSession) -> Any:
        try:
            return await call_next(message)
        except BrokenError:
            return "never mind"

    @app.command
    async def plan(command: Plan, session: AsyncSession) -> str:
        await store(session, command.title)
        raise BrokenError

    async with app:
        assert await app.send(Plan("kick-off")) == "never mind"
        assert database.titles == set()


async def test_a_middleware_outside_tries_again_with_a_new_session(app: Diator, database: Database) -> None:
    seen: list[AsyncSession] = []

    @app.middleware
    async def try_twice(message: Command[Any], call_next: CallNext) -> Any:
        try:
            return await call_next(message)
        except BrokenError:
            return await call_next(message)

    @app.command
    async def plan(command: Plan, session: AsyncSession) -> str:
        seen.append(session)
        await store(session, f"{command.title} {len(seen)}")
        if len(seen) == 1:
            raise BrokenError
        return "planned"

    async with app:
        await app.send(Plan("attempt"))
        assert database.titles == {"attempt 2"}
    assert seen[0] is not seen[1]


@pytest.mark.parametrize("where", ["handler", "event handler"])
async def test_a_cancellation_rolls_back_and_closes(app: Diator, database: Database, where: str) -> None:
    waiting = asyncio.Event()

    async def wait() -> None:
        waiting.set()
        await asyncio.Event().wait()

    @app.command
    async def plan(command: Plan, session: AsyncSession, publish: Publish[Planned]) -> str:
        await store(session, command.title)
        publish(Planned(command.title))
        if where == "handler":
            await wait()
        return "planned"

    @app.on_event
    async def follow_up(event: Planned, session: AsyncSession) -> None:
        await store(session, f"after {event.title}")
        await wait()

    async with app:
        task = asyncio.create_task(app.send(Plan("kick-off")))
        await waiting.wait()
        assert database.in_use == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert database.in_use == 0
        assert database.titles == set()


async def test_a_cancellation_during_the_commit_waits_for_it_and_closes(app: Diator, database: Database) -> None:
    @app.command
    async def plan(command: Plan, session: AsyncSession) -> str:
        session.add(Meeting(title=command.title))
        return "planned"

    async with app:
        with closing(sqlite3.connect(database.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")  # the commit below has to wait for this one
            task = asyncio.create_task(app.send(Plan("kick-off")))
            await database.committing.wait()
            await asyncio.sleep(0.05)
            assert not task.done()
            task.cancel()
            await asyncio.sleep(0)
            other.execute("ROLLBACK")
            with pytest.raises(asyncio.CancelledError):
                await task
        assert database.in_use == 0
        assert database.titles == {"kick-off"}
        await app.send(Plan("next"))
        assert database.titles == {"kick-off", "next"}


async def test_a_cancellation_of_the_commit_itself_is_whole_or_nothing(app: Diator, database: Database) -> None:
    @app.command
    async def plan(command: Plan, session: AsyncSession) -> str:
        await store(session, f"{command.title}, part 1")
        await store(session, f"{command.title}, part 2")
        return "planned"

    async with app:
        with closing(sqlite3.connect(database.path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM meeting").fetchall()  # lets others write, but not commit, until it ends
            task = asyncio.create_task(app.send(Plan("kick-off")))
            await database.committing.wait()
            await asyncio.sleep(0.05)
            assert not task.done()
            task.cancel()
            await asyncio.sleep(0)
            reader.execute("ROLLBACK")
            with pytest.raises(asyncio.CancelledError):
                await task
        assert database.in_use == 0
        assert len(database.titles) in {0, 2}
        await app.send(Plan("next"))
        assert len(database.titles) in {2, 4}


async def test_a_timeout_rolls_back(app: Diator, database: Database) -> None:
    @app.command(timeout=0.05)
    async def plan(command: Plan, session: AsyncSession) -> str:
        await store(session, command.title)
        await asyncio.Event().wait()
        return "planned"

    async with app:
        with pytest.raises(TimeoutError, match="Plan"):
            await app.send(Plan("kick-off"))
        assert database.in_use == 0
        assert database.titles == set()


async def test_concurrent_sends_have_sessions_of_their_own(app: Diator, database: Database) -> None:
    open_sessions: list[AsyncSession] = []
    both_open = asyncio.Event()

    @app.command
    async def plan(command: Plan, session: AsyncSession) -> str:
        await session.execute(select(Meeting))
        open_sessions.append(session)
        if len(open_sessions) == 2:
            both_open.set()
        await both_open.wait()
        assert database.in_use == 2
        session.add(Meeting(title=command.title))
        if command.title == "bad":
            raise BrokenError
        return "planned"

    async with app:
        results = await asyncio.gather(app.send(Plan("good")), app.send(Plan("bad")), return_exceptions=True)
        assert results[0] == "planned"
        assert isinstance(results[1], BrokenError)
        assert database.titles == {"good"}
    assert open_sessions[0] is not open_sessions[1]


async def test_a_commit_that_fails_reaches_the_caller_and_keeps_nothing(app: Diator, database: Database) -> None:
    @app.command
    async def plan(command: Plan, session: AsyncSession) -> str:
        await store(session, "another")
        session.add(Meeting(title=command.title, follows=command.follows))
        await session.flush()  # the constraint is deferred: only the commit finds out
        return "planned"

    async with app:
        with pytest.raises(IntegrityError, match="FOREIGN KEY"):
            await app.send(Plan("second", follows="missing"))
        assert database.in_use == 0
        assert database.titles == set()


async def test_a_stream_holds_its_session_for_its_block_only(app: Diator, database: Database) -> None:
    @app.command
    async def plan(command: Plan, session: AsyncSession) -> str:
        await store(session, command.title)
        return "planned"

    @app.query
    async def list_titles(query: ListTitles, session: AsyncSession) -> AsyncIterator[str]:
        rows = await session.stream_scalars(select(Meeting.title).order_by(Meeting.title))
        async for title in rows:
            yield title

    async with app:
        await app.send(Plan("a"))
        await app.send(Plan("b"))
        async with app.stream(ListTitles()) as titles:
            assert [title async for title in titles] == ["a", "b"]
            assert database.in_use == 1
        assert database.in_use == 0
        with suppress(BrokenError):
            async with app.stream(ListTitles()) as titles:
                assert await anext(titles) == "a"
                raise BrokenError
        assert database.in_use == 0


async def test_a_session_that_was_brought_is_left_to_who_brought_it(app: Diator, database: Database) -> None:
    app.provides(AsyncSession)
    failing = asyncio.Event()

    @app.command
    async def plan(command: Plan, session: AsyncSession, meetings: Meetings) -> str:
        assert meetings.session is session
        await store(session, command.title)
        if failing.is_set():
            raise BrokenError
        return "planned"

    async with app:
        async with AsyncSession(database.engine) as brought:
            sender = app.using(provide={AsyncSession: brought})
            await sender.send(Plan("first"))
            assert database.titles == set()
            failing.set()
            with pytest.raises(BrokenError):
                await sender.send(Plan("second"))
            assert brought.in_transaction()
            assert set(await brought.scalars(select(Meeting.title))) == {"first", "second"}
            await brought.commit()
        assert database.titles == {"first", "second"}
        failing.clear()
        await app.send(Plan("its own"))
        assert database.titles == {"first", "second", "its own"}


async def test_the_scope_of_a_handler_in_a_thread_waits_for_it(database: Database) -> None:
    engine = create_engine(f"sqlite:///{database.path}")
    begun, may_end = threading.Event(), threading.Event()

    def session() -> Generator[Session, BaseException | None, None]:
        with Session(engine) as session:
            error = yield session
            if error is None:
                session.commit()

    provider = Provider(scope=Scope.REQUEST)
    provider.provide(session)
    app = Diator(container=make_async_container(provider))

    @app.command(thread=True)
    def plan(command: Plan, session: Session) -> str:
        session.add(Meeting(title=command.title))
        session.flush()
        if command.title == "cancelled":
            begun.set()
            assert may_end.wait(5)
            session.add(Meeting(title="written after the cancellation"))
            session.flush()  # would fail in a session that was closed meanwhile, or write outside of its transaction
        return "planned"

    async with app:
        await app.send(Plan("done"))
        assert database.titles == {"done"}
        task = asyncio.create_task(app.send(Plan("cancelled")))
        await asyncio.to_thread(begun.wait)
        task.cancel()
        await asyncio.sleep(0.02)
        assert not task.done()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert database.titles == {"done"}
        assert in_use(engine) == 0
    engine.dispose()


class RaisesAgain(Sessions):
    """The other right way to write it: the block of the session sees the error because the factory raises it again."""

    @provide(override=True)
    async def session(
        self, sessions: async_sessionmaker[AsyncSession]
    ) -> AsyncGenerator[AsyncSession, BaseException | None]:
        async with sessions.begin() as session:
            error = yield session
            if error is not None:
                raise error


class DropsTheError(Sessions):
    """The wrong way: right with libraries that raise the error at the ``yield``, which dishka does not."""

    @provide(override=True)
    async def session(self, sessions: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncSession]:
        async with sessions.begin() as session:
            yield session


def planning(container: object) -> Diator:
    app = Diator(container=container)

    @app.command
    async def plan(command: Plan, session: AsyncSession) -> str:
        await store(session, command.title)
        if command.title == "bad":
            raise BrokenError
        if command.title == "slow":
            await asyncio.Event().wait()
        return "planned"

    return app


async def test_a_factory_that_raises_the_error_again_rolls_back(database: Database) -> None:
    app = planning(make_async_container(RaisesAgain(database)))
    assert app.check() == []
    async with app:
        await app.send(Plan("good"))
        with pytest.raises(BrokenError) as raised:
            await app.send(Plan("bad"))
        assert raised.value.__cause__ is None
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(app.send(Plan("slow")), 0.05)
        assert database.titles == {"good"}


async def test_a_factory_that_drops_the_error_commits_it(database: Database) -> None:
    """As with dishka alone: its README says how to write such a factory."""
    app = planning(make_async_container(DropsTheError(database)))
    async with app:
        with pytest.raises(BrokenError):
            await app.send(Plan("bad"))
        assert database.titles == {"bad"}
