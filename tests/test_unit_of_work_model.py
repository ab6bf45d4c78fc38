"""Random programs of handlers, events, middlewares, failures and cancels, against a model of the rules.

The model is the other half of this module: a few dozen lines of ordinary, synchronous code that say what
``docs/explanation/unit-of-work.md`` says. Both write a journal, and both journals and outcomes must be the same.
"""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from diator import CallNext, Command, Diator, DomainEvent, Event, Publish
from diator.containers import Key
from tests.journal import Journal, Session

PROOFS = int(os.environ.get("DIATOR_PROOFS", "1"))
"""How much of a long proof is done: a short version in every run of the tests, more where there is more time."""

COMMANDS = 3
EVENTS = 4


@dataclass(frozen=True)
class C0(Command[str]):
    number = 0


@dataclass(frozen=True)
class C1(Command[str]):
    number = 1


@dataclass(frozen=True)
class C2(Command[str]):
    number = 2


@dataclass(frozen=True)
class E0(DomainEvent):
    number = 0


@dataclass(frozen=True)
class E1(DomainEvent):
    number = 1


@dataclass(frozen=True)
class E2(DomainEvent):
    number = 2


@dataclass(frozen=True)
class E3(DomainEvent):
    number = 3


COMMAND_TYPES = (C0, C1, C2)
EVENT_TYPES = (E0, E1, E2, E3)


class Broken(Exception):
    pass


class ClosingBroken(Exception):
    pass


@dataclass(frozen=True)
class Step:
    does: Literal["await", "publish", "fail", "send", "try to send"]
    target: int = 0


@dataclass(frozen=True)
class Script:
    """What one handler does, and whether it asks for a session."""

    steps: tuple[Step, ...]
    session: bool

    @property
    def publishes(self) -> tuple[int, ...]:
        return tuple(step.target for step in self.steps if step.does == "publish")


Around = Literal[
    "pass", "retry", "swallow",
    "inner pass", "inner swallow", "inner answer", "inner fail after", "event pass", "event swallow",
]  # fmt: skip


@dataclass(frozen=True)
class Program:
    commands: tuple[Script, ...]
    events: tuple[tuple[Script, ...], ...]
    middlewares: tuple[Around, ...]
    closing_fails: frozenset[int]
    cancel_at: int


class World:
    """What both sides have: a journal, and points where a cancel may strike."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.lines: list[str] = []
        self.points = 0
        self.scopes = 0

    def write(self, line: str) -> None:
        self.lines.append(line)

    def strikes(self) -> bool:
        self.points += 1
        return self.points == self.program.cancel_at

    async def point(self) -> None:
        if self.strikes():
            task = asyncio.current_task()
            assert task
            task.cancel()
        await asyncio.sleep(0)


# ---------------------------------------------------------------------------------------------------------- the app


class Scopes(Journal):
    """The container: a cancel may strike when it opens, resolves or closes."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def scope(self, provided: Any, /) -> Any:
        return Scope(self.world)


class Scope:
    def __init__(self, world: World) -> None:
        self.world = world
        world.scopes += 1
        self.number = world.scopes

    async def __aenter__(self) -> "Scope":
        await self.world.point()
        self.world.write(f"scope {self.number} opens")
        return self

    async def resolve(self, key: Key, /) -> Session:
        await self.world.point()
        return Session(self.number)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.world.write(f"scope {self.number} closes after {kind.__name__ if kind else 'success'}")
        await self.world.point()
        if self.number in self.world.program.closing_fails:
            raise ClosingBroken


def build(world: World) -> Diator:
    app = Diator(container=Scopes(world))
    for around in world.program.middlewares:
        app.add_middleware(middleware(world, around), inside=around.startswith("inner"))
    for number, script in enumerate(world.program.commands):
        app.add_command(handler(world, script, f"command {number}", COMMAND_TYPES[number]))
    for number, scripts in enumerate(world.program.events):
        for index, script in enumerate(scripts):
            app.add_event_handler(handler(world, script, f"event {number}.{index}", EVENT_TYPES[number]))
    return app


async def perform(world: World, script: Script, app: Diator, publish: Any) -> None:
    for step in script.steps:
        message = COMMAND_TYPES[step.target % COMMANDS]()
        match step.does:
            case "await":
                await world.point()
            case "publish":
                publish(EVENT_TYPES[step.target]())
            case "fail":
                raise Broken
            case "send":
                await app.send(message)
            case "try to send":
                try:
                    await app.send(message)
                except (Broken, ClosingBroken):
                    world.write("caught")


