"""Sending: what is refused and how, what a sender brings, and the life of an app."""

import asyncio
import threading
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from diator import (
    Command,
    ConfigurationError,
    Context,
    Diator,
    DomainEvent,
    HandlerNotFoundError,
    InvalidMessageError,
    Named,
    NotProvidedError,
    NotRunningError,
    Publish,
    Query,
)
from diator.containers import ContainerCapability
from tests.journal import Journal, Session


@dataclass(frozen=True)
class Go(Command[str]):
    pass


@dataclass(frozen=True)
class Gone(Command[str]):
    pass


@dataclass(frozen=True)
class Ask(Query[str]):
    pass


@dataclass(frozen=True)
class SpecialGo(Go):
    pass


@dataclass(frozen=True)
class Happened(DomainEvent):
    pass


@dataclass(frozen=True)
class User:
    name: str


@pytest.fixture
def app() -> Diator:
    app = Diator("meetings")

    @app.command
    async def go(command: Go) -> str:
        return "went"

    return app


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (Go, r"app.send got the class Go; give it an instance: Go\(\.\.\.\)"),
        (Happened(), r"app.send got the event Happened; publish it: await app.publish"),
        ("go", "app.send got 'go'; expected a command or a query"),
        (None, "app.send got None; expected a command or a query"),
        ([Go()], r"app.send got \[Go\(\)\]"),
    ],
    ids=["class", "event", "str", "none", "list"],
)
async def test_send_refuses_at_once_what_is_no_request(app: Diator, wrong: Any, words: str) -> None:
    async with app:
        with pytest.raises(InvalidMessageError, match=words):
            _ = app.send(wrong)
        with pytest.raises(TypeError):
            _ = app.using(headers={"a": "b"}).send(wrong)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (Happened, "app.publish got the class Happened; give it an instance"),
        (Go(), "app.publish got the request Go; send it: await app.send"),
        (1, "app.publish got 1; expected events"),
    ],
    ids=["class", "request", "int"],
)
async def test_publish_refuses_at_once_what_is_no_event(app: Diator, wrong: Any, words: str) -> None:
    async with app:
        with pytest.raises(InvalidMessageError, match=words):
            _ = app.publish(wrong)
        with pytest.raises(InvalidMessageError, match=words):
            _ = app.publish(Happened(), wrong)


async def test_an_unknown_request_is_refused_with_a_close_name_and_the_next_step(app: Diator) -> None:
    async with app:
        with pytest.raises(HandlerNotFoundError, match=r"no handler for Gone .*did you mean Go\?.*@app.command"):
            _ = app.send(Gone())
        with pytest.raises(HandlerNotFoundError, match=r"@app.query"):
            _ = app.send(Ask())
        with pytest.raises(LookupError):
            app.stream(Ask())


async def test_a_subclass_of_a_registered_request_is_refused(app: Diator) -> None:
    async with app:
        with pytest.raises(HandlerNotFoundError, match="SpecialGo has no handler; its base Go has one"):
            _ = app.send(SpecialGo())


def test_sending_before_the_start_is_refused_with_the_lifespan_to_write(app: Diator) -> None:
    for call in (app.send, app.using().send):
        with pytest.raises(NotRunningError, match=r"has not been started(.|\n)*async with app:"):
            _ = call(Go())
    with pytest.raises(NotRunningError):
        _ = app.publish(Happened())
    with pytest.raises(NotRunningError):
        app.stream(Ask())


async def test_sending_after_the_end_is_refused(app: Diator) -> None:
    async with app:
        pass
    with pytest.raises(NotRunningError, match="has ended"):
        _ = app.send(Go())
    with pytest.raises(NotRunningError, match="has ended"):
        _ = app.publish(Happened())


async def test_a_sender_made_before_the_start_works_after_it(app: Diator) -> None:
    sender = app.using(headers={"a": "b"})
    async with app:
        assert await sender.send(Go()) == "went"


async def test_an_app_without_a_container_can_be_entered_again(app: Diator) -> None:
    for _ in range(2):
        async with app as entered:
            assert entered is app
            assert await app.send(Go()) == "went"


def test_an_app_can_be_entered_again_in_another_event_loop(app: Diator) -> None:
    async def once() -> str:
        async with app:
            return await app.send(Go())

    assert [asyncio.run(once()) for _ in range(2)] == ["went", "went"]


async def test_entering_a_running_app_is_refused_and_leaves_it_running(app: Diator) -> None:
    async with app:
        with pytest.raises(NotRunningError, match="is running here already"):
            await app.__aenter__()
        assert await app.send(Go()) == "went"


async def test_entering_an_app_that_runs_in_another_loop_is_refused(app: Diator) -> None:
    caught: list[NotRunningError] = []

    def elsewhere() -> None:
        async def enter() -> None:
            async with app:
                pass

        try:
            asyncio.run(enter())
        except NotRunningError as error:
            caught.append(error)

    async with app:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert await app.send(Go()) == "went"
    assert "in another event loop" in str(caught[0])


async def test_a_container_that_cannot_be_reopened_refuses_a_second_start() -> None:
    class Once(Journal):
        capabilities = Journal.capabilities & ~ContainerCapability.REUSABLE

    app = Diator(container=Once())
    async with app:
        pass
    with pytest.raises(NotRunningError, match="create a new app with a new container"):
        await app.__aenter__()


