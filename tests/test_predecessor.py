"""Coming from 0.1: handlers written for it run, its faults are gone, and the page names what took each name's place."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import dishka
import punq
import pytest

from diator import (
    Command,
    ConfigurationError,
    Diator,
    DomainEvent,
    ECSTEvent,
    Event,
    NotificationEvent,
    Publish,
    Query,
)

PAGE = Path(__file__).parent.parent / "docs" / "how-to" / "migrate-from-0.1.md"

PUBLIC_NAMES = {
    "diator": ["__version__"],
    "diator.mediator": ["Mediator", "Mediator.send"],
    "diator.requests": ["Request", "RequestHandler", "RequestMap"],
    "diator.requests.request": ["Request", "Request.request_id"],
    "diator.requests.request_handler": ["RequestHandler", "RequestHandler.events", "RequestHandler.handle"],
    "diator.requests.map": ["RequestMap", "RequestMap.bind", "RequestMap.get", "RequestHandlerDoesNotExist"],
    "diator.response": ["Response"],
    "diator.events": [
        "DomainEvent", "ECSTEvent", "Event", "EventEmitter", "EventHandler", "EventMap", "NotificationEvent",
    ],
    "diator.events.event": [
        "DomainEvent", "ECSTEvent", "ECSTEvent.event_id", "ECSTEvent.event_timestamp", "Event", "NotificationEvent",
        "NotificationEvent.event_id", "NotificationEvent.event_timestamp",
    ],
    "diator.events.event_emitter": ["EventEmitter", "EventEmitter.emit"],
    "diator.events.event_handler": ["EventHandler", "EventHandler.handle"],
    "diator.events.map": ["EventMap", "EventMap.bind", "EventMap.get", "EventMap.get_events"],
    "diator.middlewares": ["Middleware", "MiddlewareChain"],
    "diator.middlewares.base": [
        "Handle", "HandleType", "Middleware", "MiddlewareChain", "MiddlewareChain.add", "MiddlewareChain.set",
        "MiddlewareChain.wrap",
    ],
    "diator.middlewares.logging": ["HandleType", "Logger", "Logger.log", "LoggingMiddleware"],
    "diator.dispatcher": ["DefaultDispatcher", "DispatchResult", "Dispatcher"],
    "diator.dispatcher.default": ["DefaultDispatcher", "DefaultDispatcher.dispatch"],
    "diator.dispatcher.dispatch_result": ["DispatchResult", "DispatchResult.events", "DispatchResult.response"],
    "diator.dispatcher.protocol": ["Dispatcher", "Dispatcher.dispatch"],
    "diator.container.protocol": [
        "Container", "Container.attach_external_container", "Container.external_container", "Container.resolve",
    ],
    "diator.container.di": [
        "DIContainer", "DIContainer.attach_external_container", "DIContainer.external_container", "DIContainer.resolve",
    ],
    "diator.container.rodi": [
        "RodiContainer", "RodiContainer.attach_external_container", "RodiContainer.external_container",
        "RodiContainer.resolve",
    ],
    "diator.message_brokers.protocol": [
        "Message", "Message.message_id", "Message.message_name", "Message.message_type", "Message.payload",
        "MessageBroker", "MessageBroker.send_message",
    ],
    "diator.message_brokers.redis": ["RedisMessageBroker", "RedisMessageBroker.send_message"],
    "diator.message_brokers.azure": ["AzureMessageBroker", "AzureMessageBroker.send_message"],
}  # fmt: skip
"""What 0.1.2 has in each of its modules, without imported names and type variables."""


@dataclass(frozen=True, kw_only=True)
class JoinMeeting(Command[str]):
    user_ids: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class UserJoined(DomainEvent):
    user_id: int


class JoinMeetingHandler:
    """In the shape that 0.1 asked for: a list made by the constructor, read through a property."""

    def __init__(self) -> None:
        self._events: list[Event] = []

    @property
    def events(self) -> list[Event]:
        return self._events

    async def handle(self, request: JoinMeeting) -> str:
        for user_id in request.user_ids:
            await asyncio.sleep(0)
            self._events.append(UserJoined(user_id=user_id))
        return f"{len(request.user_ids)} joined"


class AssigningHandler:
    """In the shape of 0.1's own documents: `events` is an attribute that only the constructor knows."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    async def handle(self, request: JoinMeeting) -> str:
        self.events.extend(UserJoined(user_id=user_id) for user_id in request.user_ids)
        return f"{len(request.user_ids)} joined"


class Seen:
    """An event handler in the shape of 0.1, with what it was given."""

    def __init__(self) -> None:
        self.user_ids: list[int] = []

    async def handle(self, event: UserJoined) -> None:
        self.user_ids.append(event.user_id)


def app_with(
    handler: type[JoinMeetingHandler] | type[AssigningHandler], container: object = None
) -> tuple[Diator, Seen]:
    app, seen = Diator(container=container), Seen()
    app.add_command(handler)
    app.add_event_handler(seen.handle)
    return app, seen


