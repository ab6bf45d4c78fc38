"""What happens on ``send``, in its order, and what fails it."""

import asyncio
import functools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from diator import CallNext, CallNextError, Command, Diator, DomainEvent, NotificationEvent, Publish, Query
from diator.containers import Key
from tests.journal import Journal, Session


@dataclass(frozen=True)
class Book(Command[str]):
    seats: int = 1


@dataclass(frozen=True)
class Booked(DomainEvent):
    seats: int = 1


@dataclass(frozen=True)
class Audited(DomainEvent):
    of: str = ""


class Broken(Exception):
    """What handlers of these tests fail with."""


@asynccontextmanager
async def running(app: Diator, journal: Journal) -> AsyncGenerator[Diator, None]:
    async with app:
        yield app
    assert journal.lines.pop() == "container closed"


async def test_one_scope_is_around_the_handler_and_its_domain_events() -> None:
    app = Diator(container=(journal := Journal()))

    @app.command
    async def book(command: Book, session: Session, publish: Publish[Booked]) -> str:
        publish(Booked())
        journal.write(f"handler in {session.number}")
        return "done"

    @app.on_event
    async def audit(event: Booked, session: Session) -> None:
        journal.write(f"event in {session.number}")

    async with running(app, journal):
        assert await app.send(Book()) == "done"
    assert journal.lines == ["scope 1 opens", "handler in 1", "event in 1", "scope 1 closes"]


async def test_a_plan_that_resolves_nothing_opens_no_scope() -> None:
    app = Diator(container=(journal := Journal()))

    @app.command
    async def book(command: Book, publish: Publish[Booked]) -> str:
        publish(Booked())
        return "done"

    @app.on_event
    async def audit(event: Booked) -> None: ...

    async with running(app, journal):
        await app.send(Book())
    assert journal.lines == []


async def test_a_scope_opens_when_only_an_event_of_an_event_needs_one() -> None:
    app = Diator(container=(journal := Journal()))

    @app.command
    async def book(command: Book, publish: Publish[Booked]) -> str:
        publish(Booked())
        return "done"

    @app.on_event
    async def audit(event: Booked, publish: Publish[Audited]) -> None:
        publish(Audited())

    @app.on_event
    async def store(event: Audited, session: Session) -> None:
        journal.write(f"stored in {session.number}")

    async with running(app, journal):
        await app.send(Book())
    assert journal.lines == ["scope 1 opens", "stored in 1", "scope 1 closes"]


async def test_middlewares_without_dependencies_run_around_the_scope_and_the_others_inside() -> None:
    app = Diator(container=(journal := Journal()))

    @app.middleware(inside=True)
    async def inner(command: Book, call_next: CallNext, session: Session) -> Any:
        journal.write("inner in")
        result = await call_next(command)
        journal.write("inner out")
        return result

    @app.middleware
    async def outer(command: Book, call_next: CallNext) -> Any:
        journal.write("outer in")
        result = await call_next(command)
        journal.write("outer out")
        return result

    @app.command
    async def book(command: Book) -> str:
        journal.write("handler")
        return "done"

    async with running(app, journal):
        await app.send(Book())
    assert journal.lines == [
        "outer in", "scope 1 opens", "inner in", "handler", "inner out", "scope 1 closes", "outer out",
    ]  # fmt: skip


async def test_events_run_inside_the_inner_middlewares() -> None:
    app = Diator(container=(journal := Journal()))

    @app.middleware(inside=True)
    async def inner(command: Book, call_next: CallNext, session: Session) -> Any:
        result = await call_next(command)
        journal.write("inner out")
        return result

    @app.command
    async def book(command: Book, publish: Publish[Booked]) -> str:
        publish(Booked())
        return "done"

    @app.on_event
    async def audit(event: Booked) -> None:
        journal.write("event")

    async with running(app, journal):
        await app.send(Book())
    assert journal.lines == ["scope 1 opens", "event", "inner out", "scope 1 closes"]


