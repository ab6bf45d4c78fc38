"""Replacements: they reach every handler that asks, with every container, and what reaches nobody is refused."""

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import dishka
import punq
import pytest

from diator import CallNext, Command, ConfigurationError, Diator, DomainEvent, Named, Publish
from diator.testing import record


class Mailer:
    def __init__(self) -> None:
        self.sent: list[str] = []

    def send(self, text: str) -> None:
        raise AssertionError("the real one")


class FakeMailer(Mailer):
    def send(self, text: str) -> None:
        self.sent.append(text)


class Clock:
    def __init__(self, mailer: Mailer) -> None:
        self.mailer = mailer


@dataclass(frozen=True)
class Warn(Command[None]):
    text: str


@dataclass(frozen=True)
class Warned(DomainEvent):
    text: str


async def warn(command: Warn, mailer: Mailer, publish: Publish[Warned]) -> None:
    mailer.send(command.text)
    publish(Warned(command.text))


async def again(event: Warned, mailer: Mailer) -> None:
    mailer.send(f"{event.text} again")


def in_punq() -> object:
    container = punq.Container()
    container.register(Mailer)
    return container


def in_dishka() -> object:
    provider = dishka.Provider(scope=dishka.Scope.REQUEST)
    provider.provide(Mailer)
    return dishka.make_async_container(provider)


def nowhere() -> object | None:
    return None


CONTAINERS = [in_punq, in_dishka, nowhere]


def make_app(container: object | None) -> Diator:
    app = Diator("warnings", container=container)
    app.add_command(warn)
    app.add_event_handler(again)
    return app


@pytest.mark.parametrize("container", CONTAINERS)
async def test_a_replacement_reaches_every_handler_whatever_the_container(container: Callable[[], object]) -> None:
    mailer = FakeMailer()
    async with record(app := make_app(container()), replace={Mailer: mailer}) as seen:
        await app.send(Warn("late"))
    assert mailer.sent == ["late", "late again"]
    assert seen.handled.one(Warned, by=again) == Warned("late")


@pytest.mark.parametrize("container", [in_punq, in_dishka])
async def test_an_app_that_runs_gets_its_own_back(container: Callable[[], object]) -> None:
    mailer = FakeMailer()
    async with (app := make_app(container())):
        async with record(app, replace={Mailer: mailer}):
            await app.send(Warn("late"))
        with pytest.raises(AssertionError, match="the real one"):
            await app.send(Warn("later"))
        with record(app, replace={Mailer: mailer}):
            await app.send(Warn("latest"))
        async with record(app):
            with pytest.raises(AssertionError, match="the real one"):
                await app.send(Warn("later"))
    assert mailer.sent == ["late", "late again", "latest", "latest again"]


async def test_what_is_not_replaced_comes_from_the_container() -> None:
    container = punq.Container()
    container.register(str, instance="real")
    app = make_app(container)

    @app.command
    async def name(command: "Name", text: str, mailer: Mailer) -> str:
        mailer.send(text)
        return text

    mailer = FakeMailer()
    async with record(app, replace={Mailer: mailer}):
        assert await app.send(Name()) == "real"
    assert mailer.sent == ["real"]


@dataclass(frozen=True)
class Name(Command[str]):
    pass


async def test_middlewares_and_constructors_of_handlers_get_replacements() -> None:
    app = Diator()

    @app.middleware(inside=True)
    async def mail(message: Name, call_next: CallNext, mailer: Mailer) -> Any:
        mailer.send("middleware")
        return await call_next(message)

    @app.command
    class Handler:
        def __init__(self, mailer: Mailer) -> None:
            self.mailer = mailer

        def handle(self, command: Name) -> str:
            self.mailer.send("constructor")
            return ""

    mailer = FakeMailer()
    async with record(app, replace={Mailer: mailer}):
        await app.send(Name())
    assert mailer.sent == ["middleware", "constructor"]


async def test_a_replacement_stands_in_for_a_default() -> None:
    app = Diator()

    @app.command
    async def handler(command: Name, text: str = "default") -> str:
        return text

    async with record(app, replace={str: "replaced"}):
        assert await app.send(Name()) == "replaced"
    async with app:
        assert await app.send(Name()) == "default"


