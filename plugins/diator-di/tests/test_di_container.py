"""What is particular to di: its scopes, markers and binds, what it makes up, and what it would hide."""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, NewType, Protocol

import di
import pytest
from di import bind_by_type
from di.dependent import Dependent, Injectable, JoinedDependent, Marker
from di.exceptions import IncompatibleDependencyError
from diator_di import DiContainer

from diator import (
    Command,
    ConfigurationError,
    ContainerError,
    DependencyNotFoundError,
    Diator,
    LifetimeMismatchError,
    Named,
    NotProvidedError,
    UnsupportedRegistrationError,
)
from diator.containers import Key, Lifetime

Log = list[str]


class User:
    pass


class Audit:
    def __init__(self, user: User) -> None:
        self.user = user


class Session:
    is_open = True


class Database:
    pass


class Replica(Database):
    pass


Secondary: Any = Annotated[Database, Named("replica")]


class HandlerError(Exception):
    pass


class FirstError(Exception):
    pass


class SecondError(Exception):
    pass


@dataclass(frozen=True)
class Work(Command[object]):
    pass


def with_binds(*binds: tuple[Any, Any], scope: str = "request") -> di.Container:
    """A container in which each hint is bound to a provider, or to a class or function in this scope."""
    container = di.Container()
    for hint, source in binds:
        is_callable = callable(source)  # a provider is not
        container.bind(bind_by_type(Dependent(source, scope=scope) if is_callable else source, hint))
    return container


def asking(container: object, handler: Callable[..., Any]) -> Diator:
    app = Diator(container=container)
    app.add_command(handler)
    return app


def session_into(log: Log) -> Callable[[], AsyncIterator[Session]]:
    async def open_session() -> AsyncIterator[Session]:
        session = Session()
        log.append("session opened")
        yield session
        session.is_open = False
        log.append("session closed")

    return open_session


def refused(container: di.Container, key: Any, **options: Any) -> UnsupportedRegistrationError:
    (error,) = DiContainer(container, **options).validate([key if isinstance(key, Key) else Key(key)], ()).errors
    assert isinstance(error, UnsupportedRegistrationError)
    return error


# What 0.1.2 got wrong


async def test_a_session_is_open_while_the_handler_runs_and_closed_after() -> None:
    log: Log = []

    async def work(_: Work, session: Session) -> object:
        log.append("handler runs")
        return session.is_open

    async with asking(with_binds((Session, session_into(log))), work) as app:
        assert await app.send(Work()) is True
    assert log == ["session opened", "handler runs", "session closed"]


async def test_nothing_is_solved_when_messages_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    solved: list[object] = []
    solve = di.Container.solve

    def counting(self: di.Container, dependency: Any, scopes: Any) -> Any:
        solved.append(dependency)
        return solve(self, dependency, scopes)

    monkeypatch.setattr(di.Container, "solve", counting)

    async def work(_: Work, audit: Audit, session: Session) -> None: ...

    app = asking(with_binds((Audit, Audit), (User, User), (Session, session_into([]))), work)
    app.provides(User)
    async with app:
        at_start = len(solved)
        assert at_start > 0
        for _ in range(3):
            await app.send(Work())
            await app.using(provide={User: User()}).send(Work())
    assert len(solved) == at_start


# What the plugin takes


async def test_the_container_is_found_by_its_library_and_closed_with_the_app() -> None:
    log: Log = []

    def user() -> Iterator[User]:
        yield User()
        log.append("closed")

    async def work(_: Work, user: User) -> object:
        return user

    async with asking(with_binds((User, user), scope="app"), work) as app:
        assert await app.send(Work()) is await app.send(Work())
        assert log == []
    assert log == ["closed"]


def test_what_is_no_container_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"expected di.Container"):
        Diator(container=di.ScopeState())


async def test_scopes_may_have_any_names_and_more_than_one_outlives_the_unit_of_work() -> None:
    native = with_binds((User, Dependent(User, scope="tenant")), (Audit, Dependent(Audit, scope="command")))
    container = DiContainer(native, scopes=("process", "tenant", "command"))
    assert container.lifetime(Key(User)) is Lifetime.SINGLETON
    assert container.lifetime(Key(Audit)) is Lifetime.SCOPED
    audits: list[Audit] = []
    for _ in range(2):
        async with container.scope({}) as scope:
            audits.append(await scope.resolve(Key(Audit)))
    assert audits[0] is not audits[1]
    assert audits[0].user is audits[1].user