def handler(world: World, script: Script, name: str, message: type) -> Callable[..., Any]:
    """A handler with the parameters that its script needs, and no others."""

    async def run(session: Session | None, app: Diator, publish: Any) -> Any:
        world.write(f"{name} in {session.number if session else 'no scope'}")
        await perform(world, script, app, publish)
        return name

    async def with_both(message: Any, app: Diator, session: Session, publish: Any) -> Any:
        return await run(session, app, publish)

    async def with_session(message: Any, app: Diator, session: Session) -> Any:
        return await run(session, app, None)

    async def with_publish(message: Any, app: Diator, publish: Any) -> Any:
        return await run(None, app, publish)

    async def with_none(message: Any, app: Diator) -> Any:
        return await run(None, app, None)

    chosen: Callable[..., Any]
    if script.publishes:
        chosen = with_both if script.session else with_publish
        generic: Any = Publish
        union: Any = EVENT_TYPES[script.publishes[0]]
        for number in script.publishes[1:]:
            union |= EVENT_TYPES[number]
        chosen.__annotations__["publish"] = generic[union]
    else:
        chosen = with_session if script.session else with_none
    chosen.__annotations__.update({"message": message, "return": Any})
    return chosen


def middleware(world: World, around: Around) -> Callable[..., Any]:
    if around.startswith("event"):
        return of_events(world, around)
    return inside(world, around) if around.startswith("inner") else outside(world, around)


def outside(world: World, around: Around) -> Callable[..., Any]:
    async def outer(message: Command[Any], call_next: CallNext) -> Any:
        world.write(f"{around} in")
        try:
            return await call_next(message)
        except (Broken, ClosingBroken):
            if around == "pass":
                raise
            return "instead" if around == "swallow" else await call_next(message)

    return outer


def inside(world: World, around: Around) -> Callable[..., Any]:
    async def inner(message: Command[Any], call_next: CallNext, session: Session) -> Any:
        world.write(f"{around} in {session.number}")
        if around == "inner answer":
            return "answer"
        try:
            result = await call_next(message)
        except Broken:
            if around == "inner swallow":
                return "instead"
            raise
        if around == "inner fail after":
            raise Broken
        return result

    return inner


def of_events(world: World, around: Around) -> Callable[..., Any]:
    async def of_event(event: Event, call_next: CallNext) -> Any:
        world.write(around)
        try:
            await call_next(event)
        except Broken:
            if around == "event pass":
                raise

    return of_event


# -------------------------------------------------------------------------------------------------------- the model


class Cancelled(BaseException):
    pass


