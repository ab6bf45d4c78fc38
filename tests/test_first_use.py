"""What a first try gets wrong: each is told with what to write instead, and without what is inside of Diator."""

import asyncio
import traceback
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import attrs
import msgspec
import pydantic
import pytest

from diator import (
    Command,
    ConfigurationError,
    Diator,
    DomainEvent,
    Event,
    HandlerNotFoundError,
    InvalidMessageError,
    NotificationEvent,
    NotRunningError,
    Publish,
    Query,
    Router,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Join(Command[None]):
    name: str = ""


@dataclass(frozen=True)
class Find(Query[int]): ...


@dataclass(frozen=True)
class Rows(Query[int]): ...


@dataclass(frozen=True)
class Joined(DomainEvent):
    name: str = ""


@dataclass(frozen=True)
class Left(NotificationEvent):
    name: str = ""


def make_app(doing: Callable[[Any], object] = lambda publish: None) -> Diator:
    app = Diator("shop", broker="memory://")
    app.publishes(Joined, Left)

    @app.command
    async def join(command: Join, publish: Publish[Joined]) -> None:
        doing(publish)

    @app.query
    async def find(query: Find) -> int:
        return 1

    @app.query
    async def rows(query: Rows) -> AsyncIterator[int]:
        yield 1

    @app.on_event
    async def joined(event: Joined) -> None: ...

    @app.on_event
    async def left(event: Left) -> None: ...

    return app


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([Joined(), Joined()], "publish got 2 events.* call it for each"),
        ([Joined(), Joined(), Joined()], "publish got 3 events"),
        ([], "publish got 0 events"),
        ([[Joined()]], r"for event in events: publish\(event\)"),
        ([Joined], r"publish an instance: Joined\(\.\.\.\)"),
        ([None], "None, which is not an event"),
        ([Find()], "which is not an event"),
    ],
    ids=str,
)
async def test_publishing_something_else_than_one_event(arguments: list[object], told: str) -> None:
    async with make_app(lambda publish: publish(*arguments)) as app:
        with pytest.raises((TypeError, InvalidMessageError), match=told) as caught:
            await app.send(Join())
        assert "Rule" not in str(caught.value)


async def test_publishing_a_list() -> None:
    events: Any = [Joined(), Left()]
    async with make_app() as app:
        with pytest.raises(InvalidMessageError, match=r"write app\.publish\(\*events\)"):
            await app.publish(events)


async def test_a_stream_that_is_not_opened() -> None:
    async with make_app() as app:
        stream: Any = app.stream(Rows())
        with pytest.raises(TypeError, match=r"async with app\.stream\(query\) as rows"):
            async for _ in stream:
                pass
        with pytest.raises(TypeError, match=r"was awaited.*\n*.*async with app\.stream"):
            await stream
        with pytest.raises(TypeError, match="plain `with`"), stream:
            pass


MANAGERS: list[tuple[Callable[[Diator], Any], str]] = [
    (lambda app: app, "async with app$"),
    (lambda app: app.testing(), r"async with app\.testing\(\) as session"),
    (lambda app: app.operations(), r"async with app\.operations\(\) as operations"),
]


@pytest.mark.parametrize(("make", "how"), MANAGERS)
def test_a_plain_with(make: Callable[[Diator], Any], how: str) -> None:
    with pytest.raises(TypeError, match=how), make(make_app()):
        pass


async def test_a_worker_in_a_plain_with() -> None:
    async with make_app() as app:
        worker: Any = app.worker()
        with pytest.raises(TypeError, match=r"async with app\.worker\(\)"), worker:
            pass


USES: list[Callable[[Any], Any]] = [
    lambda app: app.send(Join()),
    lambda app: app.send(Find()),
    lambda app: app.publish(Joined()),
    lambda app: app.publish(Left()),
    lambda app: app.publish(Joined(), Left()),
    lambda app: app.stream(Rows()),
    lambda app: app.using().send(Join()),
    lambda app: app.using().publish(Joined()),
    lambda app: app.using().stream(Rows()),
    lambda app: app.worker(),
]


@pytest.mark.parametrize("use", USES)
async def test_before_the_start_and_after_the_end(use: Callable[[Any], Any]) -> None:
    app = make_app()
    for state in ("has not been started", "has ended"):
        with pytest.raises(NotRunningError, match=f"the app {state}; use it inside its `async with` block") as caught:
            use(app)
        assert "KeyError" not in "".join(traceback.format_exception(caught.value))
        async with app:
            pass


