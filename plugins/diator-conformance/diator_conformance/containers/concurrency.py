"""Cases: several tasks, several scopes, several loops, several containers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeVar

import pytest

from diator.app import Diator
from diator.containers import Key
from diator.containers.port import Lifetime
from diator.errors import NotRunningError
from diator_conformance.containers.bench import ContainerSuiteBase, case
from diator_conformance.containers.registration import Feature, SourceKind
from diator_conformance.containers.resources import BOTH, session
from diator_conformance.containers.services import Config, Database, Session, Work

T = TypeVar("T")

TASKS = 20


async def slow_config() -> Config:
    """Let other tasks run while it builds."""
    await asyncio.sleep(0.001)
    return Config()


async def _await(awaitable: Awaitable[T]) -> T:
    return await awaitable


async def _resolve(resolve: Callable[[Key], Awaitable[Any]], key: Key) -> object:
    return await resolve(key)


class Concurrency(ContainerSuiteBase):
    """Several tasks, several scopes, several loops, several containers."""

    @case()
    async def test_a_singleton_is_built_once_for_scopes_that_run_together(self) -> None:
        """Tasks with separate scopes that request it at the same time get the same object."""
        container = self.build(self.register(Config, slow_config, lifetime=Lifetime.SINGLETON))

        async def ask() -> object:
            async with container.scope({}) as scope:
                return await scope.resolve(Key(Config))

        built = await asyncio.gather(*(ask() for _ in range(TASKS)))
        assert len(set(map(id, built))) == 1
        await container.aclose()

    @BOTH
    @case()
    async def test_scopes_that_overlap_are_isolated(self, kind: SourceKind) -> None:
        """Closing one scope closes only its resource, while another continues."""
        log: list[str] = []
        numbers = iter(("first", "second"))

        def generator() -> Iterator[Session]:
            number = next(numbers)
            yield Session()
            log.append(f"{number} closed")

        async def async_generator() -> AsyncIterator[Session]:
            number = next(numbers)
            yield Session()
            log.append(f"{number} closed")

        container = self.build(self.register(Session, generator if kind is SourceKind.GENERATOR else async_generator))
        first_left = asyncio.Event()
        second_open = asyncio.Event()

        async def first() -> object:
            async with container.scope({}) as scope:
                opened = await scope.resolve(Key(Session))
                await second_open.wait()
            first_left.set()
            return opened

        async def second() -> object:
            async with container.scope({}) as scope:
                opened = await scope.resolve(Key(Session))
                second_open.set()
                await first_left.wait()
                log.append("second works")
            return opened

        one, two = await asyncio.gather(first(), second())
        assert one is not two
        assert log == ["first closed", "second works", "second closed"]

    @case()
    async def test_a_nested_scope_is_independent(self) -> None:
        """A scope inside another has its own objects, as a nested ``send`` needs."""
        container = self.build(self.register(Config, lifetime=Lifetime.SCOPED))
        async with container.scope({}) as outer:
            outer_config = await outer.resolve(Key(Config))
            async with container.scope({}) as inner:
                assert await inner.resolve(Key(Config)) is not outer_config
            assert await outer.resolve(Key(Config)) is outer_config

    @case()
    async def test_an_outer_scope_works_while_an_inner_one_is_open(self) -> None:
        """A resolver belongs to its scope, regardless of which scope was entered last."""
        container = self.build(self.register(Config, lifetime=Lifetime.SCOPED))
        async with container.scope({}) as outer, container.scope({}) as inner:
            from_inner = await inner.resolve(Key(Config))
            from_outer = await outer.resolve(Key(Config))
            assert from_outer is not from_inner
            assert await inner.resolve(Key(Config)) is from_inner
            assert await outer.resolve(Key(Config)) is from_outer

    @case()
    async def test_resolves_in_a_child_task(self) -> None:
        """A task started inside a scope gets the objects of that scope."""
        container = self.build(self.register(Config, lifetime=Lifetime.SCOPED))
        async with container.scope({}) as scope:
            config = await scope.resolve(Key(Config))
            assert await asyncio.create_task(_resolve(scope.resolve, Key(Config))) is config

    @BOTH
    @case()
    async def test_a_scope_may_be_left_in_another_task(self, kind: SourceKind) -> None:
        """Web frameworks and test fixtures may end the block of a stream in another task than they started it."""
        log: list[str] = []
        container = self.build(self.register(Session, session(kind, log)))
        scope = container.scope({})
        resolver = await asyncio.create_task(_await(scope.__aenter__()))
        await resolver.resolve(Key(Session))
        await asyncio.create_task(_await(scope.__aexit__(None, None, None)))
        assert log == ["session opened", "session closed"]

    @case()
    def test_a_container_is_made_and_checked_outside_of_any_loop(self) -> None:
        """``app.check()`` and imports run before there is an event loop; a later loop works."""
        container = self.build(self.register(Config, lifetime=self.longest), self.register(Database))
        assert container.can_resolve(Key(Database))
        assert not container.validate([Key(Database)], ()).errors

        async def use() -> object:
            async with container.scope({}) as scope:
                return (await scope.resolve(Key(Database))).config

        assert isinstance(asyncio.run(use()), Config)

    @case()
    def test_an_app_runs_again_in_another_loop_only_with_a_container_that_reopens(self) -> None:
        """Without ``REUSABLE``, the app rejects a second start; with it, the second loop works like the first."""
        container = self.build(self.register(Config))
        app = Diator(container=container)

        @app.command(Work)
        async def work(_: Work, config: Config) -> object:
            return config

        async def run() -> object:
            async with app:
                return await app.send(Work())

        assert isinstance(asyncio.run(run()), Config)
        if Feature.REUSABLE in self.features:
            assert isinstance(asyncio.run(run()), Config)
        else:
            with pytest.raises(NotRunningError):
                asyncio.run(run())

    @case()
    async def test_two_containers_are_independent(self) -> None:
        """Singletons and registrations belong to one container."""
        one = self.build(self.register(Config, lifetime=self.longest))
        two = self.build(self.register(Config, lifetime=self.longest), self.register(Database))
        async with one.scope({}) as first, two.scope({}) as second:
            assert await first.resolve(Key(Config)) is not await second.resolve(Key(Config))
        assert not one.can_resolve(Key(Database))
        assert two.can_resolve(Key(Database))
