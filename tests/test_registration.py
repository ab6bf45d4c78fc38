"""Every way to register a handler, and what the maps then say."""

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from diator import Command, Diator, DomainEvent, Publish, Query, Router
from diator.engine.registrations import HandlerKind, Registration
from diator.testing import FakePublish


@dataclass(frozen=True)
class Double(Command[int]):
    number: int = 21


@dataclass(frozen=True)
class Add(Command[int]):
    first: int = 1
    second: int = 2


@dataclass(frozen=True)
class HalfOf(Query[float]):
    number: int = 21


@dataclass(frozen=True)
class Happened(DomainEvent):
    what: str = ""


@dataclass(frozen=True)
class Started(Happened):
    pass


@dataclass(frozen=True)
class Stopped(Happened):
    pass


async def double(command: Double) -> int:
    return command.number * 2


def double_sync(command: Double) -> int:
    return command.number * 2


async def double_with_options(command: Double, times: int = 2) -> int:
    return command.number * times


class DoubleClass:
    async def handle(self, command: Double) -> int:
        return command.number * 2


class DoubleSyncClass:
    def handle(self, command: Double) -> int:
        return command.number * 2


class Service:
    async def double(self, command: Double) -> int:
        return command.number * 2

    def double_sync(self, command: Double) -> int:
        return command.number * 2

    @classmethod
    async def double_of_class(cls, command: Double) -> int:
        return command.number * 2

    async def __call__(self, command: Double) -> int:
        return command.number * 2


def around(function: Any) -> Any:  # Any: keeps whatever it is given
    @functools.wraps(function)
    def inner(*args: Any, **options: Any) -> Any:
        return function(*args, **options)

    return inner


class WithWrappedHandle:
    @around
    async def handle(self, command: Double) -> int:
        return command.number * 2


class WithWrappedCall:
    @around
    async def __call__(self, command: Double) -> int:
        return command.number * 2