async def test_an_error_of_the_handler_undoes_the_scope_and_reaches_the_caller_as_it_was() -> None:
    app = Diator(container=(journal := Journal()))
    error = Broken()

    @app.command
    async def book(command: Book, session: Session, publish: Publish[Booked]) -> str:
        publish(Booked())
        raise error

    @app.on_event
    async def audit(event: Booked) -> None:
        journal.write("event")

    async with running(app, journal):
        with pytest.raises(Broken) as caught:
            await app.send(Book())
    assert caught.value is error
    assert error.__cause__ is None
    assert journal.lines == ["scope 1 opens", "scope 1 undone by Broken"]


async def test_an_error_of_an_event_handler_undoes_its_command_and_stops_the_events_behind_it() -> None:
    app = Diator(container=(journal := Journal()))

    @app.command
    async def book(command: Book, session: Session, publish: Publish[Booked | Audited]) -> str:
        publish(Booked())
        publish(Audited())
        return "done"

    @app.on_event
    async def fail(event: Booked) -> None:
        raise Broken

    @app.on_event
    async def audit(event: Audited) -> None:
        journal.write("audited")

    async with running(app, journal):
        with pytest.raises(Broken):
            await app.send(Book())
    assert journal.lines == ["scope 1 opens", "scope 1 undone by Broken"]


async def test_an_error_of_opening_reaches_the_caller_and_no_handler_runs() -> None:
    app = Diator(container=Journal(opening_fails=Broken()))

    @app.command
    async def book(command: Book, session: Session) -> str:
        raise AssertionError

    async with app:
        with pytest.raises(Broken):
            await app.send(Book())


async def test_an_error_of_closing_reaches_the_caller() -> None:
    app = Diator(container=Journal(closing_fails=Broken("commit")))

    @app.command
    async def book(command: Book, session: Session) -> str:
        return "done"

    async with app:
        with pytest.raises(Broken, match="commit"):
            await app.send(Book())


async def test_the_error_of_the_handler_wins_over_one_of_closing_which_becomes_its_cause() -> None:
    closing, cause, error = Broken("closing"), Broken("cause"), Broken("handler")
    app = Diator(container=Journal(closing_fails=closing))

    @app.command
    async def book(command: Book, session: Session) -> str:
        raise error from cause

    async with app:
        with pytest.raises(Broken, match="handler") as caught:
            await app.send(Book())
    assert caught.value is error
    assert caught.value.__cause__ is cause, "a cause that the handler has given stays"
    assert cause.__cause__ is closing


async def test_a_container_cannot_swallow_an_error() -> None:
    app = Diator(container=Journal(swallows=True))

    @app.command
    async def book(command: Book, session: Session) -> str:
        raise Broken

    async with app:
        with pytest.raises(Broken):
            await app.send(Book())


async def test_a_middleware_inside_that_swallows_an_error_does_not_save_the_unit_of_work() -> None:
    app = Diator(container=(journal := Journal()))

    @app.middleware(inside=True)
    async def forgive(command: Book, call_next: CallNext, session: Session) -> Any:
        try:
            return await call_next(command)
        except Broken:
            return "instead"

    @app.command
    async def book(command: Book, publish: Publish[Booked]) -> str:
        publish(Booked())
        raise Broken

    @app.on_event
    async def audit(event: Booked) -> None:
        journal.write("event")

    async with running(app, journal):
        assert await app.send(Book()) == "instead"
    assert journal.lines == ["scope 1 opens", "scope 1 undone by Broken"]


async def test_a_middleware_inside_that_answers_by_itself_is_a_success() -> None:
    app = Diator(container=(journal := Journal()))

    @app.middleware(inside=True)
    async def cache(command: Book, call_next: CallNext, session: Session) -> Any:
        return "from the cache"

    @app.command
    async def book(command: Book) -> str:
        raise AssertionError

    async with running(app, journal):
        assert await app.send(Book()) == "from the cache"
    assert journal.lines == ["scope 1 opens", "scope 1 closes"]


async def test_an_error_of_a_middleware_inside_after_the_handler_undoes_the_scope() -> None:
    app = Diator(container=(journal := Journal()))

    @app.middleware(inside=True)
    async def fail(command: Book, call_next: CallNext, session: Session) -> Any:
        await call_next(command)
        raise Broken

    @app.command
    async def book(command: Book) -> str:
        return "done"

    async with running(app, journal):
        with pytest.raises(Broken):
            await app.send(Book())
    assert journal.lines == ["scope 1 opens", "scope 1 undone by Broken"]


