"""What must hold when things go wrong at an odd moment, and what must not be kept alive."""

import asyncio
import gc
import logging
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import pytest

from diator import (
    CallNext,
    CallNextError,
    Command,
    Context,
    Diator,
    DiatorError,
    DomainEvent,
    Message,
    NotificationEvent,
    NotRunningError,
    Publish,
    Query,
)
from diator.containers import ContainerCapability
from tests.journal import Journal, Session


@dataclass(frozen=True)
class Go(Command[str]):
    number: int = 0


@dataclass(frozen=True)
class Happened(DomainEvent):
    pass


@dataclass(frozen=True)
class Rows(Query[int]):
    pass


class Broken(Exception):
    pass


# ---------------------------------------------------------------------------------------------------------- threads


async def test_a_handler_in_a_thread_that_raises_stop_iteration_ends() -> None:
    app = Diator()

    @app.command(thread=True)
    def go(command: Go) -> str:
        return next(iter([]))

    async with app:
        with pytest.raises(RuntimeError, match="StopIteration"):
            await asyncio.wait_for(app.send(Go()), 5)


async def test_a_handler_for_which_no_thread_can_be_started_fails_and_does_not_run_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app, ran, release = Diator(), list[int](), threading.Event()

    @app.command(thread=True)
    def go(command: Go) -> str:
        ran.append(command.number)
        release.wait(10)
        return ""

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with app:
        first = asyncio.ensure_future(app.send(Go(1)))
        while not ran:  # noqa: ASYNC110 - a thread sets no event of asyncio
            await asyncio.sleep(0.01)
        monkeypatch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match=r"\(1 running\): can't start new thread; limit how many handlers run"):
            await app.send(Go(2))
        monkeypatch.undo()
        release.set()
        await first
        await app.send(Go(3))
    assert ran == [1, 3]


async def test_no_handler_waits_for_a_thread_however_many_run() -> None:
    app, together = Diator(), threading.Barrier(60)

    @app.command(thread=True, timeout=30)
    def go(command: Go) -> str:
        together.wait(20)  # only once all of them run
        return str(command.number)

    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    async with app:
        assert len(await asyncio.gather(*(app.send(Go(number)) for number in range(60)))) == 60


async def test_a_handler_in_a_thread_may_block_on_another_one() -> None:
    app, loop = Diator(), asyncio.get_running_loop()

    @app.command(thread=True)
    def go(command: Go, app: Diator) -> str:
        if command.number:
            return asyncio.run_coroutine_threadsafe(app.send(Go(command.number - 1)), loop).result(20)
        return "done"

    async with app:
        assert await asyncio.gather(*(app.send(Go(20)) for _ in range(3))) == ["done"] * 3


@pytest.fixture
def threads_of_apps() -> Callable[[], list[threading.Thread]]:
    before = set(threading.enumerate())  # a program in a page of the documentation may have left one that lasts
    return lambda: [one for one in set(threading.enumerate()) - before if one.name.startswith("diator")]


async def test_threads_are_the_apps_own_and_end_with_it(threads_of_apps: Callable[[], list[threading.Thread]]) -> None:
    app, other, names = Diator(), Diator(), list[str]()

    for one in (app, other):

        @one.command(thread=True)
        def go(command: Go) -> str:
            names.append(threading.current_thread().name)
            return VARIABLE.get()

    async with other:
        for _ in range(2):  # an app may be entered again
            async with app:
                VARIABLE.set("of the sender")
                assert await app.send(Go()) == "of the sender"
                assert await app.send(Go()) == "of the sender"
                assert await other.send(Go()) == "of the sender"
                assert len(threads_of_apps()) == 2
            assert len(threads_of_apps()) == 1
    assert not threads_of_apps()
    assert all(name.startswith("diator") for name in names)


VARIABLE: ContextVar[str] = ContextVar("variable")


async def test_the_end_waits_for_handlers_in_threads(threads_of_apps: Callable[[], list[threading.Thread]]) -> None:
    app, release, done = Diator(), threading.Event(), list[int]()

    @app.command(thread=True)
    def go(command: Go) -> str:
        release.wait(10)
        done.append(command.number)
        return ""

    async with app:
        sending = asyncio.ensure_future(app.send(Go(1)))
        await asyncio.sleep(0.05)
        asyncio.get_running_loop().call_later(0.05, release.set)
    assert done == [1]
    await sending
    for _ in range(200):  # the thread ends a moment after its result is there
        if threads_of_apps():
            await asyncio.sleep(0.01)
    assert not threads_of_apps()


@dataclass(frozen=True)
class Came(NotificationEvent):
    number: int


