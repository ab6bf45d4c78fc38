"""Random graphs of follow-ups, retries and failures: when a session has settled, nothing is missing or runs."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from random import Random

import pytest

from diator import Command, Context, Diator, DomainEvent, NotificationEvent, Publish, Retry, contract
from diator.testing import UnsettledError


@dataclass(frozen=True)
class Begin(Command[None]):
    number: int


@dataclass(frozen=True)
class Within(DomainEvent):
    number: int


@contract("graphs.left", topic="graphs")
@dataclass(frozen=True)
class Left(NotificationEvent):
    number: int


@contract("graphs.right", topic="graphs", key="number")
@dataclass(frozen=True)
class Right(NotificationEvent):
    number: int


class Graph:
    """Each number has its children, which its handlers cause: all numbers below it that the dice give it."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.children = {n: [self.random.randrange(n) for _ in range(self.random.randrange(3))] for n in range(1, 12)}
        self.failures = {n: self.random.choice((0, 0, 0, 1, 2, 3)) for n in range(12)}
        self.ended: Counter[str] = Counter()
        self.expected: Counter[str] = Counter()
        self.dead = 0
        self.running = 0

    def expect(self, kind: str, number: int) -> None:
        if kind == "begin":
            for child in self.children.get(number, ()):
                self.expect("left", child)
                self.expect("within", child)
        elif kind == "within":
            self.expected["within"] += 1
            for child in self.children.get(number, ()):
                self.expect("right", child)
        elif self.failures[number] < 3 or kind == "right":
            self.expected[kind] += 1
            for child in self.children.get(number, ()) if kind == "left" else ():
                self.expect("begin", child)
                self.expect("right", child)
        else:
            self.dead += 1

    async def pause(self) -> None:
        for _ in range(self.random.randrange(4)):
            await asyncio.sleep(0)


def make_app(graph: Graph) -> Diator:
    app = Diator("graphs", broker="memory://", retry=Retry(attempts=3), concurrency=graph.random.randrange(1, 6))

    @app.command
    async def begin(command: Begin, publish: Publish[Left | Within]) -> None:
        for child in graph.children.get(command.number, ()):
            publish(Left(child))
            publish(Within(child))

    @app.on_event
    async def within(event: Within, publish: Publish[Right]) -> None:
        for child in graph.children.get(event.number, ()):
            publish(Right(child))
        graph.ended["within"] += 1

    @app.on_event
    async def left(event: Left, context: Context, publish: Publish[Right]) -> None:
        graph.running += 1
        try:
            await graph.pause()
            if context.attempt <= graph.failures[event.number]:
                raise ConnectionError(event.number)
            for child in graph.children.get(event.number, ()):
                publish(Right(child))
                await app.send(Begin(child))
            graph.ended["left"] += 1
        finally:
            graph.running -= 1

    @app.on_event
    async def right(event: Right, context: Context) -> None:
        await graph.pause()
        if context.attempt <= min(graph.failures[event.number], 2):
            raise ConnectionError(event.number)
        graph.ended["right"] += 1

    return app


@pytest.mark.parametrize("seed", range(20))
async def test_everything_has_ended_when_a_session_has_settled(seed: int) -> None:
    graph = Graph(seed)
    async with make_app(graph).testing() as session:
        for number in (11, 10):
            graph.expect("begin", number)
            await session.send(Begin(number))
        if graph.dead:
            with pytest.raises(UnsettledError):
                await session.settled()
        else:
            await session.settled()
        assert graph.running == 0
        assert graph.ended == graph.expected
    assert len(session.dead_letters) == graph.dead
    assert all(entry.done for entry in session.entries)
