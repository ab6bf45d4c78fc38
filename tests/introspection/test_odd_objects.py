"""The check tells, and never crashes: whatever is registered, and whatever stands in a hint or in an event."""

# pyright: reportUnusedFunction=false

import functools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import make_dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar
from unittest.mock import AsyncMock, MagicMock, Mock

import attrs
import dishka
import punq
import pytest
from hypothesis import given, settings, strategies

from diator import Command, Diator, DomainEvent, NotificationEvent, Problem, Query, Router

T = TypeVar("T", bound="Nowhere")  # type: ignore[name-defined]  # noqa: F821  # pyright: ignore[reportUndefinedVariable]  # a name that does not exist


class OddError(Exception):
    """Even its text raises."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def raising(*_args: object, **_kwargs: object) -> Any:
    raise OddError


def odd_metaclass(name: str) -> type:
    meta = type(f"Meta{name}", (type,), {name: raising})
    odd: type = meta(f"Odd{name}", (), {"__module__": __name__, "handle": raising})
    return odd


METACLASSES = [
    odd_metaclass(name)
    for name in ("__eq__", "__hash__", "__repr__", "__subclasscheck__", "__instancecheck__", "__getattr__", "__call__")
]


class AnswersEverything:
    def __getattr__(self, name: str) -> Any:
        return self


class AnswersNothing:
    def __getattribute__(self, name: str) -> Any:
        raise OddError


class NoHash:
    __hash__: Any = None

    def __eq__(self, other: object) -> bool:
        raise OddError

    def __repr__(self) -> str:
        raise OddError


class OddCall:
    __signature__ = property(raising)
    __wrapped__ = property(raising)

    async def __call__(self, command: Any) -> Any: ...


class OddDescriptor:
    handle = property(raising)
    events = property(raising)


async def signature_raises(command: Any) -> None: ...


signature_raises.__signature__ = "no signature"  # type: ignore[attr-defined]  # odd on purpose


async def annotations_are_odd(command: Any, other: Any = None) -> None: ...


annotations_are_odd.__annotations__ = {"command": NoHash(), 5: "(", "return": "1 +", "other": "x" * 10}  # type: ignore[dict-item]  # odd on purpose


def plain(command: Any) -> None: ...


class WrapsItself:
    def __init__(self) -> None:
        self.__wrapped__ = self

    async def __call__(self, command: Any) -> None: ...


TARGETS: list[Any] = [
    *METACLASSES,
    AnswersEverything(),
    AnswersEverything,
    AnswersNothing(),
    NoHash(),
    NoHash,
    OddCall(),
    OddCall,
    OddDescriptor,
    OddDescriptor(),
    WrapsItself(),
    signature_raises,
    annotations_are_odd,
    functools.partial(signature_raises),
    functools.partial(print, sep=""),
    functools.wraps(len)(plain),
    functools.lru_cache(plain),
    Mock(),
    MagicMock(),
    AsyncMock(),
    len,
    print,
    dict,
    dict.fromkeys,
    [5].append,
    int.from_bytes,
    object,
    object(),
    type,
    None,
    5,
    ...,
    staticmethod(signature_raises),
    classmethod(signature_raises),
    property(raising),
    Generic,
    Any,
    Annotated[int, 5],
    list[int],
    Literal["a"],
    T,
]

HINTS: list[Any] = [
    *TARGETS,
    *map(repr, ["(", "1 +", ""]),
    "(",
    "1 / 0",
    "[].nowhere",
    "int[str]",
    "Nowhere",
    "lambda: 5",
    "\0",
    "raising()",
    Annotated[int, NoHash()],
    "Annotated[Nowhere, 5]",
    Literal[b"x"],
    Callable[[], int],
    type[int],
    dict[NoHash, NoHash],
    "AnswersEverything() | int",
]


def judged(app: Diator) -> list[Problem]:
    """What the check finds, all of which can be printed and has a place, more than once."""
    found = app.check()
    assert all(map(str, found))
    assert [problem.code for problem in found] == [problem.code for problem in app.check()]
    assert all(problem.location is not None for problem in found if problem.code in ("unreadable", "invalid-handler"))
    return found


def app_with(container: object, broker: str | None = None) -> Diator:
    return Diator("odd", container=container, broker=broker)


containers = strategies.sampled_from(
    [lambda: None, punq.Container, lambda: dishka.make_async_container(dishka.Provider())]
)
targets = strategies.integers(0, len(TARGETS) - 1)  # by number: hypothesis looks at what it draws
hints = strategies.integers(0, len(HINTS) - 1)


@given(
    targets,
    strategies.sampled_from(["add_command", "add_query", "add_event_handler", "add_middleware"]),
    containers,
)
@settings(max_examples=150, deadline=None)
def test_whatever_is_registered(target: int, how: str, container: Callable[[], object]) -> None:
    app = app_with(container())
    getattr(app, how)(TARGETS[target])
    judged(app)


@pytest.mark.parametrize("how", ["command", "query", "on_event", "middleware"])
@given(target=targets)
@settings(max_examples=50, deadline=None)
def test_whatever_is_decorated(how: str, target: int) -> None:
    router, app = Router(), app_with(None)
    getattr(router, how)(TARGETS[target])
    app.include(router)
    judged(app)


@given(hints, hints, hints, hints, containers)
@settings(max_examples=150, deadline=None)
def test_whatever_is_hinted(first: int, other: int, result: int, built: int, container: Callable[[], object]) -> None:
    async def handler(message: Any, other: Any) -> Any: ...

    async def middleware(message: Any, call_next: Any, other: Any) -> Any: ...

    class Handler:
        def __init__(self, built: Any) -> None: ...
        async def handle(self, message: Any, other: Any) -> Any: ...

    for function in (handler, middleware, Handler.handle):
        function.__annotations__.update({"message": HINTS[first], "other": HINTS[other], "return": HINTS[result]})
    Handler.__init__.__annotations__["built"] = HINTS[built]
    app = app_with(container())
    app.add_command(handler)
    app.add_query(Handler)
    app.add_event_handler(handler)
    app.add_middleware(middleware)
    assert judged(app)


@given(hints, strategies.sampled_from([Command, Query, DomainEvent, NotificationEvent]), strategies.booleans())
@settings(max_examples=150, deadline=None)
def test_whatever_stands_in_a_message(hint: int, base: Any, with_attrs: bool) -> None:
    own: dict[str, Any] = {"__module__": __name__, "__annotations__": {"field": HINTS[hint]}, "field": None}
    cls: Any = type("Odd", (base,), own)
    if with_attrs:
        own = {"__module__": __name__, "field": attrs.field(default=HINTS[hint])}
        with suppress(Exception):  # what attrs itself refuses is no class of events
            cls = attrs.define(type("Odd", (base,), own))

    async def handler(message: Any) -> Any: ...

    app = app_with(None, "memory://")
    {Command: app.add_command, Query: app.add_query}.get(base, app.add_event_handler)(handler, cls)
    if base is NotificationEvent:
        app.publishes(cls)
    judged(app)


def test_an_event_of_a_class_whose_metaclass_raises() -> None:
    for name in ("__repr__", "__eq__", "__subclasscheck__", "__instancecheck__", "__getattr__"):
        meta: Any = type("Meta", (type(NotificationEvent),), {name: raising})
        event: Any = meta("Odd", (NotificationEvent,), {"__module__": __name__})
        app = app_with(None, "memory://")

        async def handler(event: Any) -> None: ...

        app.add_event_handler(handler, event)
        judged(app)


def test_the_error_and_the_place_are_told() -> None:
    async def handler(command: Any) -> None: ...

    handler.__signature__ = 5  # type: ignore[attr-defined]  # pyright: ignore[reportFunctionMemberAccess]  # odd on purpose
    app = Diator()
    app.add_command(handler)
    (problem,) = app.check()
    assert problem.code == "unreadable"
    assert "handler can't be inspected (TypeError: " in problem.text
    assert problem.location is not None
    assert problem.location.file == __file__


def test_fields_that_the_library_can_not_describe() -> None:
    @attrs.define
    class Untyped(NotificationEvent):
        x = attrs.field()  # type: ignore[var-annotated]  # odd on purpose

    dataclass_of_nothing: Any = make_dataclass("OfNothing", [("x", "datetime.nothing")], bases=(NotificationEvent,))
    for event in (Untyped, dataclass_of_nothing):
        app = app_with(None, "memory://")
        app.publishes(event)
        (problem,) = app.check()
        assert problem.severity == "error"
        assert event.__name__ in problem.text
        assert problem.location is not None
