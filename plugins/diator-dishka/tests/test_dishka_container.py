"""What is particular to dishka: its scopes, values from outside, locks, and what it leaves to others."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from diator_dishka import DishkaContainer
from dishka import (
    AsyncContainer,
    BaseScope,
    FromComponent,
    FromDishka,
    Marker,
    Provider,
    Scope,
    make_async_container,
    make_container,
    new_scope,
)
from dishka.exceptions import NoFactoryError

from diator import (
    Command,
    ConfigurationError,
    ContainerError,
    DependencyCycleError,
    DependencyNotFoundError,
    Diator,
    LifetimeMismatchError,
    Named,
    NotProvidedError,
    UnsupportedRegistrationError,
)
from diator.containers import Key, Lifetime


class User:
    pass


class Audit:
    def __init__(self, user: User) -> None:
        self.user = user


class Settings:
    pass


class Mailer:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings


class Circle:
    def __init__(self, other: "Other") -> None:
        self.other = other


class Other:
    def __init__(self, circle: Circle) -> None:
        self.circle = circle


class FirstError(Exception):
    pass


class SecondError(Exception):
    pass


@dataclass(frozen=True)
class Work(Command[object]):
    pass


def of(*classes: type, scope: BaseScope = Scope.REQUEST, brought: type | None = None) -> Provider:
    provider = Provider(scope=scope)
    for cls in classes:
        provider.provide(cls)
    if brought:
        provider.from_context(provides=brought)
    return provider


def asking(container: object, handler: Callable[..., Any]) -> Diator:
    app = Diator(container=container)
    app.add_command(handler)
    return app


async def work_with_audit(_: Work, audit: Audit) -> object:
    return audit.user


async def work_with_user(_: Work, user: User) -> object:
    return user


# What the plugin takes


def test_a_sync_container_is_refused_and_the_right_one_named() -> None:
    with pytest.raises(ConfigurationError, match="make_async_container"):
        Diator(container=make_container(of(User)))


def test_a_container_without_a_scope_for_the_unit_of_work_is_refused() -> None:
    class OnlyApp(BaseScope):
        APP = new_scope("APP")

    with pytest.raises(ConfigurationError, match="no scope to open"):
        Diator(container=make_async_container(scopes=OnlyApp))


async def test_the_container_is_found_by_its_library_and_closed_with_the_app() -> None:
    log: list[str] = []

    def user() -> Iterator[User]:
        yield User()
        log.append("closed")

    provider = Provider(scope=Scope.APP)
    provider.provide(user)
    async with asking(make_async_container(provider), work_with_user) as app:
        assert isinstance(await app.send(Work()), User)
        assert log == []
    assert log == ["closed"]


async def test_a_hint_written_for_dishka_is_read_as_the_plain_one() -> None:
    async def work(_: Work, user: FromDishka[User], again: Annotated[User, FromComponent("")]) -> object:
        return user is again

    async with asking(make_async_container(of(User)), work) as app:
        assert await app.send(Work())


# Scopes


def test_lifetimes_follow_the_scopes() -> None:
    provider = of(User)
    provider.provide(Settings, scope=Scope.SESSION)
    provider.provide(Mailer, scope=Scope.ACTION)
    provider.provide(Audit, cache=False)
    provider.alias(source=Audit, provides=object)
    provider.provide(lambda: 42, provides=int, scope=Scope.RUNTIME)
    container = DishkaContainer(make_async_container(provider))
    told = {cls: container.lifetime(Key(cls)) for cls in (User, Settings, Audit, object, int, AsyncContainer)}
    assert told == {
        User: Lifetime.SCOPED,
        Settings: Lifetime.SCOPED,  # a skipped scope opens and closes with the unit of work
        Audit: Lifetime.TRANSIENT,
        object: Lifetime.TRANSIENT,
        int: Lifetime.SINGLETON,
        AsyncContainer: Lifetime.SCOPED,
    }
    assert not container.can_resolve(Key(Mailer))  # in a scope that the unit of work does not open


# Values from outside


async def test_what_the_sender_brings_is_asked_of_the_sender() -> None:
    app = asking(make_async_container(of(Audit, brought=User)), work_with_user)
    app.provides(User)
    user = User()
    async with app:
        assert await app.using(provide={User: user}).send(Work()) is user
        with pytest.raises(NotProvidedError, match=r"provide=\{User"):
            await app.send(Work())


async def test_a_default_stands_in_for_what_the_sender_did_not_bring() -> None:
    async def work(_: Work, user: User | None = None) -> object:
        return user

    app = asking(make_async_container(of(Audit, brought=User)), work)
    app.provides(User)
    async with app:
        assert await app.send(Work()) is None


async def test_a_factory_whose_value_was_not_brought_says_how_to_bring_it() -> None:
    app = asking(make_async_container(of(Audit, brought=User)), work_with_audit)
    app.provides(User)
    async with app:
        with pytest.raises(NotProvidedError, match=r"Work needs User from its sender.*app.using\(provide=\{User"):
            await app.send(Work())


def test_a_value_that_no_sender_is_declared_to_bring_is_refused() -> None:
    app = asking(make_async_container(of(Audit, brought=User)), work_with_audit)
    (problem,) = app.check()
    assert "work_with_audit" in problem.text
    assert "app.provides(User)" in problem.fix


def test_a_value_that_the_container_was_not_given_is_refused() -> None:
    provider = of(Mailer)
    provider.from_context(provides=Settings, scope=Scope.APP)
    keys = [Key(Mailer)]
    (error,) = DishkaContainer(make_async_container(provider)).validate(keys, ()).errors
    assert isinstance(error, UnsupportedRegistrationError)
    assert "context={Settings: ...}" in error.fix
    given = make_async_container(provider, context={Settings: Settings()})
    assert not DishkaContainer(given).validate(keys, ()).errors


def test_a_brought_value_that_no_provider_declares_is_refused() -> None:
    container = DishkaContainer(make_async_container(of(Audit), skip_validation=True))
    (error,) = container.validate([Key(Audit)], [Key(User)]).errors
    assert isinstance(error, UnsupportedRegistrationError)
    assert error.key == Key(Audit)
    assert "from_context(User, scope=Scope.REQUEST)" in error.fix


@pytest.mark.parametrize("scope", [Scope.REQUEST, Scope.SESSION])
async def test_a_brought_value_takes_the_place_of_what_the_container_makes(scope: BaseScope) -> None:
    provider = of(User, scope=scope)
    provider.provide(Audit)
    app = asking(make_async_container(provider), work_with_audit)
    app.provides(User)
    user = User()
    async with app:
        assert await app.using(provide={User: user}).send(Work()) is user
        assert await app.send(Work()) is not user


async def test_a_brought_value_takes_the_place_of_one_in_a_component() -> None:
    class Report:
        def __init__(self, plain: User, guest: Annotated[User, FromComponent("guests")]) -> None:
            self.plain, self.guest = plain, guest

    async def work(_: Work, report: Report) -> object:
        return report

    guests = Provider(scope=Scope.REQUEST, component="guests")
    guests.provide(User)
    app = asking(make_async_container(of(User, Report), guests), work)
    app.provides(Annotated[User, Named("guests")])
    guest = User()
    async with app:
        report: Any = await app.using(provide={Annotated[User, Named("guests")]: guest}).send(Work())
    assert report.guest is guest
    assert report.plain is not guest


@pytest.mark.parametrize(
    ("scope", "cache", "fix"),
    [(Scope.APP, True, "scope=Scope.REQUEST"), (Scope.REQUEST, False, "cache=False")],
)
def test_a_brought_value_that_could_not_reach_all_factories_is_refused(scope: BaseScope, cache: bool, fix: str) -> None:
    provider = of()
    provider.provide(User, scope=scope, cache=cache)
    provider.provide(Audit, scope=Scope.REQUEST)
    (error,) = DishkaContainer(make_async_container(provider)).validate([Key(Audit)], [Key(User)]).errors
    assert isinstance(error, UnsupportedRegistrationError)
    assert error.key == Key(User)
    assert fix in error.fix


def test_what_makes_an_object_that_may_be_brought_is_checked_too() -> None:
    container = DishkaContainer(make_async_container(of(Audit), skip_validation=True))
    (error,) = container.validate([Key(Audit)], [Key(Audit)]).errors
    assert isinstance(error, DependencyNotFoundError)
    assert error.key == Key(User)


# Containers that were made without dishka's own validation


UNSOUND = [
    (of(Audit), Audit, DependencyNotFoundError),
    (of(Circle, Other), Circle, DependencyCycleError),
    (of(), User, DependencyNotFoundError),
]


@pytest.mark.parametrize(("provider", "asked", "kind"), UNSOUND)
async def test_what_dishka_did_not_validate_is_found_at_the_start_and_when_resolving(
    provider: Provider, asked: type, kind: type[ContainerError]
) -> None:
    container = DishkaContainer(make_async_container(provider, skip_validation=True))
    (error,) = container.validate([Key(asked)], ()).errors
    assert type(error) is kind
    async with container.scope({}) as scope:
        with pytest.raises(kind) as raised:
            await scope.resolve(Key(asked))
    assert str(raised.value) == str(error)
    assert raised.value.__cause__ is not None


def test_a_singleton_that_holds_a_scoped_object_is_found_where_dishka_did_not_look() -> None:
    provider = of(User)
    provider.provide(Audit, scope=Scope.APP)
    (error,) = DishkaContainer(make_async_container(provider, skip_validation=True)).validate([Key(Audit)], ()).errors
    assert isinstance(error, LifetimeMismatchError)
    assert (error.key, error.needs) == (Key(Audit), Key(User))


async def test_what_a_factory_asks_of_the_container_in_vain_is_an_error_of_the_container() -> None:
    async def audit(container: AsyncContainer) -> Audit:
        return Audit(await container.get(User))

    provider = of()
    provider.provide(audit, scope=Scope.REQUEST)
    container = DishkaContainer(make_async_container(provider))
    async with container.scope({}) as scope:
        with pytest.raises(ContainerError, match=r"Audit.*User") as raised:
            await scope.resolve(Key(Audit))
    assert isinstance(raised.value.__cause__, NoFactoryError)


# Locks and loops


async def test_a_factory_may_ask_the_container_for_several_things_at_a_time() -> None:
    async def user() -> User:
        await asyncio.sleep(0)
        return User()

    async def report(container: AsyncContainer) -> list[object]:
        return list(await asyncio.gather(container.get(User), container.get(Settings)))

    provider = of(Settings)
    provider.provide(user)
    provider.provide(report)
    container = DishkaContainer(make_async_container(provider))
    async with container.scope({}) as scope:
        made = await asyncio.wait_for(scope.resolve(Key(list[object])), 5)
        assert [type(one) for one in made] == [User, Settings]


def test_a_container_whose_lock_was_waited_for_works_in_another_loop() -> None:
    async def user() -> User:
        await asyncio.sleep(0.001)
        return User()

    provider = Provider(scope=Scope.APP)
    provider.provide(user)
    app = asking(make_async_container(provider), work_with_user)

    async def run() -> list[object]:
        async with app:
            return await asyncio.gather(*(app.send(Work()) for _ in range(3)))

    first, second = asyncio.run(run()), asyncio.run(run())
    assert len({id(user) for user in first}) == len({id(user) for user in second}) == 1
    assert first[0] is not second[0]


# Closing


@pytest.mark.parametrize("scope", [Scope.REQUEST, Scope.APP])
async def test_a_cancellation_while_one_resource_closes_leaves_no_other_open(scope: BaseScope) -> None:
    log: list[str] = []
    closing = asyncio.Event()

    async def settings() -> AsyncIterator[Settings]:
        yield Settings()
        await asyncio.sleep(0)
        log.append("settings closed")

    async def mailer(settings: Settings) -> AsyncIterator[Mailer]:
        yield Mailer(settings)
        closing.set()
        raise asyncio.CancelledError

    async def work(_: Work, mailer: Mailer) -> None:
        pass

    provider = Provider(scope=scope)
    provider.provide(settings)
    provider.provide(mailer)
    app = asking(make_async_container(provider), work)

    async def run() -> None:
        async with app:
            await app.send(Work())

    task = asyncio.create_task(run())
    await closing.wait()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["settings closed"]


def failing(raise_again: bool) -> Provider:
    async def settings() -> AsyncGenerator[Settings, BaseException | None]:
        error = yield Settings()
        raise error if error and raise_again else FirstError

    async def mailer(settings: Settings) -> AsyncGenerator[Mailer, BaseException | None]:
        error = yield Mailer(settings)
        raise error if error and raise_again else SecondError

    provider = Provider(scope=Scope.SESSION)
    provider.provide(settings)
    provider.provide(mailer, scope=Scope.REQUEST)
    return provider


async def test_several_errors_of_closing_are_raised_together() -> None:
    container = DishkaContainer(make_async_container(failing(raise_again=False)))
    with pytest.raises(SecondError) as raised:
        async with container.scope({}) as scope:
            await scope.resolve(Key(Mailer))
    assert isinstance(raised.value.__cause__, FirstError)


async def test_an_error_that_resources_raise_again_stays_the_one_that_was_raised() -> None:
    container = DishkaContainer(make_async_container(failing(raise_again=True)))
    error = ValueError("of the handler")
    raised: BaseException | None = None
    try:
        async with container.scope({}) as scope:
            await scope.resolve(Key(Mailer))
            raise error
    except ValueError as caught:
        raised = caught
    assert raised is error
    assert error.__cause__ is None


async def test_an_error_of_closing_arrives_as_it_was_raised() -> None:
    container = DishkaContainer(make_async_container(failing(raise_again=False)))
    with pytest.raises(FirstError):
        async with container.scope({}) as scope:
            await scope.resolve(Key(Settings))


class Transaction:
    def close(self) -> None: ...


def closes() -> Iterator[Transaction]:
    transaction = Transaction()
    yield transaction
    transaction.close()


# Factories with `when=`

DEBUG = Marker("debug")


def variants(active: Callable[..., bool], *factories: Callable[..., Any]) -> Provider:
    """The first factory is for all, the others are for ``DEBUG``."""
    provider = Provider(scope=Scope.REQUEST)
    provider.from_context(User)
    provider.activate(active, DEBUG)
    for number, factory in enumerate(factories):
        provider.provide(factory, provides=Transaction, when=DEBUG if number else None)
    return provider


def on() -> bool:
    return True


def off() -> bool:
    return False


def for_user(user: User) -> bool:
    return True


def of_user(user: User) -> Transaction:
    return Transaction()


def test_the_variant_that_is_active_is_checked() -> None:
    container = DishkaContainer(make_async_container(variants(on, closes, of_user)))
    (error,) = container.validate([Key(Transaction)], ()).errors
    assert "which is a value from_context, and the sender does not provide it" in str(error)
    assert container.lifetime(Key(Transaction)) is Lifetime.SCOPED


@pytest.mark.parametrize("active", [off, for_user])
def test_a_variant_that_is_not_active_or_may_not_be_is_no_reason_to_refuse(active: Callable[..., bool]) -> None:
    container = DishkaContainer(make_async_container(variants(active, closes, of_user)))
    assert container.validate([Key(Transaction)], ()) == ([], [])


async def test_a_default_stands_in_where_no_variant_is_active() -> None:
    provider = Provider(scope=Scope.REQUEST)
    provider.activate(off, DEBUG)
    provider.provide(closes, when=DEBUG)
    container = DishkaContainer(make_async_container(provider))
    assert not container.can_resolve(Key(Transaction))
    app = Diator(container=container)

    @app.command(Work)
    async def work(_: Work, transaction: Transaction | None = None) -> object:
        return transaction

    async with app:
        assert await app.send(Work()) is None


def test_variants_none_of_which_may_be_active_are_warned_of() -> None:
    provider = Provider(scope=Scope.REQUEST)
    provider.from_context(User)
    provider.activate(for_user, DEBUG)
    provider.provide(closes, when=DEBUG)
    found = DishkaContainer(make_async_container(provider)).validate([Key(Transaction)], ())
    assert not found.errors
    assert ["known only in the unit of work" in str(one) for one in found.warnings] == [True]