async def test_the_failed_look_up_is_not_told() -> None:
    wrong: list[Any] = [Join, Joined(), Rows(), 5]
    async with make_app() as app:
        for message in wrong:
            with pytest.raises(InvalidMessageError) as caught:
                await app.send(message)
            assert "KeyError" not in "".join(traceback.format_exception(caught.value))
        with pytest.raises(InvalidMessageError) as caught:
            await app.publish(wrong[0])
        assert "KeyError" not in "".join(traceback.format_exception(caught.value))


async def test_where_a_look_up_failed_is_not_told() -> None:
    app = Diator()

    @app.command
    async def join(command: Join, publish: Publish[Event]) -> None:
        publish(Left())

    async with app:
        for use in (lambda: app.publish(Left()), lambda: app.send(Join()), lambda: app.send(Find())):
            with pytest.raises((ConfigurationError, HandlerNotFoundError)) as caught:
                await use()
            frames = traceback.extract_tb(caught.value.__traceback__)
            last = max(number for number, frame in enumerate(frames) if frame.filename == __file__)
            assert len(frames) - last <= 3, "more than the call and the line that raises"


async def test_a_session_outside_of_its_block() -> None:
    session = make_app().testing()
    for use in (lambda: session.send(Join()), lambda: session.publish(Joined()), lambda: session.stream(Rows())):
        with pytest.raises(NotRunningError, match=r"async with app\.testing\(\) as session"):
            use()


async def enter(manager: Any) -> None:
    async with manager:
        pass


USES_OF_A_RUNNING_APP: list[Callable[[Diator], Awaitable[object]]] = [
    lambda app: app.publish(Left()),
    lambda app: app.using(headers={"a": "b"}).send(Join()),
    lambda app: enter(app.stream(Rows())),
    lambda app: enter(app.worker()),
    lambda app: enter(app.testing()),
    enter,
    lambda app: app.__aexit__(None, None, None),
]


@pytest.mark.parametrize("use", USES_OF_A_RUNNING_APP)
async def test_another_event_loop(use: Callable[[Diator], Awaitable[None]]) -> None:
    async def elsewhere() -> None:
        await use(app)

    async with make_app() as app:
        with pytest.raises(NotRunningError, match="another event loop"):
            await asyncio.to_thread(lambda: asyncio.run(elsewhere()))
        assert await app.send(Find()) == 1


async def test_a_coroutine_made_in_a_thread_runs_in_the_loop_of_the_app() -> None:
    loop = asyncio.get_running_loop()
    async with make_app() as app:
        result = await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(app.send(Find()), loop).result(5))
    assert result == 1


async def test_a_container_in_another_event_loop() -> None:
    import punq

    container = punq.Container()
    container.register(dict, instance={})
    app = Diator(container=container)

    @app.command
    async def join(command: Join, service: dict) -> None: ...  # type: ignore[type-arg]  # odd on purpose

    async with app:
        sending = app.send(Join())
        with pytest.raises(NotRunningError, match="another event loop"):
            await asyncio.to_thread(lambda: asyncio.run(sending))  # pyright: ignore[reportArgumentType]  # it is a coroutine


class Bare(Command[None]):
    name: str


class BareEvent(DomainEvent):
    name: str = "x"


class Below(Join):
    age: int


class BareGeneric(Command[None], Generic[T]):
    item: T


class Abstract(Command[None], ABC):
    @abstractmethod
    def total(self) -> int: ...


class Constant(Command[None]):
    LIMIT: ClassVar[int] = 5


class Own(Command[None]):
    name: str

    def __init__(self, name: str) -> None:
        self.name = name


class BelowOwn(Own):
    age: int = 3


class Base(Command[None]):
    kind: ClassVar[str] = "base"


@dataclass
class Derived(Base):
    name: str


@attrs.define
class Attrs(Command[None]):
    name: str


class Model(pydantic.BaseModel, Command[None]):
    name: str


class Struct(msgspec.Struct, Command[None]):
    name: str


@pytest.mark.parametrize("cls", [Bare, Below, BareGeneric, Abstract])
def test_a_message_that_can_not_be_made(cls: Any) -> None:
    app = Diator()
    app.add_command(make_handler(cls))
    problems = app.check()
    assert [problem.code for problem in problems] == ["message-fields"]
    assert cls.__name__ in problems[0].text
    assert ("abstract" if cls is Abstract else "@dataclass") in problems[0].text + problems[0].fix
    assert problems[0].location is not None
    assert problems[0].location.file == __file__


class NoFields(NotificationEvent):
    def __init__(self, number: int) -> None:
        self.number = number


def test_a_brokered_event_with_a_constructor_of_its_own_is_told_to_be_a_dataclass() -> None:
    app = Diator("shop", broker="memory://")
    app.publishes(NoFields)
    problem = next(one for one in app.check() if one.code == "not-serializable")
    assert problem.fix == "put @dataclass(frozen=True) above class NoFields"


