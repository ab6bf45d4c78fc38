"""What injection costs through Diator, against the container's own API, and against code written by hand."""

import importlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import punq
from dishka import AsyncContainer, Provider, Scope, make_async_container

from benchmarks.measure import Effort, Ratio, Work, compare
from benchmarks.report import Row
from benchmarks.scopes import LIBRARIES
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

CHAINS = {"punq": 3.0, "dishka": 4.0}
"""The most that a chain of three may cost, in times what it costs by hand. The others are told and not judged."""


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
    for library in (*CHAINS, *LIBRARIES[1:]):
        ratio = await _chain(library, effort)
        against = "await handler(command, Repository(Database(Config())))"
        yield Row(f"send, a chain of three through {library}", against, ratio, limit=CHAINS.get(library))


async def _chain(library: str, effort: Effort) -> Ratio:
    """Send a command whose handler needs the last of a chain of three, the works of `benchmarks.containers`."""
    module = importlib.import_module(f"benchmarks.containers.{library}")
    config, database, repository = module.Config, module.Database, module.Repository
    await module.setup()

    async def handle(command: Join, repository: Any) -> int:  # noqa: ARG001 - that it is built is the point
        return command.meeting_id

    handle.__annotations__["repository"] = repository
    runs = {handle: 1, database.__init__: 1, repository.__init__: 1}

    async def by_hand(times: int) -> None:
        for _ in repeat(None, times):
            await handle(COMMAND, repository(database(config())))

    app = Diator(container=module.plugin)
    app.add_command(handle)
    async with app:
        return await compare(Work(_sent(app).loop, runs), Work(by_hand, runs), effort)


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
