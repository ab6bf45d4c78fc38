"""Cases: the shape of the port, and how long objects are shared."""

import pytest

from diator.containers import Key
from diator.containers.port import Container, Lifetime
from diator_conformance.containers.bench import ContainerSuiteBase, case
from diator_conformance.containers.registration import Feature, SourceKind
from diator_conformance.containers.resources import BOTH, session
from diator_conformance.containers.services import Config, Dashboard, Database, Report, Repository, Session


class Lifetimes(ContainerSuiteBase):
    """The shape of the port, and how long objects are shared."""

    @case()
    def test_has_the_shape_of_the_port(self) -> None:
        """All methods of the port exist, and declared capabilities do not change."""
        container = self.build()
        assert isinstance(container, Container)
        assert container.capabilities == container.capabilities

    @case()
    async def test_a_chain_is_built_from_the_hints_of_constructors(self) -> None:
        """The dependencies of a class are found by the hints of its constructor, at any depth."""
        container = self.build(self.register(Config), self.register(Database), self.register(Repository))
        async with container.scope({}) as scope:
            repository = await scope.resolve(Key(Repository))
        assert isinstance(repository, Repository)
        assert isinstance(repository.database, Database)
        assert isinstance(repository.database.config, Config)

    @case()
    async def test_a_transient_is_new_each_time(self) -> None:
        """Two requests in one scope return two objects."""
        container = self.build(self.register(Config, lifetime=Lifetime.TRANSIENT))
        async with container.scope({}) as scope:
            assert await scope.resolve(Key(Config)) is not await scope.resolve(Key(Config))

    @case()
    async def test_a_scoped_object_is_one_inside_and_another_outside(self) -> None:
        """A scope has one object, the next scope another."""
        container = self.build(self.register(Config, lifetime=Lifetime.SCOPED))
        async with container.scope({}) as scope:
            first = await scope.resolve(Key(Config))
            assert await scope.resolve(Key(Config)) is first
        async with container.scope({}) as scope:
            assert await scope.resolve(Key(Config)) is not first

    @case()
    async def test_a_scoped_object_is_shared_by_all_that_need_it(self) -> None:
        """Two services of one scope hold the same scoped object, even if they are requested one after the other."""
        services = (Config, Database, Repository, Report, Dashboard)
        container = self.build(*(self.register(cls, lifetime=Lifetime.SCOPED) for cls in services))
        async with container.scope({}) as scope:
            dashboard = await scope.resolve(Key(Dashboard))
            assert dashboard.repository.database is dashboard.report.database
            assert await scope.resolve(Key(Database)) is dashboard.report.database

    @case()
    async def test_a_singleton_outlives_scopes(self) -> None:
        """All scopes get the same object, by itself and inside others."""
        container = self.build(self.register(Config, lifetime=Lifetime.SINGLETON), self.register(Database))
        async with container.scope({}) as scope:
            first = await scope.resolve(Key(Config))
        async with container.scope({}) as scope:
            assert await scope.resolve(Key(Config)) is first
            assert (await scope.resolve(Key(Database))).config is first

    @BOTH
    @case()
    async def test_a_singleton_resource_is_closed_by_aclose_and_only_once(self, kind: SourceKind) -> None:
        """The end of a scope leaves it open, ``aclose`` closes it, and doing that again does nothing."""
        log: list[str] = []
        container = self.build(self.register(Session, session(kind, log), lifetime=Lifetime.SINGLETON))
        async with container.scope({}) as scope:
            await scope.resolve(Key(Session))
        assert log == ["session opened"]
        await container.aclose()
        await container.aclose()
        assert log == ["session opened", "session closed"]

    @case()
    async def test_aclose_of_an_unused_container_does_nothing(self) -> None:
        """An app that handled no message still closes its container, and may do so twice."""
        opened: list[str] = []

        def make() -> Config:
            opened.append("built")
            return Config()

        container = self.build(self.register(Config, make))
        await container.aclose()
        await container.aclose()
        assert opened == []

    @pytest.mark.parametrize("lifetime", list(Lifetime))
    @case()
    def test_the_lifetime_of_a_key_is_told(self, lifetime: Lifetime) -> None:
        """``lifetime`` returns the registered lifetime."""
        container = self.build(self.register(Config, lifetime=lifetime))
        assert container.lifetime(Key(Config)) is lifetime

    @case(Feature.SINGLETON | Feature.REUSABLE)
    async def test_a_reopened_container_builds_its_singletons_anew(self) -> None:
        """After ``aclose``, no closed object is returned again."""
        container = self.build(self.register(Config, lifetime=Lifetime.SINGLETON))
        async with container.scope({}) as scope:
            first = await scope.resolve(Key(Config))
        await container.aclose()
        async with container.scope({}) as scope:
            assert await scope.resolve(Key(Config)) is not first
