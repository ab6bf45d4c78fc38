"""The plugin builds what punq builds: random registrations in two containers, one of them resolved by punq alone.

Everything that is built has a number, in the order of building, so that one comparison covers classes, arguments,
sharing and order. Both sides use the same classes.
"""

import asyncio
import functools
import os
from collections.abc import Callable
from types import GenericAlias
from typing import Annotated, Any, Generic, NamedTuple, TypeVar, get_args

import punq
import pytest
from diator_punq import PunqContainer
from hypothesis import given, settings
from hypothesis import strategies as st

from diator import Named
from diator.containers import Key
from diator.errors import ContainerError, ScopeClosedError

PROOFS = int(os.environ.get("DIATOR_PROOFS", "1"))
T = TypeVar("T")

# Any, in this module: hints and objects of all kinds meet here.
built: list[Any] = []
"""What the side that runs has built."""


class Recorded:
    """Anything that was built."""

    number: int
    given: dict[str, Any]


class Broken(Exception):
    """What constructors fail with."""


class Box(Generic[T]):
    """A key whose forms differ."""


class Value:
    """Only ever provided."""


def record(made: Any, given: dict[str, Any]) -> Any:
    made.number, made.given = len(built), given
    built.append(made)
    return made


class C0(Recorded): ...


class C1(Recorded): ...


class C2(Recorded): ...


class C3(Recorded): ...


CLASSES: list[Any] = [C0, C1, C2, C3]
LISTS: list[Any] = [GenericAlias(list, (cls,)) for cls in CLASSES]
FORMS: list[Any] = [Box[int], Box[str], Annotated[C0, Named("other")], "Word"]
HINTS = [*CLASSES * 8, *LISTS, *FORMS[:3], punq.Container, Value, C0 | None]
SHAPES = ["plain"] * 12 + ["wrapped", "new", "more", "fails", "positional only", "none"]


class Parameter(NamedTuple):
    hint: Any
    keyword_only: bool
    default: str | None


class Shape(NamedTuple):
    """What the constructor of a class looks like."""

    kind: str
    parameters: list[Parameter]


def reshape(cls: Any, shape: Shape) -> None:
    """Give a class this constructor."""
    for name in ("__init__", "__new__"):
        if name in vars(cls):
            delattr(cls, name)
    if shape.kind == "none":
        cls.__init__ = _bare
        return
    named = {f"p{number}": one for number, one in enumerate(shape.parameters)}
    positional = [(name, one) for name, one in named.items() if not one.keyword_only]
    positional.sort(key=lambda item: item[1].default is not None)  # as Python wants it: the hints keep their order
    keyword = [(name, one) for name, one in named.items() if one.keyword_only]
    text = [_parameter(name, one) for name, one in positional]
    if shape.kind == "positional only" and text:
        text.append("/")
    text += (
        ["*"] * bool(keyword) + [_parameter(name, one) for name, one in keyword] + ["**more"] * (shape.kind == "more")
    )
    given = ", ".join([*(f"{name!r}: {name}" for name in named), *["**more"] * (shape.kind == "more")])
    end = "raise Broken" if shape.kind == "fails" else "return None"
    namespace: dict[str, Any] = {"record": record, "Broken": Broken}
    exec(f"def __init__(self, {', '.join(text)}):\n record(self, {{{given}}})\n {end}", namespace)
    init = namespace["__init__"]
    init.__annotations__ = {name: one.hint for name, one in named.items()}
    if shape.kind == "more":
        init.__annotations__["more"] = C0
    cls.__init__ = _wrapped(init) if shape.kind == "wrapped" else init
    if shape.kind == "new":
        cls.__new__ = _new


def _bare(self: Any) -> None:
    record(self, {})


def _new(cls: Any, *_arguments: Any, **_named: Any) -> Any:
    made: Any = object.__new__(cls)
    return made


def _wrapped(init: Any) -> Any:
    @functools.wraps(init)
    def passing(*arguments: Any, **named: Any) -> None:
        init(*arguments, **named)

    return passing


def _parameter(name: str, one: Parameter) -> str:
    return name if one.default is None else f"{name}={one.default!r}"


