"""What is particular to svcs: what is refused, what is warned of, and how its containers are closed."""

# pyright: reportUnknownMemberType=false
# The methods of svcs take callables whose results are untyped.

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
from diator_svcs import SvcsContainer
from svcs import Container, Registry, aautowire, autowire

from diator import Command, Diator, DomainEvent, Named, Publish
from diator.containers import Key, Lifetime
from diator.errors import (
    ConfigurationError,
    DependencyCycleError,
    DependencyNotFoundError,
    UnsupportedRegistrationError,
)


@dataclass(frozen=True)
class Work(Command[None]):
    fails: bool = False


@dataclass(frozen=True)
class Worked(DomainEvent):
    pass


@dataclass
class Session:
    log: list[str] = field(default_factory=list[str])


class Repository:
    def __init__(self, session: Session) -> None:
        self.session = session


class Connection:
    """A resource that is a context manager itself."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def __enter__(self) -> "Connection":
        self.log.append("open")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        self.log.append("commit" if kind is None else "rollback")


class Gateway:
    """Holds a connection, and does not look like a resource."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection


class Locator:
    """Keeps the container, and fetches from it when it likes."""

    def __init__(self, svcs_container: Container) -> None:
        self.container = svcs_container


def sessions() -> Generator[Session]:
    yield Session()


async def sessions_async() -> AsyncGenerator[Session]:
    yield Session()


def session_of_repository(repository: Repository) -> Session:
    return repository.session


def app_of(registry: Registry, handler: Callable[..., Any]) -> Diator:
    app = Diator(container=registry)
    app.add_command(handler, Work)
    return app


async def wants_session(_: Work, session: Session) -> None:
    pass


async def wants_repository(command: Work, repository: Repository) -> None:
    if command.fails:
        raise ValueError("the handler fails")


async def test_a_registry_is_served_without_importing_the_plugin() -> None:
    registry = Registry()
    registry.register_value(Session, Session())
    registry.register_factory(Repository, aautowire(Repository))

    async with app_of(registry, wants_repository) as app:
        await app.send(Work())


# Refused


@pytest.mark.parametrize(
    "factory", [sessions, sessions_async, contextmanager(sessions), asynccontextmanager(sessions_async)]
)
def test_a_generator_that_would_not_see_an_error_is_refused(factory: Callable[[], object]) -> None:
    registry = Registry()
    registry.register_factory(Session, factory)

    [problem] = app_of(registry, wants_session).check()

    assert problem.severity == "error"
    assert "would commit all the same" in problem.text
    assert "suppress_context_exit=False" in str(problem)


def test_a_type_that_is_a_context_manager_is_refused_also_where_a_plain_function_makes_it() -> None:
    registry = Registry()
    registry.register_factory(Connection, lambda: Connection([]))

    async def handler(_: Work, connection: Connection) -> None:
        pass

    [problem] = app_of(registry, handler).check()
    assert "suppress_context_exit=False" in str(problem)


def test_what_a_factory_may_ask_its_container_for_is_looked_at_too() -> None:
    registry = Registry()
    registry.register_factory(Session, sessions)
    registry.register_factory(Repository, aautowire(Repository))

    problems = app_of(registry, wants_repository).check()

    assert [problem.severity for problem in problems] == ["error", "warning"]
    assert "Session" in problems[0].text


def test_what_no_handler_can_reach_is_not_refused() -> None:
    registry = Registry()
    registry.register_value(Session, Session())
    registry.register_factory(Repository, sessions)

    assert app_of(registry, wants_session).check() == []


def test_what_is_not_entered_is_not_refused() -> None:
    registry = Registry()
    registry.register_factory(Connection, lambda: Connection([]), enter=False)

    async def handler(_: Work, connection: Connection) -> None:
        pass

    assert app_of(registry, handler).check() == []


def test_a_factory_whose_parameters_svcs_does_not_fill_is_refused() -> None:
    registry = Registry()
    registry.register_value(Session, Session())
    registry.register_factory(Repository, Repository)

    [problem] = app_of(registry, wants_repository).check()

    assert "'session'" in problem.text
    assert "svcs.aautowire" in str(problem)


async def test_a_resource_that_only_its_factory_could_tell_is_refused_before_the_handler_runs() -> None:
    log: list[str] = []
    registry = Registry()
    registry.register_factory(Gateway, lambda: Connection(log))

    async def handler(_: Work, gateway: Gateway) -> None:
        log.append("handled")

    async with app_of(registry, handler) as app:
        with pytest.raises(UnsupportedRegistrationError, match="suppress_context_exit=False"):
            await app.send(Work())

    assert log == ["open", "rollback"]


# Warned of


def test_a_factory_that_takes_the_container_is_warned_of() -> None:
    registry = Registry()
    registry.register_factory(Repository, aautowire(Repository))

    [problem] = app_of(registry, wants_repository).check()

    assert problem.severity == "warning"
    assert "svcs does not tell" in problem.text