@pytest.mark.parametrize("handler", [JoinMeetingHandler, AssigningHandler])
@pytest.mark.parametrize("known", [False, True], ids=["built by Diator", "known to the container"])
async def test_a_class_handler_of_0_1_runs_unchanged(
    handler: type[JoinMeetingHandler] | type[AssigningHandler], known: bool
) -> None:
    container = punq.Container()
    if known:
        container.register(handler)
    app, seen = app_with(handler, container)
    async with app:
        assert await app.send(JoinMeeting(user_ids=(1, 2))) == "2 joined"
    assert seen.user_ids == [1, 2]


async def test_a_query_handler_of_0_1_with_its_empty_events_runs_unchanged() -> None:
    @dataclass(frozen=True, kw_only=True)
    class CountUsers(Query[int]):
        pass

    class CountUsersHandler:
        def __init__(self) -> None:
            self._events: list[Event] = []

        @property
        def events(self) -> list[Event]:
            return self._events

        async def handle(self, request: CountUsers) -> int:
            return 3

    app = Diator()
    app.add_query(CountUsersHandler)
    async with app:
        assert await app.send(CountUsers()) == 3


# The faults of 0.1. Each test is named after what was wrong.


async def test_events_were_emitted_in_reverse_order() -> None:
    app, seen = app_with(JoinMeetingHandler)
    async with app:
        await app.send(JoinMeeting(user_ids=(1, 2, 3)))
    assert seen.user_ids == [1, 2, 3]


async def test_a_handler_sent_old_events_again() -> None:
    app, seen = app_with(JoinMeetingHandler)
    async with app:
        await app.send(JoinMeeting(user_ids=(1,)))
        await app.send(JoinMeeting(user_ids=(2,)))
    assert seen.user_ids == [1, 2]


async def test_a_handler_mixed_the_events_of_concurrent_requests() -> None:
    app, seen = app_with(JoinMeetingHandler)
    async with app:
        await asyncio.gather(*(app.send(JoinMeeting(user_ids=(n, n + 1, n + 2))) for n in (10, 20, 30)))
    assert sorted(seen.user_ids) == [10, 11, 12, 20, 21, 22, 30, 31, 32]


def as_singleton(container: punq.Container, handler: type) -> None:
    container.register(handler, scope=punq.Scope.singleton)


def as_instance(container: punq.Container, handler: type) -> None:
    container.register(handler, instance=handler())


@pytest.mark.parametrize("handler", [JoinMeetingHandler, AssigningHandler])
@pytest.mark.parametrize("keep", [as_singleton, as_instance])
def test_a_handler_with_events_could_be_kept_as_singleton(
    handler: type[JoinMeetingHandler] | type[AssigningHandler], keep: Callable[[punq.Container, type], None]
) -> None:
    container = punq.Container()
    keep(container, handler)
    app, _ = app_with(handler, container)
    (problem,) = app.check()
    assert (problem.code, problem.severity) == ("shared-events", "error")
    assert "register it as transient" in problem.fix


async def test_a_failing_event_handler_left_the_command_done_and_the_other_events_unhandled(tmp_path: Path) -> None:
    path = tmp_path / "meetings.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table joined (user_id int)")

    def database() -> Generator[sqlite3.Connection, BaseException | None, None]:
        with closing(sqlite3.connect(path)) as connection:
            if (yield connection) is None:
                connection.commit()

    provider = dishka.Provider(scope=dishka.Scope.REQUEST)
    provider.provide(database, provides=sqlite3.Connection)
    app = Diator(container=dishka.make_async_container(provider))

    @app.command
    async def join(command: JoinMeeting, database: sqlite3.Connection, publish: Publish[UserJoined]) -> str:
        for user_id in command.user_ids:
            database.execute("insert into joined values (?)", [user_id])
            publish(UserJoined(user_id=user_id))
        return "joined"

    @app.on_event
    async def refuse(event: UserJoined) -> None:
        if event.user_id == 0:
            raise LookupError("no such user")

    async with app:
        await app.send(JoinMeeting(user_ids=(7,)))
        with pytest.raises(LookupError, match="no such user"):
            await app.send(JoinMeeting(user_ids=(8, 0, 9)))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("select user_id from joined").fetchall() == [(7,)]


def test_a_second_binding_replaced_the_first_in_silence() -> None:
    app = Diator()
    app.add_command(JoinMeetingHandler)
    assert app.requests[JoinMeeting].target is JoinMeetingHandler
    app.add_command(AssigningHandler)
    (problem,) = app.check()
    assert problem.code == "duplicate-handler"


async def test_a_yielded_dependency_was_closed_before_the_handler_ran() -> None:
    class Session:
        is_open = True

    class Handler:
        def __init__(self, session: Session) -> None:
            self._session = session

        async def handle(self, request: JoinMeeting) -> str:
            await asyncio.sleep(0)
            return "open" if self._session.is_open else "closed"

    async def open_session() -> AsyncIterator[Session]:
        session = Session()
        sessions.append(session)
        yield session
        session.is_open = False

    sessions = list[Session]()
    provider = dishka.Provider(scope=dishka.Scope.REQUEST)
    provider.provide(open_session)
    provider.provide(Handler)
    app = Diator(container=dishka.make_async_container(provider))
    app.add_command(Handler)
    async with app:
        assert await app.send(JoinMeeting()) == "open"
        assert [session.is_open for session in sessions] == [False]


