"""What handlers raise reaches the caller as it was raised, whatever class it is, with a chain of causes that ends."""

import asyncio
import itertools
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from dishka import Provider, Scope, make_async_container

from diator import CallNext, Command, Diator, DomainEvent, LoggingMiddleware, Publish, Query, TimeoutMiddleware
from diator._groups import members
from diator.testing import record
from tests.journal import Journal, Session


@dataclass(frozen=True)
class Join(Command[None]): ...


@dataclass(frozen=True)
class JoinBlocking(Command[None]): ...


@dataclass(frozen=True)
class Find(Query[int]):
    rows: int = 0


@dataclass(frozen=True)
class Joined(DomainEvent): ...


@dataclass(frozen=True)
class Frozen(Exception):
    """What dataclasses make of an error: it can be given no traceback, no cause and no context by Python code."""

    user: int = 1


class Locked(Exception):
    def __setattr__(self, name: str, value: object) -> None:
        raise TypeError(f"{name} can't be set")

    __delattr__ = __setattr__  # type: ignore[assignment]  # odd on purpose


class Slotted(Exception):
    __slots__ = ()


class Incomparable(Exception):
    def __eq__(self, other: object) -> bool:
        raise TypeError("not to be compared")

    __hash__: Any = None


class Untraceable(Exception):
    def with_traceback(self, traceback: Any) -> Any:
        raise TypeError("no traceback")


class Falsy(Exception):
    def __bool__(self) -> bool:
        return False


class Undecided(Exception):
    def __bool__(self) -> bool:
        raise TypeError("neither true nor false")


class Argument:
    def __eq__(self, other: object) -> bool:
        raise TypeError("not to be compared")

    __hash__: Any = None


class Wordless(Exception):
    def __str__(self) -> str:
        raise TypeError("no words")

    __repr__ = __str__


class Closed(Exception):
    """Keeps what led to it to itself."""

    @property
    def __cause__(self) -> Any:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]  # odd on purpose
        raise TypeError("no cause")

    __context__ = __cause__  # pyright: ignore[reportAssignmentType]  # odd on purpose


def because_of(cause: Exception) -> Exception:
    error = ValueError("because of another one")
    error.__cause__ = cause
    return error


class NotAnException(BaseException): ...


def circle() -> Exception:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first


MAKE: dict[str, Callable[[], BaseException]] = {
    "frozen": Frozen,
    "locked": Locked,
    "slots": Slotted,
    "incomparable": Incomparable,
    "incomparable argument": lambda: ValueError(Argument()),
    "untraceable": Untraceable,
    "falsy": Falsy,
    "undecided": Undecided,
    "wordless": Wordless,
    "closed": Closed,
    "a falsy cause": lambda: because_of(Falsy()),
    "an undecided cause": lambda: because_of(Undecided()),
    "a circle": circle,
    "no Exception": NotAnException,
    "GeneratorExit": GeneratorExit,
    "a cancel": asyncio.CancelledError,
}


class App:
    """An app whose handlers raise one error, wherever one is told to."""

    def __init__(self, error: BaseException, where: str, container: Journal) -> None:
        self.app = Diator(container=container)
        self.error, self.where = error, where
        app = self.app

        @app.middleware
        async def outer(message: Command[Any], call_next: CallNext) -> Any:
            self.fail("outer middleware")
            try:
                return await call_next(message)
            finally:
                await asyncio.sleep(0)

        @app.middleware(inside=True)
        async def inner(message: Command[Any], call_next: CallNext, session: Session) -> Any:
            self.fail("inner middleware")
            return await call_next(message)

        @app.middleware(inside=True)
        async def of_events(event: DomainEvent, call_next: CallNext, session: Session) -> None:
            await call_next(event)
            self.fail("middleware of events")

        @app.command
        async def join(command: Join, session: Session, publish: Publish[Joined]) -> None:
            publish(Joined())
            self.fail("handler")

        @app.command(timeout=30, thread=True)
        def join_blocking(command: JoinBlocking, session: Session) -> None:
            self.fail("handler in a thread")

        @app.on_event
        async def joined(event: Joined, session: Session) -> None:
            self.fail("event handler")

        @app.query
        async def find(query: Find, session: Session) -> AsyncIterator[int]:
            self.fail("rows")
            yield 1
            self.fail("later rows")

    def fail(self, where: str) -> None:
        if where == self.where:
            raise self.error

    async def run(self) -> None:
        if self.where in ("rows", "later rows", "block of a stream"):
            async with self.app.stream(Find()) as rows:
                async for _ in rows:
                    self.fail("block of a stream")
        elif self.where == "block of the app":
            raise self.error
        elif self.where == "published":
            self.where = "event handler"
            await self.app.publish(Joined())
        else:
            await self.app.send(JoinBlocking() if self.where == "handler in a thread" else Join())