def test_an_event_without_dataclass_wherever_it_is_named() -> None:
    handled, published, declared = Diator(), Diator(), Diator()

    async def on(event: BareEvent) -> None: ...

    async def join(command: Join, publish: Publish[BareEvent]) -> None: ...

    handled.add_event_handler(on)
    published.add_command(join)
    declared.publishes(BareEvent)
    for app in (handled, published, declared):
        assert "message-fields" in [problem.code for problem in app.check()]


@pytest.mark.parametrize("cls", [Join, Constant, Own, BelowOwn, Derived, Attrs, Model, Struct])
def test_messages_that_can_be_made(cls: Any) -> None:
    app = Diator()
    app.add_command(make_handler(cls))
    assert app.check() == []


def make_handler(cls: Any) -> Any:
    async def handler(command: Any) -> None: ...

    handler.__annotations__ = {"command": cls, "return": None}
    return handler


async def join(command: Join) -> None: ...


async def greet(event: Joined) -> None: ...


unhinted: Callable[[Any], None] = lambda command: None  # noqa: E731 - a lambda is what is tried
ANY: Any = Diator
DECORATORS: list[tuple[Callable[[Any], object], str]] = [
    (lambda app: app.command(Join, Find), "got Join, Find; expected one class.*write a handler for each"),
    (lambda app: app.on_event(Joined, Left), r"@app\.on_event\(Joined \| Left\)"),
    (lambda app: app.on_event([Joined, Left]), r"@app\.on_event\(Joined \| Left\)"),
    (lambda app: app.command("Join"), "'Join'; expected a class"),
    (lambda app: app.command(Join()), r"pass the class: @app\.command\(Join\)"),
    (lambda app: app.command(timout=5)(join), "timout=5, which is not an option.*did you mean timeout"),
    (lambda app: app.query(Find, retry=5), "retry=5, which is not an option.*options are: timeout, thread"),
    (lambda app: app.on_event(concurency=5), "did you mean concurrency"),
    (lambda app: app.command(unhinted), r"app\.command\(MyCommand\)\(lambda"),
    (lambda app: app.command(5), "5, which can't be called"),
    (lambda app: ANY.command(join), r"make an app first: app = Diator\(\)"),
    (lambda app: app.command(app.command(join)), "has a second handler"),
    (lambda app: app.query(join), "use @app.command"),
    (lambda app: app.middleware(inner=True), "inner=True, which is not an option.*options are: inside"),
    (lambda app: app.include(Router), "which is not a router"),
]


@pytest.mark.parametrize(("use", "told"), DECORATORS)
def test_a_decorator_that_is_given_something_else(use: Callable[[Any], object], told: str) -> None:
    app = Diator()
    with pytest.raises(ConfigurationError, match=f"(?s){told}") as caught:
        use(app)
        raise ConfigurationError(app.check())  # what is wrong with a handler itself is told with all else, at the start
    (problem,) = caught.value.problems
    assert problem.location is not None
    assert problem.location.file.endswith("test_first_use.py")


def test_a_message_in_the_place_of_a_middleware() -> None:
    app = Diator()
    app.add_middleware(Join)
    (problem,) = app.check()
    assert "annotate its first parameter: message: Join" in problem.fix


@pytest.mark.parametrize(
    ("name", "how"),
    [("run", "diator run"), ("start", "async with app"), ("event", "@app.on_event"), ("emit", "publish")],
)
def test_names_that_other_frameworks_have(name: str, how: str) -> None:
    with pytest.raises(AttributeError, match=f"no attribute '{name}'; .*{how}") as caught:
        getattr(Diator(), name)
    assert caught.value.obj is None  # or Python adds its own guess, such as "Did you mean: 'events'?"
    assert not hasattr(Diator(), "__wrapped__")
    with pytest.raises(AttributeError, match=r"no attribute 'nonsense'$"):
        getattr(Router(), "nonsense")  # noqa: B009 - the name is the point


def test_names_of_other_frameworks_cost_those_that_exist_nothing() -> None:
    # With either of these the interpreter looks up `app.send` the slow way: it took half as long again.
    for cls in (Diator, Router):
        assert not hasattr(cls, "__getattr__")
        assert cls.__getattribute__ is object.__getattribute__


def test_names_of_other_frameworks_are_not_listed_and_may_be_taken() -> None:
    class Own(Diator):
        def run(self) -> str:
            return "own"

    app = Own()
    assert app.run() == "own"
    assert "run" in dir(app)
    assert "start" not in dir(app)
    assert not hasattr(Own, "start")
    app.start = "mine"  # type: ignore[attr-defined]  # not a name of Diator's
    assert app.start == "mine"  # type: ignore[attr-defined]  # not a name of Diator's
