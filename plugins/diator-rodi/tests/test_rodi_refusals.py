"""What the rodi plugin finds and refuses at the start, because rodi would take it and not do it right."""

import functools
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Protocol

import pytest
import rodi
from diator_rodi import RodiContainer

from diator import Command, ConfigurationError, Diator, Named
from diator.containers import Key
from diator.errors import (
    ContainerError,
    DependencyNotFoundError,
    LifetimeMismatchError,
    UnsupportedRegistrationError,
)

# pyright: reportUnknownMemberType=false
# rodi's own hints leave out the arguments of types.


@dataclass(frozen=True)
class Ask(Command[object]):
    pass


class Clock:
    pass


class LocalClock(Clock):
    pass


class Repository:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock


class Service:
    def __init__(self, repository: Repository) -> None:
        self.repository = repository


class Logged(Clock):
    def __init__(self, inner: Clock) -> None:
        self.inner = inner


class Timed(Logged):
    pass


async def use_clock(_: Ask, clock: Clock) -> object:
    return clock


async def use_repository(_: Ask, repository: Repository) -> object:
    return repository


def refusal(native: rodi.Container, hint: Any, *provided: Any) -> UnsupportedRegistrationError:
    found = RodiContainer(native).validate([Key(hint)], [Key(one) for one in provided])
    (error,) = found.errors
    assert isinstance(error, UnsupportedRegistrationError)
    assert error.fix
    return error


def is_fine(native: rodi.Container, hint: Any) -> bool:
    return not RodiContainer(native).validate([Key(hint)], ()).errors


# Factories that must be awaited or closed


def generator() -> Generator[Clock, None, None]:
    yield Clock()


async def async_generator() -> AsyncGenerator[Clock, None]:
    yield Clock()


async def coroutine() -> Clock:
    return Clock()


class AsyncCallable:
    async def __call__(self) -> Clock:
        return Clock()


UNFINISHED: list[tuple[str, Callable[..., object]]] = [
    ("generator", generator),
    ("async generator", async_generator),
    ("coroutine", coroutine),
    ("coroutine", AsyncCallable()),
    ("coroutine", functools.partial(coroutine)),
    ("context manager", contextmanager(generator)),
    ("context manager", asynccontextmanager(async_generator)),
]


@pytest.mark.parametrize("style", list(rodi.ServiceLifeStyle))
@pytest.mark.parametrize(("kind", "factory"), UNFINISHED)
def test_a_factory_that_must_be_awaited_or_closed_is_refused(
    kind: str, factory: Callable[..., object], style: rodi.ServiceLifeStyle
) -> None:
    native = rodi.Container()
    native.register_factory(factory, Clock, style)
    error = refusal(native, Clock)
    assert error.key == Key(Clock)
    assert error.reason == f"rodi would give the {kind} itself, and neither run it to its end nor close it"
    assert "such as dishka" in error.fix


def test_a_refused_factory_further_below_is_told_with_the_handler_and_stops_the_start() -> None:
    native = rodi.Container().add_scoped_by_factory(generator, Clock).add_scoped(Repository)
    app = Diator(container=native)
    app.add_command(use_repository)
    (problem,) = app.check()
    assert problem.code == "container"
    assert "Clock: rodi would give the generator itself" in problem.text
    assert "such as dishka" in problem.fix


async def test_an_app_does_not_start_with_what_is_refused() -> None:
    app = Diator(container=rodi.Container().add_scoped_by_factory(coroutine, Clock))
    app.add_command(use_clock)
    with pytest.raises(ConfigurationError, match="rodi would give the coroutine itself"):
        async with app:
            pass


def test_a_decorated_factory_is_looked_at_too() -> None:
    native = rodi.Container().add_scoped_by_factory(generator, Clock).decorate(Clock, Logged)
    assert "generator itself" in refusal(native, Clock).reason


# Factories with parameters, to which rodi passes the scope


def of_clock(clock: Clock) -> Repository:
    return Repository(clock)


def of_default(clock=Clock()) -> Repository:  # type: ignore[no-untyped-def]  # noqa: B008 - a default without a hint
    return Repository(clock)


def of_keyword(*, clock) -> Repository:  # type: ignore[no-untyped-def]  # pyright: ignore[reportMissingParameterType, reportUnknownParameterType]  # no hint, on purpose
    return Repository(clock)  # pyright: ignore[reportUnknownArgumentType]  # as above


def of_keywords(**clocks: Any) -> Repository:
    return Repository(**clocks)


