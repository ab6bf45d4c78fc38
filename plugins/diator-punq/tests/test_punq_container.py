"""What the punq plugin gives, what it finds at the start, and what it refuses."""

import functools
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, NewType, Protocol

import punq
import pytest
from diator_punq import PunqContainer

from diator import Command, ConfigurationError, Diator, Named, Publish
from diator.containers import Key
from diator.errors import (
    DependencyCycleError,
    DependencyNotFoundError,
    LifetimeMismatchError,
    UnsupportedRegistrationError,
)
from diator.messages import DomainEvent


@dataclass(frozen=True)
class Ask(Command[object]):
    pass


class User:
    pass


class Clock:
    pass


class Repository:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock


class Service:
    def __init__(self, repository: Repository) -> None:
        self.repository = repository


class Greeting:
    def __init__(self, user: User) -> None:
        self.user = user


class Letter:
    def __init__(self, greeting: Greeting) -> None:
        self.greeting = greeting


def refusal(container: punq.Container, hint: Any) -> UnsupportedRegistrationError:
    (error,) = PunqContainer(container).validate([Key(hint)], ()).errors
    assert isinstance(error, UnsupportedRegistrationError)
    return error


async def ask(app: Diator) -> object:
    async with app:
        return await app.send(Ask())


async def test_a_native_container_is_all_that_an_app_needs() -> None:
    app = Diator(container=punq.Container().register(Clock).register(Repository))

    @app.command(Ask)
    async def answer(_: Ask, repository: Repository) -> object:
        return repository.clock

    assert isinstance(await ask(app), Clock)


@pytest.mark.parametrize("registered", [True, False])
async def test_a_handler_class_is_built_by_punq_if_it_is_registered_and_by_diator_if_not(registered: bool) -> None:
    native = punq.Container().register(Clock)
    app = Diator(container=native)

    @app.command(Ask)
    class Answer:
        def __init__(self, clock: Clock, builder: str = "Diator") -> None:
            self.clock = clock
            self.builder = builder

        async def handle(self, _: Ask) -> object:
            return self.builder

    if registered:
        native.register(Answer, builder="punq")
    assert await ask(app) == ("punq" if registered else "Diator")


async def test_a_handler_class_that_asks_for_publish_is_built_by_diator_also_with_auto_register() -> None:
    app = Diator(container=punq.Container(auto_register=True))

    @dataclass(frozen=True)
    class Asked(DomainEvent):
        pass

    heard: list[object] = []

    @app.on_event(Asked)
    async def listen(event: Asked) -> None:
        heard.append(event)

    @app.command(Ask)
    class Answer:
        def __init__(self, repository: Repository, publish: Publish[Asked]) -> None:
            self.repository = repository
            self.publish = publish

        async def handle(self, _: Ask) -> object:
            self.publish(Asked())
            return self.repository.clock

    assert isinstance(await ask(app), Clock)
    assert heard == [Asked()]


async def test_a_qualified_provider_is_registered_as_the_handler_writes_it() -> None:
    first, second = Clock(), Clock()
    native = punq.Container().register(Clock, instance=first)
    native.register(Annotated[Clock, Named("local")], instance=second)
    app = Diator(container=native)

    @app.command(Ask)
    async def answer(_: Ask, clock: Clock, local: Annotated[Clock, Named("local")]) -> object:
        return clock, local

    assert await ask(app) == (first, second)


async def test_a_list_gives_all_that_is_registered() -> None:
    native = punq.Container().register(Clock, instance=Clock()).register(Clock, instance=Clock())
    app = Diator(container=native)

    @app.command(Ask)
    async def answer(_: Ask, clocks: list[Clock]) -> object:
        return len(set(clocks))

    assert await ask(app) == 2


async def test_a_registration_after_the_start_counts() -> None:
    native = punq.Container().register(Clock)
    app = Diator(container=native)

    @app.command(Ask)
    async def answer(_: Ask, clock: Clock) -> object:
        return clock

    replacement = Clock()
    async with app:
        assert await app.send(Ask()) is not replacement
        native.register(Clock, instance=replacement)
        assert await app.send(Ask()) is replacement