class Side:
    """A container, and a way to resolve from it."""

    def __init__(self, auto: bool, nested: bool, plugin: bool) -> None:
        self.outer = punq.Container(auto_register=auto)
        self.container = self.outer.child() if nested else self.outer
        self.port = PunqContainer(self.container)
        self.scope = self.port.scope({})
        self.plugin = plugin
        self.built: list[Any] = []

    def run(self, step: "Step") -> Any:
        global built
        built = self.built
        before = len(built)
        try:
            result = self.dump(step(self))
        except RecursionError:
            return "recursion"
        except (punq.MissingDependencyException, punq.InvalidRegistrationException, ContainerError) as error:
            result = "missing", str(error if self.plugin is False else error.__cause__ or error)
        except (Broken, TypeError) as error:
            if str(error) == "unsupported callable":  # what `inspect` makes of the end of the stack
                return "recursion"
            result = type(error).__name__, str(error)
        order = [type(one).__name__ for one in built[before:]]
        return result, order, len(self.container._singletons)  # pyright: ignore[reportPrivateUsage]  # no other way to see it

    def resolve(self, hint: Any, values: dict[Any, Any] | None = None) -> Any:
        provided = {_key(one): value for one, value in (values or {}).items()}
        if not self.plugin:
            return self.port.native(provided).resolve(hint)
        scope = self.port.scope(provided) if provided else self.scope
        return self.port.immediate(_key(hint))(scope)

    def dump(self, one: Any) -> Any:
        if isinstance(one, Recorded):
            return type(one).__name__, one.number, [(name, self.dump(value)) for name, value in one.given.items()]
        if isinstance(one, list):
            return [self.dump(item) for item in _items(one)]
        if isinstance(one, punq.Container):
            return {id(self.outer): "outer", id(self.container): "container"}.get(id(one), "child")
        return one if isinstance(one, str) else type(one).__name__


def _items(one: Any) -> Any:
    return one


def _key(hint: Any) -> Key:
    return Key(get_args(hint)[0], "other") if hint == FORMS[2] else Key(hint)


Step = Callable[[Side], Any]


def _make(p0: Any = "own", **given: Any) -> Any:
    return record(Recorded(), {"p0": p0, **given})


def register(hint: Any, how: str, cls: Any, scope: str, options: dict[str, Any], *, outside: bool) -> Step:
    def step(side: Side) -> None:
        target: Any = side.outer if outside else side.container
        made = {"scope": punq.Scope[scope], **options}
        if how == "instance":
            target.register(hint, instance=record(Recorded(), {}))
        elif how == "function":
            target.register(hint, _make, **made)
        elif isinstance(hint, type) and how == "self":
            target.register(hint, **made)
        else:
            target.register(hint, cls, **made)

    return step


def resolve(hint: Any, provided: list[Any], *, directly: bool) -> Step:
    def step(side: Side) -> Any:
        if directly:
            return side.container.resolve(hint)
        return side.resolve(hint, {one: f"value of {number}" for number, one in enumerate(provided)})

    return step


def forget(side: Side) -> None:
    asyncio.run(side.port.aclose())


def shapes(number: int) -> st.SearchStrategy[Shape]:
    """Mostly without cycles: a class asks for those before it."""
    below = [one for one in HINTS if one not in CLASSES[number + 1 :] and one not in LISTS[number:]]
    hints = st.one_of(*[st.sampled_from(below)] * 7, st.sampled_from(HINTS))
    parameter = st.builds(Parameter, hints, st.booleans(), st.sampled_from([None, None, None, "default"]))
    return st.builds(Shape, st.sampled_from(SHAPES), st.lists(parameter, max_size=3))


OPTIONS = st.sampled_from([{}, {}, {}, {"cache": False}, {"p0": "given"}, {"class": "no name"}])
REGISTER = st.builds(
    register,
    st.sampled_from([*CLASSES * 2, *FORMS, list[C0]]),
    st.sampled_from(["self", "self", "class", "function", "instance"]),
    st.sampled_from(CLASSES),
    st.sampled_from(["transient", "transient", "singleton"]),
    OPTIONS,
    outside=st.booleans(),
)
PROVIDED = st.lists(st.sampled_from([Value, C0, C1, FORMS[2]]), max_size=2, unique_by=str)
RESOLVE = st.builds(
    resolve,
    st.sampled_from([*HINTS, "Word"]),
    st.one_of(st.just([]), PROVIDED),
    directly=st.sampled_from([False] * 5 + [True]),
)
UNCACHED = st.sampled_from([{}, {}, {"cache": False}])
LIFETIMES = st.sampled_from(["transient", "transient", "singleton"])
FIRST = [
    st.builds(register, st.just(cls), st.just("self"), st.just(cls), LIFETIMES, UNCACHED, outside=st.booleans())
    for cls in CLASSES
]
STEPS = st.lists(st.one_of(*[REGISTER] * 2, *[RESOLVE] * 6, st.just(forget)), min_size=2, max_size=12)