def of_scope_and_more(scope: rodi.ActivationScope, clock: Any = None) -> Repository:
    return Repository(clock or scope.get(Clock))


def of_clocks(clocks: "list[Clock]") -> Repository:
    return Repository(clocks[0])


TAKE_SOMETHING_ELSE: list[Callable[..., Repository]] = [
    of_clock,
    of_default,
    of_keyword,
    of_keywords,
    of_scope_and_more,
    of_clocks,
]


@pytest.mark.parametrize("factory", TAKE_SOMETHING_ELSE)
def test_a_factory_is_refused_that_would_take_the_scope_for_something_else(factory: Callable[..., object]) -> None:
    error = refusal(rodi.Container().add_scoped(Clock).add_scoped_by_factory(factory, Repository), Repository)
    assert error.key == Key(Repository)
    assert "to a factory as 'clock" in error.reason
    assert "scope.get(...)" in error.fix


def of_scope(scope: rodi.ActivationScope) -> Repository:
    return Repository(scope.get(Clock))


def of_text(scope: "rodi.ActivationScope") -> Repository:
    return of_scope(scope)


def of_unknown_text(scope: "Nowhere") -> Repository:  # type: ignore[name-defined]  # noqa: F821 # pyright: ignore[reportUndefinedVariable, reportUnknownParameterType]  # a name that does not exist
    return of_scope(scope)  # pyright: ignore[reportUnknownArgumentType]  # as above


def of_wrong_text(scope: "rodi.ActivationScope | 'Repository'") -> Repository:  # pyright: ignore[reportGeneralTypeIssues]  # wrong on purpose
    return of_scope(scope)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # wrong on purpose


def of_anything(scope: Any, _: type[Repository]) -> Repository:
    return of_scope(scope)


def of_nothing_hinted(scope):  # type: ignore[no-untyped-def] # pyright: ignore[reportMissingParameterType, reportUnknownParameterType]  # no hint, on purpose
    return of_scope(scope)  # pyright: ignore[reportUnknownArgumentType]  # as above


def of_all(*given: Any) -> Repository:
    return of_scope(given[0])


class OfScope:
    def __call__(self, scope: rodi.ActivationScope) -> Repository:
        return of_scope(scope)


TAKE_THE_SCOPE: list[Callable[..., Repository]] = [
    of_scope,
    of_text,
    of_unknown_text,
    of_wrong_text,
    of_anything,
    of_nothing_hinted,
    of_all,
    OfScope(),
]


@pytest.mark.parametrize("factory", TAKE_THE_SCOPE)
async def test_a_factory_that_takes_the_scope_works_and_is_warned_of(factory: Callable[..., object]) -> None:
    native = rodi.Container().add_scoped(Clock).add_scoped_by_factory(factory, Repository)
    container = RodiContainer(native)
    found = container.validate([Key(Repository)], ())
    assert not found.errors
    (warning,) = found.warnings
    assert isinstance(warning, UnsupportedRegistrationError)
    assert warning.key == Key(Repository)
    assert warning.reason == "what its factory asks the scope for is unknown until it runs"
    assert "register a class" in warning.fix
    async with container.scope({}) as scope:
        assert (await scope.resolve(Key(Repository))).clock is await scope.resolve(Key(Clock))


def test_the_check_of_an_app_tells_that_a_singleton_could_keep_what_its_factory_takes() -> None:
    app = Diator(container=rodi.Container().add_scoped(Clock).add_singleton_by_factory(of_scope))
    app.add_command(use_repository)
    (problem,) = app.check()
    assert problem.severity == "warning"
    assert "Repository: " in problem.text
    assert "a scoped object would be kept by this singleton" in problem.text


def test_a_factory_that_nothing_asks_for_is_not_warned_of() -> None:
    native = rodi.Container().add_scoped(Clock).add_scoped_by_factory(of_scope)
    assert not RodiContainer(native).validate([Key(Clock)], ()).warnings


def test_a_factory_for_senders_that_bring_nothing_is_not_warned_of() -> None:
    native = rodi.Container().add_scoped_by_factory(of_scope).add_scoped(Service)
    assert RodiContainer(native).validate([Key(Service)], []).warnings
    assert not RodiContainer(native).validate([Key(Service)], [Key(Repository)]).warnings


# Classes


class KeywordOnly:
    def __init__(self, *, clock: Clock) -> None:
        self.clock = clock


@dataclass(kw_only=True)
class KeywordOnlyData:
    clock: Clock


class NamedArgs:
    def __init__(self, args: Clock) -> None:
        self.clock = args