def test_a_provider_without_a_known_scope_is_refused() -> None:
    error = refused(with_binds((User, Dependent(User))), User)
    assert "scope None, which is none of 'app', 'request'" in error.reason
    assert "scope='request'" in error.fix
    assert "'app'" in refused(with_binds((User, Dependent(User, scope="app"))), User, scopes=("request",)).reason


async def test_a_bind_counts_from_when_it_is_made_until_it_is_taken_back() -> None:
    native = with_binds((Database, Database))

    async def work(_: Work, database: Database) -> object:
        return type(database)

    async with asking(native, work) as app:
        assert await app.send(Work()) is Database
        with native.bind(bind_by_type(Dependent(Replica, scope="request"), Database)):
            assert await app.send(Work()) is Replica
        assert await app.send(Work()) is Database


async def test_a_hook_may_choose_by_whatever_it_sees_of_a_parameter() -> None:
    native = with_binds((Audit, Audit))
    user = User()
    native.bind(
        lambda param, dependent: Dependent(lambda: user, scope="app") if param and param.name == "user" else None
    )
    async with DiContainer(native).scope({}) as scope:
        assert (await scope.resolve(Key(Audit))).user is user


async def test_a_covariant_bind_serves_subclasses() -> None:
    native = di.Container()
    native.bind(bind_by_type(Dependent(Replica, scope="request"), Database, covariant=True))
    container = DiContainer(native)
    assert container.can_resolve(Key(Replica))
    assert not container.can_resolve(Key(User))


async def test_binds_of_what_is_bound_apply_in_the_order_of_di() -> None:
    class Other(Replica):
        pass

    class Holder:
        def __init__(self, database: Database) -> None:
            self.database = database

    first, second = (Database, Replica), (Replica, Other)
    for binds, expected in (((first, second), Other), ((second, first), Replica)):
        async with DiContainer(with_binds(*binds, (Holder, Holder))).scope({}) as scope:
            assert type(await scope.resolve(Key(Database))) is expected
            assert type((await scope.resolve(Key(Holder))).database) is expected


async def test_a_closed_form_of_a_builtin_generic_is_a_key() -> None:
    container = DiContainer(with_binds((list[int], lambda: [42])))
    assert not container.can_resolve(Key(list[str]))
    async with container.scope({}) as scope:
        assert await scope.resolve(Key(list[int])) == [42]


async def test_siblings_of_a_joined_provider_are_built_and_checked() -> None:
    log: Log = []
    native = di.Container()
    sibling = Dependent(lambda: log.append("sibling"), scope="request")
    native.bind(bind_by_type(JoinedDependent(Dependent(User, scope="request"), siblings=[sibling]), User))
    async with DiContainer(native).scope({}) as scope:
        assert isinstance(await scope.resolve(Key(User)), User)
    assert log == ["sibling"]
    with native.bind(bind_by_type(Dependent(lambda: log.append("other"), scope="request"), sibling.call)):  # type: ignore[arg-type]  # di's types know only classes
        async with DiContainer(native).scope({}) as scope:
            await scope.resolve(Key(User))
    assert log == ["sibling", "other"]
    native.bind(bind_by_type(Dependent(sibling.call), sibling.call))  # type: ignore[arg-type]  # di's types know only classes
    assert "scope None" in refused(native, User).reason


# Markers


async def test_a_marker_chooses_the_factory_of_a_parameter() -> None:
    def replica() -> Database:
        return Replica()

    marker = Marker(replica, scope="request")

    class Reports:
        def __init__(self, database: Annotated[Database, marker]) -> None:
            self.database = database

    async def work(_: Work, database: Annotated[Database, marker], reports: Reports) -> object:
        return reports if reports.database is database else None

    async with asking(with_binds((Reports, Reports)), work) as app:
        given = await app.send(Work())
    assert isinstance(given, Reports)
    assert type(given.database) is Replica


def test_a_marker_without_a_factory_has_the_class_built() -> None:
    container = DiContainer(di.Container())
    key = Key(Audit, container.qualifier(("a note", Marker(scope="request"))))
    assert container.can_resolve(key)
    (error,) = container.validate([key], ()).errors
    assert isinstance(error, DependencyNotFoundError)
    assert error.key == Key(User)


def test_the_outermost_marker_counts() -> None:
    inner, outer = Marker(Database), Marker(Replica)
    assert DiContainer(di.Container()).qualifier((inner, "a note", outer)) is outer


