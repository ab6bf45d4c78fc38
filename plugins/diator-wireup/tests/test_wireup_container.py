"""What is particular to wireup: its markers, its config, values from outside, closing, and what it lets pass."""

import asyncio
import sys
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Hashable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Annotated, Any

import pytest
from diator_wireup import WireupContainer
from wireup import (
    AsyncContainer,
    Inject,
    Injected,
    ScopedAsyncContainer,
    abstract,
    create_async_container,
    create_sync_container,
    injectable,
)
from wireup.errors import UnknownServiceRequestedError

from diator import (
    Command,
    ConfigurationError,
    ContainerError,
    DependencyNotFoundError,
    Diator,
    Named,
    NotProvidedError,
    UnsupportedRegistrationError,
)
from diator.containers import Key, Lifetime


class User:
    pass


class Guest(User):
    pass


class Audit:
    def __init__(self, user: User) -> None:
        self.user = user


class FirstError(Exception):
    pass


class SecondError(Exception):
    pass


@dataclass(frozen=True)
class Work(Command[object]):
    pass


def of(*injectables: object, shared: bool = False, config: dict[str, Any] | None = None) -> AsyncContainer:
    return create_async_container(injectables=[*injectables], config=config, concurrent_scoped_access=shared)


def scoped(source: object) -> object:
    return injectable(source, lifetime="scoped")


def asking(container: object, handler: Callable[..., Any]) -> Diator:
    app = Diator(container=container)
    app.add_command(handler)
    return app


def refusal(container: WireupContainer, *keys: Key, provided: Sequence[Key] = ()) -> UnsupportedRegistrationError:
    found = container.validate(keys, provided)
    assert not found.warnings
    (error,) = found.errors
    assert isinstance(error, UnsupportedRegistrationError)
    return error


async def work_with_audit(_: Work, audit: Audit) -> object:
    return audit.user


async def work_with_user(_: Work, user: User) -> object:
    return user


# What the plugin takes


@pytest.mark.parametrize("native", [create_sync_container(), of().enter_scope()])
def test_a_container_of_another_kind_is_refused_and_the_right_one_named(native: object) -> None:
    with pytest.raises(ConfigurationError, match="create_async_container") as raised:
        Diator(container=native)
    assert type(native).__name__ in raised.value.problems[0].text


async def test_the_container_is_found_by_its_library_and_closed_with_the_app() -> None:
    log: list[str] = []

    @injectable
    def user() -> Iterator[User]:
        yield User()
        log.append("closed")

    async with asking(of(user), work_with_user) as app:
        assert isinstance(await app.send(Work()), User)
        assert log == []
    assert log == ["closed"]


def test_lifetimes_are_those_of_wireup() -> None:
    container = WireupContainer(of(injectable(User), scoped(Audit), injectable(Guest, lifetime="transient")))
    told = {key: container.lifetime(Key(key)) for key in (User, Audit, Guest, Sequence[Audit], AsyncContainer)}
    assert told == {
        User: Lifetime.SINGLETON,
        Audit: Lifetime.SCOPED,
        Guest: Lifetime.TRANSIENT,
        Sequence[Audit]: Lifetime.SCOPED,
        AsyncContainer: Lifetime.SINGLETON,
    }


async def test_what_is_registered_after_the_app_was_made_counts_too() -> None:
    native = of()
    container = WireupContainer(native)
    assert not container.can_resolve(Key(User))
    # As wireup's own integrations do when they are set up.
    native._registry.extend(impls=[declaration(injectable(User))])  # pyright: ignore[reportPrivateUsage]
    async with container.scope({}) as scope:
        assert isinstance(await scope.resolve(Key(User)), User)


def declaration(registered: Any) -> Any:
    return registered.__wireup_registration__


# Hints and markers


async def test_a_hint_written_for_wireup_is_read_as_the_plain_one() -> None:
    async def work(_: Work, user: Injected[User], again: Annotated[User, Inject(qualifier=None)]) -> object:
        return user is again

    async with asking(of(injectable(User)), work) as app:
        assert await app.send(Work())