class ByNew:
    def __new__(cls, clock: Clock) -> "ByNew":
        return super().__new__(cls)


@pytest.mark.parametrize("cls", [KeywordOnly, KeywordOnlyData, NamedArgs, ByNew])
def test_a_constructor_that_rodi_could_not_call_is_refused(cls: type) -> None:
    error = refusal(rodi.Container().add_scoped(Clock).add_scoped(cls), cls)
    assert f"to {cls!r} by position, which fails" in error.reason
    assert "register a factory function" in error.fix


class Port(Protocol):
    pass


def test_a_protocol_as_its_own_implementation_is_refused() -> None:
    error = refusal(rodi.Container().add_scoped(Port), Port)
    assert "is a protocol" in error.reason
    assert "implements it" in error.fix


Local = Annotated[Clock, Named("local")]


class QualifiedParameter:
    def __init__(self, clock: Annotated[Clock, Named("local")]) -> None:
        self.clock = clock


class QualifiedAttribute:
    clock: Annotated[Clock, Named("local")]


@pytest.mark.parametrize("cls", [QualifiedParameter, QualifiedAttribute])
def test_a_qualifier_below_a_handler_is_refused(cls: type) -> None:
    error = refusal(rodi.Container().register(Local, LocalClock).add_scoped(cls), cls)
    assert error.reason == f"rodi drops the qualifier of 'clock' of {cls!r}"
    assert "NewType" in error.fix


class Tolerant:
    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock


@dataclass
class WithDefaults:
    names: list[str] = field(default_factory=list[str])


@pytest.mark.parametrize(("cls", "name"), [(Tolerant, "clock"), (WithDefaults, "names")])
def test_a_default_is_refused_where_rodi_needs_a_provider_for_it(cls: type, name: str) -> None:
    error = refusal(rodi.Container().add_scoped(Clock).add_scoped(cls), cls)
    assert f"for {name!r}: it does not look at defaults" in error.reason
    assert "a factory function that leaves it out" in error.fix


class Labeled:
    label: str
    unit: ClassVar[str]
    size: int = 3

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.label = "now"


class OnlyLabeled:
    label: str


@pytest.mark.parametrize("cls", [Labeled, OnlyLabeled])
def test_a_class_level_annotation_is_refused_where_rodi_has_nothing_for_it(cls: type) -> None:
    error = refusal(rodi.Container().add_scoped(Clock).add_scoped(cls), cls)
    assert error.reason == "rodi needs a provider of str for the class-level annotation 'label'"
    assert "ClassVar" in error.fix


class Unhinted:
    def __init__(self, something) -> None:  # type: ignore[no-untyped-def]  # pyright: ignore[reportMissingParameterType, reportUnknownParameterType]  # no hint, on purpose
        pass


@pytest.mark.parametrize("strict", [True, False])
def test_a_parameter_without_a_hint_is_refused(strict: bool) -> None:
    error = refusal(rodi.Container(strict=strict).add_scoped(Unhinted), Unhinted)
    assert "hint each parameter" in error.fix


def of_local_names(marked: bool, qualifier: object = None) -> tuple[type, type]:
    class Hidden:
        pass

    class Holder:
        def __init__(self, hidden: "Annotated[Hidden, qualifier]") -> None:
            self.hidden = hidden

    return Hidden, rodi.inject()(Holder) if marked else Holder


def test_hints_that_rodi_cannot_read_are_refused() -> None:
    hidden, holder = of_local_names(marked=False)
    error = refusal(rodi.Container().add_scoped(hidden).add_scoped(holder), holder)
    assert "rodi can't tell what it needs: name 'Hidden' is not defined" in error.reason
    assert "@rodi.inject()" in error.fix


def test_hints_that_rodi_was_told_how_to_read_are_fine() -> None:
    hidden, holder = of_local_names(marked=True)
    assert is_fine(rodi.Container().add_scoped(hidden).add_scoped(holder), holder)


def test_a_qualifier_in_hints_that_rodi_was_told_how_to_read_is_refused() -> None:
    hidden, holder = of_local_names(marked=True, qualifier=Named("x"))
    error = refusal(rodi.Container().add_scoped(hidden).add_scoped(holder), holder)
    assert error.reason == f"rodi drops the qualifier of 'hidden' of {holder!r}"


