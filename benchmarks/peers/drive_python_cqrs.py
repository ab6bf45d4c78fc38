"""python-cqrs with dishka, the faster one of its containers, its mediator made without the logging of `bootstrap`."""

# pyright: basic, reportMissingImports=false
# mypy: ignore-errors
# The library lives in an environment of its own, where no type checker looks.

import logging
from itertools import repeat

import cqrs
from cqrs.container.dishka import DishkaCQRSContainer
from cqrs.container.scope import ScopeStrategy
from cqrs.events import EventEmitter, EventMap
from cqrs.middlewares.base import MiddlewareChain
from dishka import Provider, Scope, make_async_container

from benchmarks.measure import Work
from benchmarks.peers.driver import Repository, Service, run

logging.getLogger("cqrs").setLevel(logging.WARNING)  # left alone, it builds a record for each event handled


class Ask(cqrs.Request):
    number: int


class Asked(cqrs.DomainEvent):
    number: int


class Answer(cqrs.RequestHandler):
    async def handle(self, request: Ask) -> int:
        return request.number


class AnswerAndRaise(cqrs.RequestHandler):
    def __init__(self) -> None:
        self._events = []

    @property
    def events(self):
        return self._events

    async def handle(self, request: Ask) -> int:
        self._events.append(Asked(request.number))
        return request.number


class AnswerWith(cqrs.RequestHandler):
    def __init__(self, service: Service) -> None:
        self.service = service

    async def handle(self, request: Ask) -> int:
        return request.number + self.service.offset


class React(cqrs.EventHandler):
    async def handle(self, event: Asked) -> None:
        assert event.number


async def send() -> Work:
    return _sent(cqrs.RequestMediator(_requests(Answer), _container(Answer)), {Answer.handle: 1})


async def middlewares() -> Work:
    class PassThrough:
        async def __call__(self, request, handle):
            return await handle(request)

    chain = MiddlewareChain()
    for _ in range(3):
        chain.add(PassThrough())
    mediator = cqrs.RequestMediator(_requests(Answer), _container(Answer), middleware_chain=chain)
    return _sent(mediator, {PassThrough.__call__: 3, Answer.handle: 1})


async def collected() -> Work:
    container = _container(AnswerAndRaise, React)
    events = EventMap()
    events.bind(Asked, React)
    emitter = EventEmitter(events, container, scope_strategy=ScopeStrategy.SEND)  # one after another, without tasks
    mediator = cqrs.RequestMediator(
        _requests(AnswerAndRaise), container, emitter, event_map=events, scope_strategy=ScopeStrategy.SEND
    )
    return _sent(mediator, {AnswerAndRaise.handle: 1, React.handle: 1})


async def fan_out() -> Work:
    reactions = [type("Reacts", (React,), {}) for _ in range(10)]
    events = EventMap()
    for reaction in reactions:
        events.bind(Asked, reaction)
    mediator = cqrs.EventMediator(events, _container(*reactions))
    event = Asked(1)

    async def loop(times: int) -> None:
        for _ in repeat(None, times):
            await mediator.send(event)

    return Work(loop, {React.handle: 10})


async def injected() -> Work:
    container = _container(Repository, Service, AnswerWith, scope=Scope.REQUEST)
    mediator = cqrs.RequestMediator(_requests(AnswerWith), container, scope_strategy=ScopeStrategy.SEND)
    return _sent(mediator, {AnswerWith.handle: 1, Service.__init__: 1})


def _requests(handler) -> cqrs.RequestMap:
    requests = cqrs.RequestMap()
    requests.bind(Ask, handler)
    return requests


def _container(*classes, scope=Scope.APP) -> DishkaCQRSContainer:
    """In a scope for each message if asked for, or else as objects that need none, new for each message."""
    provider = Provider(scope=scope)
    for cls in classes:
        provider.provide(cls, cache=scope is not Scope.APP)
    return DishkaCQRSContainer(make_async_container(provider))


def _sent(mediator: cqrs.RequestMediator, runs) -> Work:
    request = Ask(1)

    async def loop(times: int) -> None:
        for _ in repeat(None, times):
            await mediator.send(request)

    return Work(loop, runs)


if __name__ == "__main__":
    run(send, middlewares, collected, fan_out, injected)
