"""Cases: factories, defaults, values, and values that the sender of a message brings."""

import asyncio

from diator.app import Diator
from diator.containers import Key
from diator.engine.provided_values import requested_key
from diator_conformance.containers import postponed
from diator_conformance.containers.bench import ContainerSuiteBase, case
from diator_conformance.containers.registration import Feature
from diator_conformance.containers.services import (
    FALLBACK,
    Billing,
    Config,
    Database,
    DatabaseUrl,
    Flags,
    Limit,
    Request,
    Tenant,
    Tolerant,
    Work,
)


async def make_config() -> Config:
    """Build in the way that needs an await."""
    await asyncio.sleep(0)
    return Config()


class Factories(ContainerSuiteBase):
    """Factories, defaults, values, and values that the sender of a message brings."""

    @case()
    async def test_a_function_is_a_factory(self) -> None:
        """The result of a function is the object of its key."""
        made = Config()

        def make() -> Config:
            return made

        container = self.build(self.register(Config, make))
        async with container.scope({}) as scope:
            assert await scope.resolve(Key(Config)) is made

    @case()
    async def test_a_coroutine_function_is_a_factory(self) -> None:
        """Its awaited result is the object, never the coroutine."""
        container = self.build(self.register(Config, make_config))
        async with container.scope({}) as scope:
            assert isinstance(await scope.resolve(Key(Config)), Config)

    @case()
    async def test_a_class_may_need_what_a_coroutine_function_makes(self) -> None:
        """The await happens below a constructor that knows nothing of it."""
        container = self.build(self.register(Config, make_config), self.register(Database))
        async with container.scope({}) as scope:
            assert isinstance((await scope.resolve(Key(Database))).config, Config)

    @case()
    async def test_a_value_is_given_as_it_is(self) -> None:
        """Every scope gets the registered object."""
        config = Config()
        container = self.build(self.value(Config, config))
        for _ in range(2):
            async with container.scope({}) as scope:
                assert await scope.resolve(Key(Config)) is config

    @case()
    async def test_falsy_values_and_none_are_values(self) -> None:
        """Zero, empty text, an empty set and None are not treated as missing."""
        calls: list[str] = []
        absent: Config | None = None

        def nothing() -> Config | None:
            calls.append("called")
            return absent

        container = self.build(
            self.value(Limit, 0),
            self.value(DatabaseUrl, ""),
            self.value(Flags, Flags(frozenset())),
            self.register(Config, nothing),
        )
        async with container.scope({}) as scope:
            assert await scope.resolve(Key(Limit)) == 0
            assert await scope.resolve(Key(DatabaseUrl)) == ""
            assert await scope.resolve(Key(Flags)) == frozenset()
            assert await scope.resolve(Key(Config)) is None
        assert calls == ["called"]

    @case()
    async def test_a_default_stands_in_where_nothing_is_registered(self) -> None:
        """A parameter with a default makes its service optional, at startup and when it is built."""
        container = self.build(self.register(Tolerant))
        assert not container.validate([Key(Tolerant)], ()).errors
        async with container.scope({}) as scope:
            assert (await scope.resolve(Key(Tolerant))).config is FALLBACK

    @case()
    async def test_a_registered_service_wins_over_a_default(self) -> None:
        """A default is used only if there is no provider."""
        config = Config()
        container = self.build(self.register(Tolerant), self.value(Config, config))
        async with container.scope({}) as scope:
            assert (await scope.resolve(Key(Tolerant))).config is config

    @case(Feature.PROVIDED_VALUES)
    async def test_a_provided_value_reaches_factories(self) -> None:
        """A value provided to one scope reaches all dependencies in that scope, at any depth, and no other scope."""
        given = [Key(Request)]
        container = self.build(self.register(Tenant), self.register(Billing), provided=given)
        assert not container.validate([Key(Billing)], given).errors
        first, second = Request(), Request()
        async with (
            container.scope({Key(Request): first}) as one,
            container.scope({Key(Request): second}) as two,
        ):
            assert (await one.resolve(Key(Billing))).tenant.request is first
            assert (await two.resolve(Key(Billing))).tenant.request is second
            assert await one.resolve(Key(Request)) is first

    @case(Feature.PROVIDED_VALUES)
    def test_finds_what_needs_a_value_that_senders_bring(self) -> None:
        """Without provided values, as in a worker, every key that needs one is reported, at any depth."""
        given = [Key(Request)]
        services = (Tenant, Billing, Config)
        container = self.build(*(self.register(cls) for cls in services), provided=given)
        keys = [Key(cls) for cls in services]
        assert not container.validate(keys, given).errors
        found = container.validate(keys, ())
        if Feature.DEEP_VALIDATION in self.features:
            assert {requested_key(error) for error in found.errors} == {Key(Tenant), Key(Billing)}
        else:
            assert found.warnings or found.errors, "what validate() could not look into is a warning"
        assert not container.validate(keys, given).errors

    @case(Feature.PROVIDED_VALUES)
    async def test_a_provided_value_never_reaches_a_later_scope(self) -> None:
        """A provided value is dropped with its scope, even if memory is reused."""
        container = self.build(self.register(Tenant), provided=[Key(Request)])
        for _ in range(50):
            request = Request()
            async with container.scope({Key(Request): request}) as scope:
                assert await scope.resolve(Key(Request)) is request
                assert (await scope.resolve(Key(Tenant))).request is request

    @case(Feature.PROVIDED_VALUES)
    async def test_what_a_sender_provides_reaches_factories(self) -> None:
        """The same through a whole app: ``app.using(provide=...)``."""
        container = self.build(self.register(Tenant), provided=[Key(Request)])
        app = Diator(container=container)
        app.provides(Request)

        @app.command(Work)
        async def work(_: Work, tenant: Tenant) -> object:
            return tenant.request

        request = Request()
        async with app:
            assert await app.using(provide={Request: request}).send(Work()) is request

    @case()
    async def test_hints_that_are_text_are_read(self) -> None:
        """A module with ``from __future__ import annotations``, whose classes are in any order."""
        container = self.build(self.register(postponed.Stamp), self.register(postponed.Letter))
        async with container.scope({}) as scope:
            letter = await scope.resolve(Key(postponed.Letter))
        assert isinstance(letter.stamp, postponed.Stamp)

    @case()
    async def test_a_container_serves_a_whole_app(self) -> None:
        """A handler receives its dependencies, from the start of the app to its end."""
        container = self.build(self.register(Config), self.register(Database))
        app = Diator(container=container)

        @app.command(Work)
        async def work(_: Work, database: Database) -> object:
            return database

        assert [problem for problem in app.check() if problem.severity == "error"] == []
        async with app:
            assert isinstance(await app.send(Work()), Database)