async def test_markers_are_read_where_fastapi_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Depends:
        def __init__(self, dependency: Callable[[], object]) -> None:
            self.dependency = dependency

    fastapi: Any = ModuleType("fastapi")
    fastapi.Depends = Depends
    monkeypatch.setitem(sys.modules, "fastapi", fastapi)
    marker = Inject(qualifier="guest")
    assert isinstance(marker, Depends)
    assert WireupContainer(of()).qualifier((marker,)) == "guest"


async def test_a_handler_gets_values_of_the_config() -> None:
    async def work(
        _: Work,
        host: Annotated[str, Inject(config="db.host")],
        url: Annotated[str, Inject(expr="sqlite://${db.host}")] = "not this",
    ) -> object:
        return host, url

    app = asking(of(config={"db": {"host": "here"}}), work)
    assert app.check() == []
    async with app:
        assert await app.send(Work()) == ("here", "sqlite://here")
    native = WireupContainer(of(config={"a": 1}))
    assert native.lifetime(Key(int, native.qualifier((Inject(config="a"),)))) is Lifetime.SINGLETON


@pytest.mark.parametrize("name", ["nowhere", "db.nowhere", "db..host"])
async def test_a_value_that_the_config_lacks_is_missing(name: str) -> None:
    marker = Inject(config=name)

    async def work(_: Work, host: Annotated[str, marker]) -> object:
        return host

    native = of(config={"db": {}})
    (problem,) = asking(native, work).check()
    assert name in problem.fix
    async with WireupContainer(native).scope({}) as scope:
        with pytest.raises(DependencyNotFoundError):
            await scope.resolve(Key(str, WireupContainer(native).qualifier((marker,))))


async def test_a_handler_gets_collections() -> None:
    async def work(_: Work, users: Sequence[User], by_name: Mapping[Hashable, User]) -> object:
        return [type(user) for user in users], {name: type(user) for name, user in by_name.items()}

    app = asking(of(injectable(User), injectable(Guest, qualifier="guest", as_type=User)), work)
    async with app:
        assert await app.send(Work()) == ([User, Guest], {None: User, "guest": Guest})


def test_a_subclass_does_not_inherit_a_registration() -> None:
    @injectable
    class Base:
        pass

    class Derived(Base):
        pass

    container = WireupContainer(of(Derived))  # wireup finds the data of Base at it
    assert container.can_resolve(Key(Base))
    assert not container.can_resolve(Key(Derived))


async def test_a_handler_class_below_a_registered_one_is_built_for_each_message() -> None:
    @injectable
    class Base:
        def __init__(self, user: User) -> None:
            self.user = user

    class Handler(Base):
        async def handle(self, _: Work) -> object:
            return self

    app = Diator(container=of(Base, injectable(User)))
    app.add_command(Handler)
    async with app:
        first, second = await app.send(Work()), await app.send(Work())
    assert isinstance(first, Handler)
    assert first is not second


@pytest.mark.parametrize("there", [True, False])
async def test_an_optional_object_comes_without_a_warning(there: bool) -> None:
    @injectable(lifetime="scoped")
    def user() -> User | None:
        return User() if there else None

    async def work(_: Work, user: User | None = None, again: User | None = None) -> object:
        return user, user is again

    async with asking(of(user), work) as app:
        result: Any = await app.send(Work())
    assert result[1]
    assert isinstance(result[0], User) is there


# What wireup lets pass


def test_an_optional_parameter_that_misses_its_service_is_a_warning() -> None:
    class Tolerant:
        def __init__(self, user: User | None = None, other: FirstError | None = None) -> None:
            self.user = user

    found = WireupContainer(of(scoped(Tolerant), injectable(User))).validate([Key(Tolerant)], ())
    assert not found.errors
    (warning,) = found.warnings
    assert "gets the default of 'user'" in str(warning)
    assert "hint User alone" in str(warning)


async def test_the_name_of_diator_in_a_constructor_is_refused() -> None:
    class Report:
        def __init__(self, user: Annotated[User, Named("guest")]) -> None:
            self.user = user

    guest = injectable(Guest, qualifier="guest", as_type=User)
    error = refusal(WireupContainer(of(scoped(Report), injectable(User), guest)), Key(Report))
    assert error.key == Key(Report)
    assert "Inject(qualifier='guest')" in error.fix


