"""Diator as it is in this repository."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat
from types import FunctionType
from typing import Any

from dishka import Provider, Scope, make_async_container

from benchmarks.measure import Work
from benchmarks.peers.driver import Repository, Service, run
from diator import CallNext, Command, Diator, DomainEvent, Publish


@dataclass
class Ask(Command[int]):
    number: int


@dataclass
class Asked(DomainEvent):
    number: int


async def answer(command: Ask) -> int:
    return command.number


async def react(event: Asked) -> None:
    assert event.number


async def send() -> Work:
    return await _sent(Diator(), answer, {answer: 1})


async def middlewares() -> Work:
    async def first(command: Command[Any], call_next: CallNext) -> Any:
        return await call_next(command)

    async def second(command: Command[Any], call_next: CallNext) -> Any:
        return await call_next(command)

    async def third(command: Command[Any], call_next: CallNext) -> Any:
        return await call_next(command)

    app = Diator()
    for middleware in (first, second, third):
        app.add_middleware(middleware)
    return await _sent(app, answer, {first: 1, second: 1, third: 1, answer: 1})


async def collected() -> Work:
    async def answer_and_publish(command: Ask, publish: Publish[Asked]) -> int:
        publish(Asked(command.number))
        return command.number

    app = Diator()
    app.add_event_handler(react)
    return await _sent(app, answer_and_publish, {answer_and_publish: 1, react: 1})


async def published() -> Work:
    app = Diator()

    async def publish_and_answer(command: Ask) -> int:
        await app.publish(Asked(command.number))
        return command.number

    app.add_event_handler(react)
    app.publishes(Asked)
    return await _sent(app, publish_and_answer, {publish_and_answer: 1, react: 1})


async def fan_out() -> Work:
    app = Diator()
    app.publishes(Asked)
    for _ in range(10):
        reaction = FunctionType(react.__code__, globals())
        reaction.__annotations__ = react.__annotations__
        app.add_event_handler(reaction)
    event = Asked(1)
    await app.__aenter__()

    async def loop(times: int) -> None:
        for _ in repeat(None, times):
            await app.publish(event)

    return Work(loop, {react: 10})


async def injected() -> Work:
    async def answer_with(command: Ask, service: Service) -> int:
        return command.number + service.offset

    provider = Provider(scope=Scope.REQUEST)
    provider.provide(Repository)
    provider.provide(Service)
    app = Diator(container=make_async_container(provider))
    return await _sent(app, answer_with, {answer_with: 1, Service.__init__: 1})


async def _sent(app: Diator, handler: Callable[..., Any], runs: dict[Callable[..., Any], int]) -> Work:
    app.add_command(handler)
    command = Ask(1)
    await app.__aenter__()  # the process ends with the measurement

    async def loop(times: int) -> None:
        for _ in repeat(None, times):
            await app.send(command)

    return Work(loop, runs)


if __name__ == "__main__":
    run(send, middlewares, collected, published, fan_out, injected)
