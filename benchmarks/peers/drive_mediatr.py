"""mediatr, with function handlers. It has requests alone, no events."""

# ruff: noqa: ARG001 - the signatures are those that the library asks for
# pyright: basic, reportMissingImports=false
# mypy: ignore-errors
# The library lives in an environment of its own, where no type checker looks.

from dataclasses import dataclass
from itertools import repeat

from dishka import Provider, Scope, make_container
from mediatr import Mediator

from benchmarks.measure import Work
from benchmarks.peers.driver import Repository, Service, run


@dataclass
class Ask:
    number: int


async def answer(request: Ask) -> int:
    return request.number


class AnswerWith:
    def __init__(self, service: Service) -> None:
        self.service = service

    async def handle(self, request: Ask) -> int:
        return request.number + self.service.offset


async def send() -> Work:
    Mediator.register_handler(answer)
    return _sent({answer: 1})


async def middlewares() -> Work:
    async def first(request: Ask, call_next):
        return await call_next()

    async def second(request: Ask, call_next):
        return await call_next()

    async def third(request: Ask, call_next):
        return await call_next()

    Mediator.register_handler(answer)
    for behavior in (first, second, third):
        Mediator.register_behavior(behavior)
    return _sent({first: 1, second: 1, third: 1, answer: 1})


async def injected() -> Work:
    """Its manager of handler classes is a plain function, so the container is dishka's synchronous one."""
    provider = Provider(scope=Scope.REQUEST)
    for cls in (Repository, Service, AnswerWith):
        provider.provide(cls)
    container = make_container(provider)
    Mediator.register_handler(AnswerWith)
    request = Ask(1)

    async def loop(times: int) -> None:
        for _ in repeat(None, times):
            with container() as scope:

                def manager(cls, is_behavior=False):
                    return scope.get(cls)

                await Mediator(manager).send_async(request)

    return Work(loop, {AnswerWith.handle: 1, Service.__init__: 1})


def _sent(runs) -> Work:
    mediator = Mediator()
    request = Ask(1)

    async def loop(times: int) -> None:
        for _ in repeat(None, times):
            await mediator.send_async(request)

    return Work(loop, runs)


if __name__ == "__main__":
    run(send, middlewares, injected)