def test_a_qualifier_in_hints_from_elsewhere_is_refused() -> None:
    @rodi.inject(globalsns={"Far": Local}, localns={})
    class Holder:
        def __init__(self, far: "Far") -> None:  # type: ignore[name-defined]  # noqa: F821 # pyright: ignore[reportUndefinedVariable, reportUnknownParameterType]  # a name that does not exist
            pass

    assert (
        "drops the qualifier of 'far'" in refusal(rodi.Container().add_scoped(Clock).add_scoped(Holder), Holder).reason
    )


class Unreadable:
    later: "Nowhere"  # type: ignore[name-defined]  # noqa: F821 # pyright: ignore[reportUndefinedVariable]  # a name that does not exist


class AboveUnreadable(Unreadable):
    def __init__(self, clock: Clock) -> None:
        self.clock = clock


def test_hints_that_rodi_does_not_read_need_not_be_readable() -> None:
    assert is_fine(rodi.Container().add_scoped(Clock).add_scoped(AboveUnreadable), AboveUnreadable)


# Objects that rodi would mix up


async def test_keys_of_one_class_keep_their_lifetimes() -> None:
    container = RodiContainer(rodi.Container().add_scoped(Clock, LocalClock).add_transient(LocalClock))
    async with container.scope({}) as scope:
        scoped = await scope.resolve(Key(Clock))
        assert await scope.resolve(Key(LocalClock)) is not scoped
        assert await scope.resolve(Key(LocalClock)) is not await scope.resolve(Key(LocalClock))
        assert await scope.resolve(Key(Clock)) is scoped


def by_factory() -> rodi.Container:
    return rodi.Container().add_scoped(Clock, LocalClock).add_scoped_by_factory(LocalClock, LocalClock)


def by_qualifier() -> rodi.Container:
    native = rodi.Container().add_scoped(Clock, LocalClock)
    return native.bind_types(Annotated[LocalClock, Named("x")], LocalClock, rodi.ServiceLifeStyle.SCOPED)


@pytest.mark.parametrize("native", [by_factory(), by_qualifier()], ids=["factory", "qualifier"])
def test_scoped_objects_of_one_class_that_are_not_alike_are_refused(native: rodi.Container) -> None:
    error = refusal(native, Clock)
    assert "it would give one object for this and" in error.reason
    assert "LocalClock" in error.reason
    assert "register a subclass" in error.fix


def test_a_scoped_factory_does_not_mind_its_class_behind_another_key_that_is_not_scoped() -> None:
    native = rodi.Container().add_transient(Clock, LocalClock).add_scoped_by_factory(LocalClock, LocalClock)
    assert is_fine(native, Clock)


def test_what_is_decorated_twice_is_refused_unless_it_is_a_singleton() -> None:
    error = refusal(rodi.Container().add_scoped(Clock).decorate(Clock, Logged).decorate(Clock, Timed), Clock)
    assert error.reason == "it is scoped, but decorated twice, of which rodi makes a singleton"
    assert "decorate it once" in error.fix
    assert is_fine(rodi.Container().add_singleton(Clock).decorate(Clock, Logged).decorate(Clock, Timed), Clock)


@pytest.mark.parametrize(
    "native",
    [
        rodi.Container().add_singleton(Clock),
        rodi.Container().add_transient(Clock),
        rodi.Container().add_scoped(Clock, LocalClock),
        rodi.Container().add_scoped(Clock).decorate(Clock, Logged),
        rodi.Container().add_instance(Clock()),
    ],
    ids=["singleton", "transient", "other class", "decorated", "instance"],
)
def test_a_provided_value_that_services_would_not_get_is_refused(native: rodi.Container) -> None:
    error = refusal(native.add_scoped(Repository), Repository, Clock)
    assert error.key == Key(Clock)
    assert "rodi would give services that need it one of its own" in error.reason
    assert "add_scoped_by_factory(..., Clock)" in error.fix


def test_a_provided_value_that_rodi_does_not_know_is_refused_below_a_handler() -> None:
    error = refusal(rodi.Container().add_scoped(Repository).add_scoped(Service), Service, Clock)
    assert error.key == Key(Service)
    assert error.reason == "it needs Clock, which senders provide, but its container does not know"
    assert "add_scoped_by_factory(..., Clock)" in error.fix


# What is missing, or kept too long


def test_a_singleton_that_would_keep_a_scoped_object_through_others_is_found() -> None:
    native = rodi.Container().add_scoped(Clock).add_transient(Repository).add_singleton(Service)
    (error,) = RodiContainer(native).validate([Key(Service)], ()).errors
    assert isinstance(error, LifetimeMismatchError)
    assert (error.key, error.needs) == (Key(Service), Key(Clock))