@settings(max_examples=100 * PROOFS, deadline=None)
@given(st.tuples(*map(shapes, range(len(CLASSES)))), st.tuples(*FIRST), STEPS, st.booleans(), st.booleans())
def test_the_plugin_builds_what_punq_builds(
    constructors: tuple[Shape, ...], first: tuple[Step, ...], steps: list[Step], auto: bool, nested: bool
) -> None:
    for cls, shape in zip(CLASSES, constructors, strict=True):
        reshape(cls, shape)
    punq_alone, plugin = Side(auto, nested, plugin=False), Side(auto, nested, plugin=True)
    again = [resolve(cls, [], directly=False) for cls in CLASSES]
    for step in (*first, *(one for drawn in steps for one in (drawn, *again))):
        expected = punq_alone.run(step)
        assert plugin.run(step) == expected
        if expected == "recursion":
            return  # how much was built before the end of the stack is left to chance


class Engine:
    """Needs nothing."""


class Fast(Engine):
    """Registered later."""


class Car:
    """Needs something."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine


def garage() -> punq.Container:
    return punq.Container().register(Engine).register(Car)


def is_compiled(port: PunqContainer, hint: Any) -> bool:
    """Whether code was written for a hint, from what the scopes of a port have in common."""
    build = port.scope({}).builders.get(hint)
    return build is not None and build.__name__ == "build"


def test_what_is_registered_later_counts_at_once() -> None:
    container = garage()
    port = PunqContainer(container)
    scope, car = port.scope({}), port.immediate(Key(Car))
    assert type(car(scope).engine) is Engine
    assert is_compiled(port, Car)
    container.register(Engine, Fast)
    assert type(car(scope).engine) is Fast
    assert is_compiled(port, Car)


def test_after_many_late_registrations_punq_builds_by_itself() -> None:
    container = garage()
    port = PunqContainer(container)
    scope, car = port.scope({}), port.immediate(Key(Car))
    for number in range(10):
        latest = type(f"Engine{number}", (Engine,), {})
        container.register(Engine, latest)
        assert type(car(scope).engine) is latest
    assert not is_compiled(port, Car)


def test_a_missing_provider_may_be_registered_later() -> None:
    container = punq.Container()
    port = PunqContainer(container)
    scope, car = port.scope({}), port.immediate(Key(Car))
    for _ in range(10):
        with pytest.raises(ContainerError, match="Car"):
            car(scope)
    container.register(Engine).register(Car)
    assert type(car(scope).engine) is Engine


def test_a_class_of_containers_of_its_own_resolves_by_itself() -> None:
    class Counting(punq.Container):
        resolved = 0

        def resolve(self, service_key: Any, **kwargs: Any) -> Any:
            self.resolved += 1
            return super().resolve(service_key, **kwargs)

    container = Counting()
    container.register(Engine).register(Car)
    port = PunqContainer(container)
    for _ in range(3):
        assert type(port.immediate(Key(Car))(port.scope({})).engine) is Engine
    assert container.resolved == 3


class Renamed:
    """Stands for a registry of another release of punq, whose private names are other ones."""

    def __init__(self, registry: Any) -> None:
        self.build_context = registry.build_context


def test_without_the_private_names_punq_builds_by_itself() -> None:
    """Then it is slower, and right."""
    renamed, lacking = garage(), garage()
    vars(renamed)["registrations"] = Renamed(renamed.registrations)
    del vars(lacking)["_singletons"]
    for container in (renamed, lacking):
        port = PunqContainer(container)
        assert type(port.immediate(Key(Car))(port.scope({})).engine) is Engine
        assert not is_compiled(port, Car)


def test_a_provided_list_is_what_its_key_returns() -> None:
    port = PunqContainer(garage())
    engines = [Engine(), Engine()]
    assert port.immediate(Key(list[Engine]))(port.scope({Key(list[Engine]): engines})) is engines


def test_a_closed_scope_builds_nothing() -> None:
    async def closed() -> Any:
        async with port.scope({}) as scope:
            port.immediate(Key(Car))(scope)
        return scope

    port = PunqContainer(garage())
    with pytest.raises(ScopeClosedError):
        port.immediate(Key(Car))(asyncio.run(closed()))