async def test_the_name_of_diator_beside_that_of_wireup_is_fine() -> None:
    class Report:
        def __init__(self, user: Annotated[User, Named("guest"), Inject(qualifier="guest")]) -> None:
            self.user = user

    container = WireupContainer(of(scoped(Report), injectable(Guest, qualifier="guest", as_type=User)))
    assert not container.validate([Key(Report)], ()).errors
    async with container.scope({}) as scope:
        assert isinstance((await scope.resolve(Key(Report))).user, Guest)


@asynccontextmanager
async def open_async() -> AsyncGenerator[User, None]:
    yield User()


@contextmanager
def open_sync() -> Generator[User, None, None]:
    yield User()


@pytest.mark.parametrize(
    ("source", "hint"), [(open_async, AsyncGenerator[User, None]), (open_sync, Generator[User, None, None])]
)
def test_a_context_manager_is_refused_however_deep(source: Callable[[], Any], hint: Any) -> None:
    class Opener:
        def __init__(self, user: Any) -> None:
            self.user = user

    Opener.__init__.__annotations__["user"] = hint
    error = refusal(WireupContainer(of(scoped(source), scoped(Opener))), Key(Opener))
    assert error.key == Key(hint)
    assert "drop @contextmanager" in error.fix


def test_an_abstract_class_is_refused_since_its_circles_hang() -> None:
    with pytest.warns(FutureWarning, match="abstract"):

        @abstract
        class Left:
            pass

    class Right:
        def __init__(self, left: Left) -> None:
            self.left = left

    class Implementation(Left):
        pass

    @injectable(lifetime="scoped")
    async def make(right: Right) -> Implementation:
        return Implementation()

    container = WireupContainer(of(Left, scoped(Right), make))
    error = refusal(container, Key(Right), provided=[Key(Left)])
    assert error.key == Key(Left)
    assert "as_type=" in error.fix


# Scopes


async def slow_user() -> User:
    await asyncio.sleep(0.001)
    return User()


async def test_a_factory_may_ask_its_own_scope() -> None:
    @injectable(lifetime="scoped")
    async def audit(scope: ScopedAsyncContainer) -> Audit:
        return Audit(await scope.get(User))

    async def work(_: Work, audit: Audit, user: User) -> object:
        return audit.user is user

    async with asking(of(audit, scoped(slow_user)), work) as app:
        assert await app.send(Work())


async def test_what_a_factory_asks_of_the_container_in_vain_is_an_error_of_the_container() -> None:
    @injectable(lifetime="scoped")
    async def audit(container: AsyncContainer) -> Audit:
        return Audit(await container.get(User))

    async with WireupContainer(of(audit)).scope({}) as scope:
        with pytest.raises(ContainerError, match=r"Audit.*User") as raised:
            await scope.resolve(Key(Audit))
    assert isinstance(raised.value.__cause__, UnknownServiceRequestedError)


async def test_what_is_overridden_for_a_test_reaches_handlers() -> None:
    native = of(scoped(User), scoped(Audit))
    guest = Guest()
    async with asking(native, work_with_audit) as app:
        native.override.set(User, guest)
        assert await app.send(Work()) is guest
        native.override.delete(User)
        assert await app.send(Work()) is not guest


# Values from outside


@injectable(lifetime="scoped")
def brought() -> User:
    raise NotProvidedError("send with app.using(provide={User: ...})")


async def test_a_value_that_was_not_brought_is_named_before_anything_runs() -> None:
    app = asking(of(brought, scoped(Audit)), work_with_audit)
    app.provides(User)
    user = User()
    async with app:
        assert await app.using(provide={User: user}).send(Work()) is user
        with pytest.raises(NotProvidedError, match="Work needs User from its sender"):
            await app.send(Work())