async def test_singletons_are_built_anew_when_an_app_runs_again() -> None:
    app = Diator(container=punq.Container().register(Clock, scope=punq.Scope.singleton))

    @app.command(Ask)
    async def answer(_: Ask, clock: Clock) -> object:
        return clock

    async with app:
        first = await app.send(Ask())
        assert await app.send(Ask()) is first
    async with app:
        assert await app.send(Ask()) is not first


async def test_what_a_sender_provides_reaches_constructors_and_is_kept_by_none() -> None:
    native = punq.Container().register(Greeting)
    app = Diator(container=native)
    app.provides(User)

    @app.command(Ask)
    async def answer(_: Ask, greeting: Greeting) -> object:
        return greeting.user

    async with app:
        for _ in range(200):  # the ids of objects that are gone are given to others
            user = User()
            assert await app.using(provide={User: user}).send(Ask()) is user


async def test_a_service_that_asks_for_the_container_gets_that_of_its_scope() -> None:
    class Locator:
        def __init__(self, container: punq.Container) -> None:
            self.container = container

    container = PunqContainer(punq.Container().register(Locator))
    for _ in range(50):
        user = User()
        async with container.scope({Key(User): user}) as scope:
            locator = await scope.resolve(Key(Locator))
            assert locator.container.resolve(User) is user


async def test_an_error_of_punq_in_the_code_of_a_user_passes_unchanged() -> None:
    native = punq.Container()

    class Locator:
        def __init__(self) -> None:
            native.resolve(Clock)

    async with PunqContainer(native.register(Locator)).scope({}) as scope:
        with pytest.raises(punq.MissingDependencyError, match="Clock"):
            await scope.resolve(Key(Locator))


async def test_what_is_missing_when_it_is_resolved_names_the_way_to_it() -> None:
    async with PunqContainer(punq.Container().register(Repository)).scope({}) as scope:
        with pytest.raises(DependencyNotFoundError) as raised:
            await scope.resolve(Key(Repository))
    assert (raised.value.key, raised.value.path) == (Key(Clock), (Key(Repository),))
    assert isinstance(raised.value.__cause__, punq.MissingDependencyError)


async def test_a_decorator_of_a_service_is_no_cycle() -> None:
    class Cached(Repository):
        def __init__(self, inner: Repository) -> None:
            super().__init__(inner.clock)
            self.inner = inner

    native = punq.Container().register(Clock).register(Repository).register(Repository, Cached)
    container = PunqContainer(native)
    assert not container.validate([Key(Repository)], ()).errors
    async with container.scope({}) as scope:
        outer = await scope.resolve(Key(Repository))
    assert type(outer) is Cached
    assert type(outer.inner) is Repository


def test_a_decorator_with_nothing_to_decorate_is_a_cycle() -> None:
    class Cached(Repository):
        def __init__(self, inner: Repository) -> None:
            super().__init__(inner.clock)

    (error,) = PunqContainer(punq.Container().register(Repository, Cached)).validate([Key(Repository)], ()).errors
    assert isinstance(error, DependencyCycleError)
    assert error.path == (Key(Repository), Key(Repository))


def test_a_cycle_of_registrations_without_cache_is_found() -> None:
    native = punq.Container().register(Repository, cache=False).register(Clock, _Hands, cache=False)
    (error,) = PunqContainer(native).validate([Key(Repository)], ()).errors
    assert isinstance(error, DependencyCycleError)


class _Hands(Clock):
    def __init__(self, repository: Repository) -> None:
        self.repository = repository


def test_a_singleton_that_would_keep_what_a_sender_provides_is_found() -> None:
    native = punq.Container().register(Greeting).register(Letter, scope=punq.Scope.singleton)
    (error,) = PunqContainer(native).validate([Key(Letter)], [Key(User)]).errors
    assert isinstance(error, LifetimeMismatchError)
    assert (error.key, error.needs) == (Key(Letter), Key(User))


