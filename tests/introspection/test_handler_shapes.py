"""Whatever shape a handler has, it is called with the right dependencies, or one precise error names what is wrong."""

import __future__

import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import GenericAlias, ModuleType
from typing import Any

import pytest

from diator import ConfigurationError, Diator, Problem, SourceLocation
from diator.containers import Key
from tests.introspection import elsewhere
from tests.introspection.given import Given

SOURCE = Path(__file__).with_name("shapes.py")
LINES = SOURCE.read_text().splitlines()

# Any: a module that is loaded under two styles of annotations has no type of its own.
Keys = Callable[[Any], tuple[Key, ...]]


@pytest.fixture(scope="module", params=["evaluated", "text"])
def shapes(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The handlers, with annotations that Python evaluates, or keeps as text."""
    flags = __future__.annotations.compiler_flag if request.param == "text" else 0
    module = ModuleType(f"shapes_with_annotations_as_{request.param}")
    sys.modules[module.__name__] = module  # where dataclasses and hints look for names
    exec(compile(SOURCE.read_text(), SOURCE, "exec", flags, dont_inherit=True), vars(module))
    yield module
    del sys.modules[module.__name__]


def dep(shapes: Any) -> tuple[Key, ...]:
    return (Key(shapes.Dep),)


def named(shapes: Any) -> tuple[Key, ...]:
    return (Key(shapes.Dep, "q"),)


def repo(shapes: Any) -> tuple[Key, ...]:
    return (Key(shapes.Repo[shapes.Dep]),)


def both(shapes: Any) -> tuple[Key, ...]:
    return (Key(shapes.Dep), Key(shapes.Second))


WORKING: dict[str, Keys] = {
    "at_module_level": dep,
    "sync": dep,
    "defined_later": lambda shapes: (Key(shapes.Later),),
    "quoted_inside": repo,
    "return_for_the_checker_only": dep,
    "qualified": named,
    "qualified_by_the_library": named,
    "unhashable_metadata": named,
    "optional_around_qualified": named,
    "qualified_around_optional": named,
    "implicit_none": dep,
    "or_none": dep,
    "typing_union": dep,
    "generic": repo,
    "generic_alias": repo,
    "alias": repo,
    "optional_alias": repo,
    "typing_list": lambda shapes: (Key(GenericAlias(list, (shapes.Dep,))),),
    "builtin_list": lambda shapes: (Key(GenericAlias(list, (shapes.Dep,))),),
    "new_type": lambda shapes: (Key(shapes.Id),),
    "protocol": lambda shapes: (Key(shapes.Port),),
    "a_callable": lambda _: (Key(Callable[[int], str]),),
    "a_class_itself": lambda shapes: (Key(GenericAlias(type, (shapes.Dep,))),),
    "keyword_only": dep,
    "positional_only": dep,
    "stars": dep,
    "default_before": dep,
    "two": both,
    "annotated_message": dep,
    "wrapped": dep,
    "wrapped_twice": dep,
    "partial_by_position": dep,
    "partial_with_other_things": dep,
    "partial_of_a_method": dep,
    "bound": dep,
    "class_method": dep,
    "static_method": dep,
    "instance": dep,
    "bound_generic": repo,
    "PlainClass": dep,
    "SyncClass": dep,
    "DependencyOfHandle": dep,
    "KeywordConstructor": both,
    "WithNoConstructor": dep,
    "WithClassMethod": dep,
    "WithDecoratedHandle": dep,
    "Dataclass": dep,
    "DataclassWithOptions": both,
    "Attrs": dep,
    "InheritedDataclass": lambda shapes: (Key(shapes.Dep), Key(elsewhere.OnlyHere)),
    "InheritedPlain": lambda _: (Key(elsewhere.OnlyHere),),
    "ConcreteClass": repo,
    "ConcreteInTheMessage": repo,
    "ConcreteDataclass": repo,
    "MadeByNew": dep,
    "MadeByMetaclass": dep,
}


def app_with(*keys: Key) -> tuple[Diator, tuple[object, ...]]:
    given = tuple(object() for _ in keys)
    return Diator(container=Given(dict(zip(keys, given, strict=True)))), given


@pytest.mark.parametrize("name", WORKING)
async def test_a_handler_is_called_with_what_it_asks_for(shapes: Any, name: str) -> None:
    app, given = app_with(*WORKING[name](shapes))
    app.add_query(getattr(shapes, name))
    async with app:
        answer = await app.send(shapes.Ask())
    assert answer == (given[0] if len(given) == 1 else given)


async def test_what_a_partial_binds_is_not_looked_up(shapes: Any) -> None:
    app, _ = app_with(Key(shapes.Dep))
    app.add_query(shapes.partial)
    async with app:
        assert await app.send(shapes.Ask()) is shapes.BOUND


async def test_what_a_partial_of_a_partial_binds_is_not_looked_up(shapes: Any) -> None:
    app, (given,) = app_with(Key(shapes.Dep))
    app.add_query(shapes.partial_of_a_partial)
    async with app:
        assert await app.send(shapes.Ask()) == (given, "bound")


@pytest.mark.parametrize("name", ["implicit_none", "or_none", "typing_union", "optional_around_qualified"])
async def test_a_default_stands_in_where_the_container_has_nothing(shapes: Any, name: str) -> None:
    app = Diator()
    app.add_query(getattr(shapes, name))
    async with app:
        assert await app.send(shapes.Ask()) is None


async def test_a_class_that_the_function_around_it_defines_is_found(shapes: Any) -> None:
    held: dict[Key, object] = {}
    app = Diator(container=Given(held))
    local = shapes.with_hint_local_to_a_function(app)
    held[Key(local)] = expected = object()
    async with app:
        assert await app.send(shapes.Ask()) is expected


async def test_a_message_that_the_function_around_it_defines_is_found(shapes: Any) -> None:
    app, (given,) = app_with(Key(shapes.Dep))
    ask = shapes.with_message_local_to_a_function(app)
    async with app:
        assert await app.send(ask()) is given


def problems_with(shapes: Any, name: str) -> list[Problem]:
    """What is wrong with one handler, whether that is told at its line or by the check."""
    app, _ = app_with(Key(shapes.Dep), Key(shapes.Second))
    try:
        app.add_query(getattr(shapes, name))
    except ConfigurationError as error:
        return list(error.problems)
    return app.check()


def place_of(name: str) -> SourceLocation:
    starts = (f"async def {name}(", f"def {name}(")
    return SourceLocation(str(SOURCE), next(number for number, line in enumerate(LINES, 1) if line.startswith(starts)))


def unquoted(problem: Problem) -> str:
    """The text without quotes, which stand around a hint that is text in a text."""
    return problem.text.replace("'", "")


FAILING: dict[str, list[tuple[str, str, str]]] = {
    # name: for each problem its code, words of its text, words of its fix
    "for_the_checker_only": [
        ("unresolved-hint", "second: OnlyForTheChecker (NameError", "import 'OnlyForTheChecker' at run time"),
        ("unresolved-hint", "third: Missing (NameError", "import 'Missing' at run time"),
    ],
    "no_generic": [("unresolved-hint", "dep: Dep[int] (TypeError", "correct the hint")],
    "missing_attribute": [("unresolved-hint", "dep: elsewhere.Nothing (AttributeError", "correct the hint")],
    "unhinted": [("unhinted-parameter", "dep without a type hint", "or give it a default")],
    "choice": [("union-dependency", "Dep | Second, and a container cant choose between types", "one type")],
    "none_without_default": [("missing-dependency", "dep: Later | None", "give the parameter a default")],
    "unknown": [
        ("missing-dependency", "dep: Later", "register Later with the container"),
        ("missing-dependency", "limit: int", "register int with the container"),
    ],
    "two_messages": [("message-hint", "ask: Ask | Other; expected one class of query", "a handler for each")],
    "no_message": [("message-hint", "no positional parameter for the message", "query: MyQuery")],
    "message_by_keyword": [("message-hint", "no positional parameter for the message", "query: MyQuery")],
    "only_stars": [("message-hint", "no positional parameter for the message", "query: MyQuery")],
    "unhinted_message": [("message-hint", "ask, which has no type hint", "ask: MyQuery")],
    "message_for_the_checker_only": [("unresolved-hint", "ask: OnlyForTheChecker (NameError", "at run time")],
    "wrong_kind": [("message-kind", "takes other: Other, which is a command", "use @app.command")],
    "no_class": [("message-hint", "ask: ~C, which is not a query class", "ask: MyQuery")],
    "generator": [("invalid-handler", "is a generator function", "`async def` with `yield`")],
}


@pytest.mark.parametrize("name", FAILING)
def test_each_parameter_that_can_not_be_given_is_one_error_with_its_place(shapes: Any, name: str) -> None:
    found = problems_with(shapes, name)
    assert [problem.code for problem in found] == [code for code, _, _ in FAILING[name]]
    for problem, (_, text, fix) in zip(found, FAILING[name], strict=True):
        assert name in problem.text
        assert text in unquoted(problem)
        assert fix in problem.fix
        assert problem.location == place_of(name)
        assert problem.severity == "error"


def test_a_class_without_handle_is_refused_with_the_line_that_registers_it(shapes: Any) -> None:
    app = Diator()
    here = inspect.currentframe()
    assert here is not None
    app.add_query(shapes.NoHandle)
    line = here.f_lineno - 1
    (problem,) = app.check()
    assert problem.code == "invalid-handler"
    assert "NoHandle has no method `handle`" in problem.text
    assert problem.location == SourceLocation(__file__, line)


def test_hints_of_a_constructor_that_can_not_be_resolved_are_named_too(shapes: Any) -> None:
    found = problems_with(shapes, "UnresolvedConstructor")
    assert [problem.code for problem in found] == ["unresolved-hint"] * 2
    for problem, parameter in zip(found, ("other: OnlyForTheChecker", "missing: Missing"), strict=True):
        assert "UnresolvedConstructor" in problem.text
        assert parameter in unquoted(problem)


def test_type_variables_that_nobody_fills_are_no_key(shapes: Any) -> None:
    (problem,) = problems_with(shapes, "GenericClass")
    assert problem.code == "missing-dependency"
    assert "GenericClass needs repo: " in problem.text
    assert "Repo[~T]" in problem.text


if sys.version_info >= (3, 12):
    TYPE_PARAMETERS = """
from __future__ import annotations
from dataclasses import dataclass
from diator import Query
from tests.introspection.shapes import Ask, Dep, Repo

class Base[T]:
    def __init__(self, repo: Repo[T]) -> None:
        self.repo = repo
    async def handle(self, ask: Ask) -> object:
        return self.repo

class Between[U](Base[U]): ...
class Concrete(Between[Dep]): ...

@dataclass
class DataclassBase[T]:
    repo: Repo[T]
    async def handle(self, ask: Ask) -> object:
        return self.repo

class ConcreteDataclass(DataclassBase[Dep]): ...

class Handles[T]:
    async def handle(self, ask: Ask, repo: Repo[T]) -> object:
        return repo

class ConcreteHandles(Handles[Dep]): ...

type Alias = Repo[Dep]
type GenericAlias[T] = Repo[T]
async def alias(ask: Ask, repo: Alias) -> object:
    return repo
async def generic_alias(ask: Ask, repo: GenericAlias[Dep]) -> object:
    return repo
"""

    @pytest.mark.parametrize("name", ["Concrete", "ConcreteDataclass", "ConcreteHandles", "alias", "generic_alias"])
    @pytest.mark.parametrize("text", [TYPE_PARAMETERS, TYPE_PARAMETERS.replace("from __future__", "# from __future__")])
    async def test_type_parameters_are_filled_like_type_variables(name: str, text: str) -> None:
        from tests.introspection.shapes import Ask, Dep, Repo

        module = ModuleType("type_parameters")
        sys.modules[module.__name__] = module
        exec(compile(text, __file__, "exec", dont_inherit=True), vars(module))
        app, (given,) = app_with(Key(Repo[Dep]))
        app.add_query(getattr(module, name))
        async with app:
            assert await app.send(Ask()) is given