WHERE = [
    "outer middleware",
    "inner middleware",
    "middleware of events",
    "handler",
    "handler in a thread",
    "event handler",
    "published",
    "rows",
    "later rows",
    "block of a stream",
    "block of the app",
]


def chain_of(error: BaseException) -> list[BaseException]:
    """An error with all that led to it; fails where one leads back to another."""
    found: list[BaseException] = []

    def follow(one: BaseException | None, path: tuple[int, ...]) -> None:
        if one is None:
            return
        assert id(one) not in path, f"{one!r} leads back to itself"
        found.append(one)
        for other in (vars(BaseException)[name].__get__(one) for name in ("__cause__", "__context__")):
            follow(other, (*path, id(one)))
        for member in members(one):
            follow(member, (*path, id(one)))

    follow(error, ())
    return found


async def plainly(app: Diator, run: Callable[[], Awaitable[None]]) -> None:
    async with app:
        await run()


async def recorded(app: Diator, run: Callable[[], Awaitable[None]]) -> None:
    with record(app):
        async with app:
            await run()


async def in_a_session(app: Diator, run: Callable[[], Awaitable[None]]) -> None:
    async with app.testing():
        await run()


@pytest.mark.parametrize("how", [plainly, recorded, in_a_session])
@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE.keys())
async def test_an_error_reaches_the_caller_unchanged(
    make: Callable[[], BaseException], how: Callable[..., Awaitable[None]]
) -> None:
    for where, closing_fails in itertools.product(WHERE, (False, True)):
        error = make()
        if isinstance(error, GeneratorExit) and where in PYTHONS_OWN:
            continue
        if isinstance(error, asyncio.CancelledError) and where == "handler in a thread" and sys.version_info < (3, 11):
            continue  # the timeout needs a task there, which makes another cancel of one
        bench = App(error, where, Journal(closing_fails=OSError("closing failed") if closing_fails else None))
        with pytest.raises(BaseException) as caught:
            await how(bench.app, bench.run)
        assert caught.value is error, where
        if make is not circle:
            closing = [one for one in chain_of(error) if isinstance(one, OSError)]
            assert len(closing) == (1 if closing_fails and where not in WITHOUT_A_SCOPE else 0), where


WITHOUT_A_SCOPE = ("outer middleware", "block of the app")
PYTHONS_OWN = ("rows", "later rows", "handler in a thread")
"""Where Python makes another error of `GeneratorExit`, or takes it for the end of a coroutine."""


class Unclassed(Exception):
    """Its own class, and where it was raised, are nowhere to be seen."""

    @property  # type: ignore[misc]  # odd on purpose
    def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]  # odd on purpose
        raise TypeError("no class")

    @property
    def __traceback__(self) -> Any:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]  # odd on purpose
        raise TypeError("no traceback")

    @property
    def __suppress_context__(self) -> Any:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]  # odd on purpose
        raise TypeError("no context")


Close = Callable[[BaseException | None], Awaitable[None]]


def with_resource(close: Close, error: BaseException) -> Diator:
    """An app whose command and whose rows fail, with a resource that closes so."""

    class Resource: ...

    async def resource() -> AsyncGenerator[Resource, BaseException | None]:
        await close((yield Resource()))  # dishka does not throw the error, it sends it

    provider = Provider(scope=Scope.REQUEST)
    provider.provide(resource, provides=Resource)
    app = Diator(container=make_async_container(provider))
    app.add_middleware(LoggingMiddleware())
    app.add_middleware(TimeoutMiddleware(30))

    async def join(command: Join, resource: Resource) -> None:
        raise error

    async def find(query: Find, resource: Resource) -> AsyncIterator[int]:
        yield 1
        raise error

    for handler in (join, find):
        handler.__annotations__["resource"] = Resource
    app.add_command(join)
    app.add_query(find)
    return app


async def raised_by(app: Diator, verb: str) -> BaseException:
    with pytest.raises(BaseException) as caught:
        async with app:
            if verb == "send":
                await app.send(Join())
            async with app.stream(Find()) as rows:
                async for _ in rows:
                    pass
    return caught.value


@pytest.mark.parametrize("verb", ["send", "stream"])
async def test_resources_see_an_error_that_hides_its_class_and_traceback(verb: str) -> None:
    error, seen = Unclassed(), list[BaseException | None]()

    async def close(told: BaseException | None) -> None:
        seen.append(told)

    assert await raised_by(with_resource(close, error), verb) is error
    assert seen[0] is error


async def task_group(error: BaseException | None) -> None:
    async with anyio.create_task_group():
        if error is not None:
            raise error


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python has no groups of errors yet")
@pytest.mark.parametrize("verb", ["send", "stream"])
async def test_a_task_group_around_the_error_leads_not_back_to_it(verb: str) -> None:
    error = ValueError("of the handler")
    assert await raised_by(with_resource(task_group, error), verb) is error
    assert [one for one in chain_of(error) if type(one) is OSError] == []
