"""mediary, with function handlers and its own plugin for dishka."""

# ruff: noqa: ARG001 - the signatures are those that the library asks for
# pyright: basic, reportMissingImports=false
# mypy: ignore-errors
# The library lives in an environment of its own, where no type checker looks.

from dataclasses import dataclass
from itertools import repeat
from types import FunctionType

from dishka import Provider, Scope, make_async_container
from mediary import Mediator, Returns, notification, request
from mediary.ext.dishka import MediaryProvider

from benchmarks.measure import Work
from benchmarks.peers.driver import Repository, Service, run


@request
@dataclass
class Ask(Returns[int]):
    number: int


@notification
@dataclass
class Asked:
    number: int


async def answer(request: Ask) -> int:
    return request.number


async def react(event: Asked) -> None:
    assert event.number


async def send() -> Work:
    return _sent(Mediator(), answer, {answer: 1})


async def middlewares() -> Work:
    async def first(message: object, call_next):
        return await call_next()

    async def second(message: object, call_next):
        return await call_next()

    async def third(message: object, call_next):
        return await call_next()

    mediator = Mediator()
    for behavior in (first, second, third):
        mediator.use(behavior)
    return _sent(mediator, answer, {first: 1, second: 1, third: 1, answer: 1})


async def published() -> Work:
    mediator = Mediator()

    async def publish_and_answer(request: Ask) -> int:
        await mediator.publish(Asked(request.number))
        return request.number

    mediator.register(Asked, react)
    return _sent(mediator, publish_and_answer, {publish_and_answer: 1, react: 1})


async def fan_out() -> Work:
    mediator = Mediator()
    for number in range(10):
        reaction = FunctionType(react.__code__, globals(), f"react_{number}")
        reaction.__annotations__ = react.__annotations__
        mediator.register(Asked, reaction)
    event = Asked(1)

    async def loop(times: int) -> None:
        for _ in repeat(None, times):
            await mediator.publish(event)

    return Work(loop, {react: 10})


async def injected() -> Work:
    async def answer_with(request: Ask, service: Service) -> int:
        return request.number + service.offset

    mediator = Mediator()
    mediator.register(Ask, answer_with)
    provider = Provider(scope=Scope.REQUEST)
    provider.provide(Repository)
    provider.provide(Service)
    container = make_async_container(provider, MediaryProvider(mediator))
    message = Ask(1)

    async def loop(times: int) -> None:
        for _ in repeat(None, times):
            async with container() as scope:
                await (await scope.get(Mediator)).send(message)

    return Work(loop, {answer_with: 1, Service.__init__: 1})


def _sent(mediator: Mediator, handler, runs) -> Work:
    mediator.register(Ask, handler)
    message = Ask(1)

    async def loop(times: int) -> None:
        for _ in repeat(None, times):
            await mediator.send(message)

    return Work(loop, runs)


if __name__ == "__main__":
    run(send, middlewares, published, fan_out, injected)
