"""diator 0.1.2 of PyPI, with rodi: the faster one of its two containers."""

# pyright: basic, reportMissingImports=false
# mypy: ignore-errors
# The library lives in an environment of its own, where no type checker looks.

from dataclasses import dataclass
from itertools import repeat

import rodi
from diator.container.rodi import RodiContainer
from diator.events import DomainEvent, EventEmitter, EventMap
from diator.mediator import Mediator
from diator.middlewares import MiddlewareChain
from diator.requests import Request, RequestMap
from dishka import Provider, Scope, make_async_container

from benchmarks.measure import Work
from benchmarks.peers.driver import Repository, Service, run


@dataclass(frozen=True, kw_only=True)
class Ask(Request):
    number: int


@dataclass(frozen=True, kw_only=True)
class Asked(DomainEvent):
    number: int


class Answer:
    def __init__(self) -> None:
        self.events = []

    async def handle(self, request: Ask) -> int:
        return request.number


class AnswerAndRaise(Answer):
    async def handle(self, request: Ask) -> int:
        self.events.append(Asked(number=request.number))
        return request.number


class AnswerWith(Answer):
    def __init__(self, service: Service) -> None:
        super().__init__()
        self.service = service

    async def handle(self, request: Ask) -> int:
        return request.number + self.service.offset


class DishkaContainer:
    """What its port asks for, over a scope of dishka."""

    def __init__(self, scope) -> None:
        self.scope = scope

    async def resolve(self, type_):
        return await self.scope.get(type_)


class React:
    async def handle(self, event: Asked) -> None:
        assert event.number


async def send() -> Work:
    return _sent(Mediator(_requests(Answer), _rodi(Answer)), {Answer.handle: 1})


async def middlewares() -> Work:
    class PassThrough:
        async def __call__(self, request, handle):
            return await handle(request)

    chain = MiddlewareChain()
    for _ in range(3):
        chain.add(PassThrough())
    mediator = Mediator(_requests(Answer), _rodi(Answer), middleware_chain=chain)
    return _sent(mediator, {PassThrough.__call__: 3, Answer.handle: 1})


async def collected() -> Work:
    container = _rodi(AnswerAndRaise, React)
    events = EventMap()
    events.bind(Asked, React)
    mediator = Mediator(_requests(AnswerAndRaise), container, EventEmitter(events, container))
    return _sent(mediator, {AnswerAndRaise.handle: 1, React.handle: 1})


async def fan_out() -> Work:
    reactions = [type("Reacts", (React,), {}) for _ in range(10)]
    events = EventMap()
    for reaction in reactions:
        events.bind(Asked, reaction)
    emitter = EventEmitter(events, _rodi(*reactions))
    event = Asked(number=1)

    async def loop(times: int) -> None:
        for _ in repeat(None, times):
            await emitter.emit(event)

    return Work(loop, {React.handle: 10})


async def injected() -> Work:
    """Its containers have no scope for a message, so each message gets a scope, and a mediator over it."""
    provider = Provider(scope=Scope.REQUEST)
    for cls in (Repository, Service, AnswerWith):
        provider.provide(cls)
    container = make_async_container(provider)
    requests = _requests(AnswerWith)
    request = Ask(number=1)

    async def loop(times: int) -> None:
        for _ in repeat(None, times):
            async with container() as scope:
                await Mediator(requests, DishkaContainer(scope)).send(request)

    return Work(loop, {AnswerWith.handle: 1, Service.__init__: 1})


def _requests(handler) -> RequestMap:
    requests = RequestMap()
    requests.bind(Ask, handler)
    return requests


def _rodi(*classes) -> RodiContainer:
    native = rodi.Container()
    for cls in classes:
        native.add_transient(cls)
    container = RodiContainer()
    container.attach_external_container(native)
    return container


def _sent(mediator: Mediator, runs) -> Work:
    request = Ask(number=1)

    async def loop(times: int) -> None:
        for _ in repeat(None, times):
            await mediator.send(request)

    return Work(loop, runs)


if __name__ == "__main__":
    run(send, middlewares, collected, fan_out, injected)
