"""The lifespan of an app, and its readiness checks."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from diator import (
    Command,
    ConfigurationError,
    Diator,
    NotificationEvent,
    NotRunningError,
    Retry,
    contract,
)
from tests.journal import Journal
from tests.virtual_time import in_virtual_time


@dataclass(frozen=True)
class Note(Command[None]):
    text: str


@contract("lifespan.joined")
@dataclass(frozen=True)
class Joined(NotificationEvent):
    number: int


def an_app(journal: Journal, lifespan: Callable[[Diator], AbstractAsyncContextManager[None]], **options: Any) -> Diator:
    app = Diator("meetings", lifespan=lifespan, **options)

    @app.command
    async def note(command: Note) -> None:
        journal.write(command.text)

    return app


def noting(journal: Journal, fails: str | None = None) -> Callable[[Diator], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: Diator) -> AsyncGenerator[None]:
        await app.send(Note("begins"))
        if fails == "begin":
            raise ValueError(fails)
        try:
            yield
        except BaseException as error:
            journal.write(f"saw {error}")
            if fails == "swallow":
                return
            raise
        await app.send(Note("ends"))
        if fails == "end":
            raise ValueError(fails)

    return lifespan


async def test_messages_can_be_sent_in_both_halves_of_the_lifespan() -> None:
    journal = Journal()
    app = an_app(journal, noting(journal))
    for _ in range(2):
        async with app:
            journal.write("block")
    assert journal.lines == ["begins", "block", "ends"] * 2


@pytest.mark.parametrize("fails", ["begin", "end"])
async def test_a_lifespan_that_fails_ends_the_app(fails: str) -> None:
    journal = Journal()
    app = an_app(journal, noting(journal, fails))
    with pytest.raises(ValueError, match=fails):
        async with app:
            journal.write("block")
    assert journal.lines == (["begins"] if fails == "begin" else ["begins", "block", "ends"])
    with pytest.raises(NotRunningError):
        await app.send(Note("too late"))


@pytest.mark.parametrize("fails", [None, "swallow"])
async def test_the_lifespan_sees_the_error_of_the_block_and_can_not_suppress_it(fails: str | None) -> None:
    journal = Journal()
    with pytest.raises(KeyError, match="the block"):
        async with an_app(journal, noting(journal, fails)):
            raise KeyError("the block")
    assert journal.lines == ["begins", "saw 'the block'"]


async def test_a_session_of_testing_enters_the_lifespan() -> None:
    journal = Journal()
    async with an_app(journal, noting(journal), broker="memory://").testing() as session:
        await session.send(Note("in the test"))
    assert journal.lines == ["begins", "in the test", "ends"]


async def test_a_check_does_not_run_the_lifespan() -> None:
    journal = Journal()
    assert an_app(journal, noting(journal)).check() == []
    assert journal.lines == []


def test_a_lifespan_that_is_no_context_manager_is_rejected() -> None:
    async def lifespan(app: Diator) -> AsyncIterator[None]:
        yield

    async def on_startup(app: Diator) -> None: ...

    for wrong in (lifespan, on_startup, 5):
        with pytest.raises(ConfigurationError, match=r"contextlib\.asynccontextmanager"):
            Diator(lifespan=wrong)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # wrong on purpose


async def test_a_lifespan_that_can_not_be_called_ends_the_app() -> None:
    @asynccontextmanager
    async def takes_nothing() -> AsyncGenerator[None]:
        yield

    @contextmanager
    def is_not_async(app: Diator) -> Generator[None]:
        yield

    wrong: Any
    for wrong, error in ((takes_nothing, TypeError), (is_not_async, ConfigurationError)):
        app = an_app(Journal(), wrong)
        for _ in range(2):  # the second time, it is not running either
            with pytest.raises(error, match=wrong.__name__):
                async with app:
                    pytest.fail("it has started")
            with pytest.raises(NotRunningError, match="has ended"):
                await app.send(Note("too late"))


# Readiness checks


def test_a_check_takes_no_parameters_and_is_async() -> None:
    app = Diator()

    async def with_parameter(session: object) -> None: ...

    def blocking() -> None: ...

    with pytest.raises(ConfigurationError, match=r"with_parameter, which takes parameters.*\n.*test_lifespan\.py"):
        app.readiness(with_parameter)  # type: ignore[type-var]  # pyright: ignore[reportCallIssue, reportArgumentType]  # wrong on purpose
    with pytest.raises(ConfigurationError, match=re.escape("blocking, which is not an async function")):
        app.readiness(blocking)  # type: ignore[type-var]  # pyright: ignore[reportCallIssue, reportArgumentType]  # wrong on purpose


@in_virtual_time
async def test_reasons_for_not_being_ready_are_those_of_failing_and_slow_checks() -> None:
    app = Diator()
    assert await app.not_ready_reasons() == []

    @app.readiness
    async def cache() -> None: ...

    @app.readiness
    async def database() -> None:
        raise ConnectionError("refused")

    @app.readiness(name="mail-server")
    async def mail() -> None:
        await asyncio.sleep(60)

    assert await app.not_ready_reasons() == [
        "the readiness check database fails (ConnectionError: refused)",
        "the readiness check mail-server fails (no answer within 3 s)",
    ]


@in_virtual_time
async def test_a_worker_pauses_while_a_check_fails_and_counts_no_failures() -> None:
    app = Diator("meetings", broker="memory://", retry=Retry(attempts=1))
    is_up, handled = True, list[int]()

    @app.readiness(name="mail-server", pauses=True)
    async def mail() -> None:
        if not is_up:
            raise ConnectionError("refused")

    @app.on_event
    async def send(event: Joined) -> None:
        await mail()
        handled.append(event.number)

    async with app, app.worker() as worker:
        await app.publish(Joined(1))
        await asyncio.sleep(2)
        is_up = False
        await asyncio.sleep(2)
        assert not worker.is_ready
        assert worker.not_ready_reasons == ["meetings.send is paused"]
        await app.publish(Joined(2))
        await asyncio.sleep(60)
        assert handled == [1]
        is_up = True
        await asyncio.sleep(2)
        assert handled == [1, 2]
        assert worker.is_ready


@in_virtual_time
async def test_what_runs_when_a_pause_begins_may_finish_and_a_paused_worker_ends_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = Diator("meetings", broker="memory://", retry=Retry(attempts=1))
    is_up, handled = True, list[int]()

    @app.readiness(pauses=True)
    async def mail() -> None:
        if not is_up:
            raise ConnectionError("refused")

    @app.on_event(concurrency=1)
    async def send(event: Joined) -> None:
        await asyncio.sleep(30)
        handled.append(event.number)

    async with app:
        async with app.worker():
            await app.publish(Joined(1), Joined(2))
            await asyncio.sleep(2)
            is_up = False
            await asyncio.sleep(60)
            assert handled == [1]
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < 1
    paused = [record.getMessage() for record in caplog.records if "pauses" in record.getMessage()]
    assert paused == ["the worker pauses: the readiness check mail fails (ConnectionError: refused)"]