class Model(World):
    def point_here(self) -> None:
        if self.strikes():
            raise Cancelled

    def send(self, number: int) -> str:
        """Middlewares outside, in order; a retry is a new unit of work."""
        call: Callable[[], str] = partial(self.unit, number)
        for around in reversed(self.program.middlewares):
            if around in ("pass", "retry", "swallow"):
                call = self.outer(around, call)
        return call()

    def outer(self, around: Around, call: Callable[[], str]) -> Callable[[], str]:
        def run() -> str:
            self.write(f"{around} in")
            try:
                return call()
            except (Broken, ClosingBroken):
                if around == "pass":
                    raise
            return "instead" if around == "swallow" else call()

        return run

    def unit(self, number: int) -> str:
        """A scope, if anything in reach needs one; what failed inside stays failed; closing comes last."""
        if not self.needs_scope(number):
            return self.inside(number, "no scope", 0, [])
        self.scopes += 1
        scope, failures = self.scopes, list[BaseException]()
        self.point_here()
        self.write(f"scope {scope} opens")
        try:
            result = self.inside(number, str(scope), 0, failures)
        except BaseException as error:
            failures.insert(0, error)
            with suppress(ClosingBroken):  # the error of the handler wins; a cancel while closing wins over both
                self.close(scope, error)
            raise
        self.close(scope, failures[0] if failures else None)
        return result

    def close(self, scope: int, error: BaseException | None) -> None:
        self.write(f"scope {scope} closes after {name_of(error) if error else 'success'}")
        self.point_here()
        if scope in self.program.closing_fails:
            raise ClosingBroken

    def inside(self, number: int, scope: str, depth: int, failures: list[BaseException]) -> str:
        """Middlewares inside, in order, then the handler, then its events."""
        inner = [around for around in self.program.middlewares if around.startswith("inner")]
        if depth == len(inner):
            result, events = self.handler(self.program.commands[number], f"command {number}", scope)
            self.events(events, scope)
            return result
        self.point_here()
        self.write(f"{inner[depth]} in {scope}")
        if inner[depth] == "inner answer":
            return "answer"
        try:
            result = self.inside(number, scope, depth + 1, failures)
        except BaseException as error:
            failures.append(error)
            if inner[depth] == "inner swallow" and isinstance(error, Broken):
                return "instead"
            raise
        if inner[depth] == "inner fail after":
            raise Broken
        return result

    def events(self, events: list[int], scope: str) -> None:
        """First in, first out; what handlers publish joins the end."""
        wraps = [around for around in self.program.middlewares if around.startswith("event")]
        while events:
            event = events.pop(0)
            for index, script in enumerate(self.program.events[event]):
                self.lines.extend(wraps)
                events += self.handler(script, f"event {event}.{index}", scope)[1]

    def handler(self, script: Script, name: str, scope: str) -> tuple[str, list[int]]:
        if script.session:
            self.point_here()
        self.write(f"{name} in {scope if script.session else 'no scope'}")
        published = list[int]()
        for step in script.steps:
            match step.does:
                case "await":
                    self.point_here()
                case "publish":
                    published.append(step.target)
                case "fail":
                    raise Broken
                case "send":
                    self.send(step.target)
                case "try to send":
                    try:
                        self.send(step.target)
                    except (Broken, ClosingBroken):
                        self.write("caught")
        return name, published

    def needs_scope(self, number: int) -> bool:
        inner = any(around.startswith("inner") for around in self.program.middlewares)
        return inner or any(script.session for script in self.reach(self.program.commands[number]))

    def reach(self, script: Script) -> Iterator[Script]:
        yield script
        for event in script.publishes:
            for handler in self.program.events[event]:
                yield from self.reach(handler)


def name_of(error: BaseException) -> str:
    return "CancelledError" if isinstance(error, Cancelled) else type(error).__name__


# -------------------------------------------------------------------------------------------------------- the proof


def scripts(number: int, *, of_command: bool) -> st.SearchStrategy[Script]:
    """A command sends, and an event causes, only what has a higher number: programs end."""
    steps = [st.just(Step("await"))]
    first_event = 0 if of_command else number + 1
    if first_event < EVENTS:
        steps.append(st.builds(Step, st.just("publish"), st.integers(first_event, EVENTS - 1)))
    if of_command and number + 1 < COMMANDS:
        sends = st.sampled_from(["send", "try to send"])
        steps.append(st.builds(Step, sends, st.integers(number + 1, COMMANDS - 1)))
    body = st.lists(st.one_of(steps), max_size=4)
    ends = st.sampled_from([(), (), (), (Step("fail"),)])
    steps_of_all = st.tuples(body, ends).map(lambda parts: (*parts[0], *parts[1]))
    return st.builds(Script, steps_of_all, st.booleans())


AROUND: list[Around] = [
    "pass", "retry", "swallow",
    "inner pass", "inner swallow", "inner answer", "inner fail after", "event pass", "event swallow",
]  # fmt: skip
PROGRAMS = st.builds(
    Program,
    commands=st.tuples(*(scripts(number, of_command=True) for number in range(COMMANDS))),
    events=st.tuples(*(st.lists(scripts(number, of_command=False), max_size=2).map(tuple) for number in range(EVENTS))),
    middlewares=st.lists(st.sampled_from(AROUND), max_size=3).map(tuple),
    closing_fails=st.frozensets(st.integers(1, 4), max_size=2),
    cancel_at=st.one_of(st.just(0), st.integers(1, 12)),
)


async def run_app(program: Program) -> tuple[list[str], str]:
    world = World(program)
    app = build(world)
    async with app:
        try:
            outcome = await app.send(C0())
        except (Broken, ClosingBroken, asyncio.CancelledError) as error:
            outcome = type(error).__name__
    return world.lines, outcome


def run_model(program: Program) -> tuple[list[str], str]:
    model = Model(program)
    try:
        outcome = model.send(0)
    except (Broken, ClosingBroken, Cancelled) as error:
        outcome = name_of(error)
    return model.lines, outcome


@given(PROGRAMS)
@settings(max_examples=150 * PROOFS, deadline=None)
def test_any_program_does_what_the_model_does(program: Program) -> None:
    assert asyncio.run(run_app(program)) == run_model(program)
