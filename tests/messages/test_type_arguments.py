"""Type arguments of generic messages: honored, or refused at the start where an object can't tell them."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic

import attrs
import msgspec
import pydantic
import pytest
from typing_extensions import TypeVar

from diator import (
    CallNext,
    Command,
    ConfigurationError,
    Diator,
    DomainEvent,
    ECSTEvent,
    Message,
    Publish,
    Query,
    contract,
)
from diator.errors import Problem

T = TypeVar("T")
Other = TypeVar("Other")
Bound = TypeVar("Bound", bound=dt.date)
Default = TypeVar("Default", default=dt.date)
DAY = dt.date(2026, 1, 2)


@dataclass(frozen=True)
class Changed(DomainEvent, Generic[T]):
    to: T


@dataclass(frozen=True)
class NumberChanged(Changed[int]):
    pass


@dataclass(frozen=True)
class TextChanged(Changed[str]):
    pass


class ChangedModel(pydantic.BaseModel, DomainEvent, Generic[T]):
    to: T


@dataclass(frozen=True)
class Page(Generic[T]):
    rows: tuple[T, ...]


@dataclass(frozen=True)
class Moved(ECSTEvent, Generic[T]):
    to: T


@dataclass(frozen=True)
class MovedTwo(Moved[T], Generic[Other, T]):
    other: Other


@dataclass(frozen=True)
class DayMoved(Moved[dt.date]):
    pass


@dataclass(frozen=True)
class NumberMoved(Moved[int]):
    pass


@attrs.frozen
class MovedAttrs(ECSTEvent, Generic[T]):
    to: T


class MovedStruct(ECSTEvent, msgspec.Struct, Generic[T], frozen=True):
    to: T


class MovedModel(pydantic.BaseModel, ECSTEvent, Generic[T]):
    to: T


@dataclass(frozen=True)
class MovedBound(ECSTEvent, Generic[Bound]):
    to: Bound


@dataclass(frozen=True)
class MovedDefault(ECSTEvent, Generic[Default]):
    to: Default


def errors(app: Diator) -> list[Problem]:
    return [problem for problem in app.check() if problem.severity == "error"]


# Domain events


@pytest.mark.parametrize("hint", [Changed[int], Changed[Sequence[int]], Changed[int] | TextChanged])
def test_a_handler_of_domain_events_with_type_arguments_is_refused(hint: Any) -> None:
    app = Diator()

    async def count(event: Any) -> None: ...

    app.add_event_handler(count, hint)
    (problem,) = errors(app)
    assert problem.code == "type-arguments"
    assert "objects do not know their type arguments" in problem.text
    assert "use Changed, or define a class with them: class " in problem.fix
    assert problem.location is not None


async def test_what_leaves_its_arguments_open_or_says_them_is_handled() -> None:
    app, seen = Diator(), list[Any]()

    @app.on_event
    async def every(event: Changed[Any]) -> None:
        seen.append(("every", event))

    @app.on_event
    async def numbers(event: NumberChanged | ChangedModel[int]) -> None:
        seen.append(("numbers", event))

    async with app:
        for event in (
            Changed("a"),
            NumberChanged(1),
            TextChanged("b"),
            ChangedModel[int](to=1),
            ChangedModel[str](to=""),
        ):
            if not isinstance(event, ChangedModel) or event.to:
                await app.publish(event)
    assert seen == [
        ("every", Changed("a")),
        ("every", NumberChanged(1)),
        ("numbers", NumberChanged(1)),
        ("every", TextChanged("b")),
        ("numbers", ChangedModel[int](to=1)),
    ]


# Middlewares


@dataclass(frozen=True)
class Number(Command[int]):
    pass


@dataclass(frozen=True)
class Yes(Command[bool]):
    pass


@dataclass(frozen=True)
class Text(Command[str]):
    pass


@dataclass(frozen=True)
class Maybe(Query[int | None]):
    pass


@dataclass(frozen=True)
class Numbers(Query[list[int]]):
    pass


@dataclass(frozen=True)
class Base(Command[T], Generic[Other, T]):
    pass


@dataclass(frozen=True)
class Far(Base[str, int]):
    pass


@dataclass(frozen=True)
class GetById(Query[T], Generic[T]):
    id: int = 0


@pytest.mark.parametrize(
    ("hint", "wrapped"),
    [
        (Command[int], {Number, Yes, Far}),
        (Command[str], {Text}),
        (Command[Any], {Number, Yes, Far, Text}),
        (Command[object], {Number, Yes, Far, Text}),
        (Query[int], {GetById}),
        (Query[int | None], {Maybe, GetById}),
        (Query[list[int]], {Numbers}),
        (Query[list[str]], set[Any]()),
        (Base[str, int], {Far}),
        (Base[int, int], set[Any]()),
        (GetById[int], {GetById}),
        (GetById[str], set[Any]()),
        (Command[int] | Query[list[int]], {Number, Yes, Far, Numbers}),
        (Message, {Number, Yes, Far, Text, Maybe, Numbers, GetById}),
    ],
    ids=lambda value: None if isinstance(value, set) else str(value),  # a set has another order in each process
)
async def test_a_middleware_wraps_the_messages_that_its_type_arguments_say(hint: Any, wrapped: set[Any]) -> None:
    app, seen = Diator(), set[Any]()

    async def watch(message: Any, call_next: CallNext) -> Any:
        seen.add(type(message))
        return await call_next(message)

    watch.__annotations__["message"] = hint
    app.add_middleware(watch)

    async def handle(message: Any) -> Any: ...

    for command in (Number, Yes, Text, Far):
        app.add_command(handle, command)
    for query in (Maybe, Numbers, GetById[int]):
        app.add_query(handle, query)
    requests: tuple[Any, ...] = (Number(), Yes(), Text(), Far(), Maybe(), Numbers(), GetById[int]())
    async with app:
        for request in requests:
            await app.send(request)
    assert seen == wrapped


def test_a_middleware_of_domain_events_with_type_arguments_is_refused() -> None:
    app = Diator()

    @app.middleware
    async def watch(event: Changed[int], call_next: CallNext) -> Any: ...

    (problem,) = errors(app)
    assert problem.code == "type-arguments"


# Brokered events


async def trip(event: Any, *hints: Any, published: Any = None) -> list[Any]:
    app, got = Diator("meetings", broker="memory://"), list[Any]()
    if published is not None:
        app.publishes(published)

    def handle(hint: Any, name: str) -> None:
        async def take(event: Any) -> None:
            got.append(event)

        app.add_event_handler(take, hint, subscription=name)

    for at, hint in enumerate(hints):
        handle(hint, f"meetings.{at}")
    async with app.testing() as session:
        await session.publish(event)
        await session.settled()
    return got


@pytest.mark.parametrize(
    ("event", "hint"),
    [
        (Moved(DAY), Moved[dt.date]),
        (Moved(Page((DAY,))), Moved[Page[dt.date]]),
        (Moved({1: [DAY]}), Moved[dict[int, list[dt.date]]]),
        (MovedTwo(DAY, 1), MovedTwo[int, dt.date]),
        (DayMoved(DAY), DayMoved),
        (DayMoved(DAY), Moved),
        (DayMoved(DAY), Moved[dt.date]),
        (MovedAttrs(DAY), MovedAttrs[dt.date]),
        (MovedStruct(DAY), MovedStruct[dt.date]),
        (MovedModel[dt.date](to=DAY), MovedModel[dt.date]),
        (MovedModel[dt.date](to=DAY), MovedModel),
        (MovedBound(DAY), MovedBound),
        (MovedDefault(DAY), MovedDefault),
        (MovedDefault("a"), MovedDefault[str]),
        (Moved("a"), Moved),
    ],
    ids=str,
)
async def test_type_arguments_say_how_a_brokered_event_is_read(event: Any, hint: Any) -> None:
    assert await trip(event, hint) == [event]


@pytest.mark.parametrize("how", ["publishes", "Publish"])
async def test_whoever_publishes_may_say_the_type_arguments(how: str) -> None:
    app, got = Diator("meetings", broker="memory://"), list[Any]()

    @app.on_event
    async def take(event: Moved) -> None:  # type: ignore[type-arg]  # odd on purpose
        got.append(event)  # pyright: ignore[reportUnknownArgumentType]  # as above

    if how == "publishes":
        app.publishes(Moved[dt.date])

    @app.command
    async def go(command: Number, publish: Publish[Moved[dt.date] | DayMoved]) -> int:
        publish(Moved(DAY))
        return 1

    async with app.testing() as session:
        await session.send(Number())
        await session.settled()
    assert got == [Moved(DAY)]


async def test_an_event_that_leaves_its_arguments_open_fails_where_it_would_change() -> None:
    with pytest.raises(ValueError, match=r"Moved.to is datetime.date\(2026, 1, 2\), and arrives as '2026-01-02'"):
        await trip(Moved(DAY), Moved)


async def test_a_handler_with_type_arguments_gets_no_subclass_with_others() -> None:
    assert await trip(NumberMoved(1), Moved[dt.date], NumberMoved) == [NumberMoved(1)]
    assert await trip(DayMoved(DAY), Moved[dt.date], NumberMoved) == [DayMoved(DAY)]


@pytest.mark.parametrize("published", [None, Moved[str]])
def test_one_event_with_two_type_arguments_is_refused(published: Any) -> None:
    app = Diator("meetings", broker="memory://")

    async def take(event: Any) -> None: ...

    app.add_event_handler(take, Moved[int], subscription="a")
    if published is None:
        app.add_event_handler(take_other, Moved[str], subscription="b")
    else:
        app.publishes(published)
    (problem,) = errors(app)
    assert problem.code == "type-arguments"
    assert problem.text.startswith("Moved[str] and Moved[int], at ")
    assert problem.fix == "use Moved, or define a class with them: class StrMoved(Moved[str])"


async def take_other(event: Any) -> None: ...


def test_type_arguments_that_can_not_be_carried_are_refused() -> None:
    app = Diator("meetings", broker="memory://")
    app.publishes(Moved[Page[complex]])
    (problem,) = errors(app)
    assert problem.code == "not-serializable"
    assert "Moved[Page[complex]].to" in problem.text


async def test_a_late_subclass_with_other_type_arguments_is_not_missed() -> None:
    app = Diator("meetings", broker="memory://")

    async def take(event: Any) -> None: ...

    app.add_event_handler(take, Moved[dt.date])
    async with app:

        @contract("late-number")
        @dataclass(frozen=True)
        class LateNumber(Moved[int]):
            pass

        @contract("late-day")
        @dataclass(frozen=True)
        class LateDay(Moved[dt.date]):
            pass

        await app.publish(LateNumber(1))
        with pytest.raises(ConfigurationError, match=r"take, which handles Moved\[date\], would miss it"):
            await app.publish(LateDay(DAY))


@pytest.mark.parametrize("generic", [GetById])
def test_one_generic_request_has_one_handler_whatever_its_arguments(generic: Any) -> None:
    app = Diator()

    async def first(query: Any) -> Any: ...

    async def second(query: Any) -> Any: ...

    app.add_query(first, generic[int])
    app.add_query(second, generic[str])
    (problem,) = errors(app)
    assert "has a second handler" in problem.text
