"""What is wrong with a registration is refused at its line, or found by the check: what, where, and what to do."""

import asyncio
import functools
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, List, NewType, Optional, Protocol, TypedDict  # noqa: UP035 - old forms

import pydantic
import pytest
from typing_extensions import TypeAliasType

from diator import (
    CallNext,
    Command,
    ConfigurationError,
    Context,
    Diator,
    DomainEvent,
    ECSTEvent,
    Event,
    Message,
    NotificationEvent,
    Problem,
    Publish,
    Query,
    Request,
    Router,
    SourceLocation,
)
from diator.containers import Key
from tests.introspection.given import Given

SOURCE = Path(__file__).read_text().splitlines()


def at(mark: str) -> SourceLocation:
    """The line of this file that ends with a mark."""
    return SourceLocation(__file__, next(n for n, line in enumerate(SOURCE, 1) if line.endswith(f"# {mark}")))


def decorated_at(mark: str) -> SourceLocation:
    """The line of a decorator; Python 3.10 takes the line of the definition below for the one that calls it."""
    location = at(mark)
    return location if sys.version_info >= (3, 11) else SourceLocation(location.file, location.line + 1)


def refused(error: pytest.ExceptionInfo[ConfigurationError]) -> Problem:
    (problem,) = error.value.problems
    assert problem.severity == "error"
    assert problem.text in str(error.value)
    assert problem.fix in str(error.value)
    if problem.location is not None:
        assert f"at {problem.location}" in str(error.value)
    return problem


def only(app: Diator) -> Problem:
    """The one error that the check finds, and that the start raises too."""
    errors = [problem for problem in app.check() if problem.severity == "error"]
    with pytest.raises(ConfigurationError) as caught:
        asyncio.run(app.__aenter__())
    assert list(caught.value.problems) == errors
    return refused(caught)


@dataclass(frozen=True)
class Join(Command[int]):
    pass


@dataclass(frozen=True)
class Leave(Command[None]):
    pass


@dataclass(frozen=True)
class Find(Query[str]):
    pass


@dataclass(frozen=True)
class Joined(DomainEvent):
    pass


@dataclass(frozen=True)
class Left(DomainEvent):
    pass


@dataclass(frozen=True)
class Told(NotificationEvent):
    pass


@dataclass(frozen=True)
class State(ECSTEvent):
    pass


class Dep: ...


async def join(command: Join) -> int:  # join
    return 1


async def hear(event: Joined) -> None: ...


# --- duplicates


def test_a_second_handler_of_a_request_is_refused_at_its_line_and_names_both_places() -> None:
    app = Diator()

    @app.command  # the first
    async def first(command: Join) -> int:
        return 1

    @app.command  # the second
    async def second(command: Join) -> int:
        return 2

    problem = only(app)
    assert problem.code == "duplicate-handler"
    assert problem.location == decorated_at("the second")
    assert "command Join has a second handler, second" in problem.text
    assert f"first, registered at {decorated_at('the first')}" in problem.text
    with pytest.raises(ConfigurationError, match="has a second handler"):
        _ = app.requests


def test_the_same_function_twice_names_the_two_lines_that_registered_it() -> None:
    app = Diator()
    app.add_command(join)  # once
    app.add_command(join)  # twice
    problem = only(app)
    assert problem.location == at("twice")
    assert str(at("once")) in problem.text


def test_one_event_handler_is_not_registered_twice_for_one_event() -> None:
    app = Diator()
    app.add_event_handler(hear)  # heard once
    app.add_event_handler(hear, Joined)  # heard twice
    problem = only(app)
    assert problem.code == "duplicate-handler"
    assert "event handler hear is registered for Joined twice" in problem.text
    assert str(at("heard once")) in problem.text
    assert problem.location == at("heard twice")


def test_two_methods_of_one_object_and_one_method_of_two_objects_are_different_handlers() -> None:
    class Service:
        async def first(self, event: Joined) -> None: ...

        async def second(self, event: Joined) -> None: ...

    app, service = Diator(), Service()
    app.add_event_handler(service.first)
    app.add_event_handler(service.second)
    app.add_event_handler(Service().first)
    assert len(app.events[Joined]) == 3
    app.add_event_handler(service.first)
    assert "twice" in only(app).text