async def test_a_middleware_outside_may_try_again_and_each_try_is_a_new_unit_of_work() -> None:
    app = Diator(container=(journal := Journal()))
    tries = 0

    @app.middleware
    async def retry(command: Book, call_next: CallNext) -> Any:
        try:
            return await call_next(command)
        except Broken:
            return await call_next(command)

    @app.command
    async def book(command: Book, session: Session, publish: Publish[Booked]) -> str:
        nonlocal tries
        tries += 1
        publish(Booked(tries))
        if tries == 1:
            raise Broken
        return f"try {tries}"

    @app.on_event
    async def audit(event: Booked) -> None:
        journal.write(f"event of try {event.seats}")

    async with running(app, journal):
        assert await app.send(Book()) == "try 2"
    assert journal.lines == [
        "scope 1 opens", "scope 1 undone by Broken", "scope 2 opens", "event of try 2", "scope 2 closes",
    ]  # fmt: skip


async def test_a_middleware_inside_that_calls_on_twice_is_refused() -> None:
    app = Diator(container=(journal := Journal()))

    @app.middleware(inside=True)
    async def twice(command: Book, call_next: CallNext, session: Session) -> Any:
        await call_next(command)
        return await call_next(command)

    @app.command
    async def book(command: Book) -> str:
        journal.write("handler")
        return "done"

    async with running(app, journal):
        with pytest.raises(CallNextError, match=r"twice for Book.*register it without inside=True"):
            await app.send(Book())
    assert journal.lines == ["scope 1 opens", "handler", "scope 1 undone by CallNextError"]


async def test_a_nested_send_is_a_unit_of_its_own_and_stands_when_the_outer_one_fails() -> None:
    app = Diator(container=(journal := Journal()))

    @dataclass(frozen=True)
    class Outer(Command[None]):
        pass

    @app.command
    async def outer(command: Outer, session: Session, here: Diator) -> None:
        await here.send(Book())
        raise Broken

    @app.command
    async def book(command: Book, session: Session) -> str:
        journal.write(f"inner in {session.number}")
        return "done"

    async with running(app, journal):
        with pytest.raises(Broken):
            await app.send(Outer())
    assert journal.lines == [
        "scope 1 opens", "scope 2 opens", "inner in 2", "scope 2 closes", "scope 1 undone by Broken",
    ]  # fmt: skip


async def test_concurrent_sends_share_nothing() -> None:
    app = Diator(container=(journal := Journal()))
    all_in = asyncio.Event()
    seen: dict[int, int] = {}

    @app.command
    async def book(command: Book, session: Session, publish: Publish[Booked]) -> str:
        publish(Booked(command.seats))
        seen[command.seats] = session.number
        if len(seen) == 10:
            all_in.set()
        await all_in.wait()
        return str(command.seats)

    @app.on_event
    async def audit(event: Booked, session: Session) -> None:
        assert seen[event.seats] == session.number

    async with running(app, journal):
        results = await asyncio.gather(*(app.send(Book(n)) for n in range(10)))
    assert results == [str(n) for n in range(10)]
    assert len(set(seen.values())) == 10


async def test_a_cancel_while_the_scope_closes_wins_over_the_error_of_the_handler() -> None:
    journal = Journal(closing_waits=True)
    app = Diator(container=journal)

    @app.command
    async def book(command: Book, session: Session) -> str:
        raise Broken

    async with app:
        task = asyncio.ensure_future(app.send(Book()))
        await journal.closing.wait()
        task.cancel()
        journal.may_close.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert journal.lines == ["scope 1 opens", "scope 1 undone by Broken", "container closed"]


async def test_a_cancel_undoes_the_scope() -> None:
    app = Diator(container=(journal := Journal()))
    inside = asyncio.Event()

    @app.command
    async def book(command: Book, session: Session) -> str:
        inside.set()
        await asyncio.sleep(60)
        return "never"

    async with running(app, journal):
        task = asyncio.ensure_future(app.send(Book()))
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert journal.lines == ["scope 1 opens", "scope 1 undone by CancelledError"]


