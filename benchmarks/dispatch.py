"""What sending and publishing cost, against the same work written by hand."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import update_wrapper
from itertools import repeat
from types import FunctionType
from typing import Any

from benchmarks.measure import Effort, Work, compare
from benchmarks.report import Row
from diator import CallNext, Command, Diator, DomainEvent, Publish


@dataclass
class Join(Command[int]):
    meeting_id: int


@dataclass
class Joined(DomainEvent):
    meeting_id: int


async def join(command: Join) -> int:
    return command.meeting_id


def join_sync(command: Join) -> int:
    return command.meeting_id


async def outer(command: Command[Any], call_next: CallNext) -> Any:
    return await call_next(command)


async def middle(command: Command[Any], call_next: CallNext) -> Any:
    return await call_next(command)


async def inner(command: Command[Any], call_next: CallNext) -> Any:
    return await call_next(command)


async def join_and_publish(command: Join, publish: Publish[Joined]) -> int:
    publish(Joined(command.meeting_id))
    return command.meeting_id


async def react(event: Joined) -> None:
    assert event.meeting_id


COMMAND = Join(1)
Reaction = Callable[[Joined], Awaitable[None]]


async def rows(effort: Effort) -> AsyncIterator[Row]:
    """Measure every row of this module."""
    direct = _direct()
    async with _app(join) as app:
        ratio = await compare(_sent(app, {join: 1}), direct, effort)
        yield Row("send to an async handler", "await handler(command)", ratio, limit=1.7)
    async with _app(join_sync) as app:
        ratio = await compare(_sent(app, {join_sync: 1}), direct, effort)
        yield Row("send to a sync handler", "await handler(command), handler async", ratio, limit=2.0)
    async with _app(join, outer, middle, inner) as app:
        ratio = await compare(_sent(app, {outer: 1, middle: 1, inner: 1, join: 1}), _nested(), effort)
        yield Row("three pass-through middlewares", "three coroutines nested by hand", ratio, limit=1.5)
    for count, limit in ((1, 3.0), (10, 1.2)):
        async with _app(join_and_publish, reactions=count) as app:
            sent = _sent(app, {join_and_publish: 1, react: count})
            what = f"one domain event to {count} handler{'s' if count > 1 else ''}"
            ratio = await compare(sent, _collecting(count), effort)
            yield Row(what, "a list of events, and a loop", ratio, limit=limit)
            ratio = await compare(sent, _awaiting(count), effort)
            yield Row(what, "the command's handler awaits them itself", ratio)
    async with _app(join, reactions=10) as app:
        ratio = await compare(_published(app, 10), _looping(10), effort)
        yield Row("publish an event to 10 handlers", "a loop over them", ratio, limit=1.2)


def _app(handler: Callable[..., Any], *middlewares: Callable[..., Any], reactions: int = 0) -> Diator:
    app = Diator()
    app.add_command(handler)
    for middleware in middlewares:
        app.add_middleware(middleware)
    if reactions:
        app.publishes(Joined)
    for reaction in _reactions(reactions):
        app.add_event_handler(reaction)
    return app


def _reactions(count: int) -> tuple[Reaction, ...]:
    """Handlers that are all different and share their code, so that `Work.runs` can count them together."""
    copies = (FunctionType(react.__code__, globals(), f"react_{number}") for number in range(count))
    return tuple(update_wrapper(copy, react, ("__module__", "__annotations__")) for copy in copies)


def _sent(app: Diator, runs: dict[Callable[..., Any], int]) -> Work:
    async def loop(times: int) -> None:
        for _ in repeat(None, times):
            await app.send(COMMAND)

    return Work(loop, runs)


def _published(app: Diator, count: int) -> Work:
    event = Joined(1)

    async def loop(times: int) -> None:
        for _ in repeat(None, times):
            await app.publish(event)

    return Work(loop, {react: count})


def _looping(count: int) -> Work:
    reactions, event = _reactions(count), Joined(1)

    async def publish(event: Joined) -> None:
        for reaction in reactions:
            await reaction(event)

    async def loop(times: int) -> None:
        for _ in repeat(None, times):
            await publish(event)

    return Work(loop, {react: count})


def _direct() -> Work:
    async def loop(times: int) -> None:
        for _ in repeat(None, times):
            await join(COMMAND)

    return Work(loop, {join: 1})


def _nested() -> Work:
    async def first(command: Join) -> int:
        return await second(command)

    async def second(command: Join) -> int:
        return await third(command)

    async def third(command: Join) -> int:
        return await join(command)

    async def loop(times: int) -> None:
        for _ in repeat(None, times):
            await first(COMMAND)

    return Work(loop, {first: 1, second: 1, third: 1, join: 1})


def _awaiting(count: int) -> Work:
    """Without any collecting: the command's handler awaits those of the event itself."""
    reactions = _reactions(count)

    async def join_then_react(command: Join) -> int:
        event = Joined(command.meeting_id)
        for reaction in reactions:
            await reaction(event)
        return command.meeting_id

    async def loop(times: int) -> None:
        for _ in repeat(None, times):
            await join_then_react(COMMAND)

    return Work(loop, {join_then_react: 1, react: count})


def _collecting(count: int) -> Work:
    """The same order of things as in Diator, without its checks: collect the events, handle them after the return."""
    reactions = _reactions(count)

    async def join_and_append(command: Join, events: list[Joined]) -> int:
        events.append(Joined(command.meeting_id))
        return command.meeting_id

    async def handle(command: Join) -> int:
        events: list[Joined] = []
        result = await join_and_append(command, events)
        for event in events:
            for reaction in reactions:
                await reaction(event)
        return result

    async def loop(times: int) -> None:
        for _ in repeat(None, times):
            await handle(COMMAND)

    return Work(loop, {join_and_append: 1, react: count})