def test_a_duplicate_in_an_included_router_names_both_places() -> None:
    app, router = Diator(), Router()
    app.add_command(join)  # in the app

    @router.query
    async def find(query: Find) -> str:
        return ""

    @router.command  # in the router
    async def other(command: Join) -> int:
        return 2

    app.include(router)
    problem = only(app)
    assert problem.code == "duplicate-handler"
    assert problem.location == decorated_at("in the router")
    assert str(at("in the app")) in problem.text


duplicates = Diator()


@duplicates.command
async def first_of_later(command: "DefinedLater") -> int: ...


@duplicates.command
async def second_of_later(command: "DefinedLater") -> int: ...


class DefinedLater(Command[int]): ...


def test_a_duplicate_whose_hint_is_resolved_late_is_found_by_the_check_each_time() -> None:
    for _ in range(2):
        (problem,) = duplicates.check()
        assert problem.code == "duplicate-handler"
        assert "DefinedLater has a second handler, second_of_later" in problem.text


def test_a_subclass_of_a_handled_request_is_refused_by_the_check() -> None:
    @dataclass(frozen=True)
    class JoinLate(Join):
        pass

    app = Diator()
    app.add_command(join)

    @app.command  # of the subclass
    async def join_late(command: JoinLate) -> int: ...

    (problem,) = app.check()
    assert problem.code == "request-subclass"
    assert "JoinLate, handled by join_late, derives from Join, handled by join at" in problem.text
    assert problem.location == at("of the subclass")


# --- too late, and routers


async def test_nothing_is_registered_once_the_app_has_started() -> None:
    app = Diator("meetings")
    app.add_command(join)
    late: list[Any] = [
        lambda: app.command(join),
        lambda: app.add_query(join),
        lambda: app.on_event(hear),
        lambda: app.add_middleware(print),
        lambda: app.include(Router()),
        lambda: app.publishes(Joined),
        lambda: app.provides(str),
    ]
    async with app:
        for register in late:
            with pytest.raises(
                ConfigurationError, match=r"registered too late: .*'meetings'.* has been started"
            ) as caught:
                register()
            assert refused(caught).code == "late-registration"
    with pytest.raises(ConfigurationError, match="has been started") as caught:
        app.add_query(join)  # after the end
    assert refused(caught).location == at("after the end")


@pytest.mark.parametrize(
    "value",
    [5, None, "Join", Join(), join, Annotated["Join", "a note"]],
    ids=["number", "none", "text", "object", "function", "annotated text"],
)
def test_provides_refuses_what_is_not_a_type_hint(value: Any) -> None:
    app, router = Diator(), Router()
    for provides in (app.provides, router.provides):
        with pytest.raises(ConfigurationError) as caught:
            provides(str, value)  # not a hint
        problem = refused(caught)
        assert problem.code == "provide-hint"
        assert f"provides({value!r}) is invalid: expected a type hint" in problem.text
        assert "app.provides(User)" in problem.fix
        assert problem.location == at("not a hint")


Numbers = TypeAliasType("Numbers", list[int])


def test_provides_takes_every_form_of_hint() -> None:
    forms = [
        int,
        list[int],
        List[int],  # noqa: UP006 - the old form is what is tested
        int | None,
        Optional[int],  # noqa: UP045 - the old form is what is tested
        Callable[[], int],
        NewType("Number", int),
        Numbers,
        Annotated[int, "a note"],
    ]
    Diator().provides(*forms)


def test_a_router_takes_nothing_more_once_it_is_included() -> None:
    app, router = Diator(), Router()
    app.include(router)  # the inclusion
    with pytest.raises(ConfigurationError) as caught:
        router.add_command(join)  # into the router
    problem = refused(caught)
    assert problem.code == "late-registration"
    assert "handler join was registered too late" in problem.text
    assert f"the router was included at {at('the inclusion')}" in problem.text
    assert problem.location == at("into the router")


