"""kerux, with function handlers."""

# ruff: noqa: ARG001 - the signatures are those that the library asks for
# pyright: basic, reportMissingImports=false
# mypy: ignore-errors
# The library lives in an environment of its own, where no type checker looks.

from dataclasses import dataclass
from itertools import repeat
from types import FunctionType

from dishka import Provider, Scope, make_async_container
from kerux import Mediator, Notification, Request

from benchmarks.measure import Work
from benchmarks.peers.driver import Repository, Service, run


@dataclass
class Ask(Request[int]):
    number: int


@dataclass
class Asked(Notification):
    number: int


async def answer(request: Ask) -> int:
    return request.number


async def react(event: Asked) -> None:
    assert event.number


class AnswerWith:
    def __init__(self, service: Service) -> None:
        self.service = service

    async def handle(self, request: Ask) -> int:
        return request.number + self.service.offset


async def send() -> Work:
    return _sent(Mediator(), answer, {answer: 1})


async def middlewares() -> Work:
    async def first(request, call_next):
        return await call_next()

    async def second(request, call_next):
        return await call_next()

    async def third(request, call_next):
        return await call_next()

    mediator = Mediator()
    for behavior in (first, second, third):
        mediator.add_behavior(behavior)
    return _sent(mediator, answer, {first: 1, second: 1, third: 1, answer: 1})


async def published() -> Work:
    mediator = Mediator()

    async def publish_and_answer(request: Ask) -> int:
        await mediator.publish(Asked(request.number))
        return request.number

    mediator.register_notification_handler(Asked, react)
    return _sent(mediator, publish_and_answer, {publish_and_answer: 1, react: 1})


async def fan_out() -> Work:
    mediator = Mediator()
    for _ in range(10):
        mediator.register_notification_handler(Asked, FunctionType(react.__code__, globals()))
    event = Asked(1)

    async def loop(times: int) -> None:
        for _ in repeat(None, times):
            await mediator.publish(event)

    return Work(loop, {react: 10})


async def injected() -> Work:
    """A mediator for each scope, and in it what the scope has built: the way it documents for web requests."""
    provider = Provider(scope=Scope.REQUEST)
    for cls in (Repository, Service, AnswerWith):
        provider.provide(cls)
    container = make_async_container(provider)
    request = Ask(1)

    async def loop(times: int) -> None:
        for _ in repeat(None, times):
            async with container() as scope:
                mediator = Mediator()
                mediator.register(Ask, await scope.get(AnswerWith))
                await mediator.send(request)

    return Work(loop, {AnswerWith.handle: 1, Service.__init__: 1})


def _sent(mediator: Mediator, handler, runs) -> Work:
    mediator.register(Ask, handler)
    request = Ask(1)

    async def loop(times: int) -> None:
        for _ in repeat(None, times):
            await mediator.send(request)

    return Work(loop, runs)


if __name__ == "__main__":
    run(send, middlewares, published, fan_out, injected)