async def test_a_handler_in_a_thread_is_waited_for_before_its_scope_closes() -> None:
    import threading

    app = Diator(container=(journal := Journal()))
    started, release = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    @app.command(thread=True)
    def book(command: Book, session: Session) -> str:
        loop.call_soon_threadsafe(started.set)
        release.wait(10)
        journal.write("thread is done")
        return "done"

    async with running(app, journal):
        task = asyncio.ensure_future(app.send(Book()))
        await started.wait()
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert journal.lines == ["scope 1 opens", "thread is done", "scope 1 undone by CancelledError"]


async def test_a_handler_in_a_thread_gives_its_result_and_its_error() -> None:
    import threading

    app = Diator()
    here = threading.get_ident()

    @app.command(thread=True)
    def book(command: Book) -> str:
        if command.seats == 0:
            raise Broken
        return str(threading.get_ident() != here)

    async with app:
        assert await app.send(Book()) == "True"
        with pytest.raises(Broken):
            await app.send(Book(0))


async def test_a_timeout_cancels_the_handler_and_undoes_its_scope() -> None:
    app = Diator(container=(journal := Journal()))

    @app.command(timeout=0.01)
    async def book(command: Book, session: Session) -> str:
        await asyncio.sleep(60)
        return "never"

    async with running(app, journal):
        with pytest.raises(TimeoutError, match=r"Book was cancelled: it took longer than 0\.01 s"):
            await app.send(Book())
    assert journal.lines == ["scope 1 opens", "scope 1 undone by CancelledError"]


async def test_a_timeout_that_the_handler_raises_itself_passes_unchanged() -> None:
    app = Diator()
    error = TimeoutError("the database did not answer")

    @app.command(timeout=60)
    async def book(command: Book) -> str:
        raise error

    async with app:
        with pytest.raises(TimeoutError) as caught:
            await app.send(Book())
    assert caught.value is error


class OneAtATime(Journal):
    """Notes how many keys one scope resolves at a time, at most."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self.resolved = 0

    def scope(self, provided: Mapping[Key, object], /) -> Any:
        scope = super().scope(provided)
        resolve, busy = scope.resolve, list[Key]()

        async def noting(key: Key) -> Any:
            busy.append(key)
            self.most, self.resolved = max(self.most, len(busy)), self.resolved + 1
            try:
                await asyncio.sleep(0.001)
                return await resolve(key)
            finally:
                busy.remove(key)

        scope.resolve = noting  # type: ignore[method-assign]  # the object is one of this test alone
        return scope


@dataclass(frozen=True)
class Told(NotificationEvent):
    pass


@dataclass(frozen=True)
class Seats(Query[int]):
    pass


async def _read(app: Diator) -> list[int]:
    async with app.stream(Seats()) as numbers:
        return [number async for number in numbers]


async def test_a_scope_resolves_one_key_at_a_time() -> None:
    """Containers need no lock for a scope, whatever a unit of work does."""
    container = OneAtATime()
    app = Diator("booking", container=container, broker="memory://", concurrency=10)

    @app.middleware(inside=True)
    async def check(message: Command[Any], call_next: CallNext, one: Session, other: Session) -> Any:
        return await call_next(message)

    @app.command
    async def book(command: Book, one: Session, other: Session, publish: Publish[Booked | Told]) -> str:
        publish(Booked())
        publish(Told())
        if command.seats:
            await asyncio.gather(*(app.send(Book(0)) for _ in range(5)), _read(app), _read(app))
        return "done"

    @app.query
    async def rows(query: Seats, one: Session, other: Session) -> AsyncIterator[int]:
        for number in range(3):
            await asyncio.sleep(0.001)
            yield number

    async def audit(event: Booked, one: Session, other: Session) -> None:
        await asyncio.sleep(0.001)

    def store(event: Booked, one: Session, other: Session) -> None:
        time.sleep(0.001)

    for number in range(10):
        handler = functools.partial(audit if number % 2 else store)
        app.add_event_handler(handler, thread=not number % 2)

    @app.on_event(thread=True)
    def told(event: Told, one: Session, other: Session) -> None:
        time.sleep(0.001)

    async with app, app.worker():
        await asyncio.gather(*(app.send(Book()) for _ in range(3)))
        await app.publish(Booked(), Booked())
        await asyncio.sleep(0.1)
    assert container.resolved > 400
    assert container.most == 1
