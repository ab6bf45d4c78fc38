"""Middlewares: which messages they wrap, in which order, and the few that ship."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from diator import (
    CallNext,
    Command,
    ConfigurationError,
    Context,
    Diator,
    LoggingMiddleware,
    Message,
    NotificationEvent,
    Query,
    Request,
    Router,
    TimeoutMiddleware,
)


@dataclass(frozen=True)
class Go(Command[int]):
    secret: str = "hunter2"


@dataclass(frozen=True)
class Ask(Query[int]):
    pass


def app_with_handlers() -> Diator:
    app = Diator()

    @app.command
    async def go(command: Go) -> int:
        return 1

    @app.query
    async def ask(query: Ask) -> int:
        return 2

    return app


async def test_the_hint_of_the_first_parameter_says_which_messages_are_wrapped() -> None:
    app, seen = app_with_handlers(), list[Any]()

    def note(name: str) -> None:
        seen.append(name)

    @app.middleware
    async def of_all(message: Message, call_next: CallNext) -> Any:
        note("Message")
        return await call_next(message)

    @app.middleware
    async def of_requests(message: Request[Any], call_next: CallNext) -> Any:
        note("Request")
        return await call_next(message)

    @app.middleware
    async def of_commands(message: Command[Any], call_next: CallNext) -> Any:
        note("Command")
        return await call_next(message)

    @app.middleware
    async def of_queries(message: Query[Any], call_next: CallNext) -> Any:
        note("Query")
        return await call_next(message)

    @app.middleware
    async def of_one(message: Ask, call_next: CallNext[Ask, int]) -> int:
        note("Ask")
        return await call_next(message)

    @app.middleware
    async def of_two(message: Ask | Go, call_next: CallNext) -> Any:
        note("Ask | Go")
        return await call_next(message)

    @app.middleware
    async def of_anything(message: Any, call_next: CallNext) -> Any:
        note("Any")
        return await call_next(message)

    async with app:
        await app.send(Go())
        assert seen == ["Message", "Request", "Command", "Ask | Go", "Any"]
        seen.clear()
        await app.send(Ask())
        assert seen == ["Message", "Request", "Query", "Ask", "Ask | Go", "Any"]


async def test_an_included_router_brings_its_middlewares_in_at_its_place() -> None:
    app, router, seen = app_with_handlers(), Router(), list[Any]()

    def noting(name: str) -> Any:
        async def note(message: Message, call_next: CallNext) -> Any:
            seen.append(name)
            return await call_next(message)

        return note

    app.add_middleware(noting("first"))
    router.add_middleware(noting("of the router"))
    app.include(router)
    app.add_middleware(noting("last"))
    async with app:
        await app.send(Go())
    assert seen == ["first", "of the router", "last"]


async def test_a_middleware_may_change_the_message_and_the_result() -> None:
    app = Diator()

    @app.middleware
    async def change(command: Go, call_next: CallNext[Go, int]) -> int:
        return 10 * await call_next(Go("changed"))

    @app.command
    async def go(command: Go) -> int:
        return len(command.secret)

    async with app:
        assert await app.send(Go("x")) == 10 * len("changed")


async def test_objects_methods_and_lambdas_free_of_dependencies_serve_as_middlewares() -> None:
    app, seen = app_with_handlers(), list[Any]()

    class Note:
        async def __call__(self, message: Message, call_next: CallNext) -> Any:
            seen.append("object")
            return await call_next(message)

        async def method(self, message: Message, call_next: CallNext) -> Any:
            seen.append("method")
            return await call_next(message)

    app.add_middleware(Note())
    app.add_middleware(Note().method)
    async with app:
        assert await app.send(Go()) == 1
    assert seen == ["object", "method"]


async def test_a_middleware_may_ask_for_the_context_and_the_app_and_stays_outside() -> None:
    app, seen = app_with_handlers(), list[Any]()

    @app.middleware
    async def note(message: Message, call_next: CallNext, here: Diator, *, context: Context) -> Any:
        seen.append((here, context.correlation_id))
        await call_next(message)
        return await call_next(message)

    async with app:
        assert await app.using(correlation_id="c1").send(Go()) == 1
    assert seen == [(app, "c1")]


async def test_logging_tells_name_outcome_and_duration_and_never_the_payload(caplog: pytest.LogCaptureFixture) -> None:
    app = app_with_handlers()
    app.add_middleware(LoggingMiddleware())
    with caplog.at_level(logging.INFO, "diator"):
        async with app:
            await app.send(Go())
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert record.getMessage().startswith("Go handled after ")
    assert "hunter2" not in record.getMessage()
    assert vars(record)["diator_message_type"] == "Go"
    assert vars(record)["diator_outcome"] == "handled"
    assert 0 <= vars(record)["diator_duration_seconds"] < 5


async def test_logging_tells_the_class_of_an_error_and_not_its_text(caplog: pytest.LogCaptureFixture) -> None:
    app = Diator()
    app.add_middleware(LoggingMiddleware())

    @app.command
    async def go(command: Go) -> int:
        raise ValueError(command.secret)

    async with app:
        with pytest.raises(ValueError):
            await app.send(Go())
    (record,) = caplog.records
    assert (record.levelno, vars(record)["diator_outcome"], vars(record)["diator_error_type"]) == (
        logging.ERROR, "failed", "ValueError",
    )  # fmt: skip
    assert "hunter2" not in record.getMessage()


async def test_logging_shows_the_payload_when_asked_to(caplog: pytest.LogCaptureFixture) -> None:
    app = app_with_handlers()
    app.add_middleware(LoggingMiddleware(level=logging.WARNING, payload=True))
    async with app:
        await app.send(Go())
    assert "Go(secret='hunter2') handled" in caplog.text


async def test_logging_takes_expected_errors_for_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    app = Diator()
    app.add_middleware(LoggingMiddleware(expected=(LookupError, PermissionError)))
    caplog.set_level(logging.INFO)

    @app.command
    async def go(command: Go) -> int:
        raise KeyError("a meeting that does not exist") if command.secret == "expected" else ValueError

    async with app:
        for secret, error in (("expected", KeyError), ("hunter2", ValueError)):
            with pytest.raises(error):
                await app.send(Go(secret))
    assert [(record.levelno, vars(record)["diator_error_type"]) for record in caplog.records] == [
        (logging.INFO, "KeyError"),
        (logging.ERROR, "ValueError"),
    ]


@dataclass(frozen=True)
class Gone(NotificationEvent):
    pass


async def test_logging_covers_brokered_events(caplog: pytest.LogCaptureFixture) -> None:
    app = Diator("meetings", broker="memory://")
    app.add_middleware(LoggingMiddleware(logging.getLogger("mine")))
    caplog.set_level(logging.INFO, "mine")

    @app.on_event
    async def note(event: Gone) -> None: ...

    async with app.testing() as session:
        await session.publish(Gone())
        await session.settled()
    (record,) = [record for record in caplog.records if record.name == "mine"]
    assert record.getMessage().startswith("Gone handled after")


async def test_logging_tells_a_cancellation_from_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    app = Diator()
    app.add_middleware(LoggingMiddleware())

    @app.command
    async def go(command: Go) -> int:
        raise asyncio.CancelledError

    async with app:
        with pytest.raises(asyncio.CancelledError):
            await app.send(Go())
    (record,) = caplog.records
    assert (record.levelno, vars(record)["diator_outcome"]) == (logging.WARNING, "cancelled")


async def test_the_timeout_middleware_limits_commands_and_queries() -> None:
    app = Diator()
    app.add_middleware(TimeoutMiddleware(0.01))

    @app.query
    async def ask(query: Ask) -> int:
        await asyncio.sleep(60)
        return 1

    async with app:
        with pytest.raises(TimeoutError, match=r"Ask was cancelled: it took longer than 0\.01 s"):
            await app.send(Ask())


async def test_a_cancel_from_outside_is_no_timeout() -> None:
    app = Diator()
    app.add_middleware(TimeoutMiddleware(60))
    inside = asyncio.Event()

    @app.query
    async def ask(query: Ask) -> int:
        inside.set()
        await asyncio.sleep(60)
        return 1

    async with app:
        task = asyncio.ensure_future(app.send(Ask()))
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def test_a_middleware_with_its_parameters_swapped_is_refused() -> None:
    app = app_with_handlers()

    async def swapped(call_next: Any, message: Any) -> Any:
        return await call_next(message)

    del swapped.__annotations__["call_next"]
    app.add_middleware(swapped)
    (problem,) = app.check()
    assert (problem.code, problem.severity) == ("middleware", "error")
    assert "takes call_next as its first parameter" in problem.text


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_timeout_of_nothing_is_refused(seconds: float) -> None:
    with pytest.raises(ConfigurationError, match=r"TimeoutMiddleware got seconds=.* greater than 0"):
        TimeoutMiddleware(seconds)


@dataclass(frozen=True)
class Numbers(Query[int]):
    fails: bool = False


@pytest.mark.parametrize(
    ("how", "outcome"), [("all", "handled"), ("one", "left early"), ("fails", "failed"), ("block fails", "left early")]
)
async def test_a_stream_is_logged_when_its_rows_end(caplog: pytest.LogCaptureFixture, how: str, outcome: str) -> None:
    app = Diator()
    app.add_middleware(LoggingMiddleware())

    @app.query
    async def numbers(query: Numbers) -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(0.05)
        if query.fails:
            raise LookupError("no more numbers")
        yield 2

    async def read() -> None:
        async with app.stream(Numbers(how == "fails")) as rows:
            assert caplog.records == []
            async for _ in rows:
                assert caplog.records == []
                if how == "one":
                    break
                if how == "block fails":
                    raise LookupError("of the block")

    with caplog.at_level(logging.INFO):
        async with app:
            with suppress(LookupError):
                await read()
    (record,) = caplog.records
    assert vars(record)["diator_outcome"] == outcome
    assert (vars(record)["diator_duration_seconds"] >= 0.045) is (how in ("all", "fails"))
    assert vars(record).get("diator_error_type") == ("LookupError" if how == "fails" else None)
