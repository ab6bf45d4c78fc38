"""Handlers in every shape in which users write them. Each answers with the dependencies that it was given.

``test_handler_shapes`` loads this file twice: as it stands, and as if it began with ``from __future__ import
annotations``. Type checkers know that some hints here are odd; that is the point of them.
"""

# mypy: disable-error-code="arg-type, assignment, misc, name-defined, no-untyped-def, override, return-value, type-arg"
# pyright: reportArgumentType=false, reportIncompatibleMethodOverride=false, reportMissingParameterType=false, reportUnknownParameterType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportMissingTypeArgument=false
# pyright: reportReturnType=false, reportUndefinedVariable=false, reportUnknownMemberType=false
# pyright: reportAttributeAccessIssue=false, reportInvalidTypeVarUse=false, reportInvalidTypeArguments=false

import functools
import typing
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Generic, NewType, Optional, Protocol, TypeVar, Union

import attrs
from typing_extensions import Self, TypeAliasType

from diator import Command, Diator, Named, Query
from tests.introspection import elsewhere

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForTheChecker


@dataclass(frozen=True)
class Ask(Query[object]):
    pass


@dataclass(frozen=True)
class Other(Command[object]):
    pass


class Dep: ...


class Second: ...


T = TypeVar("T")


class Repo(Generic[T]): ...


class Port(Protocol):
    def go(self) -> int: ...


Id = NewType("Id", int)
Alias = TypeAliasType("Alias", Repo[Dep])
GenericAlias = TypeAliasType("GenericAlias", Repo[T], type_params=(T,))


# --- functions


async def at_module_level(ask: Ask, dep: Dep) -> object:
    return dep


def sync(ask: Ask, dep: Dep) -> object:
    return dep


async def defined_later(ask: Ask, dep: "Later") -> object:
    return dep


class Later: ...


async def quoted_inside(ask: Ask, dep: 'Repo["Dep"]') -> object:
    return dep


async def return_for_the_checker_only(ask: Ask, dep: Dep) -> "OnlyForTheChecker":
    return dep


async def qualified(ask: Ask, dep: Annotated[Dep, Named("q")]) -> object:
    return dep


async def qualified_by_the_library(ask: Ask, dep: Annotated[Dep, "q"]) -> object:
    return dep


async def unhashable_metadata(ask: Ask, dep: Annotated[Dep, [], Named("q")]) -> object:
    return dep


async def optional_around_qualified(ask: Ask, dep: Optional[Annotated[Dep, Named("q")]] = None) -> object:  # noqa: UP045 - the old form is what is tested
    return dep


async def qualified_around_optional(ask: Ask, dep: Annotated[Dep | None, Named("q")] = None) -> object:
    return dep


async def implicit_none(ask: Ask, dep: Dep = None) -> object:
    return dep


async def or_none(ask: Ask, dep: Dep | None = None) -> object:
    return dep


async def typing_union(ask: Ask, dep: Union[None, Dep] = None) -> object:  # noqa: UP007, RUF036 - the old form is what is tested
    return dep


async def generic(ask: Ask, dep: Repo[Dep]) -> object:
    return dep


async def generic_alias(ask: Ask, dep: GenericAlias[Dep]) -> object:
    return dep


async def alias(ask: Ask, dep: Alias) -> object:
    return dep


async def optional_alias(ask: Ask, dep: Alias | None = None) -> object:
    return dep


async def typing_list(ask: Ask, dep: typing.List[Dep]) -> object:  # noqa: UP006 - the old form is what is tested
    return dep


async def builtin_list(ask: Ask, dep: list[Dep]) -> object:
    return dep


async def new_type(ask: Ask, dep: Id) -> object:
    return dep


async def protocol(ask: Ask, dep: Port) -> object:
    return dep


async def a_callable(ask: Ask, dep: Callable[[int], str]) -> object:
    return dep


async def a_class_itself(ask: Ask, dep: type[Dep]) -> object:
    return dep


async def keyword_only(ask: Ask, *, dep: Dep) -> object:
    return dep


async def positional_only(ask: Ask, dep: Dep, /) -> object:
    return dep


async def stars(ask: Ask, *args: int, dep: Dep, **options: str) -> object:
    assert not args
    assert not options
    return dep


async def default_before(ask: Ask, first: int = 5, dep: Dep | None = None, last: str = "last") -> object:
    assert (first, last) == (5, "last")
    return dep


async def two(ask: Ask, dep: Dep, second: Second) -> object:
    return dep, second


async def annotated_message(ask: Annotated[Ask, "the question"], dep: Dep) -> object:
    return dep


def with_hint_local_to_a_function(app: Diator) -> Any:
    class Local: ...

    @app.query
    async def handler(ask: Ask, dep: Local) -> object:
        return dep

    return Local


def with_message_local_to_a_function(app: Diator) -> Any:
    @dataclass(frozen=True)
    class LocalAsk(Query[object]):
        pass

    @app.query
    class Handler:
        def __init__(self, dep: Dep) -> None:
            self.dep = dep

        async def handle(self, ask: LocalAsk) -> object:
            return self.dep

    return LocalAsk


# --- functions around functions


async def after_a_number(number: int, ask: Ask, dep: Dep) -> object:
    return dep


def decorated(function: Any) -> Any:
    @functools.wraps(function)
    def inner(*args: object, **options: object) -> object:
        return function(*args, **options)

    return inner


wrapped = decorated(at_module_level)
wrapped_twice = decorated(decorated(at_module_level))
partial_with_other_things = functools.partial(default_before, first=5)
BOUND = Dep()
partial = functools.partial(at_module_level, dep=BOUND)
partial_by_position = functools.partial(after_a_number, 1)
partial_of_a_partial = functools.partial(functools.partial(two, second="bound"))


