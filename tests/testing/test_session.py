"""A session waits for everything that a test has caused, over the broker and back, and tells what failed."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import pytest
from typing_extensions import assert_type

from diator import (
    Command,
    ConfigurationError,
    Context,
    Diator,
    DomainEvent,
    ECSTEvent,
    NotificationEvent,
    NotRunningError,
    Publish,
    Query,
    Reject,
    Retry,
    RetryLater,
    contract,
)
from diator.brokers import MemoryBroker
from diator.testing import Session, UnsettledError


@dataclass(frozen=True)
class Join(Command[str]):
    user: int


@dataclass(frozen=True)
class Greet(Command[None]):
    user: int


@dataclass(frozen=True)
class Users(Query[int]):
    pass


@dataclass(frozen=True)
class Seated(DomainEvent):
    user: int


@contract("session.user-joined")
@dataclass(frozen=True)
class UserJoined(NotificationEvent):
    user: int


@contract("session.user-greeted")
@dataclass(frozen=True)
class UserGreeted(ECSTEvent):
    user: int
    text: str = "hello"


@contract("session.moved", key="user")
@dataclass(frozen=True)
class Moved(NotificationEvent):
    user: int
    step: int


async def join(command: Join, publish: Publish[UserJoined | Seated]) -> str:
    publish(Seated(command.user))
    publish(UserJoined(command.user))
    return "welcome"


async def count(event: UserJoined) -> None: ...


async def mail(event: UserJoined) -> None: ...


async def log(event: Seated) -> None: ...


def make_app(*handlers: Any, **options: Any) -> Diator:
    app = Diator("meetings", broker=MemoryBroker(), **options)
    app.add_command(join)
    app.add_event_handler(log)
    for handler in handlers:
        app.add_event_handler(handler)
    return app


async def failing(session: Session, seconds: float = 10.0) -> UnsettledError:
    with pytest.raises(UnsettledError) as found:
        await session.settled(seconds)
    return found.value


# Waiting


async def test_settled_waits_for_every_handler_of_what_was_published() -> None:
    done: list[str] = []

    async def slowly(event: UserJoined) -> None:
        await asyncio.sleep(0.05)
        done.append("slowly")

    async def at_once(event: UserJoined) -> None:
        done.append("at once")

    async with make_app(slowly, at_once).testing() as session:
        assert await session.send(Join(1)) == "welcome"
        await session.settled()
        assert sorted(done) == ["at once", "slowly"]
    assert session.sent == [Join(1)]
    assert session.published == [Seated(1), UserJoined(1)]
    assert session.handled.one(UserJoined, by=slowly) == UserJoined(1)
    assert session.handled.entry(UserJoined, by=at_once).cause is session.published.entry(UserJoined)
    session.dead_letters.none()


async def test_a_session_prints_as_a_tree_across_the_broker() -> None:
    async with make_app(count).testing() as session:
        await session.send(Join(1))
        await session.settled()
    assert str(session).splitlines() == [
        "  sent Join(user=1), returned 'welcome'",
        "    handled by join",
        "      published Seated(user=1)",
        "        handled by log",
        "      published UserJoined(user=1)",
        "        handled by count",
    ]
    assert repr(session) == "<Session of <Diator 'meetings'>: 6 entries>"


async def test_settled_waits_for_retries_which_come_at_once() -> None:
    attempts: list[int] = []

    async def flaky(event: UserJoined, context: Context) -> None:
        attempts.append(context.attempt)
        if context.attempt == 2:
            raise RetryLater(3600)
        if context.attempt < 4:
            raise ConnectionError("no route")

    app = make_app(flaky, retry=Retry(attempts=4, delay=600))
    began = time.monotonic()
    async with app.testing() as session:
        await session.send(Join(1))
        await session.settled()
    assert time.monotonic() - began < 5
    assert attempts == [1, 2, 3, 4]
    runs = session.handled.of(UserJoined, by=flaky).entries
    assert [run.attempt for run in runs] == [1, 2, 3, 4]
    assert [type(run.error).__name__ for run in runs] == [
        "ConnectionError",
        "RetryLater",
        "ConnectionError",
        "NoneType",
    ]
    assert isinstance(runs[1].error, RetryLater)
    assert runs[1].error.seconds == 3600
    session.dead_letters.none()


async def test_retries_wait_where_the_session_is_told_so() -> None:
    async def flaky(event: UserJoined, context: Context) -> None:
        if context.attempt == 1:
            raise ConnectionError("no route")

    app = make_app(flaky, retry=Retry(delay=0.2, jitter=0))
    async with app.testing(delays=True) as session:
        began = time.monotonic()
        await session.send(Join(1))
        error = await failing(session, 0.05)
        assert "UserJoined(user=1) waits to be tried again by test_retries_wait" not in str(error)
        assert "  UserJoined(user=1) waits to be tried again by flaky, after attempt 1" in str(error).splitlines()
        await session.settled()
        assert time.monotonic() - began >= 0.2


async def test_settled_waits_for_follow_ups_of_follow_ups() -> None:
    app = Diator("meetings", broker="memory://")
    ends: list[int] = []

    @app.command
    async def start(command: Greet, publish: Publish[UserJoined]) -> None:
        publish(UserJoined(command.user))

    @app.on_event
    async def one(event: UserJoined, publish: Publish[UserGreeted]) -> None:
        await asyncio.sleep(0.01)
        publish(UserGreeted(event.user, "one"))
        publish(UserGreeted(event.user, "two"))

    @app.on_event
    async def two(event: UserGreeted, publish: Publish[Seated]) -> None:
        await asyncio.sleep(0.01)
        publish(Seated(event.user))

    @app.on_event
    async def inside(event: Seated, publish: Publish[Moved]) -> None:
        publish(Moved(event.user, 1))

    @app.on_event
    async def three(event: Moved) -> None:
        await asyncio.sleep(0.01)
        ends.append(event.user)

    async with app.testing() as session:
        await session.send(Greet(1))
        await session.settled()
        assert ends == [1, 1]
    assert session.published.of(UserGreeted, by=one) == [UserGreeted(1, "one"), UserGreeted(1, "two")]
    assert session.published.of(Moved, by=inside) == [Moved(1, 1), Moved(1, 1)]
    first = session.handled.of(Moved).entries[0]
    causes: list[str] = []
    entry = first.cause
    while entry is not None:
        causes.append(type(entry.message).__name__)
        entry = entry.cause
    assert causes == [
        *("Moved", "Seated", "Seated", "UserGreeted", "UserGreeted"),
        *("UserJoined", "UserJoined", "Greet", "Greet"),
    ]


async def test_settled_waits_for_what_a_handler_sends_and_for_what_that_publishes() -> None:
    app = make_app()

    @app.command
    async def greet(command: Greet, publish: Publish[UserGreeted]) -> None:
        publish(UserGreeted(command.user))

    @app.on_event
    async def welcome(event: UserJoined, sender: Diator) -> None:
        await sender.send(Greet(event.user))

    @app.on_event
    async def read(event: UserGreeted) -> None:
        await asyncio.sleep(0.01)

    async with app.testing() as session:
        await session.send(Join(1))
        await session.settled()
    assert session.sent.one(Greet, by=welcome) == Greet(1)
    assert session.handled.one(UserGreeted, by=read) == UserGreeted(1)
    assert "        handled by welcome\n          sent Greet(user=1)\n            handled by greet" in str(session)


async def test_settled_waits_for_what_is_sent_in_tasks_of_their_own() -> None:
    app = make_app()
    tasks: list[asyncio.Task[Any]] = []

    @app.command
    async def greet(command: Greet) -> None:
        await asyncio.sleep(0.02)
        await app.send(Join(command.user))

    @app.on_event
    async def begin(event: UserJoined) -> None:
        if event.user == 1:
            tasks.append(asyncio.ensure_future(app.send(Greet(2))))

    async with app.testing() as session:
        tasks.append(asyncio.ensure_future(session.send(Join(1))))
        await session.settled()
        assert all(task.done() for task in tasks)
    assert session.handled.of(UserJoined) == [UserJoined(1), UserJoined(2)]


async def test_events_of_one_key_are_handled_in_order_also_when_one_is_tried_again() -> None:
    steps: list[tuple[int, int]] = []
    app = Diator("meetings", broker="memory://")

    @app.on_event
    async def follow(event: Moved, context: Context) -> None:
        await asyncio.sleep(0)
        if event.step == 2 and context.attempt < 3:
            raise ConnectionError("no route")
        steps.append((event.user, event.step))

    async with app.testing() as session:
        await session.publish(*(Moved(user, step) for step in range(1, 6) for user in range(3)))
        await session.settled()
    for user in range(3):
        assert [step for who, step in steps if who == user] == [1, 2, 3, 4, 5]
    assert len(session.handled.of(Moved)) == 15 + 3 * 2


async def test_many_messages_settle() -> None:
    async with make_app(count, mail, concurrency=3).testing() as session:
        await asyncio.gather(*(session.send(Join(user)) for user in range(300)))
        await session.settled()
    assert len(session.handled.of(UserJoined, by=count)) == 300
    assert len(session.handled.of(UserJoined, by=mail)) == 300


async def test_nothing_to_wait_for_is_settled_at_once_in_an_app_without_a_broker_too() -> None:
    app = Diator()

    @app.command
    async def greet(command: Greet, publish: Publish[Seated]) -> None:
        publish(Seated(command.user))

    app.add_event_handler(log)
    async with app.testing() as session:
        await session.settled(0.0)
        await session.send(Greet(1))
        await session.settled(0.0)
    assert session.handled.one(Seated) == Seated(1)


async def test_events_without_a_handler_are_published_and_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    async with make_app().testing() as session:
        await session.send(Join(1))
        await session.settled(1.0)
    assert session.published.one(UserJoined) == UserJoined(1)


async def test_types_that_a_subscription_gets_and_does_not_handle_are_not_waited_for() -> None:
    @contract("session.on-a-shared-topic", topic="session.user-joined")
    @dataclass(frozen=True)
    class Other(NotificationEvent):
        user: int

    app = make_app(count)
    app.publishes(Other)
    async with app.testing() as session:
        await session.publish(Other(1))
        await session.settled(1.0)
    assert session.published == [Other(1)]
    session.handled.none()


# Failures


async def test_a_handler_that_fails_for_good_fails_settled_with_the_tree() -> None:
    async def broken(event: UserJoined) -> None:
        raise ConnectionError("no route")

    async with make_app(count, broken, retry=Retry(attempts=2)).testing() as session:
        await session.send(Join(1))
        error = await failing(session)
    location = f"tests/testing/test_session.py:{broken.__code__.co_firstlineno + 1}"
    assert (
        str(error)
        == f"""\