def test_a_missing_item_of_a_list_is_found() -> None:
    class Clocks:
        def __init__(self, repositories: list[Repository]) -> None:
            self.repositories = repositories

    native = punq.Container().register(Repository).register(Clocks)
    (error,) = PunqContainer(native).validate([Key(Clocks)], ()).errors
    assert isinstance(error, DependencyNotFoundError)
    assert error.key == Key(Clock)
    assert not PunqContainer(native).can_resolve(Key(list[Service]))


def test_arguments_given_with_the_registration_need_no_provider() -> None:
    native = punq.Container().register(Repository, clock=Clock())
    assert not PunqContainer(native).validate([Key(Repository)], ()).errors


def test_a_default_that_hides_a_provider_is_a_warning() -> None:
    class Tolerant:
        def __init__(self, clock: Clock | None = None) -> None:
            self.clock = clock

    native = punq.Container().register(Clock).register(Tolerant)
    found = PunqContainer(native).validate([Key(Tolerant)], ())
    assert not found.errors
    (warning,) = found.warnings
    assert "gets the default of 'clock'" in str(warning)
    assert not PunqContainer(punq.Container().register(Tolerant)).validate([Key(Tolerant)], ()).warnings


async def test_auto_register_builds_what_is_not_registered() -> None:
    container = PunqContainer(punq.Container(auto_register=True))
    assert container.can_resolve(Key(Service))
    assert not container.validate([Key(Service)], ()).errors
    async with container.scope({}) as scope:
        assert isinstance((await scope.resolve(Key(Service))).repository.clock, Clock)


class Port(Protocol):
    pass


class Base(ABC):
    @abstractmethod
    def work(self) -> None: ...


class NeedsPort:
    def __init__(self, port: Port) -> None:
        self.port = port


class LaterHint:
    def __init__(self, later: "Nowhere") -> None:  # type: ignore[name-defined]  # noqa: F821 # pyright: ignore[reportUndefinedVariable, reportUnknownParameterType]  # a name that does not exist
        pass


@pytest.mark.parametrize("hint", [Port, Base, NeedsPort, int, LaterHint, list[Clock], "Clock"])
def test_auto_register_is_no_provider_of_what_punq_could_not_build(hint: Any) -> None:
    assert not PunqContainer(punq.Container(auto_register=True)).can_resolve(Key(hint))


def test_a_cycle_below_auto_register_is_found() -> None:
    native = punq.Container(auto_register=True).register(Clock, _Hands)
    (error,) = PunqContainer(native).validate([Key(Clock)], ()).errors
    assert isinstance(error, DependencyCycleError)


def generator() -> Generator[Clock, None, None]:
    yield Clock()


async def async_generator() -> AsyncGenerator[Clock, None]:
    yield Clock()


async def coroutine() -> Clock:
    return Clock()


REFUSED_FACTORIES: dict[str, Callable[..., object]] = {
    "generator": generator,
    "async generator": async_generator,
    "coroutine": coroutine,
    "context manager": contextmanager(generator),
}


@pytest.mark.parametrize("kind", REFUSED_FACTORIES)
def test_a_factory_that_must_be_run_or_closed_is_refused(kind: str) -> None:
    error = refusal(punq.Container().register(Clock, REFUSED_FACTORIES[kind]), Clock)
    assert error.key == Key(Clock)
    assert error.reason == f"punq would give the {kind} itself, and neither run it to its end nor close it"
    assert "such as dishka" in error.fix


def test_an_async_context_manager_and_a_partial_are_seen_through() -> None:
    assert (
        "context manager"
        in refusal(punq.Container().register(Clock, asynccontextmanager(async_generator)), Clock).reason
    )
    assert "coroutine" in refusal(punq.Container().register(Clock, functools.partial(coroutine)), Clock).reason


def test_a_refused_factory_further_below_stops_the_start() -> None:
    app = Diator(container=punq.Container().register(Clock, generator).register(Repository))

    @app.command(Ask)
    async def answer(_: Ask, repository: Repository) -> object:
        return repository

    (problem,) = app.check()
    assert problem.code == "container"
    assert "Clock: punq would give the generator itself" in problem.text
    assert "such as dishka" in problem.fix