def test_a_marker_chooses_nothing_where_there_is_no_class_to_build() -> None:
    assert not DiContainer(di.Container()).can_resolve(Key(NewType("Url", str), Marker(scope="request")))


def test_a_marker_that_a_bind_of_the_type_overrides_is_a_warning() -> None:
    class Reports:
        def __init__(self, database: Annotated[Database, Marker(Replica, scope="request")]) -> None:
            self.database = database

    async def work(_: Work, reports: Reports) -> None: ...

    native = with_binds((Reports, Reports), (Database, Database))
    (problem,) = asking(native, work).check()
    assert problem.severity == "warning"
    assert "overrides Marker" in problem.text
    assert "Replica" in problem.text
    Url = NewType("Url", str)
    names_none = Key(Url, Marker(scope="request"))
    assert not DiContainer(with_binds((Url, lambda: "sqlite://"))).validate([names_none], ()).warnings
    by_call = with_binds((Reports, Reports), (Replica, Database))  # as di's users replace a factory in tests
    assert asking(by_call, work).check() == []


async def test_an_injectable_class_is_its_own_provider() -> None:
    class Clock(Injectable, scope="app"):
        pass

    async def work(_: Work, clock: Clock) -> object:
        return clock

    container = DiContainer(di.Container())
    assert container.lifetime(Key(Clock)) is Lifetime.SINGLETON
    async with asking(container, work) as app:
        assert await app.send(Work()) is await app.send(Work())


def test_a_qualifier_that_is_not_bound_is_missing_though_its_type_is_bound() -> None:
    class Reports:
        def __init__(self, database: Annotated[Database, Named("replica")]) -> None:
            self.database = database

    (error,) = DiContainer(with_binds((Reports, Reports), (Database, Database))).validate([Key(Reports)], ()).errors
    assert isinstance(error, DependencyNotFoundError)
    assert (error.key, error.path) == (Key(Database, "replica"), (Key(Reports),))


async def test_a_qualifier_that_is_not_bound_leaves_the_default() -> None:
    default = Database()

    class Reports:
        def __init__(self, database: Annotated[Database, Named("replica")] = default) -> None:
            self.database = database

    async with DiContainer(with_binds((Reports, Reports), (Database, Database))).scope({}) as scope:
        assert (await scope.resolve(Key(Reports))).database is default


@pytest.mark.parametrize("order", [1, -1])
async def test_qualified_binds_may_stand_in_any_order(order: int) -> None:
    binds = [(Database, Database), (Secondary, Replica)]
    async with DiContainer(with_binds(*binds[::order])).scope({}) as scope:
        assert type(await scope.resolve(Key(Database))) is Database
        assert type(await scope.resolve(Key(Database, "replica"))) is Replica


# What di would make up


def test_a_class_that_nobody_has_bound_is_missing() -> None:
    container = DiContainer(with_binds((Audit, Audit)))
    assert not container.can_resolve(Key(User))
    (error,) = container.validate([Key(Audit)], ()).errors
    assert isinstance(error, DependencyNotFoundError)
    assert (error.key, error.path) == (Key(User), (Key(Audit),))


def test_a_number_that_nobody_has_bound_does_not_become_zero() -> None:
    class Limits:
        def __init__(self, n: int) -> None:
            self.n = n

    (error,) = DiContainer(with_binds((Limits, Limits))).validate([Key(Limits)], ()).errors
    assert isinstance(error, DependencyNotFoundError)
    assert error.key == Key(int)


@pytest.mark.parametrize("kind", [int, str, dict, list])
def test_a_builtin_type_as_its_own_provider_is_refused(kind: type) -> None:
    error = refused(with_binds((kind, kind)), kind)
    assert error.reason == f"di would make an empty {kind.__name__}"
    assert "a function" in error.fix


def test_abstract_classes_and_protocols_as_their_own_providers_are_refused() -> None:
    class Shape(ABC):
        @abstractmethod
        def area(self) -> float: ...

    class Clock(Protocol):
        def now(self) -> int: ...

    for kind in (Shape, Clock):
        error = refused(with_binds((kind, kind)), kind)
        assert "is abstract" in error.reason
        assert "implements" in error.fix


# What di can't do