broken has failed permanently on UserJoined(user=1): exhausted after 2 attempts
what happened:
  sent Join(user=1), returned 'welcome'
    handled by join
      published Seated(user=1)
        handled by log
      published UserJoined(user=1)
        handled by count
        handled by broken, attempt 1, raised ConnectionError('no route') at {location}
        handled by broken, attempt 2, raised ConnectionError('no route') at {location}
          dead-lettered for broken: exhausted after 2 attempts"""
    )
    assert isinstance(error, AssertionError)
    (letter,) = error.failed
    assert letter is session.dead_letters.entry(UserJoined, by=broken)
    assert letter.failure is not None
    assert (letter.failure.attempts, letter.failure.error) == (2, "builtins.ConnectionError: no route")
    assert error.__cause__ is letter.error
    assert repr(letter.error) == "ConnectionError('no route')"


async def test_failures_may_be_what_a_test_is_about() -> None:
    async def refuse(event: UserJoined) -> None:
        raise Reject("banned")

    async with make_app(refuse, mail).testing() as session:
        await session.send(Join(1))
        await session.settled(allow_failures=True)
        assert session.dead_letters == [UserJoined(1)]
        await session.settled()
        await session.send(Join(2))
        error = await failing(session)
    assert str(error).startswith("refuse has failed permanently on UserJoined(user=2): rejected: banned\nwhat")
    assert len(error.failed) == 1
    assert session.dead_letters.of(UserJoined, by=refuse) == [UserJoined(1), UserJoined(2)]
    session.dead_letters.none(by=mail)
    with pytest.raises(AssertionError, match="expected no UserJoined to be dead-lettered, found 2; what happened:"):
        session.dead_letters.none(UserJoined)


async def test_everything_else_is_done_when_a_failure_is_told() -> None:
    done: list[int] = []

    async def broken(event: UserJoined) -> None:
        raise Reject("banned")

    async def slow(event: UserJoined) -> None:
        await asyncio.sleep(0.05)
        done.append(event.user)

    async with make_app(broken, slow).testing() as session:
        await session.send(Join(1))
        await failing(session)
        assert done == [1]


async def test_many_failures_are_all_told_and_cut_where_nobody_would_read_them() -> None:
    async def broken(event: UserJoined) -> None:
        raise Reject("banned")

    async with make_app(broken).testing() as session:
        await session.publish(*(UserJoined(user) for user in range(30)))
        error = await failing(session)
    lines = str(error).splitlines()
    assert lines[19].startswith("broken has failed permanently on UserJoined(")
    assert lines[20:22] == ["... and 10 more", "what happened:"]
    assert len(error.failed) == 30


async def test_a_stuck_handler_is_named_when_the_time_is_over() -> None:
    stuck = asyncio.Event()

    async def wait(event: UserJoined) -> None:
        await stuck.wait()

    async with make_app(wait, count).testing() as session:
        await session.send(Join(1))
        error = await failing(session, 0.05)
        lines = str(error).splitlines()
        assert lines[:3] == [
            "not done within 0.05 s:",
            "  wait is still running on UserJoined(user=1), attempt 1",
            "what happened:",
        ]
        assert "        handled by wait, still running" in lines
        assert "        handled by count" in lines
        assert not error.failed
        with pytest.raises(UnsettledError):
            await session.settled(0.0, allow_failures=True)
        stuck.set()
        await session.settled()


async def test_what_waits_behind_a_stuck_handler_is_named_too() -> None:
    async def wait(event: UserJoined) -> None:
        await asyncio.get_running_loop().create_future()

    async with make_app(wait, concurrency=1).testing() as session:
        await session.publish(UserJoined(1))
        await session.publish(UserJoined(2))
        task = asyncio.ensure_future(session.send(Join(3)))
        error = await failing(session, 0.05)
        await task
    assert error.unfinished == (
        "wait is still running on UserJoined(user=1), attempt 1",
        "UserJoined(user=2) has not been delivered to wait",
        "UserJoined(user=3) has not been delivered to wait",
    )
    assert session.handled.entry(UserJoined).error is not None  # leaving the block has cancelled it


async def test_a_command_that_is_stuck_is_named() -> None:
    app, stuck = Diator(), asyncio.Event()

    @app.command
    async def greet(command: Greet) -> None:
        await stuck.wait()

    async with app.testing() as session:
        task = asyncio.ensure_future(session.send(Greet(1)))
        error = await failing(session, 0.02)
        assert error.unfinished == ("Greet(user=1) is still being sent",)
        stuck.set()
        await session.settled()
        assert task.done()


async def test_a_handler_that_is_cancelled_for_taking_too_long_has_failed_with_that() -> None:
    async def slow(event: UserJoined) -> None:
        await asyncio.sleep(60)

    line = slow.__code__.co_firstlineno + 1
    async with make_app(slow, event_timeout=0.02, retry=Retry(attempts=1)).testing() as session:
        await session.send(Join(1))
        error = await failing(session)
    text = "raised TimeoutError('slow was cancelled: it took longer than 0.02 s') at tests/testing/test_session.py"
    assert f"handled by slow, attempt 1, {text}:{line}" in str(error)


async def test_what_fails_before_or_after_a_handler_is_shown_as_well() -> None:
    app = make_app(count, retry=Retry(attempts=2))

    @app.middleware
    async def refuse(message: UserJoined, call_next: Any) -> Any:
        if message.user == 1:
            raise PermissionError("no")
        await call_next(message)
        raise LookupError("too late")

    async with app.testing() as session:
        await session.publish(UserJoined(1))
        error = await failing(session)
        assert "handled by count, attempt 2, raised PermissionError('no') at tests/testing" in str(error)
        assert error.failed[0].message == UserJoined(1)
        await session.publish(UserJoined(2))
        assert "handled by count, attempt 2, raised LookupError('too late') at" in str(await failing(session))
    assert len(session.handled) == 4


async def test_what_can_not_be_read_is_a_dead_letter_of_the_handler_that_has_not_run() -> None:
    import msgspec

    readings = 1_000

    class Strict(msgspec.Struct, NotificationEvent):
        """Can be read when it is published, and not when it is delivered."""

        number: int

        def __post_init__(self) -> None:
            nonlocal readings
            readings -= 1
            if readings < 0:
                raise ValueError("read too often")

    app = Diator("meetings", broker="memory://")
    app.publishes(Strict)

    @app.on_event
    async def read(event: Strict) -> None: ...

    async with app.testing() as session:
        event, readings = Strict(3), 1
        await session.publish(event)
        error = await failing(session)
    assert str(error).startswith("read has failed permanently on ")
    assert "undecodable: the data of Strict does not fit" in str(error)
    assert "\n    dead-lettered for read: undecodable" in str(error)
    session.handled.none()


async def test_where_a_broker_delivers_at_most_once_one_failure_is_for_good() -> None:
    from diator.brokers import BrokerCapability

    class Lossy(MemoryBroker):
        @property
        def capabilities(self) -> BrokerCapability:
            return BrokerCapability.CONSUMER_GROUPS

    async def broken(event: UserJoined) -> None:
        raise ConnectionError("no route")

    app = make_app()
    for handler in (broken, count):
        app.add_event_handler(handler, delivery="at-most-once")
    async with app.testing(broker=Lossy()) as session:
        await session.send(Join(1))
        error = await failing(session)
    assert "dead-lettered for broken: lost: it failed, and this broker delivers at most once" in str(error)
    assert session.dead_letters == [UserJoined(1)]


async def test_settled_is_for_inside_of_the_block() -> None:
    session = make_app().testing()
    with pytest.raises(NotRunningError, match=r"settled\(\) was called outside its block"):
        await session.settled()
    async with session:
        await session.settled()
    with pytest.raises(NotRunningError):
        await session.settled()
    with pytest.raises(NotRunningError, match=r"a session can be entered once; call app.testing\(\) again"):
        async with session:
            pass


# The other verbs


async def test_a_session_has_the_verbs_of_the_app() -> None:
    app = make_app()
    app.provides(str)
    seen: list[tuple[str, str]] = []

    @app.command
    async def greet(command: Greet, name: str, publish: Publish[UserGreeted]) -> None:
        publish(UserGreeted(command.user, name))

    @app.query
    async def users(query: Users) -> AsyncIterator[int]:
        yield 1
        await app.send(Join(9))
        yield 2

    @app.on_event
    async def read(event: UserGreeted, context: Context) -> None:
        seen.append((event.text, context.headers["tenant"]))

    app.add_event_handler(count)
    async with app.testing() as session:
        sender = session.using(provide={str: "Ada"}, headers={"tenant": "7"}, correlation_id="c")
        await sender.send(Greet(1))
        async with session.stream(Users()) as rows:
            assert [row async for row in rows] == [1, 2]
        await session.publish(UserJoined(5), Seated(6))
        await session.settled()
    assert seen == [("Ada", "7")]
    assert session.handled.of(UserJoined, by=count) == [UserJoined(9), UserJoined(5)]
    greeted = session.published.entry(UserGreeted)
    assert greeted.context is not None
    assert (greeted.context.correlation_id, greeted.context.headers) == ("c", {"tenant": "7"})
    run = session.handled.entry(UserGreeted)
    assert run.context is not None
    assert run.context.message_id == greeted.context.message_id
    assert run.context.subscription == "meetings.read"


async def test_what_others_send_through_the_app_belongs_to_the_session() -> None:
    app = make_app(count)
    async with app.testing() as session:
        await app.send(Join(1))
        await session.settled()
        assert session.handled.one(UserJoined) == UserJoined(1)


async def test_a_session_is_typed() -> None:
    async with make_app(count).testing() as session:
        assert_type(await session.send(Join(1)), str)
        await session.settled()
    assert_type(session, Session)
    assert_type(session.published.one(UserJoined), UserJoined)
    assert_type(session.published.of(UserJoined)[:], list[UserJoined])
    assert_type(session.dead_letters.of(UserJoined)[:], list[UserJoined])


async def test_dependencies_can_be_replaced_for_handlers_of_brokered_events() -> None:
    app, got = make_app(), list[str]()

    @app.on_event
    async def read(event: UserJoined, text: str) -> None:
        got.append(text)

    async with app.testing(replace={str: "replaced"}) as session:
        app.check()  # looking through the app meanwhile changes nothing
        await session.send(Join(1))
        await session.settled()
    assert got == ["replaced"]
    with pytest.raises(ConfigurationError, match="replace has int, but no handler"):
        async with app.testing(replace={str: "replaced", int: 3}):
            pass
    with pytest.raises(TypeError, match=r"app\.testing got replace='x'"):
        wrong: Any = "x"
        app.testing(replace=wrong)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python has no groups of errors")
async def test_a_later_retry_in_a_group_of_errors_comes_at_once_too() -> None:
    groups: Any = import_module("builtins")
    attempts: list[int] = []

    async def flaky(event: UserJoined, context: Context) -> None:
        attempts.append(context.attempt)
        if context.attempt < 3:
            raise groups.ExceptionGroup("several", [ValueError(), RetryLater(3600)])

    began = time.monotonic()
    async with make_app(flaky).testing() as session:
        await session.send(Join(1))
        await session.settled()
    assert time.monotonic() - began < 5
    assert attempts == [1, 2, 3]
