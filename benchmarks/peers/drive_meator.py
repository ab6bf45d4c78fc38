"""meator. It has no injection, and no events but those that a handler passes to an observer itself."""

# pyright: basic, reportMissingImports=false
# mypy: ignore-errors
# The library lives in an environment of its own, where no type checker looks.

from dataclasses import dataclass
from itertools import repeat

from meator.dispatchers import CommandDispatcherImpl
from meator.entities import Command, Event
from meator.interfaces import CommandHandler, EventHandler, Middleware
from meator.observers import EventObserverImpl

from benchmarks.measure import Work
from benchmarks.peers.driver import run


@dataclass
class Ask(Command[int]):
    number: int


@dataclass
class Asked(Event):
    number: int


class Answer(CommandHandler[Ask, int]):
    async def __call__(self, request: Ask) -> int:
        return request.number


class PublishAndAnswer(CommandHandler[Ask, int]):
    def __init__(self, observer: EventObserverImpl) -> None:
        self.observer = observer

    async def __call__(self, request: Ask) -> int:
        await self.observer.handle(Asked(request.number))
        return request.number


class PassThrough(Middleware):
    async def __call__(self, call_next, request):
        return await call_next(request)


class React(EventHandler[Asked]):
    async def __call__(self, request: Asked) -> None:
        assert request.number


async def send() -> Work:
    return _sent(CommandDispatcherImpl(), Answer(), {Answer.__call__: 1})


async def middlewares() -> Work:
    dispatcher = CommandDispatcherImpl(middlewares=[PassThrough() for _ in range(3)])
    return _sent(dispatcher, Answer(), {PassThrough.__call__: 3, Answer.__call__: 1})


async def published() -> Work:
    observer = EventObserverImpl()
    observer.register(Asked, [React()])
    runs = {PublishAndAnswer.__call__: 1, React.__call__: 1}
    return _sent(CommandDispatcherImpl(), PublishAndAnswer(observer), runs)


async def fan_out() -> Work:
    observer = EventObserverImpl()
    observer.register(Asked, [React() for _ in range(10)])
    event = Asked(1)

    async def loop(times: int) -> None:
        for _ in repeat(None, times):
            await observer.handle(event)

    return Work(loop, {React.__call__: 10})


def _sent(dispatcher: CommandDispatcherImpl, handler, runs) -> Work:
    dispatcher.register(Ask, handler)
    command = Ask(1)

    async def loop(times: int) -> None:
        for _ in repeat(None, times):
            await dispatcher.handle(command)

    return Work(loop, runs)


if __name__ == "__main__":
    run(send, middlewares, published, fan_out)