def test_a_function_that_gives_a_context_manager_is_refused() -> None:
    @contextlib.contextmanager
    def session() -> Generator[Session, None, None]:
        yield Session()

    @contextlib.asynccontextmanager
    async def async_session() -> AsyncGenerator[Session, None]:
        yield Session()

    for factory in (session, async_session):
        error = refused(with_binds((Session, factory)), Session)
        assert "context manager" in error.reason
        assert "drop its decorator" in error.fix


def test_a_parameter_without_a_hint_is_refused() -> None:
    make: Any = eval("lambda something: something")

    error = refused(with_binds((User, make)), User)
    assert "without a hint" in error.reason
    assert "hint it" in error.fix


def test_a_hint_that_cannot_be_read_is_refused() -> None:
    def make(missing: object) -> User:
        return User()

    make.__annotations__["missing"] = "Missing"  # what stands under `if TYPE_CHECKING:`
    error = refused(with_binds((User, make)), User)
    assert "name 'Missing' is not defined" in error.reason
    assert "hints" in error.fix


def test_an_unwired_function_that_wants_arguments_is_refused() -> None:
    error = refused(with_binds((Audit, Dependent(Audit, scope="request", wire=False))), Audit)
    assert "wants arguments" in error.reason
    assert error.fix == "drop wire=False"


def test_an_unwired_function_without_a_signature_is_taken() -> None:
    native = with_binds((User, Dependent(iter, scope="request", wire=False)))
    assert not DiContainer(native).validate([Key(User)], ()).errors


def test_a_factory_that_cannot_be_hashed_is_refused() -> None:
    @dataclass
    class Factory:
        url: str

        def __call__(self) -> Database:
            return Database()

    error = refused(with_binds((Database, Factory("sqlite://"))), Database)
    assert "can't be hashed" in error.reason
    assert "function" in error.fix


async def test_a_class_whose_objects_cannot_be_hashed_is_taken() -> None:
    @dataclass
    class Reports:
        database: Database

    async with DiContainer(with_binds((Reports, Reports), (Database, Database))).scope({}) as scope:
        assert isinstance((await scope.resolve(Key(Reports))).database, Database)


def test_one_provider_in_two_scopes_is_refused() -> None:
    native = with_binds((Database, Dependent(Database, scope="app")), (Secondary, Dependent(Database, scope="request")))
    (error,) = DiContainer(native).validate([Key(Database), Key(Database, "replica")], ()).errors
    assert isinstance(error, UnsupportedRegistrationError)
    assert error.key == Key(Database, "replica")
    assert "Database has the same provider in the scope 'app'" in error.reason
    assert "same scope" in error.fix


def test_a_transient_resource_that_only_the_app_would_close_is_refused() -> None:
    native = with_binds((Session, Dependent(session_into([]), scope="app", use_cache=False)))
    error = refused(native, Session)
    assert "until the app ends" in error.reason
    assert "'request'" in error.fix


async def test_each_transient_resource_of_a_unit_of_work_is_closed_with_it() -> None:
    log: Log = []
    native = with_binds((Session, Dependent(session_into(log), scope="request", use_cache=False)))
    container = DiContainer(native)
    assert not container.validate([Key(Session)], ()).errors
    async with container.scope({}) as scope:
        assert await scope.resolve(Key(Session)) is not await scope.resolve(Key(Session))
    assert log == ["session opened"] * 2 + ["session closed"] * 2


def test_a_default_that_hides_a_bind_is_a_warning() -> None:
    nothing: dict[str, Database] = {}

    class Reports:
        def __init__(self, database: Database | None = None, names: dict[str, Database] = nothing) -> None:
            self.database = database

    found = DiContainer(with_binds((Reports, Reports), (Database, Database))).validate([Key(Reports)], ())
    assert not found.errors
    (warning,) = found.warnings  # of one that would fit
    assert isinstance(warning, UnsupportedRegistrationError)
    assert "though Database has one" in warning.reason
    assert warning.fix == "hint Database alone; you may keep the default"
    assert not DiContainer(with_binds((Reports, Reports))).validate([Key(Reports)], ()).warnings


# Values that the sender brings