def test_the_singleton_that_would_keep_a_scoped_object_itself_is_named() -> None:
    native = rodi.Container().add_scoped(Clock).add_singleton(Repository).add_singleton(Service)
    (error,) = RodiContainer(native).validate([Key(Service)], ()).errors
    assert isinstance(error, LifetimeMismatchError)
    assert (error.key, error.needs) == (Key(Repository), Key(Clock))


def test_a_singleton_decorator_that_would_keep_a_scoped_object_is_found() -> None:
    class Stamped(Clock):
        def __init__(self, inner: Clock, local: LocalClock) -> None:
            self.inner, self.local = inner, local

    native = rodi.Container().add_singleton(Clock).add_scoped(LocalClock).decorate(Clock, Stamped)
    (error,) = RodiContainer(native).validate([Key(Clock)], ()).errors
    assert isinstance(error, LifetimeMismatchError)
    assert (error.key, error.needs) == (Key(Clock), Key(LocalClock))


def test_a_class_level_annotation_of_a_singleton_may_not_be_scoped() -> None:
    class Holder:
        clock: Clock

    (error,) = (
        RodiContainer(rodi.Container().add_scoped(Clock).add_singleton(Holder)).validate([Key(Holder)], ()).errors
    )
    assert isinstance(error, LifetimeMismatchError)


@dataclass
class Stamp:
    clock: Clock


def test_a_missing_field_of_a_dataclass_is_a_missing_provider() -> None:
    (error,) = RodiContainer(rodi.Container().add_scoped(Stamp)).validate([Key(Stamp)], ()).errors
    assert isinstance(error, DependencyNotFoundError)
    assert (error.key, error.path) == (Key(Clock), (Key(Stamp),))


def test_what_the_decorator_of_an_instance_misses_is_found() -> None:
    class Stamped(Clock):
        def __init__(self, inner: Clock, repository: Repository) -> None:
            self.inner, self.repository = inner, repository

    native = rodi.Container().add_instance(Clock()).decorate(Clock, Stamped)
    (error,) = RodiContainer(native).validate([Key(Clock)], ()).errors
    assert isinstance(error, DependencyNotFoundError)
    assert (error.key, error.path) == (Key(Repository), (Key(Clock),))


def test_what_nobody_asks_for_must_be_right_too_because_rodi_builds_all_or_nothing() -> None:
    app = Diator(container=rodi.Container().add_scoped(Clock).add_scoped(Service))
    app.add_command(use_clock)
    (problem,) = app.check()
    assert "no provider for Repository, needed by Service" in problem.text
    assert problem.fix == "register Repository with the container"


def test_every_registration_that_is_wrong_is_told() -> None:
    native = rodi.Container().add_scoped(Repository).add_scoped_by_factory(generator, LocalClock)
    kinds = {type(error) for error in RodiContainer(native).validate([Key(Repository), Key(LocalClock)], ()).errors}
    assert kinds == {DependencyNotFoundError, UnsupportedRegistrationError}


def test_what_only_rodi_finds_is_an_error_of_the_container() -> None:
    native = rodi.Container().add_scoped(Clock).set_alias("repository", Repository)
    (error,) = RodiContainer(native).validate([Key(Clock)], ()).errors
    assert type(error) is ContainerError
    assert "rodi can't build its provider: An alias 'repository'" in str(error)
    assert isinstance(error.__cause__, rodi.AliasConfigurationError)


def test_looking_does_not_add_to_the_aliases_of_the_container() -> None:
    native = rodi.Container().add_scoped(Unhinted)
    assert RodiContainer(native).validate([Key(Unhinted)], ()).errors
    native.add_alias("something", Clock).add_scoped(Clock)
    assert is_fine(native, Unhinted)


def test_the_same_service_below_many_others_is_looked_through_once_for_each_singleton() -> None:
    """Layers of classes that each need both of the layer below have 2**40 ways through them."""
    native, below = rodi.Container(), list[type]([Clock, LocalClock])
    native.add_scoped(Clock).add_scoped(LocalClock)
    for number in range(40):
        below = [_needing(f"Layer{number}{side}", *below) for side in "ab"]
        for cls in below:
            native.add_scoped(cls)
    assert is_fine(native, below[0])


def _needing(name: str, one: type, other: type) -> type:
    def init(self: object, first: object, second: object) -> None:
        pass

    init.__annotations__ = {"first": one, "second": other}
    return type(name, (), {"__init__": init, "__module__": __name__})
