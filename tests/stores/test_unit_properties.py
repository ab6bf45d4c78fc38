"""Random units of work with a store: whatever handlers, middlewares and cancels do, data and events agree."""

import asyncio
import itertools
import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dishka import Provider, Scope, make_async_container, provide  # pyright: ignore[reportUnknownVariableType] - dishka's
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diator import CallNext, Command, Diator, DomainEvent, NotCommittedError, NotificationEvent, Publish, contract
from tests.stores.shop import Orders, Shop
from tests.stores.sqlite_store import SQLiteSession, SQLiteStore

PROOFS = int(os.environ.get("DIATOR_PROOFS", "1"))


class BrokenError(Exception):
    pass


@dataclass(frozen=True)
class Work(Command[None]): ...


@dataclass(frozen=True)
class Worked(DomainEvent): ...


@contract("shop.told")
@dataclass(frozen=True)
class Told(NotificationEvent): ...


Step = Literal["write", "publish", "raise event", "roll back", "commit", "fail", "wait"]
Around = Literal["pass", "swallow", "fail before", "fail after", "commit before", "commit after", "roll back after"]
Provides = Literal["commits on success", "commits always", "never commits"]


@dataclass(frozen=True)
class Program:
    handler: tuple[Step, ...]
    event: tuple[Step, ...]
    middlewares: tuple[Around, ...]
    provider: Provides
    cancel_at: int


class World:
    """What one program does: the points where a cancel may strike, and what was published."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.points = 0
        self.published = 0
        self.written = 0
        """Rows since the last rollback."""
        self.committed = False
        """Whether a middleware has committed the unit."""
        self.failed = False
        """Whether it failed before that."""

    async def point(self) -> None:
        self.points += 1
        if self.points == self.program.cancel_at:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        await asyncio.sleep(0)


class Sessions(Provider):
    scope = Scope.REQUEST
    orders = provide(Orders)

    def __init__(self, store: SQLiteStore, world: World) -> None:
        super().__init__()
        self.store = store
        self.world = world

    @provide
    async def session(self) -> AsyncGenerator[SQLiteSession, BaseException | None]:
        session = self.store.connect()
        how = self.world.program.provider
        try:
            error = yield session
            if how == "commits always" or (how == "commits on success" and error is None):
                await self.world.point()
                session.commit()
        finally:
            session.close()


async def take(steps: tuple[Step, ...], world: World, orders: Orders, publish: Publish[Told | Worked]) -> None:
    for step in steps:
        match step:
            case "write":
                await orders.add(1)
                world.written += 1
            case "publish":
                publish(Told())
                world.published += 1
            case "raise event":
                publish(Worked())
            case "roll back":
                orders.session.rollback()
                world.written = 0
            case "commit":
                orders.session.commit()
            case "fail":
                world.failed = True
                raise BrokenError
            case "wait":
                await world.point()


def make_app(store: SQLiteStore, world: World) -> Diator:
    app = Diator(
        "shop", broker="memory://", container=make_async_container(Sessions(store, world)), store=store, relay=False
    )
    for kind in world.program.middlewares:
        app.add_middleware(around(kind, world), inside=True)

    @app.command
    async def work(command: Work, orders: Orders, publish: Publish[Told | Worked]) -> None:
        await take(world.program.handler, world, orders, publish)

    @app.on_event
    async def worked(event: Worked, orders: Orders, publish: Publish[Told | Worked]) -> None:
        await take(world.program.event, world, orders, publish)

    return app


def around(kind: Around, world: World) -> Any:
    async def middleware(message: Work, call_next: CallNext, session: SQLiteSession) -> Any:
        if kind == "commit before":
            session.commit()
        if kind == "fail before":
            world.failed = True
            raise BrokenError
        try:
            result = await call_next(message)
        except Exception:
            if kind == "swallow":
                return None
            raise
        await world.point()
        if kind == "commit after":
            session.commit()
            world.committed = True
        if kind == "roll back after":
            session.rollback()
        if kind == "fail after":
            world.failed = not world.committed
            raise BrokenError
        return result

    return middleware


steps = st.lists(
    st.sampled_from(("write", "write", "publish", "publish", "wait", "roll back", "commit", "fail")), max_size=4
).map(tuple)
well = st.tuples(st.just("write"), st.just("publish"), st.sampled_from(("raise event", "wait", "write")))
middlewares = ("pass", "swallow", "fail before", "fail after", "commit before", "commit after", "roll back after")
programs = st.builds(
    Program,
    # Most handlers do nothing wrong: what is to be found lies around them.
    handler=st.one_of(well, well, well, steps.map(lambda some: (*some, "raise event", "publish"))),
    event=st.one_of(st.just(()), st.just(("publish", "write")), steps),
    middlewares=st.lists(st.sampled_from(middlewares), min_size=1, max_size=3).map(tuple),
    provider=st.sampled_from(("commits on success", "commits always", "never commits")),
    cancel_at=st.one_of(st.just(0), st.just(0), st.integers(1, 8)),
)
numbers = itertools.count()


@settings(max_examples=80 * PROOFS, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(program=programs)
def test_data_and_events_agree(program: Program, tmp_path: Path) -> None:
    folder = tmp_path / str(next(numbers))
    folder.mkdir()
    asyncio.run(check(program, folder))


async def check(program: Program, folder: Path) -> None:
    shop, world = await Shop(folder).create(), World(program)
    app = make_app(shop.store, world)
    error: BaseException | None = None
    async with app:
        sending = asyncio.ensure_future(app.send(Work()))
        await asyncio.wait([sending])
        error = asyncio.CancelledError() if sending.cancelled() else sending.exception()
    rows, stored = len(shop.orders), len(shop.stored)
    if world.failed:
        assert (rows, stored) == (0, 0), "a unit has failed, and was committed"
    assert stored in (0, world.published), "some of the events"
    if stored:
        assert rows == world.written, "events without their data"
    if rows and world.published and not stored:
        assert isinstance(error, NotCommittedError), "data without its events, and no error"
    if error is None and not {"swallow"} & set(program.middlewares):
        assert (rows, stored) == (world.written, world.published), "it ended well, and something is missing"
