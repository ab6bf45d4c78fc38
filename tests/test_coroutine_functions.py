"""What is awaited passes for a coroutine function with all who ask: frameworks, schedulers, mocks."""

import asyncio
import functools
import inspect
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import AsyncMock, MagicMock, create_autospec

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTasks
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from diator import (
    CallNext,
    Command,
    Context,
    Diator,
    DomainEvent,
    HandlerNotFoundError,
    InvalidMessageError,
    NotificationEvent,
    NotRunningError,
    Publish,
    Query,
)
from diator.containers import ContainerCapability
from diator.sender import Sender
from diator.testing import record
from tests.journal import Journal, Session


@dataclass(frozen=True)
class Mail(Command[str]): ...


@dataclass(frozen=True)
class Unknown(Command[str]): ...


@dataclass(frozen=True)
class Find(Query[int]): ...


@dataclass(frozen=True)
class Mailed(DomainEvent): ...


@dataclass(frozen=True)
class Sent(NotificationEvent): ...


def passes(function: object) -> bool:
    """Whether something passes for a coroutine function with all that can be told of one in this Python."""
    newer = inspect.iscoroutinefunction(function) if sys.version_info >= (3, 12) else True
    return newer and asyncio.iscoroutinefunction(function)


def a_mailer(mailed: list[Any] | None = None) -> Diator:
    app = Diator()

    @app.command
    async def mail(command: Mail) -> str:
        (mailed if mailed is not None else []).append(command)
        return "mailed"

    return app


def test_the_verbs_of_apps_senders_and_sessions_are_coroutine_functions() -> None:
    app = a_mailer()
    several: list[Any] = [app, app.using(headers={"a": "b"}), app.testing(), Diator, Sender]
    for verbs in several:
        assert passes(verbs.send)
        assert passes(verbs.publish)
        assert not passes(verbs.stream)
    assert not passes(app.using)
    if sys.version_info >= (3, 12):
        assert passes(functools.partial(app.send, Mail()))


async def test_what_is_raised_at_the_call_is_raised_there_still() -> None:
    app = a_mailer()
    unchecked: Any = app
    with pytest.raises(NotRunningError):
        unchecked.send(Mail())
    async with app:
        verbs: Any
        for verbs in (app, app.using()):
            with pytest.raises(HandlerNotFoundError):
                verbs.send(Unknown())
            with pytest.raises(InvalidMessageError):
                verbs.publish("x")


async def test_a_mark_is_no_frame() -> None:
    app = Diator()

    @app.command
    async def mail(command: Mail) -> str:
        return ""

    async with app:
        coroutine: Any = app.send(Mail())
        assert coroutine.cr_code is mail.__code__
        await coroutine


def test_background_tasks_of_web_frameworks_await_it() -> None:
    mailed: list[Any] = []
    app = a_mailer(mailed)

    @app.on_event
    async def on_mailed(event: Mailed) -> None:
        mailed.append(event)

    async def join(request: Request) -> PlainTextResponse:
        tasks = BackgroundTasks()
        tasks.add_task(app.send, Mail())
        tasks.add_task(app.using(headers={"a": "b"}).send, Mail())
        tasks.add_task(app.publish, Mailed())
        return PlainTextResponse("soon", background=tasks)

    @asynccontextmanager
    async def lifespan(web: Starlette) -> AsyncGenerator[None]:
        async with app:
            yield

    test_client: Any = TestClient  # its types are those of a package that need not be there
    with test_client(Starlette(routes=[Route("/", join)], lifespan=lifespan)) as client:
        assert client.get("/").text == "soon"
        assert mailed == [Mail(), Mail(), Mailed()]


@pytest.mark.parametrize(
    "mocked",
    [AsyncMock(spec=Diator), MagicMock(spec=Diator), create_autospec(Diator, instance=True), AsyncMock(a_mailer())],
    ids=["AsyncMock", "MagicMock", "autospec", "instance"],
)
async def test_mocks_of_an_app_can_be_awaited(mocked: Any) -> None:
    mocked.send.return_value = "mocked"
    assert await mocked.send(Mail()) == "mocked"
    await mocked.publish(Mailed())
    mocked.send.assert_awaited_once_with(Mail())
    mocked.publish.assert_awaited_once()


class AsyncObject:
    async def __call__(self, command: Mail) -> str:
        return "mailed"