async def test_an_event_without_a_handler_was_ignored(caplog: pytest.LogCaptureFixture) -> None:
    app = Diator()

    @app.command
    async def join(command: JoinMeeting, publish: Publish[UserJoined]) -> str:
        return "joined"

    (problem,) = app.check()
    assert (problem.code, problem.severity) == ("unhandled-event", "warning")
    async with app:
        assert "UserJoined, published by join, has no handler" in caplog.text


async def test_an_event_of_no_known_kind_was_ignored() -> None:
    @dataclass(frozen=True)
    class Something(Event):
        pass

    class Handler:
        def __init__(self) -> None:
            self.events: list[Event] = [Something()]

        async def handle(self, request: JoinMeeting) -> str:
            return "joined"

    app = Diator()
    app.add_command(Handler)
    async with app:
        with pytest.raises(ConfigurationError, match="not a DomainEvent, NotificationEvent or ECSTEvent"):
            await app.send(JoinMeeting())


async def test_a_missing_broker_was_told_after_the_command_had_taken_effect() -> None:
    class Noted(NotificationEvent):
        pass

    class Stated(ECSTEvent):
        pass

    class Handler:
        @property
        def events(self) -> list[Noted | Stated]:
            return [Noted(), Stated()]

        async def handle(self, request: JoinMeeting) -> str:
            raise AssertionError("the app must not start")

    app = Diator()
    app.add_command(Handler)
    with pytest.raises(ConfigurationError) as caught:
        async with app:
            await app.send(JoinMeeting())
    assert [problem.code for problem in caught.value.problems] == ["no-broker", "no-broker"]


async def test_a_brokered_event_that_no_hint_announces_fails_the_command_inside_its_unit_of_work() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Noted(NotificationEvent):
        pass

    class Handler:
        def __init__(self, database: sqlite3.Connection) -> None:
            database.execute("insert into joined values (1)")

        @property
        def events(self) -> list[Event]:
            return [Noted()]

        async def handle(self, request: JoinMeeting) -> str:
            return "joined"

    def unit() -> Generator[sqlite3.Connection, BaseException | None, None]:
        if (yield database) is None:
            database.commit()
        else:
            database.rollback()

    with closing(sqlite3.connect(":memory:")) as database:
        database.execute("create table joined (user_id int)")
        provider = dishka.Provider(scope=dishka.Scope.REQUEST)
        provider.provide(unit, provides=sqlite3.Connection)
        app = Diator(container=dishka.make_async_container(provider))
        app.add_command(Handler)
        async with app:
            with pytest.raises(ConfigurationError, match="has no message broker"):
                await app.send(JoinMeeting())
        assert database.execute("select * from joined").fetchall() == []


async def test_a_field_that_could_not_be_serialized_failed_after_the_command_had_taken_effect() -> None:
    class Seat:
        pass

    @dataclass(frozen=True)
    class Taken(NotificationEvent):
        seat: Seat

    app = Diator("meetings", broker="memory://")

    @app.command
    async def take(command: JoinMeeting, publish: Publish[Taken]) -> str:
        raise AssertionError("the app must not start")

    with pytest.raises(ConfigurationError, match=r"Taken can't be serialized: .*Taken.seat is Seat") as caught:
        async with app:
            await app.send(JoinMeeting())
    assert [problem.code for problem in caught.value.problems] == ["not-serializable"]


async def test_sets_and_bytes_could_not_be_serialized() -> None:
    @dataclass(frozen=True)
    class Taken(NotificationEvent):
        seats: set[int]
        ticket: bytes

    app = Diator("meetings", broker="memory://")
    handled: list[Taken] = []
    app.publishes(Taken)

    @app.on_event
    async def keep(event: Taken) -> None:
        handled.append(event)

    async with app.testing() as session:
        await session.publish(Taken({1, 2}, b"\xff"))
        await session.settled()
    assert handled == [Taken({1, 2}, b"\xff")]


async def test_nothing_could_be_consumed() -> None:
    @dataclass(frozen=True)
    class Taken(ECSTEvent):
        seat: int

    app = Diator("meetings", broker="memory://")
    handled: list[int] = []

    @app.command
    async def take(command: JoinMeeting, publish: Publish[Taken]) -> str:
        publish(Taken(7))
        return "taken"

    @app.on_event
    async def keep(event: Taken) -> None:
        handled.append(event.seat)

    async with app.testing() as session:
        assert await session.send(JoinMeeting()) == "taken"
        await session.settled()
    assert handled == [7]


@pytest.mark.parametrize("name", sorted({f"{mod}:{name}" for mod, names in PUBLIC_NAMES.items() for name in names}))
def test_every_public_name_of_0_1_is_on_the_page(name: str) -> None:
    module, _, member = name.partition(":")
    page = PAGE.read_text(encoding="utf-8")
    assert f"`{member}`" in page
    assert f"`{module}`" in page or f"`{module}." in page
