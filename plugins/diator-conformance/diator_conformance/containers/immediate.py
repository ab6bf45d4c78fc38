"""Cases: what a container resolves without awaiting is what ``resolve`` returns.

A plugin need not have ``immediate``, and may return None for any key: then there is nothing to check.
"""

from itertools import chain
from typing import Any

import pytest

from diator.containers import Container, ImmediateContainer, Key, Lifetime
from diator.errors import DependencyNotFoundError, ScopeClosedError
from diator_conformance.containers.bench import ContainerSuiteBase, EndedError, case
from diator_conformance.containers.registration import Feature, SourceKind
from diator_conformance.containers.resources import HandlerError, Log, session, transaction
from diator_conformance.containers.services import (
    Billing,
    Config,
    Database,
    Report,
    Repository,
    Request,
    Session,
    Tenant,
    Transaction,
)


class Immediate(ContainerSuiteBase):
    """What a container resolves without awaiting is what ``resolve`` returns."""

    @pytest.mark.parametrize("lifetime", list(Lifetime))
    @case()
    async def test_immediate_shares_objects_with_resolve(self, lifetime: Lifetime) -> None:
        """In both orders, in one scope and from one scope to the next."""
        services = (Database, Repository, Report)
        container = self.build(self.register(Config, lifetime=lifetime), *(self.register(cls) for cls in services))
        repository, report = function_of(container, Key(Repository)), function_of(container, Key(Report))
        configs: list[list[Config]] = []
        for _ in range(2):
            async with container.scope({}) as scope:
                built = [repository(scope), await scope.resolve(Key(Report))]
                built += [await scope.resolve(Key(Repository)), report(scope)]
            async with container.scope({}) as scope:
                other = [await scope.resolve(Key(Repository)), report(scope)]
            assert [type(one) for one in built + other] == [Repository, Report] * 3
            configs += [[one.database.config for one in some] for some in (built, other)]
        distinct = [len({id(one) for one in some}) for some in (*configs, [*chain(*configs)])]
        if lifetime is Lifetime.SINGLETON:
            assert distinct == [1, 1, 1, 1, 1]
        elif lifetime is Lifetime.SCOPED or self.usual is Lifetime.SCOPED:  # then those that hold it are scoped
            assert distinct == [1, 1, 1, 1, 4] if lifetime is Lifetime.SCOPED else [2, 2, 2, 2, 8]
        else:
            assert distinct == [4, 2, 4, 2, 12]

    @case()
    async def test_immediate_raises_after_the_scope_has_closed(self) -> None:
        """Whether or not the scope was used before."""
        container = self.build(self.register(Config))
        config = function_of(container, Key(Config))
        for uses in range(3):
            async with container.scope({}) as scope:
                for _ in range(uses):
                    config(scope)
            with pytest.raises(ScopeClosedError):
                config(scope)

    @case()
    async def test_immediate_raises_for_what_is_missing(self) -> None:
        """It returns None, or a function that names the missing key."""
        container = self.build(self.register(Config))
        missing = function_of(container, Key(Session))
        async with container.scope({}) as scope:
            with pytest.raises(DependencyNotFoundError) as raised:
                missing(scope)
        assert raised.value.key == Key(Session)

    @case(Feature.PROVIDED_VALUES)
    async def test_immediate_returns_provided_values(self) -> None:
        """By themselves and below others, those of the scope that it is called with."""
        container = self.build(self.register(Tenant), self.register(Billing), provided=[Key(Request)])
        billing = function_of(container, Key(Billing))
        asked = container.immediate(Key(Request)) if isinstance(container, ImmediateContainer) else None
        for _ in range(50):
            first, second = Request(), Request()
            async with (
                container.scope({Key(Request): first}) as one,
                container.scope({Key(Request): second}) as two,
            ):
                assert billing(one).tenant.request is first
                assert billing(two).tenant.request is second
                assert (await one.resolve(Key(Billing))).tenant.request is first
                assert asked is None or asked(two) is second

    @case(Feature.QUALIFIERS)
    async def test_immediate_tells_qualifiers_apart(self) -> None:
        """With a qualifier and without."""
        replica = Config()
        container = self.build(self.register(Config), self.value(Config, replica, qualifier="replica"))
        plain, qualified = function_of(container, Key(Config)), function_of(container, Key(Config, "replica"))
        async with container.scope({}) as scope:
            assert qualified(scope) is replica
            assert plain(scope) is not replica

    @case(Feature.TEARDOWN)
    async def test_resources_opened_immediately_close_in_reverse(self) -> None:
        """Together with those that ``resolve`` has opened, before or after."""
        log: Log = []
        container = self.build(
            self.register(Session, session(SourceKind.GENERATOR, log)),
            self.register(Transaction, transaction(SourceKind.ASYNC_GENERATOR, log)),
        )
        opened = function_of(container, Key(Session))
        for immediately in (True, False):
            log.clear()
            async with container.scope({}) as scope:
                first = opened(scope) if immediately else await scope.resolve(Key(Session))
                assert (await scope.resolve(Key(Transaction))).session is first
                assert opened(scope) is first
            assert log == ["session opened", "transaction closed", "session closed"]

    @case(Feature.TEARDOWN)
    async def test_a_resource_opened_immediately_closes_after_an_error(self) -> None:
        """The error leaves the scope as it was."""
        log: Log = []
        container = self.build(self.register(Session, session(SourceKind.GENERATOR, log)))
        opened, error = function_of(container, Key(Session)), HandlerError()
        raised: BaseException | None = None
        try:
            async with container.scope({}) as scope:
                opened(scope)
                raise error
        except HandlerError as caught:
            raised = caught
        assert raised is error
        assert log == ["session opened", "session closed"]

    @case(Feature.ASYNC_FACTORY)
    async def test_what_has_to_be_awaited_is_not_immediate(self) -> None:
        """A key below which something is a coroutine function."""

        async def make() -> Config:
            return Config()

        container = self.build(self.register(Config, make), self.register(Database))
        if isinstance(container, ImmediateContainer):
            assert container.immediate(Key(Config)) is None
            assert container.immediate(Key(Database)) is None

    @case()
    async def test_immediate_raises_what_a_factory_raises(self) -> None:
        """Unchanged; what it has not built is built the next time."""
        fails, error = iter([True, False]), HandlerError()

        def make() -> Config:
            if next(fails):
                raise error
            return Config()

        container = self.build(self.register(Config, make), self.register(Database))
        database = function_of(container, Key(Database))
        async with container.scope({}) as scope:
            with pytest.raises(HandlerError) as raised:
                database(scope)
            assert raised.value is error
            assert isinstance(database(scope).config, Config)

    @case(Feature.REUSABLE)
    async def test_immediate_serves_a_reopened_container(self) -> None:
        """Singletons are built again after ``aclose``, but not by requesting the function."""
        built: list[Config] = []

        def make() -> Config:
            built.append(Config())
            return built[-1]

        container = self.build(self.register(Config, make, lifetime=self.longest))
        config = function_of(container, Key(Config))
        assert built == []
        for _ in range(2):
            async with container.scope({}) as scope:
                assert config(scope) is built[-1]
            await container.aclose()
        assert len(built) == 2


def function_of(container: Container, key: Key) -> Any:
    """Return the function that resolves a key without awaiting; ends the case if there is none."""
    found = container.immediate(key) if isinstance(container, ImmediateContainer) else None
    if found is None:
        raise EndedError
    return found