async def test_a_brought_value_takes_the_place_of_a_resource_which_stays_closed() -> None:
    log: list[str] = []

    @injectable(lifetime="scoped")
    async def user() -> AsyncIterator[User]:
        log.append("opened")
        yield User()

    app = asking(of(user, scoped(Audit)), work_with_audit)
    app.provides(User)
    given = User()
    async with app:
        assert await app.using(provide={User: given}).send(Work()) is given
        assert log == []
        assert await app.send(Work()) is not given
    assert log == ["opened"]


async def test_a_brought_value_takes_the_place_of_a_qualified_one_only() -> None:
    class Report:
        def __init__(self, plain: User, guest: Annotated[User, Inject(qualifier="guest")]) -> None:
            self.plain, self.guest = plain, guest

    key = Key(User, "guest")
    native = of(scoped(User), injectable(Guest, lifetime="scoped", qualifier="guest", as_type=User), scoped(Report))
    guest = Guest()
    async with WireupContainer(native).scope({key: guest}) as scope:
        report = await scope.resolve(Key(Report))
        assert await scope.resolve(key) is guest
    assert report.guest is guest
    assert report.plain is not guest


async def test_a_brought_value_takes_the_place_of_an_optional_one() -> None:
    class Report:
        def __init__(self, user: User | None) -> None:
            self.user = user

    @injectable(lifetime="scoped")
    def nobody() -> User | None:
        return None

    user = User()
    async with WireupContainer(of(nobody, scoped(Report))).scope({Key(User): user}) as scope:
        assert (await scope.resolve(Key(Report))).user is user


async def test_a_brought_value_that_the_container_does_not_know_reaches_handlers() -> None:
    app = asking(of(), work_with_user)
    app.provides(User)
    user = User()
    async with app:
        assert await app.using(provide={User: user}).send(Work()) is user


@pytest.mark.parametrize("lifetime", ["singleton", "transient"])
def test_a_brought_value_that_could_not_reach_factories_is_refused(lifetime: Any) -> None:
    container = WireupContainer(of(injectable(User, lifetime=lifetime), injectable(Audit, lifetime="transient")))
    error = refusal(container, Key(Audit), provided=[Key(User)])
    assert error.key == Key(User)
    assert lifetime in error.reason
    assert 'lifetime="scoped"' in error.fix


# Closing


def failing_below(fail: Callable[[], Any], log: list[str]) -> AsyncContainer:
    """A transaction, and a resource on top of it that fails to close."""

    @injectable(lifetime="scoped")
    async def user() -> AsyncIterator[User]:
        try:
            yield User()
        except BaseException as error:
            log.append(f"undone after {type(error).__name__}")
            raise
        log.append("committed")

    @injectable(lifetime="scoped")
    async def audit(user: User) -> AsyncIterator[Audit]:
        try:
            yield Audit(user)
        finally:
            await fail()

    return of(user, audit)


async def raise_first() -> None:
    raise FirstError


async def test_nothing_is_committed_after_something_failed_to_close() -> None:
    log: list[str] = []
    async with asking(failing_below(raise_first, log), work_with_audit) as app:
        with pytest.raises(FirstError):
            await app.send(Work())
    assert log == ["undone after FirstError"]


async def test_what_closes_sees_the_error_of_the_handler_whatever_else_fails() -> None:
    async def work(_: Work, audit: Audit) -> object:
        raise SecondError

    log: list[str] = []
    async with asking(failing_below(raise_first, log), work) as app:
        with pytest.raises(SecondError) as raised:
            await app.send(Work())
    assert isinstance(raised.value.__cause__, FirstError)
    assert log == ["undone after SecondError"]


async def test_a_cancellation_while_one_resource_closes_undoes_the_others() -> None:
    log: list[str] = []
    closing = asyncio.Event()

    async def be_cancelled() -> None:
        closing.set()
        raise asyncio.CancelledError

    async with asking(failing_below(be_cancelled, log), work_with_audit) as app:
        task = asyncio.ensure_future(app.send(Work()))
        await asyncio.wait_for(closing.wait(), 5)
        with pytest.raises(asyncio.CancelledError):
            await task
    assert log == ["undone after CancelledError"]