class MailHandler:
    async def handle(self, command: Mail) -> str:
        return "mailed"


def plain(command: Mail) -> str:
    return "mailed"


async def asynchronous(command: Mail) -> str:
    return "mailed"


def wrapper(command: Mail) -> Awaitable[str]:
    return asynchronous(command)


@functools.wraps(asynchronous)
def wrapped(*arguments: Any) -> Coroutine[Any, Any, str]:
    return asynchronous(*arguments)


async def with_session(command: Mail, session: Session) -> str:
    return "mailed"


async def with_context(command: Mail, context: Context) -> str:
    return "mailed"


async def with_publish(command: Mail, publish: Publish[Mailed]) -> str:
    publish(Mailed())
    return "mailed"


async def with_brokered(command: Mail, publish: Publish[Sent]) -> str:
    publish(Sent())
    return "mailed"


NAMES = "plain", "async", "wrapper", "wrapped", "session", "context", "publish", "brokered", "object", "class", "method"


@pytest.mark.parametrize(
    "handler",
    [
        plain,
        asynchronous,
        wrapper,
        wrapped,
        with_session,
        with_context,
        with_publish,
        with_brokered,
        AsyncObject(),
        MailHandler,
        MailHandler().handle,
    ],
    ids=[
        "plain",
        "async",
        "wrapper",
        "wrapped",
        "session",
        "context",
        "publish",
        "brokered",
        "object",
        "class",
        "method",
    ],
)
@pytest.mark.parametrize("options", [{}, {"timeout": 30.0}], ids=["", "timeout"])
async def test_call_next_is_a_coroutine_function_in_every_position(
    handler: Callable[..., Any], options: dict[str, Any]
) -> None:
    if options and handler in (plain, wrapper):
        options = {**options, "thread": True}
    for container in [Journal(), Scopeless(), *([] if handler is with_session else [None])]:
        assert all(await asked_by_middlewares(handler, options, container))


async def asked_by_middlewares(
    handler: Callable[..., Any], options: dict[str, Any], container: Journal | None
) -> list[bool]:
    app, asked = Diator("app", container=container, broker="memory://"), list[bool]()

    class Outer:
        async def __call__(self, message: Command[Any], call_next: CallNext) -> Any:
            asked.append(passes(call_next))
            return await call_next(message)

    app.add_middleware(Outer())

    @app.middleware
    async def with_the_app(message: Command[Any], call_next: CallNext, app: Diator) -> Any:
        asked.append(passes(call_next))
        return await call_next(message)

    async def inner(message: Command[Any], call_next: CallNext, session: Session) -> Any:
        asked.append(passes(call_next))
        return await call_next(message)

    if container is not None:
        app.add_middleware(inner, inside=True)

    @app.middleware
    async def of_events(event: DomainEvent, call_next: CallNext) -> None:
        asked.append(passes(call_next))
        await call_next(event)

    @app.on_event
    async def mailed(event: Mailed) -> None: ...

    @app.on_event
    async def sent(event: Sent) -> None: ...

    app.add_command(handler, Mail, **options)
    async with app:
        assert await app.send(Mail()) == "mailed"
        assert await app.using(headers={"a": "b"}).send(Mail()) == "mailed"
        await app.publish(Mailed())
        with record(app):
            assert await app.send(Mail()) == "mailed"
    assert len(asked) >= 6
    return asked


class Scopeless(Journal):
    """A container without scopes."""

    capabilities = Journal.capabilities & ~ContainerCapability.SCOPED


async def test_call_next_of_a_brokered_event_and_of_a_stream_is_a_coroutine_function() -> None:
    app, asked = Diator("app", broker="memory://"), list[bool]()

    @app.middleware
    async def of_events(event: NotificationEvent, call_next: CallNext) -> None:
        asked.append(passes(call_next))
        await call_next(event)

    @app.middleware
    async def of_queries(query: Query[Any], call_next: CallNext) -> Any:
        asked.append(passes(call_next))
        return await call_next(query)

    @app.on_event
    async def sent(event: Sent) -> None: ...

    @app.query
    async def find(query: Find) -> Any:
        yield 1

    async with app.testing() as session:
        await session.publish(Sent())
        await session.settled()
        async with session.stream(Find()) as rows:
            assert [row async for row in rows] == [1]
    assert asked == [True, True]