@pytest.mark.parametrize("outer", [Diator, Router])
def test_a_router_is_included_once(outer: type[Router]) -> None:
    app, router = outer(), Router()
    router.add_event_handler(hear)
    app.include(router)  # the first time
    with pytest.raises(ConfigurationError) as caught:
        app.include(router)  # the second time
    problem = refused(caught)
    assert problem.code == "router"
    assert str(at("the first time")) in problem.text
    assert problem.location == at("the second time")


def test_routers_do_not_include_themselves_or_each_other() -> None:
    first, second = Router(), Router()
    with pytest.raises(ConfigurationError, match="it is the one that includes"):
        first.include(first)
    first.include(second)
    with pytest.raises(ConfigurationError, match="the router was included at"):
        second.include(first)
    first.add_command(join)
    assert list(first.requests) == [Join]


@pytest.mark.parametrize("thing", [pytest, "router", None, join])
def test_only_routers_are_included(thing: Any) -> None:
    with pytest.raises(ConfigurationError, match="which is not a router"):
        Diator().include(thing)


def test_only_classes_of_events_are_declared_as_published() -> None:
    things: tuple[Any, ...] = (Joined(), Join, "Joined", Joined | Left, None)
    for thing in things:
        with pytest.raises(ConfigurationError, match="which is not an event class") as caught:
            Diator().publishes(thing)
        assert refused(caught).location is not None


# --- what is no handler


@pytest.mark.parametrize("thing", ["join", 5, object(), Dep()])
def test_what_can_not_be_called_is_no_handler(thing: Any) -> None:
    app = Diator()
    app.add_command(thing)  # no handler
    problem = only(app)
    assert problem.code == "invalid-handler"
    assert f"@app.command got {thing!r}, which can't be called" in problem.text
    assert problem.location == at("no handler")


def test_a_class_without_handle_is_no_handler() -> None:
    app = Diator()
    app.add_event_handler(Dep)  # no handle
    problem = only(app)
    assert problem.code == "invalid-handler"
    assert "event handler Dep has no method `handle`" in problem.text
    assert "async def handle(self, event: MyEvent)" in problem.fix
    assert problem.location == at("no handle")


def test_a_handler_of_a_request_that_is_no_class_is_refused() -> None:
    for declared in ("Join", 5, Join()):
        app = Diator()
        app.add_command(join, declared)
        problem = only(app)
        assert problem.code == "message-hint"
        assert f"join is registered for {declared!r}, which is not a command class" in problem.text


def test_a_builtin_is_refused_with_a_reason() -> None:
    for builtin in (print, dict, iter):  # not all of which tell their parameters
        app = Diator()
        app.add_command(builtin)
        assert f"command handler {builtin.__name__} " in only(app).text


@pytest.mark.parametrize(
    ("register", "message", "text", "fix"),
    [
        ("add_command", Find, "which is a query", "use @app.query"),
        ("add_command", Joined, "which is an event", "use @app.on_event"),
        ("add_command", Dep, "Dep, which is not a message", "derive Dep from Command"),
        ("add_query", Join, "which is a command", "use @app.command"),
        ("add_event_handler", Join, "which is a command", "use @app.command"),
        ("add_command", Command, "takes Command itself", "one command"),
        ("add_query", Query, "takes Query itself", "one query"),
        ("add_command", Request, "takes message: Request", ""),
        ("add_command", Message, "takes message: Message", ""),
        ("add_event_handler", Event, "takes Event: domain events run in process", "take only domain events"),
        ("add_event_handler", Joined | Told, "takes Joined, Told: domain events run", "take only domain events"),
        ("add_event_handler", Joined | None, "None, which is not a message", ""),
        ("add_command", Join | Leave, "expected one class of command", "a handler for each"),
    ],
)
def test_a_message_of_the_wrong_kind_is_refused(register: str, message: Any, text: str, fix: str) -> None:
    async def handler(message: Any) -> Any: ...

    by_hint = functools.partial(handler)
    handler.__annotations__["message"] = message
    for declared in ((), (message,)):
        app = Diator()
        getattr(app, register)(by_hint, *declared)
        problem = only(app)
        assert problem.code in ("message-kind", "message-hint")
        assert "handler" in problem.text
        assert text in problem.text
        assert fix in problem.fix