# Any: handlers of all these shapes have no type in common.
HANDLERS: dict[str, Any] = {
    "async function": double,
    "sync function": double_sync,
    "class": DoubleClass,
    "class with sync handle": DoubleSyncClass,
    "bound method": Service().double,
    "sync bound method": Service().double_sync,
    "class method": Service.double_of_class,
    "callable object": Service(),
    "partial": functools.partial(double_with_options, times=2),
    "wrapper": around(double),
    "partial of a wrapper": functools.partial(around(double)),
    "bound wrapper": WithWrappedHandle().handle,
    "class with a wrapped handle": WithWrappedHandle,
    "object with a wrapped call": WithWrappedCall(),
}
WAYS: dict[str, Callable[[Any, Any], Any]] = {
    "bare": lambda router, handler: router.command(handler),
    "with the message": lambda router, handler: router.command(Double)(handler),
    "with options": lambda router, handler: router.command(thread=False)(handler),
    "with both": lambda router, handler: router.command(Double, thread=False)(handler),
    "with nothing": lambda router, handler: router.command()(handler),
    "add": lambda router, handler: router.add_command(handler) or handler,
    "add with the message": lambda router, handler: router.add_command(handler, Double) or handler,
    "add with options": lambda router, handler: router.add_command(handler, thread=False) or handler,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", HANDLERS)
async def test_a_handler_of_any_shape_registers_in_any_way_and_comes_back_unchanged(way: str, shape: str) -> None:
    app, handler = Diator(), HANDLERS[shape]
    assert WAYS[way](app, handler) is handler
    async with app:
        assert await app.send(Double()) == 42


async def test_a_handler_without_hints_registers_with_its_message() -> None:
    app = Diator()
    app.command(Double)(lambda command: command.number * 2)
    async with app:
        assert await app.send(Double()) == 42


async def test_queries_register_in_every_way() -> None:
    async def half(query: HalfOf) -> float:
        return query.number / 2

    ways: tuple[Callable[[Any], Any], ...] = (
        lambda app: app.query(half),
        lambda app: app.query(HalfOf)(half),
        lambda app: app.query(timeout=1)(half),
        lambda app: app.query(HalfOf, timeout=1)(half),
        lambda app: app.add_query(half),
        lambda app: app.add_query(half, HalfOf, timeout=1),
    )
    for register in ways:
        app = Diator()
        assert register(app) in (half, None)
        async with app:
            assert await app.send(HalfOf()) == 10.5


async def test_event_handlers_register_in_every_way() -> None:
    heard: list[DomainEvent] = []

    async def hear(event: Happened) -> None:
        heard.append(event)

    ways: tuple[Callable[[Any], Any], ...] = (
        lambda app: app.on_event(hear),
        lambda app: app.on_event(Happened)(hear),
        lambda app: app.on_event()(hear),
        lambda app: app.add_event_handler(hear),
        lambda app: app.add_event_handler(hear, Happened),
    )
    for register in ways:
        app = Diator()
        heard.clear()
        assert register(app) in (hear, None)
        async with app:
            await app.publish(Happened("it"))
        assert heard == [Happened("it")]


async def test_a_decorated_handler_stays_callable_by_itself() -> None:
    app = Diator()

    @app.command(Double)
    async def handler(command: Double, publish: Publish[Happened]) -> int:
        publish(Happened("doubled"))
        return command.number * 2

    published = FakePublish()
    assert await handler(Double(), published) == 42
    assert published == [Happened("doubled")]


async def test_a_class_handler_is_built_for_each_message() -> None:
    app = Diator()
    built: list[object] = []

    @app.command
    class Handler:
        def __init__(self) -> None:
            built.append(self)

        async def handle(self, command: Double) -> int:
            return 0

    async with app:
        await app.send(Double())
        await app.send(Double())
    assert len(set(map(id, built))) == 2


async def test_a_sync_handler_runs_in_a_thread_where_that_is_asked_for() -> None:
    app = Diator()
    threads: list[threading.Thread] = []

    @app.command(thread=True)
    def in_thread(command: Double) -> int:
        threads.append(threading.current_thread())
        return 42

    @app.query
    def inline(query: HalfOf) -> float:
        threads.append(threading.current_thread())
        return 1.0

    @app.on_event(thread=True)
    def event_in_thread(event: Happened) -> None:
        threads.append(threading.current_thread())

    @app.command(Add, thread=True)
    class InThread:
        def __init__(self) -> None:
            threads.append(threading.current_thread())

        def handle(self, command: Add) -> int:
            threads.append(threading.current_thread())
            return 3

    async with app:
        assert await app.send(Double()) == 42
        assert await app.send(HalfOf()) == 1.0
        await app.publish(Happened())
        assert await app.send(Add()) == 3
    here = threading.current_thread()
    assert [thread is here for thread in threads] == [False, True, False, True, False]


async def test_what_a_function_in_a_thread_returns_is_awaited_too() -> None:
    app = Diator()

    @app.command(thread=True)
    def wrapper(command: Double) -> Any:
        return double(command)

    async with app:
        assert await app.send(Double()) == 42


@pytest.mark.parametrize("registered_with", ["hint", "decorator", "add"])
async def test_one_handler_takes_every_event_of_a_union(registered_with: str) -> None:
    app = Diator()
    heard: list[object] = []

    async def hear(event: Started | Stopped) -> None:
        heard.append(event)

    if registered_with == "hint":
        app.on_event(hear)
    elif registered_with == "decorator":
        either: Any = Started | Stopped
        app.on_event(either)(hear)
    else:
        app.add_event_handler(hear, Started | Stopped)

    async with app:
        await app.publish(Started(), Stopped())
    assert heard == [Started(), Stopped()]
    assert list(app.events) == [Started, Stopped]


async def test_a_handler_of_a_base_class_gets_its_subclasses_once_each_in_order_of_registration() -> None:
    app = Diator()
    heard: list[str] = []

    @app.on_event
    async def any_event(event: DomainEvent) -> None:
        heard.append(f"any {type(event).__name__}")

    @app.on_event
    async def started(event: Started) -> None:
        heard.append(f"started {type(event).__name__}")

    @app.on_event
    async def overlapping(event: Happened | Started) -> None:
        heard.append(f"overlapping {type(event).__name__}")

    @dataclass(frozen=True)
    class StartedAgain(Started):
        pass

    async with app:
        await app.publish(StartedAgain(), Stopped())
    assert heard == [
        "any StartedAgain",
        "started StartedAgain",
        "overlapping StartedAgain",
        "any Stopped",
        "overlapping Stopped",
    ]


async def test_one_function_handles_several_requests_that_are_named() -> None:
    app = Diator()

    async def number(command: Double | Add) -> int:
        return command.number if isinstance(command, Double) else command.first

    app.add_command(number, Double)
    app.add_command(number, Add)
    async with app:
        assert (await app.send(Double()), await app.send(Add())) == (21, 1)


# --- routers


def a_router(log: list[str], name: str, request: type[Command[int]] | None = None) -> Router:
    router = Router()

    @router.on_event
    async def hear(event: Happened) -> None:
        log.append(name)

    if request is not None:

        async def handle(command: Any) -> int:
            return len(name)

        router.add_command(handle, request)
    return router


async def test_routers_are_taken_in_at_their_place_in_the_order() -> None:
    app, log = Diator(), list[str]()

    def hear(name: str) -> None:
        async def handler(event: Happened) -> None:
            log.append(name)

        app.add_event_handler(handler)

    hear("before")
    outer = a_router(log, "outer", Double)
    outer.include(a_router(log, "inner", Add))
    app.include(outer)
    hear("after")
    async with app:
        await app.publish(Happened())
        assert (await app.send(Double()), await app.send(Add())) == (len("outer"), len("inner"))
    assert log == ["before", "outer", "inner", "after"]


async def test_a_router_can_be_part_of_several_apps() -> None:
    router = a_router([], "shared", Double)
    for app in (Diator("first"), Diator("second")):
        app.include(router)
        async with app:
            assert await app.send(Double()) == len("shared")


async def test_a_router_declares_what_it_publishes_and_what_senders_provide() -> None:
    router = Router()
    router.publishes(Started)
    router.provides(str)

    @router.command
    async def greet(command: Double, who: str) -> int:
        return len(who)

    app = Diator()
    app.include(router)
    assert [(problem.code, problem.severity) for problem in app.check()] == [("unhandled-event", "warning")]
    async with app:
        assert await app.using(provide={str: "Ada"}).send(Double()) == 3


def test_an_app_declares_the_events_that_it_publishes_itself() -> None:
    app = Diator()
    app.publishes(Started, Stopped)
    app.publishes(Started)
    assert ["Started" in p.text or "Stopped" in p.text for p in app.check()] == [True, True]

    @app.on_event
    async def hear(event: Happened) -> None: ...

    assert app.check() == []


# --- the maps


def test_the_maps_say_who_handles_what() -> None:
    app = Diator()
    app.command(double)

    @app.query
    async def half(query: HalfOf) -> float: ...

    @app.on_event
    async def hear(event: Started | Stopped) -> None: ...

    @app.on_event
    async def hear_all(event: Happened) -> None: ...

    assert list(app.requests) == [Double, HalfOf]
    assert len(app.requests) == 2
    assert Double in app.requests
    assert Add not in app.requests
    registration = app.requests[Double]
    assert isinstance(registration, Registration)
    assert (registration.target, registration.kind, registration.name) == (double, HandlerKind.COMMAND, "double")
    assert registration.location.file == __file__

    assert list(app.events) == [Started, Stopped, Happened]
    assert len(app.events) == 3
    assert [found.target for found in app.events[Started]] == [hear, hear_all]
    assert [found.target for found in app.events[Happened]] == [hear_all]
    for event in (DomainEvent, Double, "Started", None):
        assert event not in app.events
    assert "double" in repr(app.requests)
    assert "hear_all" in repr(app.events)


def test_the_maps_resolve_hints_of_classes_that_are_defined_later() -> None:
    app = Diator()

    @app.command
    async def later(command: "Later") -> int: ...

    @app.on_event
    async def happened_later(event: "HappenedLater") -> None: ...

    assert list(app.requests) == [Later]
    assert list(app.events) == [HappenedLater]


class Later(Command[int]): ...


class HappenedLater(DomainEvent): ...


async def test_maps_can_be_read_while_the_app_runs() -> None:
    app = Diator()
    app.command(double)
    async with app:
        assert list(app.requests) == [Double]
        assert list(app.events) == []


def test_reading_the_maps_changes_nothing() -> None:
    app = Diator()
    assert dict(app.requests) == {}
    app.command(double)
    assert list(app.requests) == [Double]