async def test_several_that_fail_to_close_are_all_told() -> None:
    @injectable(lifetime="scoped")
    def user() -> Iterator[User]:
        yield User()
        raise AssertionError("goes on after an error")

    @injectable(lifetime="scoped")
    def first(user: User) -> Iterator[Audit]:
        try:
            yield Audit(user)
        finally:
            raise FirstError

    @injectable(lifetime="scoped")
    def second(audit: Audit) -> Iterator[Guest]:
        try:
            yield Guest()
        finally:
            raise SecondError

    container = WireupContainer(of(user, first, second))
    with pytest.raises(SecondError) as raised:
        async with container.scope({}) as scope:
            await scope.resolve(Key(Guest))
    assert isinstance(raised.value.__cause__, FirstError)


async def test_a_scope_that_fails_to_be_built_undoes_what_was_built() -> None:
    log: list[str] = []

    class Broken:
        def __init__(self, user: User) -> None:
            raise FirstError

    @injectable(lifetime="scoped")
    async def user() -> AsyncIterator[User]:
        try:
            yield User()
        except FirstError:
            log.append("undone")
            raise

    async def work(_: Work, broken: Broken) -> None: ...

    async with asking(of(user, scoped(Broken)), work) as app:
        with pytest.raises(FirstError):
            await app.send(Work())
    assert log == ["undone"]


async def test_a_cancellation_while_a_resource_opens_closes_what_is_open() -> None:
    log: list[str] = []
    opening = asyncio.Event()

    @injectable(lifetime="scoped")
    async def user() -> AsyncIterator[User]:
        try:
            yield User()
        finally:
            await asyncio.sleep(0)
            log.append("closed")

    @injectable(lifetime="scoped")
    async def audit(user: User) -> AsyncIterator[Audit]:
        opening.set()
        await asyncio.Event().wait()
        yield Audit(user)

    async with asking(of(user, audit), work_with_audit) as app:
        task = asyncio.ensure_future(app.send(Work()))
        await asyncio.wait_for(opening.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert log == ["closed"]


async def test_the_traceback_of_an_error_does_not_end_among_resources() -> None:
    @injectable(lifetime="scoped")
    async def user() -> AsyncIterator[User]:
        yield User()

    async def work(_: Work, user: User) -> object:
        raise FirstError

    async with asking(of(user), work) as app:
        with pytest.raises(FirstError) as raised:
            await app.send(Work())
    names = [frame.name for frame in traceback.extract_tb(raised.value.__traceback__)]
    assert names[-1] == "work"
    assert "user" not in names


# Starting again


def test_an_app_starts_again_in_another_loop_with_new_singletons() -> None:
    opened: list[User] = []
    closed: list[User] = []

    @injectable
    async def user() -> AsyncIterator[User]:
        await asyncio.sleep(0.001)  # so that others wait for the lock, which then belongs to this loop
        opened.append(User())
        yield opened[-1]
        closed.append(opened[-1])

    app = asking(of(user, injectable(Audit)), work_with_audit)

    async def run() -> list[object]:
        async with app:
            return await asyncio.gather(*(app.send(Work()) for _ in range(3)))

    first, second = asyncio.run(run()), asyncio.run(run())
    assert first == [opened[0]] * 3
    assert second == [opened[1]] * 3
    assert opened == closed


async def test_singletons_are_forgotten_though_one_fails_to_close() -> None:
    @injectable
    def user() -> Iterator[User]:
        yield User()
        raise FirstError

    container = WireupContainer(of(user))
    async with container.scope({}) as scope:
        closed = await scope.resolve(Key(User))
    with pytest.raises(FirstError):
        await container.aclose()
    async with container.scope({}) as scope:
        assert await scope.resolve(Key(User)) is not closed


async def test_an_app_that_runs_while_something_is_overridden_leaves_the_rest_as_it_was() -> None:
    native = of(injectable(User), injectable(Audit))
    app = asking(native, work_with_audit)
    guest = Guest()
    async with app:
        real = await app.send(Work())
    native.override.set(User, guest)
    for _ in range(2):
        async with app:
            assert await app.send(Work()) is guest
    native.override.delete(User)
    async with app:
        built = await app.send(Work())
        assert await app.send(Work()) is built
    assert type(built) is User
    assert built is not real