def test_a_handler_that_takes_another_message_than_it_is_registered_for_is_refused() -> None:
    async def join_too(command: Join) -> None: ...  # join too

    app = Diator()
    app.add_command(join_too, Leave)
    problem = only(app)
    assert problem.code == "message-hint"
    assert "join_too is registered for Leave, but takes command: Join" in problem.text
    assert "annotate the first parameter with Leave" in problem.fix
    assert problem.location == at("join too")


def test_the_place_of_a_decorated_handler_is_its_own_and_not_the_decorators() -> None:
    def around(function: Any) -> Any:
        @functools.wraps(function)
        async def inner(*args: Any) -> Any: ...

        return inner

    app = Diator()
    app.command(around(join))
    assert app.requests[Join].location == at("join")


# --- how it runs


def test_ways_of_running_that_can_not_be_are_refused() -> None:
    async def coroutine(command: Join) -> int: ...

    def generator(query: Find) -> Iterator[str]:
        yield ""

    async def rows(query: Find) -> AsyncIterator[str]:
        yield ""

    async def rows_of_a_command(command: Join) -> AsyncIterator[int]:
        yield 1

    async def rows_of_an_event(event: Joined) -> AsyncIterator[None]:
        yield

    cases: list[tuple[Callable[[Diator], None], str, str]] = [
        (lambda app: app.add_command(coroutine, thread=True), "but thread=True is for sync functions", "plain `def`"),
        (lambda app: app.add_query(rows, thread=True), "but thread=True is for sync functions", "plain `def`"),
        (lambda app: app.add_query(rows, timeout=1), "has a timeout, but is streamed", "around the block"),
        (lambda app: app.add_query(generator), "is a generator function", "for app.stream"),
        (lambda app: app.add_command(rows_of_a_command), "only a query can be streamed", "make it a query"),
        (lambda app: app.add_event_handler(rows_of_an_event), "only a query can be streamed", "make it a query"),
    ]
    for register, text, fix in cases:
        app = Diator()
        register(app)
        problem = app.check()[0]
        assert problem.code == "invalid-handler"
        assert text in problem.text
        assert fix in problem.fix
        assert problem.location is not None
        assert problem.location.file == __file__


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), "5"])
def test_a_wrong_option_is_refused_at_its_line(seconds: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"timeout={seconds!r}") as caught:
        Diator().add_command(join, timeout=seconds)
    problem = refused(caught)
    assert problem.code == "invalid-handler"
    assert "greater than 0" in problem.fix
    assert problem.location is not None
    assert problem.location.file == __file__


def test_all_that_is_wrong_with_a_handler_is_told_at_once() -> None:
    async def handler(command: Join) -> str: ...

    app = Diator()
    app.add_command(handler, timeout=5, thread=True)
    with pytest.raises(ConfigurationError) as caught:
        asyncio.run(app.__aenter__())
    assert [problem.code for problem in caught.value.problems] == ["invalid-handler", "return-type"]
    assert str(caught.value).startswith("2 problems:\n")


def test_a_class_that_can_not_be_built_is_found_unless_the_container_knows_it() -> None:
    class Abstract(ABC):
        @abstractmethod
        async def handle(self, command: Join) -> int: ...

    class Interface(Protocol):
        async def handle(self, command: Join) -> int: ...

    classes: tuple[Any, ...] = (Abstract, Interface)
    for cls in classes:
        app = Diator()
        app.add_command(cls)
        (problem,) = app.check()
        assert cls.__name__ in problem.text
        assert problem.location is not None
        assert problem.location.file == __file__
        app = Diator(container=Given({Key(cls): object()}))
        app.add_command(cls)
        assert app.check() == []


def test_events_that_are_a_method_are_refused_before_any_message() -> None:
    class Handler:
        def events(self) -> list[Event]:
            return []

        async def handle(self, command: Join) -> int: ...

    app = Diator()
    app.add_command(Handler)
    problem = only(app)
    assert "Handler.events is a method" in problem.text
    assert "@property" in problem.fix