async def test_a_worker_runs_as_many_handlers_in_threads_as_its_concurrency_says() -> None:
    app = Diator("app", broker="memory://", concurrency=40, event_timeout=15)
    together, runs = threading.Barrier(40), list[int]()

    @app.on_event(thread=True)
    def came(event: Came) -> None:
        runs.append(event.number)
        together.wait(10)

    async with app.testing() as session:
        await session.publish(*(Came(number) for number in range(40)))
        await session.settled()
    assert sorted(runs) == list(range(40))


async def test_what_a_handler_in_a_thread_gives_is_awaited_if_it_can_be() -> None:
    app = Diator()

    async def later() -> str:
        return "later"

    @app.command(thread=True)
    def go(command: Go) -> Awaitable[str]:
        return later()

    async with app:
        assert await app.send(Go()) == "later"


# ---------------------------------------------------------------------------------------------------------- cancels


async def test_a_cancel_while_a_timeout_cleans_up_is_not_lost() -> None:
    app, cleaning = Diator(), asyncio.Event()

    @app.command(timeout=0.01)
    async def go(command: Go) -> str:
        try:
            await asyncio.sleep(60)
        finally:
            cleaning.set()
            await asyncio.sleep(0.05)
        return ""

    async def worker() -> None:
        try:
            await app.send(Go())
        except TimeoutError:
            await asyncio.sleep(60)  # goes on, unless the cancel is seen

    async with app:
        task = asyncio.ensure_future(worker())
        await cleaning.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 5)


async def test_a_forgiven_timeout_of_an_event_handler_is_no_cancel_of_the_caller() -> None:
    app = Diator()

    @app.middleware
    async def limit(event: Happened, call_next: CallNext) -> None:
        try:
            await asyncio.wait_for(call_next(event), 0.01)
        except asyncio.TimeoutError:
            return

    @app.command
    async def go(command: Go, publish: Publish[Happened]) -> str:
        publish(Happened())
        return ""

    @app.on_event
    async def on(event: Happened) -> None:
        await asyncio.sleep(60)

    async with app:
        with pytest.raises(
            DiatorError, match="a handler of Happened was cancelled, and a middleware of events continued regardless"
        ):
            await app.send(Go())


# ------------------------------------------------------------------------------------------------------ middlewares


async def test_a_middleware_inside_that_leaves_its_call_behind_is_refused() -> None:
    app, tasks = Diator(container=(journal := Journal())), list[asyncio.Future[Any]]()

    @app.middleware(inside=True)
    async def hurry(command: Go, call_next: CallNext, session: Session) -> str:
        tasks.append(asyncio.ensure_future(call_next(command)))
        await asyncio.sleep(0)
        return "early"

    @app.command
    async def go(command: Go) -> str:
        await asyncio.sleep(0.01)
        return "late"

    async with app:
        with pytest.raises(CallNextError, match="was still running"):
            await app.send(Go())
        await asyncio.gather(*tasks)
    assert journal.lines[:2] == ["scope 1 opens", "scope 1 undone by CallNextError"]


async def test_a_middleware_of_all_messages_that_tries_an_event_again_is_told_what_to_wrap() -> None:
    app = Diator()

    @app.middleware
    async def retry(message: Message, call_next: CallNext) -> Any:
        try:
            return await call_next(message)
        except Broken:
            return await call_next(message)

    @app.on_event
    async def on(event: Happened) -> None:
        raise Broken

    async with app:
        with pytest.raises(CallNextError, match=r"wrap the command instead: annotate the message as Command\[Any\]"):
            await app.publish(Happened())


async def test_the_constructor_of_a_class_handler_runs_when_the_call_is_awaited() -> None:
    app = Diator()

    @app.command
    class GoHandler:
        def __init__(self) -> None:
            raise Broken

        async def handle(self, command: Go) -> str:
            return ""

    async with app:
        call = app.send(Go())
        with pytest.raises(Broken):
            await call


# ---------------------------------------------------------------------------------------------------------- the end


async def test_the_end_waits_for_units_of_work_that_use_the_container(caplog: pytest.LogCaptureFixture) -> None:
    app, inside = Diator(container=(journal := Journal())), asyncio.Event()

    @app.command
    async def go(command: Go, session: Session) -> str:
        inside.set()
        await asyncio.sleep(0.01)
        return "done"

    with caplog.at_level(logging.INFO, "diator"):
        async with app:
            task = asyncio.ensure_future(app.send(Go()))
            await inside.wait()
    assert await task == "done"
    assert journal.lines == ["scope 1 opens", "scope 1 closes", "container closed"]
    assert "waits for 1 units of work" in caplog.text


class WithoutScopes(Journal):
    capabilities = ContainerCapability.REUSABLE