async def test_what_is_missing_below_a_factory_is_named_when_it_runs() -> None:
    registry = Registry()
    registry.register_factory(Repository, aautowire(Repository))

    async with app_of(registry, wants_repository) as app:
        with pytest.raises(DependencyNotFoundError) as caught:
            await app.send(Work())

    assert caught.value.key == Key(Session)
    assert caught.value.path == (Key(Repository),)


async def test_services_that_need_each_other_are_named_when_they_run() -> None:
    registry = Registry()
    registry.register_factory(Session, autowire(session_of_repository))
    registry.register_factory(Repository, autowire(Repository))

    async with app_of(registry, wants_repository) as app:
        with pytest.raises(DependencyCycleError) as caught:
            await app.send(Work())

    assert list(caught.value.path) == [Key(Repository), Key(Session), Key(Repository)]


async def test_an_endless_recursion_of_a_factory_itself_is_told_as_such() -> None:
    def endless() -> Session:
        return endless()

    registry = Registry()
    registry.register_factory(Session, endless)

    async with app_of(registry, wants_session) as app:
        with pytest.raises(RecursionError):
            await app.send(Work())


async def test_what_a_handler_asks_for_is_never_left_to_chance() -> None:
    with pytest.raises(ConfigurationError, match="no provider for"):
        async with app_of(Registry(), wants_session):
            pass  # pragma: no cover


# Closing


@pytest.mark.parametrize(("fails", "end"), [(False, "commit"), (True, "rollback")])
async def test_a_unit_of_work_is_committed_only_if_its_handler_succeeds(fails: bool, end: str) -> None:
    session = Session()

    def unit_of_work() -> Generator[Session]:
        try:
            yield session
        except ValueError:
            session.log.append("rollback")
            raise
        session.log.append("commit")

    registry = Registry()
    registry.register_factory(Session, unit_of_work, suppress_context_exit=False)
    registry.register_factory(Repository, aautowire(Repository))

    async with app_of(registry, wants_repository) as app:
        if fails:
            with pytest.raises(ValueError, match="the handler fails"):
                await app.send(Work(fails=True))
        else:
            await app.send(Work())

    assert session.log == [end]


async def test_a_resource_that_is_fetched_later_sees_the_error_whatever_its_registration_says() -> None:
    log: list[str] = []
    registry = Registry()
    registry.register_factory(Gateway, lambda: Connection(log))
    registry.register_factory(Locator, Locator)

    async def handler(_: Work, locator: Locator) -> None:
        locator.container.get(Gateway)
        raise ValueError("the handler fails")

    async with app_of(registry, handler) as app:
        with pytest.raises(ValueError, match="the handler fails"):
            await app.send(Work())

    assert log == ["open", "rollback"]


async def test_what_fails_to_close_is_raised_and_the_rest_is_closed() -> None:
    session = Session()

    def unit_of_work() -> Generator[Session]:
        try:
            yield session
        finally:
            session.log.append("closed")

    async def repository(svcs_container: Container) -> AsyncGenerator[Repository]:
        yield Repository(await svcs_container.aget(Session))
        raise OSError("the disk is full")

    registry = Registry()
    registry.register_factory(Session, unit_of_work, suppress_context_exit=False)
    registry.register_factory(Repository, repository, suppress_context_exit=False)

    async with app_of(registry, wants_repository) as app:
        with pytest.raises(OSError, match="the disk is full"):
            await app.send(Work())

    assert session.log == ["closed"]


async def test_a_resource_closes_before_the_one_that_it_fetched_as_it_opened() -> None:
    session = Session()

    def unit_of_work() -> Generator[Session]:
        yield session
        session.log.append("session closed")

    def repository(svcs_container: Container) -> Generator[Repository]:
        yield Repository(svcs_container.get(Session))
        session.log.append("repository flushed")

    registry = Registry()
    registry.register_factory(Session, unit_of_work, suppress_context_exit=False)
    registry.register_factory(Repository, repository, suppress_context_exit=False)

    async with app_of(registry, wants_repository) as app:
        await app.send(Work())

    assert session.log == ["repository flushed", "session closed"]


async def test_a_resource_that_fails_to_open_is_not_closed() -> None:
    class Broken(Connection):
        def __enter__(self) -> "Connection":
            raise OSError("no route to the database")

    log: list[str] = []
    registry = Registry()
    registry.register_factory(Connection, lambda: Broken(log), suppress_context_exit=False)

    async def handler(_: Work, connection: Connection) -> None:
        pass

    async with app_of(registry, handler) as app:
        with pytest.raises(OSError, match="no route"):
            await app.send(Work())

    assert log == []