def test_a_method_without_its_object_is_told_once() -> None:
    class Service:
        async def join(self, command: Join, dep: Dep) -> int: ...  # the method

        async def joined(self, event: Joined) -> None: ...

        async def around(self, message: Join, call_next: CallNext[int]) -> int: ...

    app = Diator(container=Given({}))
    app.add_command(Service.join)  # what @app.command inside the class does; type checkers see that one
    app.add_event_handler(Service.joined)
    app.add_middleware(Service.around)
    found = app.check()
    assert [problem.fix for problem in found] == [
        f"register the method of an object: app.{add}"
        for add in ("add_command(service.join)", "add_event_handler(service.joined)", "add_middleware(service.around)")
    ]
    assert all("takes 'self': it is registered inside its class" in problem.text for problem in found)
    assert found[0].location == at("the method")


# --- results


class Base: ...


class Derived(Base): ...


class Keys(TypedDict):
    id: int


class Page(pydantic.BaseModel):
    id: int


@pytest.mark.parametrize(
    ("promised", "returned"),
    [
        (int, str),
        (Base, Base | None),
        (Derived, Base),
        (None, int),
        (int, None),
        (list[int], list[str]),
        (list[int], tuple[int, ...]),
        (dict[str, int], dict[str, str]),
        (int | str, int | bytes),
        (Keys, list[int]),
        (Page, dict[str, int]),
        (bool, int),
    ],
)
def test_a_result_that_is_surely_wrong_is_refused_at_its_line(promised: Any, returned: Any) -> None:
    class Ask(Command[promised]): ...

    async def handler(command: Any) -> Any: ...  # wrong result

    handler.__annotations__["return"] = returned
    app = Diator()
    app.add_command(handler, Ask)
    problem = only(app)
    assert problem.code == "return-type"
    assert "handler returns " in problem.text
    assert "but Ask declares the result " in problem.text
    assert problem.location == at("wrong result")


@pytest.mark.parametrize(
    ("promised", "returned"),
    [
        (int, int),
        (int, bool),
        (float, int),
        (Base, Derived),
        (Base | None, Base),
        (Base | None, None),
        (object, str),
        (Any, str),
        (int, Any),
        (None, None),
        (list[Any], list[str]),
        (list[int], list),
        (tuple[int, ...], tuple[int, int]),
        (dict[str, Any], Keys),
        (Keys, dict[str, int]),
        ("Base | None", "Derived"),
        ("TYPE_CHECKING_ONLY", int),
    ],
)
def test_a_result_that_may_be_right_is_taken(promised: Any, returned: Any) -> None:
    class Ask(Command[promised]): ...

    async def handler(command: Any) -> Any: ...

    handler.__annotations__["return"] = returned
    app = Diator()
    app.add_command(handler, Ask)
    assert app.check() == []


def test_what_a_sync_handler_returns_to_be_awaited_is_looked_through() -> None:
    from collections.abc import Awaitable, Coroutine

    def right(command: Join) -> Coroutine[Any, Any, int]:
        return join(command)

    def wrong(command: Join) -> Awaitable[str]: ...

    app = Diator()
    app.add_command(right)
    assert app.check() == []
    app = Diator()
    app.add_command(wrong)
    assert "wrong returns str, but Join declares the result int" in only(app).text


def test_an_event_handler_that_returns_something_is_refused() -> None:
    async def handler(event: Joined) -> int: ...

    app = Diator()
    app.add_event_handler(handler)
    assert "handler returns int, but an event handler returns None" in only(app).text


def test_the_rows_of_a_stream_are_checked() -> None:
    async def right(query: Find) -> AsyncIterator[str]:
        yield ""

    async def wrong(query: Find) -> AsyncIterator[int]:
        yield 1

    app = Diator()
    app.add_query(right)
    assert app.check() == []
    app = Diator()
    app.add_query(wrong)
    assert "wrong returns int, but Find declares the result str" in only(app).text


results = Diator()


class PromisesLater(Command["ResultDefinedLater"]): ...


@results.command
async def promised_later(command: PromisesLater) -> str: ...