async def test_an_app_does_not_start_with_what_is_refused() -> None:
    app = Diator(container=punq.Container().register(Clock, coroutine))

    @app.command(Ask)
    async def answer(_: Ask, clock: Clock) -> object:
        return clock

    with pytest.raises(ConfigurationError, match="punq would give the coroutine itself"):
        await ask(app)


@pytest.mark.parametrize("abstract", [Port, Base])
def test_an_abstract_class_is_refused(abstract: Any) -> None:
    error = refusal(punq.Container().register(abstract), abstract)
    assert "is abstract" in error.reason
    assert error.fix == "register a class that implements it"


def test_a_qualifier_in_a_constructor_is_refused_because_punq_drops_it() -> None:
    class Backup:
        def __init__(self, plain: Clock, local: Annotated[Clock, Named("local")]) -> None:
            self.local = local

    error = refusal(punq.Container().register(Clock).register(Backup), Backup)
    assert "drops the qualifier of the parameter 'local'" in error.reason
    assert "NewType" in error.fix
    given = punq.Container().register(Clock).register(Backup, local=Clock())
    assert not PunqContainer(given).validate([Key(Backup)], ()).errors


async def test_the_remedy_for_a_qualifier_in_a_constructor_works() -> None:
    LocalClock = NewType("LocalClock", Clock)

    class Backup:
        def __init__(self, clock: LocalClock) -> None:
            self.clock = clock

    local = Clock()
    native = punq.Container().register(LocalClock, instance=local).register(Backup)
    async with PunqContainer(native).scope({}) as scope:
        assert (await scope.resolve(Key(Backup))).clock is local


class Pair(NamedTuple):
    clock: Clock


class Unhinted:
    def __init__(self, clock) -> None:  # type: ignore[no-untyped-def]  # no hint, on purpose
        self.clock = clock  # pyright: ignore[reportUnknownMemberType]  # as above


class PositionalOnly:
    def __init__(self, clock: Clock, /) -> None:
        self.clock = clock


def needs_clock(clock: Clock) -> Repository:
    return Repository(clock)


def test_what_punq_could_not_call_is_refused() -> None:
    native = punq.Container().register(Clock)
    native.register(Unhinted).register(PositionalOnly).register(Pair)
    native.register(Repository, needs_clock).register(dict).register(Service, repository=None, word="unknown")
    for hint in (Unhinted, PositionalOnly, Pair, Repository, dict, Service):
        error = refusal(native, hint)
        assert error.reason.startswith("punq cannot call")
        assert "hint each parameter of the constructor, or give it" in error.fix


async def test_what_is_refused_because_punq_cannot_call_it_does_fail_in_punq() -> None:
    native = punq.Container().register(Clock)
    native.register(Unhinted).register(PositionalOnly).register(Pair)
    native.register(Repository, needs_clock).register(dict).register(Service, repository=None, word="unknown")
    for hint in (Unhinted, PositionalOnly, Pair, Repository, dict, Service):
        with pytest.raises(TypeError):
            native.resolve(hint)


def test_a_registered_list_is_refused_because_punq_does_not_look_at_it() -> None:
    native = punq.Container().register(list[Clock], instance=[Clock()])
    error = refusal(native, list[Clock])
    assert "does not look at this registration" in error.reason
    assert native.resolve(list[Clock]) == []


def test_a_singleton_in_a_list_is_refused_because_punq_builds_it_again() -> None:
    native = punq.Container().register(Clock, scope=punq.Scope.singleton)
    error = refusal(native, list[Clock])
    assert "builds the singleton" in error.reason
    assert "instance=" in error.fix
    assert native.resolve(list[Clock]) != native.resolve(list[Clock])


def test_the_container_is_told_in_its_repr() -> None:
    assert repr(PunqContainer(punq.Container())).startswith("PunqContainer(<punq.Container object")


def test_a_class_whose_objects_are_coroutine_functions_is_built_like_any_other() -> None:
    class Asks:
        async def __call__(self) -> int:
            return 1

    container = PunqContainer(punq.Container().register(Asks))
    assert container.validate([Key(Asks)], ()) == ([], [])