async def test_a_qualified_dependency_is_replaced_by_its_hint() -> None:
    app = Diator()

    @app.command
    async def handler(command: Name, one: Annotated[str, Named("one")], two: Annotated[str, Named("two")]) -> str:
        return one + two

    hints: dict[Any, object] = {Annotated[str, Named("one")]: "1", Annotated[str, Named("two")]: "2"}
    async with record(app, replace=hints):
        assert await app.send(Name()) == "12"


@pytest.mark.parametrize("container", [in_punq, nowhere])
async def test_what_senders_bring_can_be_replaced_so_that_tests_need_not_bring_it(
    container: Callable[[], object],
) -> None:
    app = Diator(container=container())
    app.provides(str)

    @app.command
    async def handler(command: Name, user: str) -> str:
        return user

    async with record(app, replace={str: "test"}):
        assert await app.send(Name()) == "test"
        assert await app.using(provide={str: "sender"}).send(Name()) == "sender"


async def test_what_a_container_builds_by_itself_still_gets_what_the_container_has() -> None:
    container = punq.Container()
    container.register(Mailer)
    container.register(Clock)
    app = make_app(container)

    @app.command
    async def handler(command: Name, clock: Clock) -> str:
        return type(clock.mailer).__name__

    async with record(app, replace={Mailer: FakeMailer()}):
        assert await app.send(Name()) == "Mailer"


class Mailers(Mailer):
    pass


async def test_a_replacement_that_nobody_asks_for_is_refused_with_a_close_name() -> None:
    app = make_app(in_punq())
    with pytest.raises(ConfigurationError) as found:
        async with record(app, replace={Mailers: FakeMailer()}):
            pass
    (problem,) = found.value.problems
    assert problem.code == "replacement"
    assert problem.text == "replace has Mailers, but no handler and no middleware of <Diator 'warnings'> needs it"
    assert problem.fix == "did you mean Mailer?"


async def test_a_replacement_that_only_the_container_would_use_is_refused_with_what_to_do() -> None:
    container = punq.Container()
    container.register(Mailer)
    container.register(Clock)
    app = make_app(container)
    with pytest.raises(ConfigurationError, match="the container uses it itself: register the repl") as found:
        async with record(app, replace={Clock: Clock(FakeMailer())}):
            pass
    assert str(found.value).endswith("ask for: Mailer")


async def test_a_class_in_place_of_an_object_is_refused() -> None:
    app = make_app(in_punq())
    with pytest.raises(ConfigurationError, match=r"give an instance: replace=\{Mailer: FakeMailer\(\.\.\.\)\}"):
        async with record(app, replace={Mailer: FakeMailer}):
            pass


class Factory(Protocol):
    def __call__(self) -> Mailer: ...


async def test_a_class_may_stand_in_for_a_protocol_or_a_type() -> None:
    app = Diator()

    @app.command
    async def handler(command: Name, make: Factory, kind: type[Mailer]) -> str:
        return f"{type(make()).__name__} {kind.__name__}"

    async with record(app, replace={Factory: FakeMailer, type[Mailer]: FakeMailer}):
        assert await app.send(Name()) == "FakeMailer FakeMailer"


async def test_a_scope_of_the_container_sees_the_errors_of_a_recorded_app() -> None:
    ended: list[object] = []

    async def session() -> AsyncGenerator[str, BaseException | None]:
        error = yield "session"
        ended.append(error)

    provider = dishka.Provider(scope=dishka.Scope.REQUEST)
    provider.provide(session, provides=str)
    provider.provide(Mailer)
    app = Diator(container=dishka.make_async_container(provider))
    boom = ValueError("boom")

    @app.command
    async def handler(command: Name, text: str, mailer: Mailer) -> str:
        mailer.send(text)
        raise boom

    async with record(app, replace={Mailer: FakeMailer()}):
        with pytest.raises(ValueError, match="boom"):
            await app.send(Name())
    assert ended == [boom]
