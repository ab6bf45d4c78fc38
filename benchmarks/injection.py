"""What injection costs through Diator, against the same objects from the container's own API."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import punq
from dishka import AsyncContainer, Provider, Scope, make_async_container

from benchmarks.measure import Effort, Work, compare
from benchmarks.report import Row
from diator import Command, Diator


@dataclass
class Join(Command[int]):
    meeting_id: int


class Repository:
    pass


class Service:
    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self.offset = 0


async def join(command: Join, service: Service) -> int:
    return command.meeting_id + service.offset


COMMAND = Join(1)
RUNS: dict[Callable[..., Any], int] = {join: 1, Service.__init__: 1}


async def rows(effort: Effort) -> AsyncIterator[Row]:
    """Measure every row of this module."""
    container = punq.Container()
    container.register(Repository)
    container.register(Service)
    async with _app(container) as app:
        ratio = await compare(_sent(app), _punq(container), effort)
        yield Row("inject through punq", "container.resolve, then the handler", ratio, limit=1.1)
    scopes = _dishka_container()
    async with _app(scopes) as app:
        ratio = await compare(_sent(app), _dishka(scopes), effort)
        against = "async with container(), get, then the handler"
        yield Row("send, with a scope and injection through dishka", against, ratio)


def _app(container: object) -> Diator:
    app = Diator(container=container)
    app.add_command(join)
    return app


def _dishka_container() -> AsyncContainer:
    provider = Provider(scope=Scope.REQUEST)
    provider.provide(Repository)
    provider.provide(Service)
    return make_async_container(provider)


def _sent(app: Diator) -> Work:
    async def loop(times: int) -> None:
        for _ in repeat(None, times):
            await app.send(COMMAND)

    return Work(loop, RUNS)


def _punq(container: punq.Container) -> Work:
    async def loop(times: int) -> None:
        for _ in repeat(None, times):
            await join(COMMAND, container.resolve(Service))

    return Work(loop, RUNS)


def _dishka(container: AsyncContainer) -> Work:
    async def loop(times: int) -> None:
        for _ in repeat(None, times):
            async with container() as scope:
                await join(COMMAND, await scope.get(Service))

    return Work(loop, RUNS)
