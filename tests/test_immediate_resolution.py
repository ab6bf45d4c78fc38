"""A container that resolves without awaiting gives the same unit of work as one that has to be awaited."""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest

from diator import CallNext, Command, Diator, DomainEvent, Message, NotRunningError, Publish
from diator.containers import NOTHING_TO_CLOSE, ContainerCapability, Key, Lifetime, ValidationResult
from tests.journal import Journal, Session


@dataclass(frozen=True)
class Book(Command[str]):
    seats: int = 1


@dataclass(frozen=True)
class Booked(DomainEvent):
    seats: int = 1


class Broken(Exception):
    """What handlers of these tests fail with."""


class Impatient(Journal):
    """The same container, whose keys need no awaiting."""

    capabilities = Journal.capabilities | ContainerCapability.PROVIDED_VALUES

    def immediate(self, key: Key, /) -> Callable[[Any], Any]:
        def resolve(scope: Any) -> Session:
            session: Session = scope.session
            return session

        return resolve


Run = Callable[[Journal, Diator], Coroutine[Any, Any, None]]


async def handles(journal: Journal, app: Diator) -> None:
    """A function, a sync function, one with two dependencies, and a class."""

    @dataclass(frozen=True)
    class Other(Command[str]): ...

    @dataclass(frozen=True)
    class Third(Command[str]): ...

    @dataclass(frozen=True)
    class Fourth(Command[str]): ...

    @app.command
    async def book(command: Book, session: Session) -> str:
        return f"{command.seats} in {session.number}"

    @app.command
    def other(command: Other, *, session: Session) -> str:
        return f"sync in {session.number}"

    @app.command
    async def third(command: Third, session: Session, again: Session) -> str:
        return f"one: {session is again} in {session.number}"

    @app.command
    class FourthHandler:
        def __init__(self, session: Session) -> None:
            self.session = session

        async def handle(self, command: Fourth) -> str:
            return f"class in {self.session.number}"

    async with app:
        for command in (Book(), Other(), Third(), Fourth(), Book(2)):
            journal.write(await app.send(command))


async def fails(journal: Journal, app: Diator) -> None:
    """The scope sees the error."""

    @app.command
    async def book(command: Book, session: Session) -> str:
        raise Broken

    async with app:
        with pytest.raises(Broken):
            await app.send(Book())
        with pytest.raises(Broken):
            await app.send(Book())


async def retries(journal: Journal, app: Diator) -> None:
    """Each call of an outer middleware is a unit of work of its own."""
    attempts = count(1)

    @app.middleware
    async def again(message: Message, call_next: CallNext) -> Any:
        try:
            return await call_next(message)
        except Broken:
            return await call_next(message)

    @app.command
    async def book(command: Book, session: Session) -> str:
        if next(attempts) == 1:
            raise Broken
        return f"in {session.number}"

    async with app:
        journal.write(await app.send(Book()))


async def publishes(journal: Journal, app: Diator) -> None:
    """Events and an inner middleware share the scope."""

    @app.middleware(inside=True)
    async def inner(message: Command[Any], call_next: CallNext, session: Session) -> Any:
        journal.write(f"middleware in {session.number}")
        return await call_next(message)

    @app.command
    async def book(command: Book, session: Session, publish: Publish[Booked]) -> str:
        publish(Booked())
        return f"in {session.number}"

    @app.on_event
    async def audit(event: Booked, session: Session) -> None:
        journal.write(f"event in {session.number}")

    async with app:
        journal.write(await app.send(Book()))
        await app.publish(Booked())


async def is_cancelled(journal: Journal, app: Diator) -> None:
    """A cancel in the handler undoes; one while the scope closes is raised when it has closed."""
    started = asyncio.Event()

    @app.command
    async def book(command: Book, session: Session) -> str:
        started.set()
        if command.seats == 1:
            await asyncio.sleep(60)
        return "done"

    async with app:
        task = asyncio.create_task(app.send(Book()))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        journal.closing.clear()
        journal.closing_waits = True
        task = asyncio.create_task(app.send(Book(2)))
        await journal.closing.wait()
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        journal.may_close.set()
        with pytest.raises(asyncio.CancelledError):
            await task


async def is_waited_for(journal: Journal, app: Diator) -> None:
    """The app does not close its container before its units of work have ended."""
    started = asyncio.Event()

    @app.command
    async def book(command: Book, session: Session) -> str:
        started.set()
        await asyncio.sleep(0.01)
        journal.write("handled")
        return "done"

    async with app:
        task = asyncio.create_task(app.send(Book()))
        await started.wait()
    assert await task == "done"


async def begins_too_late(journal: Journal, app: Diator) -> None:
    """After the end, and in another event loop."""

    @app.command
    async def book(command: Book, session: Session) -> str:
        return "done"

    async with app:
        late = app.send(Book())
        with pytest.raises(NotRunningError, match="in another event loop"):
            await asyncio.to_thread(asyncio.run, _sent(app))
    with pytest.raises(NotRunningError, match="after the app had ended"):
        await late


