"""What a record holds: who did what, because of what, in which order, and how it ended."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from typing_extensions import assert_type

from diator import (
    CallNext,
    Command,
    Diator,
    DiatorError,
    DomainEvent,
    Event,
    Message,
    NotRunningError,
    Publish,
    Query,
    Request,
    Router,
)
from diator.errors import ConfigurationError
from diator.testing import Entry, record


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
class Joined(DomainEvent):
    user: int


@dataclass(frozen=True)
class Greeted(DomainEvent):
    user: int


meetings = Router()


async def join(command: Join, publish: Publish[Joined], app: Diator) -> str:
    publish(Joined(command.user))
    await app.send(Greet(command.user))
    publish(Joined(command.user + 1))
    return "welcome"


async def greet(command: Greet, publish: Publish[Greeted]) -> None:
    publish(Greeted(command.user))


def count(event: Joined) -> None: ...


class Log:
    async def handle(self, event: Joined | Greeted) -> None: ...


def make_app() -> Diator:
    app = Diator("meetings")
    app.add_command(join)
    app.add_command(greet)
    app.add_event_handler(count)
    app.add_event_handler(Log)
    return app


TREE = """\
  sent Join(user=1), returned 'welcome'
    handled by join
      published Joined(user=1)
        handled by count
        handled by Log
      sent Greet(user=1)
        handled by greet
          published Greeted(user=1)
            handled by Log
      published Joined(user=2)
        handled by count
        handled by Log"""


async def test_a_record_prints_as_a_tree_of_causes() -> None:
    async with record(app := make_app()) as seen:
        await app.send(Join(1))
    assert str(seen) == TREE


async def test_messages_are_equal_to_lists_of_what_was_sent_published_and_handled_in_order() -> None:
    async with record(app := make_app()) as seen:
        assert await app.send(Join(1)) == "welcome"
    assert seen.sent == [Join(1), Greet(1)]
    assert seen.published == [Joined(1), Greeted(1), Joined(2)]
    assert seen.handled.of(Greeted) == [Greeted(1)]
    assert seen.handled.of(Message, by=Log) == [Greeted(1), Joined(1), Joined(2)]
    assert seen.handled[:2] == [Join(1), Greet(1)]
    assert seen.sent != [Join(1)]
    assert list(seen.sent) == seen.sent
    assert seen.sent == seen.sent.of(Command)


async def test_entries_have_cause_handler_result_and_error() -> None:
    app = make_app()
    boom = ValueError("boom")

    @app.on_event
    async def fails(event: Greeted) -> None:
        raise boom

    async with record(app) as seen:
        with pytest.raises(ValueError, match="boom"):
            await app.send(Join(1))
    run = seen.handled.entry(Greeted, by=fails)
    assert run.error is boom
    assert run.cause is seen.published.entry(Greeted)
    assert run.cause is not None
    assert run.cause.cause is seen.handled.entry(Greet)
    assert seen.sent.entry(Greet).error is boom
    assert seen.sent.entry(Greet).cause is seen.handled.entry(Join)
    assert seen.sent.entry(Join).by is None
    assert seen.sent.entry(Greet).by is app.requests[Join]
    assert "handled by fails, raised ValueError('boom')" in str(seen)


async def test_one_by_a_handler_tells_apart_who_published_and_who_handled() -> None:
    async with record(app := make_app()) as seen:
        await app.send(Join(1))
    assert seen.published.one(Greeted, by=greet) == Greeted(1)
    assert seen.sent.one(Greet, by=join) == Greet(1)
    assert seen.handled.one(Greeted, by=Log).user == 1
    seen.published.none(Greeted, by=join)
    seen.handled.none(Greeted, by=count)


async def test_an_assertion_that_fails_shows_what_was_expected_and_the_whole_record() -> None:
    async with record(app := make_app()) as seen:
        await app.send(Join(1))
    with pytest.raises(AssertionError) as found:
        seen.published.one(Joined)
    assert str(found.value) == f"expected one Joined to be published, found 2; what happened:\n{TREE}"
    with pytest.raises(AssertionError, match="expected one Greeted to be handled by count, found none"):
        seen.handled.one(Greeted, by=count)
    with pytest.raises(AssertionError, match="expected no Greet to be sent, found 1"):
        seen.sent.none(Greet)
    with pytest.raises(AssertionError, match="expected no Message to be sent by join, found 1"):
        seen.sent.none(by=join)


async def test_what_is_no_handler_is_refused_since_nothing_would_match_it() -> None:
    async with record(app := make_app()) as seen:
        await app.send(Greet(1))
    with pytest.raises(ValueError, match="by=users is no handler of what was recorded; expected one of: join, greet,"):
        seen.handled.none(Greeted, by=users)


async def test_a_record_of_nothing_says_so() -> None:
    async with record(make_app()) as seen:
        seen.sent.none()
    assert str(seen) == "  (nothing)"
    assert not seen.published


async def test_events_published_by_the_app_itself_are_recorded_with_their_handlers() -> None:
    async with record(app := make_app()) as seen:
        await app.publish(Joined(1), Greeted(2))
    assert str(seen).splitlines() == [
        "  published Joined(user=1)",
        "    handled by count",
        "    handled by Log",
        "  published Greeted(user=2)",
        "    handled by Log",
    ]


async def test_one_event_object_published_twice_is_two_events_with_their_own_handlers() -> None:
    app, event = Diator(), Joined(1)

    @app.command
    async def twice(command: Greet, publish: Publish[Joined]) -> None:
        publish(event)
        publish(event)

    app.add_event_handler(count)
    async with record(app) as seen:
        await app.send(Greet(1))
    first, second = seen.published.entries
    assert [entry.cause for entry in seen.handled.of(Joined).entries] == [first, second]


async def test_what_a_class_handler_leaves_in_its_events_is_published_by_it() -> None:
    app = make_app()

    @app.query
    class Handler:
        async def handle(self, query: Users) -> int:
            return 3

    @dataclass(frozen=True)
    class Leave(Command[None]):
        pass

    @app.command
    class LeaveHandler:
        events: list[Joined]

        def __init__(self) -> None:
            self.events = []

        def handle(self, command: Leave) -> None:
            self.events.append(Joined(9))

    async with record(app) as seen:
        await app.send(Leave())
        assert await app.send(Users()) == 3
    assert seen.published.one(Joined, by=LeaveHandler) == Joined(9)
    assert seen.handled.one(Joined, by=count) == Joined(9)
    assert seen.handled.entry(Users, by=Handler).result == 3


async def test_concurrent_sends_keep_their_own_causes() -> None:
    app = Diator()

    @app.command
    async def greet_slowly(command: Greet, publish: Publish[Greeted]) -> None:
        await asyncio.sleep(0)
        publish(Greeted(command.user))
        await asyncio.sleep(0)

    @app.command
    async def join_all(command: Join, sender: Diator) -> str:
        await asyncio.gather(*(sender.send(Greet(user)) for user in range(3)))
        return ""

    @app.on_event
    async def slow(event: Greeted) -> None:
        await asyncio.sleep(0)

    async with record(app) as seen:
        await app.send(Join(0))
    for entry in seen.handled.of(Greeted).entries:
        assert entry.cause is not None
        assert entry.cause.cause is not None
        assert isinstance(entry.cause.cause.message, Greet)
        assert entry.cause.cause.message.user == entry.message.user
    assert all(entry.by is app.requests[Join] for entry in seen.sent.of(Greet).entries)


async def test_a_handler_in_a_thread_publishes_into_the_record() -> None:
    app = make_app()

    @app.command(thread=True)
    def inform(command: "Inform", publish: Publish[Greeted]) -> None:
        publish(Greeted(7))

    async with record(app) as seen:
        await app.send(Inform())
    assert seen.published.one(Greeted, by=inform) == Greeted(7)


@dataclass(frozen=True)
class Inform(Command[None]):
    pass


async def test_a_stream_is_sent_and_its_rows_are_its_result() -> None:
    app = make_app()

    @app.query
    async def names(query: Users) -> AsyncIterator[int]:
        yield 1
        await app.send(Greet(5))
        yield 2
        yield 3

    async with record(app) as seen:
        async with app.stream(Users()) as rows:
            read = [await anext(rows), await anext(rows)]
        assert read == [1, 2]
    assert seen.sent.one(Users) == Users()
    run = seen.handled.entry(Users, by=names)
    assert run.result == [1, 2]
    assert run.done
    assert seen.sent.one(Greet, by=names) == Greet(5)
    assert str(seen).startswith("  sent Users(), returned [1, 2]\n    handled by names\n      sent Greet(user=5)")


async def test_an_error_among_the_rows_of_a_stream_is_recorded() -> None:
    app = Diator()

    @app.query
    async def names(query: Users) -> AsyncIterator[int]:
        yield 1
        raise ValueError("row 2")

    async with record(app) as seen, app.stream(Users()) as rows:
        assert await anext(rows) == 1
        assert not any(entry.done for entry in seen.entries)
        with pytest.raises(ValueError, match="row 2"):
            await anext(rows)
    assert repr(seen.handled.entry(Users).error) == "ValueError('row 2')"
    assert repr(seen.sent.entry(Users).error) == "ValueError('row 2')"


async def test_middlewares_run_as_ever_and_what_they_send_is_caused_by_the_message() -> None:
    app = Diator()
    order: list[str] = []

    @app.middleware
    async def outer(message: Join, call_next: CallNext) -> Any:
        order.append("before")
        await app.send(Greet(0))
        result = await call_next(Join(2))
        order.append("after")
        return f"{result}!"

    @app.command
    async def handler(command: Join) -> str:
        order.append("handler")
        return "hello"

    @app.command
    async def other(command: Greet) -> None: ...

    async with record(app) as seen:
        assert await app.send(Join(1)) == "hello!"
    assert order == ["before", "handler", "after"]
    assert str(seen).splitlines() == [
        "  sent Join(user=1), returned 'hello!'",
        "    sent Greet(user=0)",
        "      handled by other",
        "    handled Join(user=2) by handler",
    ]
    assert seen.handled.entry(Join).result == "hello"


async def test_a_middleware_that_tries_again_shows_each_attempt() -> None:
    app = Diator()
    attempts: list[Joined] = []

    @app.middleware
    async def again(message: Greet, call_next: CallNext) -> Any:
        try:
            return await call_next(message)
        except OSError:
            return await call_next(message)

    @app.command
    async def flaky(command: Greet, publish: Publish[Joined]) -> None:
        publish(event)

    @app.on_event
    async def first(event: Joined) -> None:
        attempts.append(event)
        if len(attempts) == 1:
            raise OSError("no route")

    app.add_event_handler(count)
    event = Joined(1)
    async with record(app) as seen:
        await app.send(Greet(1))
    assert str(seen).splitlines() == [
        "  sent Greet(user=1)",
        "    handled by flaky",
        "      published Joined(user=1)",
        "        handled by first, raised OSError('no route')",
        "    handled by flaky",
        "      published Joined(user=1)",
        "        handled by first",
        "        handled by count",
    ]


async def test_what_has_not_ended_is_shown_as_running_and_what_was_cancelled_as_that() -> None:
    app, waits = Diator(), asyncio.Event()

    @app.command
    async def wait(command: Greet) -> None:
        await waits.wait()

    async with record(app) as seen:
        task = asyncio.ensure_future(app.send(Greet(1)))
        await asyncio.sleep(0)
        assert str(seen) == "  sent Greet(user=1), still running\n    handled by wait, still running"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert str(seen) == "  sent Greet(user=1), raised CancelledError()\n    handled by wait, raised CancelledError()"


async def test_a_message_whose_repr_fails_or_is_endless_leaves_the_record_readable() -> None:
    app = Diator()

    class Odd:
        def __repr__(self) -> str:
            raise LookupError("detached")

    class Get(Query[object]):
        def __init__(self, result: object) -> None:
            self.result = result

        def __repr__(self) -> str:
            return "Get(...)"

    @app.query
    async def get(query: Get) -> object:
        return query.result

    async with record(app) as seen:
        await app.send(Get(Odd()))
        await app.send(Get("x" * 10_000))
    assert "returned <" in str(seen)
    assert "whose repr raised LookupError>" in str(seen)
    assert len(str(seen)) < 1000


async def test_the_app_is_afterwards_what_it_was_before() -> None:
    app = make_app()
    before = {name: value for name, value in vars(app).items() if name != "_state"}
    async with record(app) as seen:
        await app.send(Join(1))
    assert {name: value for name, value in vars(app).items() if name != "_state"} == before
    with pytest.raises(NotRunningError):
        await app.send(Join(1))
    app.add_query(users)
    async with app:
        await app.send(Join(2))
        assert await app.send(Users()) == 0
    assert seen.sent == [Join(1), Greet(1)]


async def users(query: Users) -> int:
    return 0


async def test_an_app_that_runs_is_recorded_and_runs_on() -> None:
    async with (app := make_app()):
        async with record(app) as seen:
            await app.send(Join(1))
        await app.send(Join(2))
        with record(app) as again:
            await app.send(Join(3))
    assert seen.sent == [Join(1), Greet(1)]
    assert again.sent == [Join(3), Greet(3)]


async def test_a_plain_with_leaves_starting_to_someone_else() -> None:
    app = make_app()
    with record(app) as seen:
        with pytest.raises(NotRunningError):
            await app.send(Join(1))
        async with app:
            await app.send(Join(2))
        with pytest.raises(NotRunningError):
            await app.send(Join(1))
    assert seen.sent == [Join(2), Greet(2)]


async def test_an_app_started_inside_a_plain_with_and_not_ended_there_runs_on_without_being_recorded() -> None:
    app = make_app()
    with record(app) as seen:
        await app.__aenter__()
        await app.send(Join(1))
    with pytest.raises(ConfigurationError, match="users was registered too late: <Diator 'meetings'> has been started"):
        app.add_query(users)
    await app.send(Join(2))
    await app.__aexit__(None, None, None)
    assert seen.sent == [Join(1), Greet(1)]


async def test_senders_of_an_app_are_recorded_with_what_they_bring() -> None:
    app = Diator()
    app.provides(str)

    @app.command
    async def handler(command: Join, name: str) -> str:
        return name

    async with record(app) as seen:
        assert await app.using(provide={str: "Ada"}).send(Join(1)) == "Ada"
    assert seen.sent.entry(Join).result == "Ada"


async def test_an_error_in_the_block_ends_the_app_and_the_record() -> None:
    app = make_app()
    with pytest.raises(ZeroDivisionError):
        async with record(app):
            raise ZeroDivisionError
    async with record(app) as seen:
        await app.send(Greet(1))
    assert seen.sent == [Greet(1)]


async def test_two_apps_that_call_each_other_have_records_of_their_own() -> None:
    inner, outer = make_app(), Diator("outer")

    @outer.command
    async def handler(command: Greet) -> None:
        await inner.send(Greet(command.user + 1))

    async with record(inner) as below, record(outer) as above:
        await outer.send(Greet(1))
    assert str(above) == "  sent Greet(user=1)\n    handled by handler"
    assert str(below).startswith("  sent Greet(user=2)\n    handled by greet\n      published")
    assert below.sent.one(Greet, by=handler) == Greet(2)


async def test_messages_have_the_type_that_was_asked_for() -> None:
    async with record(app := make_app()) as seen:
        await app.send(Greet(1))
    assert_type(seen.published.one(Greeted), Greeted)
    assert_type(seen.published.of(Greeted)[0], Greeted)
    assert_type(seen.handled.entry(Greet, by=greet), Entry[Greet])
    assert_type(seen.published[0], Event)
    assert_type(seen.sent[0], Request[Any])


async def test_a_second_record_of_an_app_is_refused() -> None:
    app = make_app()
    async with record(app) as seen:
        for second in (record(app), seen):
            with pytest.raises(DiatorError, match="<Diator 'meetings'> is being recorded already"):
                async with second:
                    pass
        await app.send(Greet(1))
    assert seen.sent == [Greet(1)]


async def test_registering_while_an_app_is_recorded_is_refused() -> None:
    app = make_app()
    with record(app), pytest.raises(ConfigurationError, match="is being recorded"):
        app.add_query(users)


async def test_an_app_that_is_wrong_is_refused_as_at_its_start_and_left_alone() -> None:
    app = Diator()

    @app.command
    async def handler(command: Greet, missing: Log) -> None: ...

    with pytest.raises(ConfigurationError, match=r"(?s)needs missing: Log.* or replace it for the test"):
        async with record(app):
            pass
    app.add_query(users)