@results.command
async def returned_later(command: Join) -> "ResultDefinedLater": ...


class ResultDefinedLater: ...


def test_results_that_are_defined_later_are_checked_each_time() -> None:
    for _ in range(2):
        assert [(problem.code, problem.text.split(",")[0]) for problem in results.check()] == [
            ("return-type", "promised_later returns str"),
            ("return-type", "returned_later returns ResultDefinedLater"),
        ]


# --- dependencies, events and middlewares: what the check finds


def problems(app: Diator) -> list[tuple[str, str, str, SourceLocation | None]]:
    return [(problem.code, problem.text, problem.fix, problem.location) for problem in app.check()]


def test_a_dependency_without_a_container_names_what_to_install() -> None:
    app = Diator()

    @app.command  # asks
    async def asks(command: Join, dep: Dep, other: str = "") -> int: ...

    ((code, text, fix, location),) = problems(app)
    assert (code, location) == ("missing-dependency", at("asks"))
    assert "asks needs dep: Dep, but the app has no container" in text
    assert 'uv add "diator[punq]"' in fix


def test_a_dependency_that_the_container_lacks_names_the_parameter() -> None:
    app = Diator(container=Given({Key(str): ""}))

    @app.on_event  # asks too
    async def asks(event: Joined, dep: Dep, name: str) -> None: ...

    ((code, text, fix, location),) = problems(app)
    assert (code, location) == ("missing-dependency", at("asks too"))
    assert "asks needs dep: Dep, but the container has no provider for it" in text
    assert "register Dep with the container" in fix


def test_several_mistakes_are_told_together_each_with_its_line() -> None:
    app, router = Diator(), Router()

    @app.command  # mistake 1
    async def one(command: Join) -> str: ...

    @app.command  # mistake 2
    async def two(command: Join) -> int: ...

    async def three(query: Leave, dep: Dep) -> int: ...  # mistake 3

    router.add_query(three)

    @router.on_event  # mistake 4
    async def four(event: Joined, dep: Dep) -> None: ...

    app.include(router)
    app.add_command("five")  # mistake 5
    found = [(problem.code, problem.location) for problem in app.check()]
    assert found == [
        ("return-type", at("mistake 1")),
        ("duplicate-handler", decorated_at("mistake 2")),
        ("message-kind", at("mistake 3")),
        ("invalid-handler", at("mistake 5")),
        ("missing-dependency", at("mistake 3")),
        ("missing-dependency", at("mistake 4")),
    ]
    with pytest.raises(ConfigurationError) as caught:
        asyncio.run(app.__aenter__())
    assert [(problem.code, problem.location) for problem in caught.value.problems] == found


async def test_the_start_raises_all_errors_at_once() -> None:
    app = Diator()

    @app.command
    async def asks(command: Join, dep: Dep) -> int: ...

    @app.query
    async def publishes(query: Find, publish: Publish[Joined]) -> str: ...

    with pytest.raises(ConfigurationError) as caught:
        async with app:
            pass
    assert [problem.code for problem in caught.value.problems] == ["missing-dependency", "query-publishes"]
    assert "[missing-dependency]" in str(caught.value)
    assert "[query-publishes]" in str(caught.value)


def test_publish_has_to_say_which_events() -> None:
    app = Diator()
    hints: list[Any] = [Publish, Publish[Any], Publish[Join], Publish[Joined | int]]

    async def handler(command: Join, publish: Any) -> int: ...

    for hint in hints:
        app = Diator()
        handler.__annotations__["publish"] = hint
        app.add_command(handler)
        ((code, text, fix, location),) = [found for found in problems(app) if found[0] != "unhandled-event"]
        assert code == "publish-hint"
        assert "handler needs publish: " in text
        assert "Publish[UserJoined | UserWarned]" in fix
        assert location is not None


