"""Cases: what can be a key."""

from typing import Annotated

import pytest

from diator import Named
from diator.app import Diator
from diator.containers import Key
from diator.errors import DependencyNotFoundError
from diator.router import Router
from diator_conformance.containers.bench import ContainerSuiteBase, case
from diator_conformance.containers.services import (
    Clock,
    Config,
    DatabaseUrl,
    Engine,
    FixedClock,
    OrderStore,
    Request,
    Session,
    Shop,
    Store,
    UserStore,
    Work,
)


class Replica(Config):
    """Registered under the key of its base, with a qualifier."""


class Keys(ContainerSuiteBase):
    """What can be a key."""

    @case()
    async def test_a_qualifier_tells_two_providers_apart(self) -> None:
        """With and without it, and with one that was not registered."""
        container = self.build(self.register(Config), self.register(Config, Replica, qualifier="replica"))
        assert container.can_resolve(Key(Config, "replica"))
        assert not container.can_resolve(Key(Config, "other"))
        async with container.scope({}) as scope:
            assert type(await scope.resolve(Key(Config))) is Config
            assert type(await scope.resolve(Key(Config, "replica"))) is Replica
            with pytest.raises(DependencyNotFoundError) as raised:
                await scope.resolve(Key(Config, "other"))
        assert raised.value.key == Key(Config, "other")

    @case()
    async def test_a_handler_qualifies_with_named_and_with_the_marker_of_the_library(self) -> None:
        """``Annotated[T, Named("x")]`` works with every container, the library's own marker with its own."""
        container = self.build(self.register(Config), self.register(Config, Replica, qualifier="replica"))
        marker = self.marker("replica")
        assert container.qualifier(("a note", 42)) is None
        if not isinstance(marker, Named):
            assert container.qualifier(("a note", marker)) == "replica"
        app = Diator(container=container)

        @app.command(Work)
        async def work(
            _: Work,
            plain: Config,
            named: Annotated[Config, Named("replica")],
            marked: Annotated[Config, marker],
        ) -> object:
            return [type(plain), type(named), type(marked)]

        async with app:
            assert await app.send(Work()) == [Config, Replica, Replica]

    @case()
    async def test_what_senders_bring_is_qualified_as_in_a_handler(self) -> None:
        """``app.provides`` and ``app.using`` read the library's own marker, even if a router declares the value."""
        marker = self.marker("actor")
        keys = [Key(Request), Key(Request, "actor")]
        container = self.build(self.register(Config), self.register(Config, Replica, qualifier="actor"), provided=keys)
        router = Router()
        router.provides(Annotated[Request, marker])
        app = Diator(container=container)
        app.include(router)
        app.provides(Request)

        @app.command(Work)
        async def work(
            _: Work,
            plain: Request,
            marked: Annotated[Request, marker],
            also: Annotated[Request, Named("actor")],
        ) -> object:
            return [plain, marked, also]

        one, other = Request(), Request()
        async with app:
            for mark in (marker, Named("actor")):
                qualified = Annotated[Request, mark]
                assert await app.using(provide={Request: one, qualified: other}).send(Work()) == [one, other, other]

    @case()
    async def test_a_constructor_qualifies_what_it_needs(self) -> None:
        """In the constructors of services the library's own marker counts."""
        marker = self.marker("replica")

        class Backup(Session):
            def __init__(self, plain: Config, qualified: Annotated[Config, marker]) -> None:
                self.got = [type(plain), type(qualified)]

        container = self.build(
            self.register(Config),
            self.register(Config, Replica, qualifier="replica"),
            self.register(Backup),
        )
        assert not container.validate([Key(Backup)], ()).errors
        async with container.scope({}) as scope:
            assert (await scope.resolve(Key(Backup))).got == [Config, Replica]

    @case()
    async def test_closed_forms_of_a_generic_class_are_keys_of_their_own(self) -> None:
        """``Store[str]`` and ``Store[int]`` differ, at a handler and in a constructor."""
        container = self.build(
            self.register(Store[str], UserStore), self.register(Store[int], OrderStore), self.register(Shop)
        )
        assert not container.can_resolve(Key(Store[bytes]))
        async with container.scope({}) as scope:
            assert type(await scope.resolve(Key(Store[str]))) is UserStore
            shop = await scope.resolve(Key(Shop))
        assert (type(shop.users), type(shop.orders)) == (UserStore, OrderStore)

    @case()
    async def test_a_protocol_is_a_key(self) -> None:
        """The implementation need not inherit from it."""
        container = self.build(self.register(Clock, FixedClock))
        async with container.scope({}) as scope:
            assert (await scope.resolve(Key(Clock))).now() == 42

    @case()
    async def test_a_new_type_is_a_key(self) -> None:
        """A ``NewType`` of ``str`` is a separate key, even in a constructor."""
        url = DatabaseUrl("sqlite://")
        container = self.build(self.value(DatabaseUrl, url), self.register(Engine))
        assert not container.can_resolve(Key(str))
        async with container.scope({}) as scope:
            assert await scope.resolve(Key(DatabaseUrl)) == url
            assert (await scope.resolve(Key(Engine))).url == url
