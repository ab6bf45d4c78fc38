"""Work that a cancel does not interrupt: anyio's cancel scopes, which repeat it, asyncio's timeouts, and inner ones."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass

import anyio
import pytest
from dishka import Provider, Scope, make_async_container

from diator import Command, Diator, NotificationEvent, Publish, Query, contract
from diator.brokers import MemoryBroker, shielded


class Log(list[str]):
    """What was done, and work that takes a while."""

    async def work(self, name: str) -> str:
        for _ in range(3):
            await asyncio.sleep(0)
            await asyncio.sleep(0.002)
            await anyio.sleep(0.001)
        self.append(name)
        return name


async def cancelled_by_anyio(work: Callable[[], Awaitable[object]]) -> None:
    with anyio.move_on_after(0.001) as scope:
        await work()
    assert scope.cancelled_caught


async def cancelled_by_wait_for(work: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(work(), 0.001)


async def cancelled_again_and_again(work: Callable[[], Awaitable[object]]) -> None:
    task = asyncio.ensure_future(work())
    await asyncio.sleep(0.001)
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)
    assert task.cancelled()


WAYS = pytest.mark.parametrize("cancelled", [cancelled_by_anyio, cancelled_by_wait_for, cancelled_again_and_again])
Way = Callable[[Callable[[], Awaitable[object]]], Awaitable[None]]


@WAYS
async def test_work_is_done_before_the_cancel_is_raised(cancelled: Way) -> None:
    log = Log()
    raised: list[BaseException] = []

    async def caller() -> None:
        try:
            await shielded(log.work("done"))
        except asyncio.CancelledError as error:
            raised.append(error)
            raise

    await cancelled(caller)
    assert log == ["done"]
    assert len(raised) == 1
    if sys.version_info >= (3, 11):
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0


@WAYS
async def test_what_failed_is_the_cause_of_the_cancel(cancelled: Way) -> None:
    error = OSError("the commit")

    async def failing() -> None:
        await Log().work("failing")
        raise error

    causes: list[BaseException | None] = []

    async def caller() -> None:
        try:
            await shielded(failing())
        except asyncio.CancelledError as cancel:
            causes.append(cancel.__cause__)
            raise

    await cancelled(caller)
    assert causes == [error]


async def test_without_a_cancel_results_and_errors_pass() -> None:
    assert await shielded(Log().work("done")) == "done"
    error = LookupError()

    async def failing() -> None:
        await asyncio.sleep(0)
        raise error

    with pytest.raises(LookupError) as raised:
        await shielded(failing())
    assert raised.value is error


async def test_the_work_stays_in_its_task_and_its_context() -> None:
    var: ContextVar[int] = ContextVar("var", default=0)
    here = asyncio.current_task()

    async def work() -> None:
        token = var.set(1)
        await asyncio.sleep(0)
        assert asyncio.current_task() is here
        with anyio.CancelScope():
            await asyncio.sleep(0)
        var.reset(token)
        var.set(2)

    await shielded(work())
    assert var.get() == 2


async def test_timeouts_of_the_work_itself_end_what_they_are_around() -> None:
    log = Log()

    async def work() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.sleep(60), 0.005)
        with anyio.move_on_after(0.005) as scope:
            await asyncio.sleep(60)
        assert scope.cancelled_caught
        if sys.version_info >= (3, 11):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.005):
                    await asyncio.sleep(60)
        with anyio.move_on_after(0.005) as scope:
            await shielded(log.work("inner"))
        assert scope.cancelled_caught
        await log.work("outer")

    await shielded(work())
    assert log == ["inner", "outer"]


async def test_a_scope_that_ends_within_the_work_does_not_let_an_outer_cancel_in() -> None:
    log = Log()

    async def work() -> None:
        await asyncio.sleep(0.005)
        with anyio.CancelScope(shield=True):  # as httpcore does when it closes a connection
            await asyncio.sleep(0.005)
        await log.work("done")
        with anyio.fail_after(60):
            await log.work("in time")

    await cancelled_by_anyio(lambda: shielded(work()))
    assert log == ["done", "in time"]


async def test_a_cancel_before_the_first_await_is_kept_as_well() -> None:
    log = Log()

    async def caller() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await shielded(log.work("done"))

    with pytest.raises(asyncio.CancelledError):
        await asyncio.ensure_future(caller())
    assert log == ["done"]


# ------------------------------------------------------------------------------------------------------ whole apps


class Session:
    """A resource of each unit of work."""


class Pool:
    """A resource of the app."""


@dataclass(frozen=True)
class Wait(Command[None]):
    seconds: float = 60.0


@dataclass(frozen=True)
class Rows(Query[int]):
    pass


@contract("shop.sold")
@dataclass(frozen=True)
class Sold(NotificationEvent):
    number: int


def shop(log: Log, broker: MemoryBroker | None = None) -> Diator:
    async def pool() -> AsyncIterator[Pool]:
        try:
            yield Pool()
        finally:
            await log.work("pool closed")

    async def session(pool: Pool) -> AsyncIterator[Session]:
        try:
            yield Session()
        finally:
            await log.work("session closed")

    provider = Provider(scope=Scope.REQUEST)
    provider.provide(session)
    provider.provide(pool, scope=Scope.APP)
    app = Diator("shop", container=make_async_container(provider), broker=broker)

    @app.command
    async def wait(command: Wait, session: Session) -> None:
        await asyncio.sleep(command.seconds)

    @app.query
    async def rows(query: Rows, session: Session) -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await log.work("rows closed")

    return app


@WAYS
async def test_a_unit_closes_when_its_handler_is_cancelled(cancelled: Way) -> None:
    async with shop(log := Log()) as app:
        await cancelled(lambda: app.send(Wait()))
        assert log == ["session closed"]


@WAYS
async def test_a_unit_that_is_cancelled_while_it_closes_still_closes(cancelled: Way) -> None:
    async with shop(log := Log()) as app:
        await cancelled(lambda: app.send(Wait(0)))
        assert log == ["session closed"]


@WAYS
async def test_a_stream_closes_its_rows_and_its_scope(cancelled: Way) -> None:
    async with shop(log := Log()) as app:

        async def read() -> None:
            async with app.stream(Rows()) as rows:
                async for _ in rows:
                    await asyncio.sleep(60)

        await cancelled(read)
        assert log == ["rows closed", "session closed"]


@pytest.mark.parametrize("by_anyio", [True, False])
async def test_an_app_closes_its_singletons(by_anyio: bool) -> None:
    log, ready = Log(), asyncio.Event()

    async def run() -> None:
        async with shop(log) as app:
            await app.send(Wait(0))
            log.clear()
            ready.set()
            await asyncio.sleep(60)

    await cancelled_when(ready, run, by_anyio)
    assert log == ["pool closed"]


@pytest.mark.parametrize("by_anyio", [True, False])
async def test_a_worker_and_its_app_wait_for_what_closes(by_anyio: bool) -> None:
    app = shop(log := Log(), MemoryBroker())
    started = asyncio.Event()

    @app.on_event
    async def sold(event: Sold, session: Session) -> None:
        started.set()
        await asyncio.sleep(60)

    async def run() -> None:
        async with app, app.worker(grace=0):
            await app.publish(Sold(1))
            await asyncio.sleep(60)

    await cancelled_when(started, run, by_anyio)
    assert log == ["session closed", "pool closed"]


async def cancelled_when(ready: asyncio.Event, run: Callable[[], Awaitable[object]], by_anyio: bool) -> None:
    """Cancel again at each await, once the event is set."""
    if by_anyio:
        with anyio.CancelScope() as scope:
            waiting = asyncio.ensure_future(ready.wait())
            waiting.add_done_callback(lambda _: scope.cancel())
            await run()
        assert scope.cancelled_caught
        return
    task = asyncio.ensure_future(run())
    await ready.wait()
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)
    assert task.cancelled()


async def test_events_leave_when_a_unit_that_was_cancelled_while_closing_has_closed_well() -> None:
    log = Log()
    app = shop(log, MemoryBroker())

    @dataclass(frozen=True)
    class Sell(Command[None]):
        pass

    @app.command
    async def sell(command: Sell, session: Session, publish: Publish[Sold]) -> None:
        publish(Sold(1))

    got: list[int] = []
    arrived = asyncio.Event()

    @app.on_event
    async def sold(event: Sold) -> None:
        got.append(event.number)
        arrived.set()

    async with app, app.worker():
        await cancelled_by_anyio(lambda: app.send(Sell()))
        assert log == ["session closed"]
        await asyncio.wait_for(arrived.wait(), 5)
    assert got == [1]