@pytest.mark.parametrize("container", [Journal, WithoutScopes])
async def test_a_unit_that_begins_after_the_end_is_told_so(container: type[Journal]) -> None:
    app = Diator(container=container())

    @app.command
    async def go(command: Go, session: Session) -> str:
        raise AssertionError

    async with app:
        call = app.send(Go())
    with pytest.raises(NotRunningError, match="the app had ended"):
        await call


class ClosesBadly(Journal):
    async def aclose(self) -> None:
        raise Broken("closing the pool")


async def test_the_error_of_the_block_wins_over_one_of_closing_the_container() -> None:
    error = ValueError("block")
    with pytest.raises(ValueError, match="block") as caught:
        async with Diator(container=ClosesBadly()):
            raise error
    assert isinstance(caught.value.__cause__, Broken)


async def test_an_error_of_closing_the_container_is_raised_where_there_is_no_other() -> None:
    with pytest.raises(Broken, match="closing the pool"):
        async with Diator(container=ClosesBadly()):
            pass


# ------------------------------------------------------------------------------------------------------------ errors


async def test_an_error_that_is_raised_again_and_again_gets_no_longer_chain() -> None:
    shared = Broken("shared")
    app = Diator(container=Journal(closing_fails=ValueError("closing")))

    @app.command
    async def go(command: Go, session: Session) -> str:
        raise shared

    async with app:
        for _ in range(5):
            with pytest.raises(Broken):
                await app.send(Go())
    assert shared.__cause__ is not None
    assert shared.__cause__.__cause__ is None


async def test_closing_that_fails_does_not_hide_what_the_error_came_from() -> None:
    app = Diator(container=Journal(closing_fails=Broken("closing")))

    @app.command
    async def go(command: Go, session: Session) -> str:
        try:
            raise LookupError("root")
        except LookupError:
            raise ValueError("handler")  # noqa: B904 - its context is what this is about

    async with app:
        with pytest.raises(ValueError, match="handler") as caught:
            await app.send(Go())
    root = caught.value.__context__
    assert isinstance(root, LookupError)
    assert not caught.value.__suppress_context__
    assert isinstance(root.__cause__, Broken)


async def test_a_falsy_error_of_the_block_undoes_the_scope_of_a_stream() -> None:
    class Falsy(Exception):
        def __len__(self) -> int:
            return 0

    app = Diator(container=(journal := Journal()))

    @app.query
    async def rows(query: Rows, session: Session) -> AsyncIterator[int]:
        yield 1

    async with app:
        with pytest.raises(Falsy):
            async with app.stream(Rows()):
                raise Falsy
    assert journal.lines[1] == "scope 1 undone by Falsy"


async def test_an_error_of_the_rows_that_the_block_forgives_undoes_the_scope() -> None:
    app = Diator(container=(journal := Journal()))

    @app.query
    async def rows(query: Rows, session: Session) -> AsyncIterator[int]:
        yield 1
        raise Broken

    async with app, app.stream(Rows()) as found:
        await anext(found)
        with pytest.raises(Broken):
            await anext(found)
    assert journal.lines[1] == "scope 1 undone by Broken"


async def test_the_clean_up_of_a_streaming_handler_has_its_context() -> None:
    app, seen = Diator(), list[str]()

    @app.query
    async def rows(query: Rows, context: Context, here: Diator) -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await here.send(Go())

    @app.command
    async def go(command: Go, context: Context) -> str:
        seen.append(context.correlation_id)
        return ""

    async with app, app.using(correlation_id="c1").stream(Rows()) as found:
        await anext(found)
        await found.aclose()
    assert seen == ["c1"]


# ------------------------------------------------------------------------------------------------------------ memory


async def test_a_failure_inside_a_middleware_keeps_nothing_alive() -> None:
    app, alive = Diator(container=Journal()), list["weakref.ref[Any]"]()

    class Heavy:
        pass

    @app.middleware(inside=True)
    async def inside(command: Go, call_next: CallNext, session: Session) -> Any:
        return await call_next(command)

    @app.command
    async def go(command: Go) -> str:
        heavy = Heavy()
        alive.append(weakref.ref(heavy))
        raise Broken

    gc.collect()
    gc.disable()
    try:
        async with app:
            with suppress(Broken):
                await app.send(Go())
        assert [ref() for ref in alive] == [None]
    finally:
        gc.enable()


async def test_plans_of_events_that_are_published_together_are_bounded() -> None:
    app = Diator()
    kinds = [type(f"Kind{number}", (DomainEvent,), {}) for number in range(13)]

    @app.on_event
    async def on(event: DomainEvent) -> None: ...

    async with app:
        for size in range(1, 7):
            for chosen in combinations(kinds, size):
                await app.publish(*(kind() for kind in chosen))
        assert len(app._event_calls) <= 1_000  # pyright: ignore[reportPrivateUsage]  # no other way to see it