class Service:
    async def method(self, ask: Ask, dep: Dep) -> object:
        return dep

    @classmethod
    async def of_class(cls, ask: Ask, dep: Dep) -> object:
        return dep

    @staticmethod
    async def static(ask: Ask, dep: Dep) -> object:
        return dep

    async def __call__(self, ask: Ask, dep: Dep) -> object:
        return dep


bound = Service().method
class_method = Service.of_class
static_method = Service.static
instance = Service()
partial_of_a_method = functools.partial(Service().method)


class GenericService(Generic[T]):
    async def method(self, ask: Ask, dep: Repo[T]) -> object:
        return dep


class ServiceOfDep(GenericService[Dep]): ...


bound_generic = ServiceOfDep().method


# --- classes


class PlainClass:
    def __init__(self, dep: Dep) -> None:
        self.dep = dep

    async def handle(self, ask: Ask) -> object:
        return self.dep


class SyncClass(PlainClass):
    def handle(self, ask: Ask) -> object:
        return self.dep


class DependencyOfHandle:
    async def handle(self, ask: Ask, dep: Dep) -> object:
        return dep


class KeywordConstructor:
    def __init__(self, *, dep: Dep) -> None:
        self.dep = dep

    async def handle(self, ask: Ask, *, second: Second) -> object:
        return self.dep, second


class WithNoConstructor:
    @staticmethod
    async def handle(ask: Ask, dep: Dep) -> object:
        return dep


class WithClassMethod:
    @classmethod
    async def handle(cls, ask: Ask, dep: Dep) -> object:
        return dep


class WithDecoratedHandle:
    @decorated
    async def handle(self, ask: Ask, dep: Dep) -> object:
        return dep


@dataclass
class Dataclass:
    dep: Dep

    async def handle(self, ask: Ask) -> object:
        return self.dep


@dataclass(frozen=True, slots=True)
class DataclassWithOptions:
    first: Dep
    _: KW_ONLY
    second: Second
    limit: int = 3

    async def handle(self, ask: Ask) -> object:
        assert self.limit == 3
        return self.first, self.second


@attrs.frozen
class Attrs:
    _dep: Dep
    limit: int = attrs.field(default=3, kw_only=True)

    async def handle(self, ask: Ask) -> object:
        return self._dep


@dataclass
class InheritedDataclass(elsewhere.DataclassBase):
    dep: Dep

    async def handle(self, ask: Ask) -> object:
        return self.dep, self.base


class InheritedPlain(elsewhere.PlainBase):
    async def handle(self, ask: Ask) -> object:
        return self.base


class GenericClass(Generic[T]):
    def __init__(self, repo: Repo[T]) -> None:
        self.repo = repo

    async def handle(self, ask: Ask) -> object:
        return self.repo


class ConcreteClass(GenericClass[Dep]): ...


C = TypeVar("C", bound=Query[Any])


class GenericInTheMessage(Generic[C, T]):
    async def handle(self, ask: C, repo: Repo[T]) -> object:
        return repo


class GenericBetween(GenericInTheMessage[Ask, T]): ...


class ConcreteInTheMessage(GenericBetween[Dep]): ...


@dataclass
class GenericDataclass(Generic[T]):
    repo: Repo[T]

    async def handle(self, ask: Ask) -> object:
        return self.repo


class ConcreteDataclass(GenericDataclass[Dep]): ...


class MadeByNew:
    dep: Dep

    def __new__(cls, dep: Dep) -> Self:
        made = super().__new__(cls)
        made.dep = dep
        return made

    async def handle(self, ask: Ask) -> object:
        return self.dep


class Meta(type):
    def __call__(cls, *args: Any, **options: Any) -> Any:
        return super().__call__(*args, **options)


class MadeByMetaclass(metaclass=Meta):
    def __init__(self, dep: Dep) -> None:
        self.dep = dep

    async def handle(self, ask: Ask) -> object:
        return self.dep


# --- what can't work


async def for_the_checker_only(ask: Ask, first: Dep, second: "OnlyForTheChecker", third: "Missing") -> object: ...  # noqa: F821 - a name that does not exist


async def no_generic(ask: Ask, dep: "Dep[int]") -> object: ...


async def missing_attribute(ask: Ask, dep: "elsewhere.Nothing") -> object: ...


async def unhinted(ask: Ask, dep) -> object: ...


async def choice(ask: Ask, dep: Dep | Second) -> object: ...


async def none_without_default(ask: Ask, dep: Later | None) -> object: ...


async def unknown(ask: Ask, dep: Later, limit: int) -> object: ...


async def two_messages(ask: Ask | Other, dep: Dep) -> object: ...


async def no_message() -> object: ...


async def message_by_keyword(*, ask: Ask) -> object: ...


async def only_stars(*args: Ask, **options: Dep) -> object: ...


async def unhinted_message(ask) -> object: ...


async def message_for_the_checker_only(ask: "OnlyForTheChecker", dep: Dep) -> object: ...


async def wrong_kind(other: Other) -> object: ...


async def no_class(ask: "C") -> object: ...


async def in_pieces_but_plain(ask: Ask): ...


def generator(ask: Ask) -> object:
    yield 1


class NoHandle:
    def __init__(self, dep: Dep) -> None: ...


class UnresolvedConstructor:
    def __init__(self, dep: Dep, other: "OnlyForTheChecker") -> None: ...

    async def handle(self, ask: Ask, missing: "Missing") -> object: ...  # noqa: F821 - a name that does not exist