async def test_what_diator_gives_itself_is_given_whatever_stands_around_its_hint() -> None:
    from typing import Annotated, Optional

    app = Diator()
    given: list[object] = []

    @app.command
    async def handler(
        command: Join,
        publish: Annotated[Publish[Joined], "text"],
        or_none: Publish[Joined] | None = None,
        context: Optional[Context] = None,  # noqa: UP045 - the old form is what is tested
        diator: Diator | None = None,
    ) -> int:
        publish(Joined())
        given.extend([or_none, context, diator])
        return 1

    app.add_event_handler(hear)
    async with app:
        await app.send(Join())
    assert None not in given
    assert given[2] is app


def test_an_event_that_nobody_handles_is_a_warning() -> None:
    app = Diator()

    @app.command  # publishes in vain
    async def handler(command: Join, publish: Publish[Joined | Left]) -> int: ...

    app.add_event_handler(hear)
    app.publishes(Left)  # declares in vain
    found = app.check()
    assert [(p.code, p.severity, p.location) for p in found] == [
        ("unhandled-event", "warning", at("publishes in vain")),
        ("unhandled-event", "warning", at("declares in vain")),
    ]
    assert "Left, published by handler, has no handler" in found[0].text


@pytest.mark.parametrize("event", [Told, State])
def test_a_brokered_event_needs_a_broker_wherever_it_is_named(event: type[Event]) -> None:
    app = Diator()
    app.publishes(event)

    async def handler(event: Any) -> None: ...

    async def command(command: Join, publish: Any) -> int: ...

    command.__annotations__["publish"] = Publish[event]  # type: ignore[valid-type]  # odd on purpose
    app.add_event_handler(handler, event)
    app.add_command(command)
    found = problems(app)
    assert len(found) == 3
    assert len({code for code, _, _, _ in found}) == 1
    for (_, text, _, location), words in zip(
        found, ("handled by handler", "published by command", "declared with"), strict=True
    ):
        assert event.__name__ in text
        assert words in text
        assert location is not None
        assert location.file == __file__


def test_middlewares_that_can_not_work_are_refused() -> None:
    class Logging:
        async def __call__(self, message: Message, call_next: CallNext) -> Any: ...

    async def too_short(message: Message) -> Any: ...

    def plain(message: Message, call_next: CallNext) -> Any: ...

    async def of_no_message(message: Dep, call_next: CallNext) -> Any: ...

    async def publishing(message: Message, call_next: CallNext, publish: Publish[Joined]) -> Any: ...

    async def asking(message: Message, call_next: CallNext, dep: Dep) -> Any: ...

    for middleware, code, text, fix in (
        (Logging, "middleware", "got the class Logging", "add_middleware(Logging(...))"),
        ("text", "middleware", "does not take a message and call_next", "async def"),
        (too_short, "middleware", "too_short does not take a message and call_next", "async def"),
        (plain, "middleware", "plain is sync", "`async def`"),
        (
            of_no_message,
            "middleware",
            "takes message: Dep as its first parameter, which is not a message",
            "annotate it with Message",
        ),
        (publishing, "middleware", "publishing needs Publish", "publish from a handler"),
        (asking, "missing-dependency", "asking needs dep: Dep, but the app has no container", "uv add"),
    ):
        app = Diator()
        app.add_middleware(middleware)
        found = [problem for problem in app.check() if problem.severity == "error"]
        assert [problem.code for problem in found] == [code]
        assert text in found[0].text
        assert fix in found[0].fix
        assert found[0].location is not None
        assert found[0].location.file == __file__


# --- sending what has no handler


async def test_a_request_without_a_handler_suggests_close_names() -> None:
    class Joim(Command[int]): ...

    class JoinLate(Join): ...

    app = Diator()
    app.add_command(join)
    async with app:
        with pytest.raises(LookupError, match=r"no handler for Joim .* did you mean Join\?.*@app.command"):
            await app.send(Joim())
        with pytest.raises(LookupError, match="JoinLate has no handler; its base Join has one"):
            await app.send(JoinLate())


def test_a_container_without_a_plugin_names_what_is_known() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Diator(container=object())
    problem = refused(caught)
    assert problem.code == "container-plugin"
    assert "dishka" in problem.fix
    assert "diator.containers.Container" in problem.fix
    with pytest.raises(ConfigurationError, match="is a class; expected an object"):
        Diator(container=Given)