async def test_what_is_brought_is_not_built_and_needs_no_bind() -> None:
    class Token:
        def __init__(self, raw, parts: list[str]) -> None:  # type: ignore[no-untyped-def]  # no hint, on purpose
            raise AssertionError

    Url = NewType("Url", str)

    class Login:
        def __init__(self, token: Token, url: Url, user: Annotated[User, Named("admin")]) -> None:
            self.got = (token, url, user)

    token, user = object.__new__(Token), User()
    provided = {Key(Token): token, Key(Url): "sqlite://", Key(User, "admin"): user}
    container = DiContainer(with_binds((Login, Login)))
    assert not container.validate([Key(Login), Key(Token)], provided).errors
    async with container.scope(provided) as scope:
        assert (await scope.resolve(Key(Login))).got == (token, "sqlite://", user)


async def test_what_is_brought_takes_the_place_of_what_is_bound_and_opens_nothing() -> None:
    log: Log = []

    def user(session: Session) -> User:
        return User()

    native = with_binds((Session, session_into(log)), (User, user), (Audit, Audit))
    container = DiContainer(native)
    brought = User()
    async with container.scope({Key(User): brought}) as scope:
        assert (await scope.resolve(Key(Audit))).user is brought
    assert log == []
    async with container.scope({}) as scope:
        assert (await scope.resolve(Key(Audit))).user is not brought
    assert log == ["session opened", "session closed"]


async def test_what_was_not_brought_is_missing_and_not_made_up() -> None:
    async def work(_: Work, audit: Audit) -> object:
        return audit.user

    app = asking(with_binds((Audit, Audit)), work)
    app.provides(User)
    async with app:
        with pytest.raises(NotProvidedError, match=r"Work needs User from its sender"):
            await app.send(Work())


def test_a_singleton_that_would_keep_what_was_brought_is_refused() -> None:
    for native in (with_binds((Audit, Audit), scope="app"), with_binds((Audit, Audit), (User, User), scope="app")):
        (error,) = DiContainer(native).validate([Key(Audit)], [Key(User)]).errors
        assert isinstance(error, LifetimeMismatchError)
        assert (error.key, error.needs) == (Key(Audit), Key(User))


# Concurrency


async def test_singletons_that_need_each_other_are_built_once_for_tasks_that_ask_for_either() -> None:
    log: Log = []

    async def user() -> User:
        await asyncio.sleep(0.001)
        log.append("user")
        return User()

    async def audit(user: User) -> Audit:
        await asyncio.sleep(0.001)
        log.append("audit")
        return Audit(user)

    container = DiContainer(with_binds((User, user), (Audit, audit), scope="app"))

    async def ask(key: Key) -> Any:
        async with container.scope({}) as scope:
            return await scope.resolve(key)

    keys = [Key(Audit), Key(User)] * 5
    built = await asyncio.gather(*map(ask, keys))
    assert log == ["user", "audit"]
    assert {id(one) for one in built} == {id(built[0]), id(built[0].user)}


async def test_a_slow_singleton_keeps_only_those_waiting_that_need_it() -> None:
    go_on = asyncio.Event()

    async def user() -> User:
        await go_on.wait()
        return User()

    async def database() -> Database:
        return Database()

    container = DiContainer(with_binds((User, user), (Database, database), scope="app"))
    async with container.scope({}) as slow, container.scope({}) as quick:
        waiting = asyncio.create_task(_resolve(slow, Key(User)))
        await asyncio.sleep(0)
        assert isinstance(await asyncio.wait_for(quick.resolve(Key(Database)), 1), Database)
        go_on.set()
        assert isinstance(await waiting, User)


async def test_a_singleton_whose_first_builder_was_cancelled_is_built_by_the_next() -> None:
    starts: list[None] = []

    async def user() -> User:
        starts.append(None)
        await asyncio.sleep(1 if len(starts) == 1 else 0)
        return User()

    container = DiContainer(with_binds((User, user), scope="app"))
    async with container.scope({}) as first, container.scope({}) as second:
        one = asyncio.create_task(_resolve(first, Key(User)))
        await asyncio.sleep(0)
        other = asyncio.create_task(_resolve(second, Key(User)))
        await asyncio.sleep(0)
        one.cancel()
        assert isinstance(await asyncio.wait_for(other, 0.5), User)
    assert len(starts) == 2


async def _resolve(scope: Any, key: Key) -> Any:
    return await scope.resolve(key)


# What di would hide