async def _sent(app: Diator) -> None:
    await app.send(Book())


async def is_replaced(journal: Journal, app: Diator) -> None:
    """A test of the app replaces what handlers ask for."""

    @app.command
    async def book(command: Book, session: Session) -> str:
        return f"in {session.number}"

    async with app.testing(replace={Session: Session(42)}) as test:
        journal.write(await test.send(Book()))
    async with app:
        journal.write(await app.send(Book()))


RUNS: list[Run] = [
    handles,
    fails,
    retries,
    publishes,
    is_cancelled,
    is_waited_for,
    begins_too_late,
    is_replaced,
]


@pytest.mark.parametrize("scoped", [True, False], ids=["scoped", "one scope"])
@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.__name__)
async def test_immediate_resolution_changes_nothing(run: Run, scoped: bool) -> None:
    journals: list[list[str]] = []
    for cls in (Journal, Impatient):
        journal = cls()
        journal.capabilities |= ContainerCapability.PROVIDED_VALUES
        if not scoped:
            journal.capabilities &= ~ContainerCapability.SCOPED
        if scoped or run is not is_cancelled:  # without scopes, only the end of the app closes one
            await run(journal, Diator(container=journal))
        journals.append(journal.lines)
    assert journals[1] == journals[0]


@pytest.mark.parametrize("closing_fails", [True, False])
async def test_the_error_of_closing_reaches_the_caller(closing_fails: bool) -> None:
    error = Broken()
    app = Diator(container=Impatient(closing_fails=error if closing_fails else None))

    @app.command
    async def book(command: Book, session: Session) -> str:
        return "done"

    async with app:
        if closing_fails:
            with pytest.raises(Broken) as raised:
                await app.send(Book())
            assert raised.value is error
        else:
            assert await app.send(Book()) == "done"


class Value:
    """Brought by senders."""


@dataclass(frozen=True)
class Ask(Command[object]): ...


class Scope:
    """A scope that has nothing to close, and writes down whether it was asked to."""

    def __init__(self, container: "Small", provided: Mapping[Key, object]) -> None:
        self.container = container
        self.provided = provided

    async def __aenter__(self) -> "Scope":
        return self

    def __aexit__(self, *_: object) -> Coroutine[Any, Any, None]:
        self.container.left += 1
        return NOTHING_TO_CLOSE

    async def resolve(self, key: Key, /) -> Any:
        self.container.awaited += 1
        return self.provided.get(key) or key.hint()


class Small:
    """A container whose scopes have nothing to close."""

    def __init__(self, capabilities: ContainerCapability) -> None:
        self.capabilities = capabilities
        self.left = self.awaited = 0

    def qualifier(self, metadata: tuple[object, ...], /) -> None:
        return None

    def can_resolve(self, key: Key, /) -> bool:
        return True

    def lifetime(self, key: Key, /) -> Lifetime:
        return Lifetime.TRANSIENT

    def validate(self, keys: Collection[Key], provided: Collection[Key], /) -> ValidationResult:
        return ValidationResult()

    def scope(self, provided: Mapping[Key, object], /) -> Scope:
        return Scope(self, provided)

    def immediate(self, key: Key, /) -> Callable[[Scope], Any]:
        return lambda scope: scope.provided.get(key) or key.hint()

    async def aclose(self) -> None: ...


@pytest.mark.parametrize("provided", [True, False], ids=["reaches factories", "stays with handlers"])
@pytest.mark.parametrize("scoped", [True, False], ids=["scoped", "one scope"])
async def test_a_value_of_the_sender_is_what_a_handler_gets(provided: bool, scoped: bool) -> None:
    """Only a container that takes provided values into its scopes is asked to resolve without awaiting."""
    asked = (ContainerCapability.SCOPED if scoped else ContainerCapability(0)) | (
        ContainerCapability.PROVIDED_VALUES if provided else ContainerCapability(0)
    )
    app = Diator(container=(container := Small(asked)))
    app.provides(Value)

    @app.command
    async def ask(command: Ask, value: Value) -> object:
        return value

    async with app:
        value = Value()
        assert await app.using(provide={Value: value}).send(Ask()) is value
        assert type(await app.send(Ask())) is Value
    assert container.awaited == (0 if provided else 1)
    assert container.left == (2 if scoped else 1 + provided)


async def test_a_scope_with_nothing_to_close_is_an_async_context_manager() -> None:
    async with Scope(Small(ContainerCapability.SCOPED), {}) as scope:
        assert type(await scope.resolve(Key(Value))) is Value
    with pytest.raises(Broken):
        async with Scope(Small(ContainerCapability.SCOPED), {}):
            raise Broken