async def test_a_start_that_fails_can_be_tried_again_after_the_mistake_is_mended() -> None:
    app = Diator()

    @app.command
    async def go(command: Go, user: User) -> str:
        return user.name

    with pytest.raises(ConfigurationError, match="user: User"):
        await app.__aenter__()
    app.provides(User)
    async with app:
        assert await app.using(provide={User: User("ada")}).send(Go()) == "ada"


async def test_using_brings_values_to_handlers_events_and_middlewares() -> None:
    app, seen = Diator(container=Journal()), list[Any]()
    app.provides(User, Annotated[str, Named("tenant")])

    @app.middleware
    async def check(command: Go, call_next: Any, user: User) -> Any:
        seen.append(("middleware", user.name))
        return await call_next(command)

    @app.command
    async def go(
        command: Go, user: User, tenant: Annotated[str, Named("tenant")], session: Session, publish: Publish[Happened]
    ) -> str:
        publish(Happened())
        return f"{user.name} of {tenant}"

    @app.on_event
    async def on(event: Happened, user: User) -> None:
        seen.append(("event", user.name))

    async with app:
        sender = app.using(provide={User: User("ada"), Annotated[str, Named("tenant")]: "acme"})
        assert await sender.send(Go()) == "ada of acme"
    assert seen == [("middleware", "ada"), ("event", "ada")]


async def test_a_missing_value_is_an_error_of_the_call_that_names_it() -> None:
    app = Diator()
    app.provides(User)

    @app.command
    async def go(command: Go, publish: Publish[Happened]) -> str:
        raise AssertionError

    @app.on_event
    async def on(event: Happened, user: User) -> None: ...

    async with app:
        with pytest.raises(NotProvidedError, match=r"Go needs User from its sender: await app.using\(provide={User"):
            _ = app.send(Go())
        with pytest.raises(NotProvidedError):
            _ = app.publish(Happened())


async def test_a_default_stands_in_for_a_value_that_is_not_brought() -> None:
    app = Diator()
    app.provides(User)
    nobody = User("nobody")

    @app.command
    async def go(command: Go, user: User = nobody) -> str:
        return user.name

    async with app:
        assert await app.send(Go()) == "nobody"
        assert await app.using(provide={User: User("ada")}).send(Go()) == "ada"


async def test_values_are_not_inherited_by_nested_sends() -> None:
    app = Diator()
    app.provides(User)

    @app.command
    async def go(command: Go, user: User, here: Diator) -> str:
        return await here.send(Gone())

    @app.command
    async def gone(command: Gone, user: User) -> str:
        return user.name

    async with app:
        with pytest.raises(NotProvidedError, match="Gone needs User"):
            await app.using(provide={User: User("ada")}).send(Go())


def test_bringing_a_value_without_its_type_is_refused(app: Diator) -> None:
    with pytest.raises(ConfigurationError, match=r"expected a mapping.*\n.*provide=\{User: user\}"):
        app.using(provide=User("ada"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # wrong on purpose


def test_bringing_what_was_not_declared_is_refused_with_the_line_to_write(app: Diator) -> None:
    with pytest.raises(ConfigurationError, match=r"User.*\n.*app.provides\(User\)"):
        app.using(provide={User: User("ada")})


async def test_the_context_carries_ids_and_headers_and_is_the_same_for_events() -> None:
    app, seen = Diator(), list[Context]()

    @app.command
    async def go(command: Go, context: Context, publish: Publish[Happened]) -> str:
        seen.append(context)
        publish(Happened())
        return "went"

    @app.on_event
    async def on(event: Happened, context: Context) -> None:
        seen.append(context)

    async with app:
        await app.using(headers={"tenant": "acme"}, correlation_id="c1").send(Go())
    first, second = seen
    assert first is second
    assert (first.correlation_id, dict(first.headers), first.causation_id) == ("c1", {"tenant": "acme"}, None)
    assert first.message_id != "c1"


async def test_a_nested_send_is_caused_by_the_outer_one_and_correlated_with_it() -> None:
    app, seen = Diator(), list[Context]()

    @app.command
    async def go(command: Go, context: Context, here: Diator) -> str:
        seen.append(context)
        return await here.send(Gone())

    @app.command
    async def gone(command: Gone, context: Context) -> str:
        seen.append(context)
        return ""

    async with app:
        await app.using(headers={"tenant": "acme"}).send(Go())
    outer, inner = seen
    assert outer.correlation_id == outer.message_id == inner.correlation_id == inner.causation_id
    assert inner.message_id != outer.message_id
    assert dict(inner.headers) == {}


async def test_headers_cannot_be_changed_by_who_gets_them() -> None:
    app, headers = Diator(), {"tenant": "acme"}

    @app.command
    async def go(command: Go, context: Context) -> str:
        headers["tenant"] = "changed"
        return context.headers["tenant"]

    async with app:
        assert await app.using(headers=headers).send(Go()) == "acme"


async def test_a_call_that_is_never_awaited_does_nothing() -> None:
    app, seen = Diator(), list[Any]()

    @app.command
    async def go(command: Go) -> str:
        seen.append("went")
        return ""

    async with app:
        call = app.send(Go())
        call.close()
    assert seen == []


async def test_a_sync_handler_that_gives_an_awaitable_is_awaited() -> None:
    app = Diator()

    async def later() -> str:
        return "later"

    @app.command
    def go(command: Go) -> Awaitable[str]:
        return later()

    async with app:
        assert await app.send(Go()) == "later"


async def test_leaving_the_app_closes_the_container_after_an_error_too() -> None:
    app = Diator(container=(journal := Journal()))
    with pytest.raises(ValueError):
        async with app:
            raise ValueError
    assert journal.lines == ["container closed"]