class Transaction:
    def __init__(self, session: Session) -> None:
        self.session = session


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_resource_that_swallows_the_error_does_not_make_the_others_commit(is_async: bool) -> None:
    log: Log = []

    def session() -> Iterator[Session]:
        try:
            yield Session()
            log.append("committed")
        except HandlerError:
            log.append("rolled back")
            raise

    def transaction(session: Session) -> Iterator[Transaction]:
        with contextlib.suppress(HandlerError):
            yield Transaction(session)

    async def async_transaction(session: Session) -> AsyncIterator[Transaction]:
        with contextlib.suppress(HandlerError):
            yield Transaction(session)

    async def work(_: Work, transaction: Transaction) -> None:
        raise HandlerError

    native = with_binds((Session, session), (Transaction, async_transaction if is_async else transaction))
    async with asking(native, work) as app:
        with pytest.raises(HandlerError):
            await app.send(Work())
    assert log == ["rolled back"]


async def test_a_session_rolls_back_when_closing_another_resource_has_failed() -> None:
    log: Log = []

    def session() -> Iterator[Session]:
        try:
            yield Session()
            log.append("committed")
        except FirstError:
            log.append("rolled back")

    def transaction(session: Session) -> Iterator[Transaction]:
        yield Transaction(session)
        raise FirstError

    scope = DiContainer(with_binds((Session, session), (Transaction, transaction))).scope({})
    with pytest.raises(FirstError):
        async with scope:
            await scope.resolve(Key(Transaction))
    assert log == ["rolled back"]


async def test_of_several_errors_of_closing_none_is_lost() -> None:
    def session() -> Iterator[Session]:
        try:
            yield Session()
        finally:
            raise SecondError

    def transaction(session: Session) -> Iterator[Transaction]:
        yield Transaction(session)
        raise FirstError

    scope = DiContainer(with_binds((Session, session), (Transaction, transaction))).scope({})
    with pytest.raises(FirstError) as raised:
        async with scope:
            await scope.resolve(Key(Transaction))
    assert isinstance(raised.value.__cause__, SecondError)


async def test_a_cancellation_of_closing_wins_and_the_others_are_closed() -> None:
    log: Log = []

    def session() -> Iterator[Session]:
        try:
            yield Session()
        finally:
            log.append("session closed")
            raise SecondError

    closing = asyncio.Event()

    async def transaction(session: Session) -> AsyncIterator[Transaction]:
        yield Transaction(session)
        closing.set()
        await asyncio.Event().wait()

    container = DiContainer(with_binds((Session, session), (Transaction, transaction)))
    causes: list[BaseException | None] = []

    async def use() -> None:
        try:
            async with container.scope({}) as scope:
                await scope.resolve(Key(Transaction))
        except asyncio.CancelledError as cancelled:
            causes.append(cancelled.__cause__)
            raise

    task = asyncio.create_task(use())
    await closing.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert isinstance(causes[0], SecondError)
    assert log == ["session closed"]


@pytest.mark.parametrize("scope", ["app", "request"])
async def test_an_attribute_error_of_an_async_generator_reaches_the_sender(scope: str) -> None:
    error = AttributeError("of the user's own")

    async def session() -> AsyncIterator[Session]:
        session = Session()
        if session.is_open:
            raise error
        yield session

    async def work(_: Work, session: Session) -> None: ...

    async with asking(with_binds((Session, session), scope=scope), work) as app:
        with pytest.raises(AttributeError) as raised:
            await app.send(Work())
    assert raised.value is error


async def test_an_error_of_di_in_the_users_own_code_passes_unchanged() -> None:
    error = IncompatibleDependencyError()

    async def user() -> User:
        raise error

    async with DiContainer(with_binds((User, user))).scope({}) as scope:
        with pytest.raises(IncompatibleDependencyError) as raised:
            await scope.resolve(Key(User))
    assert raised.value is error


# How long objects are shared


async def test_an_object_that_is_not_cached_is_shared_below_one_that_is_asked_for() -> None:
    class Pair:
        def __init__(self, user: User, audit: Audit) -> None:
            self.users = (user, audit.user)

    user = Dependent(User, scope="request", use_cache=False)
    pair = Dependent(Pair, scope="request", use_cache=False)
    container = DiContainer(with_binds((User, user), (Audit, Audit), (Pair, pair)))
    assert container.lifetime(Key(Pair)) is Lifetime.TRANSIENT
    async with container.scope({}) as scope:
        first, second = (await scope.resolve(Key(Pair))).users
        assert first is second
        assert await scope.resolve(Key(User)) is not first


def test_errors_of_the_plugin_are_container_errors() -> None:
    (error,) = DiContainer(di.Container()).validate([Key(User)], ()).errors
    assert isinstance(error, ContainerError)