async def test_every_resource_that_fails_to_close_is_told() -> None:
    def session() -> Generator[Session]:
        try:
            yield Session()
        finally:
            raise OSError("the connection is lost")

    def repository(svcs_container: Container) -> Generator[Repository]:
        yield Repository(svcs_container.get(Session))
        raise OSError("the disk is full")

    registry = Registry()
    registry.register_factory(Session, session, suppress_context_exit=False)
    registry.register_factory(Repository, repository, suppress_context_exit=False)

    async with app_of(registry, wants_repository) as app:
        with pytest.raises(OSError, match="the disk is full") as caught:
            await app.send(Work())

    assert "the connection is lost" in str(caught.value.__cause__)


async def test_a_resource_of_both_kinds_is_opened_and_closed_asynchronously() -> None:
    class Client(Connection):
        async def __aenter__(self) -> "Client":
            self.log.append("open async")
            return self

        async def __aexit__(self, *_: object) -> None:
            self.log.append("close async")

    log: list[str] = []
    registry = Registry()
    registry.register_factory(Client, lambda: Client(log), suppress_context_exit=False)

    async def handler(_: Work, client: Client) -> None:
        pass

    async with app_of(registry, handler) as app:
        await app.send(Work())

    assert log == ["open async", "close async"]


# Units of work and the registry


async def test_a_command_and_its_events_share_what_svcs_builds() -> None:
    seen: list[Session] = []
    registry = Registry()
    registry.register_factory(Session, Session)
    app = Diator(container=registry)

    @app.command
    async def work(_: Work, session: Session, publish: Publish[Worked]) -> None:
        seen.append(session)
        publish(Worked())

    @app.on_event
    async def follow(_: Worked, session: Session) -> None:
        seen.append(session)

    async with app:
        await app.send(Work())
        await app.send(Work())

    assert seen[0] is seen[1]
    assert seen[2] is seen[3]
    assert seen[0] is not seen[2]


def test_values_are_singletons_and_what_factories_build_is_scoped() -> None:
    registry = Registry()
    registry.register_value(Session, Session())
    registry.register_factory(Repository, aautowire(Repository))
    container = SvcsContainer(registry)

    assert container.lifetime(Key(Session)) is Lifetime.SINGLETON
    assert container.lifetime(Key(Repository)) is Lifetime.SCOPED


async def test_a_service_may_be_replaced_while_the_app_runs() -> None:
    first, second = Session(), Session()
    registry = Registry()
    registry.register_value(Session, first)

    async def handler(_: Work, session: Session) -> None:
        session.log.append("handled")

    async with app_of(registry, handler) as app:
        await app.send(Work())
        registry.register_value(Session, second)
        await app.send(Work())

    assert (first.log, second.log) == (["handled"], ["handled"])


async def test_the_registry_is_closed_by_its_owner() -> None:
    log: list[str] = []
    async with Registry() as registry:
        registry.register_value(Session, Session(), on_registry_close=lambda: log.append("closed"))
        for _ in range(2):
            async with app_of(registry, wants_session) as app:
                await app.send(Work())
        assert log == []
    assert log == ["closed"]


# Qualifiers


Readonly = Annotated[Session, "readonly", 1]


@pytest.mark.parametrize("mark", [Named("x"), Named(1), Named(("x", 1)), "x", 1])
async def test_any_mark_tells_services_of_one_type_apart(mark: object) -> None:
    plain, marked = Session(), Session()
    hint: Any = Annotated
    hint = hint[Session, mark]
    registry = Registry()
    registry.register_value(Session, plain)
    registry.register_value(hint, marked)
    seen: list[Session] = []

    async def handler(command: Work, session: Session) -> None:
        seen.append(session)

    handler.__annotations__["session"] = hint
    async with app_of(registry, handler) as app:
        await app.send(Work())

    assert [session is marked for session in seen] == [True]


def test_a_mark_is_shown_as_it_was_written() -> None:
    registry = Registry()
    registry.register_factory(Readonly, sessions)

    async def handler(_: Work, session: Readonly) -> None:
        pass

    [problem] = app_of(registry, handler).check()
    assert "Session, 'readonly', 1]" in problem.text


async def test_what_is_registered_under_annotated_is_found_by_handlers_and_constructors() -> None:
    plain, readonly = Session(), Session()
    registry = Registry()
    registry.register_value(Session, plain)
    registry.register_value(Readonly, readonly)
    registry.register_factory(Report, aautowire(Report))
    seen: list[Session] = []

    async def handler(_: Work, session: Session, other: Readonly, report: "Report") -> None:
        seen.extend([session, other, report.session])

    async with app_of(registry, handler) as app:
        await app.send(Work())

    assert [session is readonly for session in seen] == [False, True, True]


class Report:
    def __init__(self, session: Readonly) -> None:
        self.session = session


async def test_annotations_that_svcs_does_not_know_qualify_nothing() -> None:
    registry = Registry()
    registry.register_value(Session, Session())

    async def handler(_: Work, session: Annotated[Session, "the session of this message"]) -> None:
        pass

    assert app_of(registry, handler).check() == []
