"""Hooks that wrap: what they set is current while user code runs, and what they do wrong changes nothing."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import pytest

from diator import (
    CallNext,
    Command,
    ConfigurationError,
    Context,
    Diator,
    DiatorError,
    DomainEvent,
    Hooks,
    Message,
    NotificationEvent,
    Publish,
    PublishError,
    Query,
    Reject,
    RetryLater,
    contract,
)
from diator.hooks import Collected, Handling, Publishing, Sending
from tests.brokered import Flaky, Watch, away
from tests.virtual_time import in_virtual_time

Path = tuple[str, ...]

path: ContextVar[Path] = ContextVar("path", default=())
"""Names of the wraps that are open here, from the outside in."""


class Trail(Hooks):
    """Puts a name on the path for each wrap, and notes when it is entered and how it ends."""

    def __init__(self) -> None:
        self.entered: list[Path] = []
        self.ended: list[tuple[str, str]] = []
        self.details: list[Any] = []

    def sending(self, details: Sending, /) -> AbstractContextManager[None]:
        return self._wrap(f"{details.verb} {' '.join(type(one).__name__ for one in details.messages)}", details)

    def handling(self, details: Handling, /) -> AbstractContextManager[None]:
        return self._wrap(f"handle {type(details.message).__name__}", details)

    def publishing(self, details: Publishing, /) -> AbstractContextManager[None]:
        return self._wrap(f"publish {len(details.messages)}", details)

    @contextmanager
    def _wrap(self, name: str, details: Any) -> Generator[None]:
        token = path.set((*path.get(), name))
        self.entered.append(path.get())
        self.details.append(details)
        try:
            yield
        except BaseException as error:
            self.ended.append((name, type(error).__name__))
            raise
        else:
            self.ended.append((name, "well"))
        finally:
            path.reset(token)


class Broken(Exception):
    pass


@dataclass(frozen=True)
class Join(Command[str]):
    user: int = 1
    fail: bool = False


@dataclass(frozen=True)
class Outer(Command[str]):
    pass


@dataclass(frozen=True)
class Joined(DomainEvent):
    user: int = 1


@contract("meetings.announced")
@dataclass(frozen=True)
class Announced(NotificationEvent):
    user: int = 1
    fail: int = 0


@contract("meetings.followed")
@dataclass(frozen=True)
class Followed(NotificationEvent):
    user: int = 1


@dataclass(frozen=True)
class Users(Query[int]):
    fail: bool = False


def an_app(*hooks: Hooks, broker: object | None = None) -> tuple[Diator, list[tuple[str, Path]]]:
    """An app whose handlers note what path they see."""
    app, seen = Diator("meetings", broker=broker or Flaky(), hooks=hooks), list[tuple[str, Path]]()

    @app.command
    async def join(command: Join, publish: Publish[Joined | Announced]) -> str:
        seen.append(("join", path.get()))
        publish(Joined(command.user))
        publish(Announced(command.user))
        if command.fail:
            raise Broken
        return "joined"

    @app.on_event
    def joined(event: Joined) -> None:
        seen.append(("joined", path.get()))

    @app.on_event
    async def announced(event: Announced, publish: Publish[Followed], context: Context) -> None:
        seen.append(("announced", path.get()))
        publish(Followed())
        if context.attempt <= event.fail:
            raise RetryLater(1)

    @app.on_event
    async def followed(event: Followed) -> None:
        seen.append(("followed", path.get()))

    @app.query
    async def users(query: Users) -> AsyncIterator[int]:
        for number in range(3):
            seen.append((f"row {number}", path.get()))
            yield number
            if query.fail:
                raise Broken

    return app, seen


@in_virtual_time
async def test_a_wrap_is_current_in_handlers_and_nested_work_sees_its_parent() -> None:
    trail = Trail()
    app, seen = an_app(trail)

    @app.command
    async def outer(command: Outer, app: Diator) -> str:
        seen.append(("outer", path.get()))
        return await app.send(Join())

    async with app:
        assert await app.send(Outer()) == "joined"
    outside: Path = ("send Outer", "handle Outer")
    assert seen == [
        ("outer", outside),
        ("join", (*outside, "send Join", "handle Join")),
        ("joined", (*outside, "send Join", "handle Joined")),
    ]
    assert trail.entered[-1] == (*outside, "send Join", "publish 1")
    assert {how for _, how in trail.ended} == {"well"}
    assert path.get() == ()


@in_virtual_time
async def test_wraps_know_message_handler_context_and_result() -> None:
    trail = Trail()
    app, _ = an_app(trail)
    async with app:
        await app.using(headers={"X-Tenant": "acme"}).send(Join(7))
    sending, handling, event, publishing = trail.details
    assert isinstance(sending, Sending)
    assert (sending.verb, sending.messages, sending.result) == ("send", (Join(7),), "joined")
    assert isinstance(handling, Handling)
    assert (handling.message, handling.handler.name, handling.handler.kind.value) == (Join(7), "join", "command")
    assert (handling.result, handling.delivery, handling.broker) == ("joined", None, None)
    assert (publishing.broker.system, publishing.context) == ("memory", sending.context)
    assert sending.context is handling.context is event.context
    assert sending.context.headers == {"X-Tenant": "acme"}
    assert (event.handler.name, event.handler.kind.value) == ("joined", "event")
    assert [message.envelope.diatorcausation for message in publishing.messages] == [sending.context.message_id]


@in_virtual_time
async def test_wraps_see_the_error_and_cannot_suppress_it() -> None:
    class Suppressing(Trail):
        @contextmanager
        def _wrap(self, name: str, details: Any) -> Generator[None]:
            try:
                yield
            except Broken:
                self.ended.append((name, "suppressed"))

    for trail, how in ((Trail(), "Broken"), (Suppressing(), "suppressed")):
        app, _ = an_app(trail)
        async with app:
            with pytest.raises(Broken):
                await app.send(Join(fail=True))
        assert trail.ended == [("handle Join", how), ("send Join", how)]


@in_virtual_time
async def test_a_worker_handles_inside_the_wrap_with_middlewares_and_follow_ups() -> None:
    trail, watch, middleware = Trail(), Watch(), list[Path]()
    app, seen = an_app(trail, watch)

    @app.middleware
    async def note(event: NotificationEvent, call_next: CallNext) -> Any:
        middleware.append(path.get())
        return await call_next(event)

    async with app, app.worker():
        await app.using(headers={"X-Tenant": "acme", "traceparent": "00-1-2-01"}).publish(Announced(fail=1))
        await watch.settle(3)
    handled: Path = ("handle Announced",)
    assert seen == [("announced", handled), ("announced", handled), ("followed", ("handle Followed",))]
    assert middleware == [handled, handled, ("handle Followed",)]
    assert (*handled, "publish 1") in trail.entered
    assert ("handle Announced", "RetryLater") in trail.ended
    first, second, last = (details for details in trail.details if isinstance(details, Handling))
    assert (first.context.attempt, second.context.attempt) == (1, 2)
    assert first.context.subscription == "meetings.announced"
    assert first.context.headers == {"X-Tenant": "acme", "traceparent": "00-1-2-01"}
    assert last.context.causation_id == first.context.message_id
    assert first.handler.name == "announced"
    assert first.delivery is not None
    assert (
        first.broker and first.broker.system,
        first.delivery.topic,
        second.delivery and second.delivery.failures,
    ) == (
        "memory",
        "meetings.announced",
        1,
    )


@in_virtual_time
async def test_publishing_sees_what_the_broker_did_not_take() -> None:
    broker, trail = Flaky(), Trail()
    app, _ = an_app(trail, broker=broker)
    broker.broken["publish"] = away
    async with app:
        with pytest.raises(PublishError):
            await app.publish(Announced(), Followed())
    assert trail.entered == [("publish Announced Followed",), ("publish Announced Followed", "publish 2")]
    assert trail.ended == [("publish 2", "PublishError"), ("publish Announced Followed", "PublishError")]


@in_virtual_time
async def test_concurrent_sends_have_paths_of_their_own() -> None:
    trail = Trail()
    app, seen = an_app(trail)
    async with app:
        await asyncio.gather(*(app.send(Join(number)) for number in range(5)))
    assert {where for name, where in seen if name == "join"} == {("send Join", "handle Join")}


@in_virtual_time
async def test_a_handler_in_a_thread_sees_the_wrap() -> None:
    app, seen = Diator(hooks=[Trail()]), list[Path]()

    @app.command(thread=True)
    def join(command: Join) -> str:
        seen.append(path.get())
        return ""

    async with app:
        await app.send(Join())
    assert seen == [("send Join", "handle Join")]


@in_virtual_time
async def test_of_a_stream_the_rows_are_wrapped_and_the_block_is_not() -> None:
    trail = Trail()
    app, seen = an_app(trail)
    async with app:
        async with app.stream(Users()) as rows:
            assert path.get() == ()
            async for row in rows:
                assert path.get() == (), row
                assert not trail.ended
                await app.send(Join())
                trail.ended.clear()
    rows_seen = [where for name, where in seen if name.startswith("row")]
    assert rows_seen == [("stream Users", "handle Users")] * 3
    assert {where for name, where in seen if name == "join"} == {("send Join", "handle Join")}
    assert trail.ended == [("handle Users", "well"), ("stream Users", "well")]


@in_virtual_time
async def test_a_stream_that_fails_or_is_left_early_ends_its_wraps_once() -> None:
    trail = Trail()
    app, _ = an_app(trail)
    async with app:
        async with app.stream(Users()) as rows:
            assert await anext(rows) == 0
        assert trail.ended == [("handle Users", "well"), ("stream Users", "well")]
        trail.ended.clear()
        with pytest.raises(Broken):
            async with app.stream(Users(fail=True)) as rows:
                async for _ in rows:
                    pass
    assert trail.ended == [("handle Users", "Broken"), ("stream Users", "Broken")]


@in_virtual_time
async def test_a_stream_is_read_in_one_context_whatever_reads_it() -> None:
    """A token that a wrap got on entering is good for leaving, also where other tasks read the rows and close."""
    trail = Trail()
    app, seen = an_app(trail)
    async with app:
        stream = app.stream(Users())
        rows = await asyncio.ensure_future(stream.__aenter__())
        await asyncio.ensure_future(anext(rows))
        await asyncio.ensure_future(stream.__aexit__(None, None, None))
    assert seen == [("row 0", ("stream Users", "handle Users"))]
    assert trail.ended == [("handle Users", "well"), ("stream Users", "well")]


@in_virtual_time
async def test_a_cancel_reaches_the_rows_of_a_wrapped_stream() -> None:
    trail, waits = Trail(), list[str]()
    app = Diator(hooks=[trail])

    @app.query
    async def users(query: Users) -> AsyncIterator[int]:
        try:
            await asyncio.sleep(10)
            yield 1
        except asyncio.CancelledError:
            waits.append("cancelled")
            raise

    async def read() -> None:
        async with app.stream(Users()) as rows:
            await anext(rows)

    async with app:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(read(), 1)
    assert waits == ["cancelled"]
    assert trail.ended == [("handle Users", "CancelledError"), ("stream Users", "CancelledError")]


@in_virtual_time
async def test_a_row_that_is_given_up_ends_in_the_context_of_its_stream() -> None:
    """As when an event loop is closed: nothing awaits the row any more."""
    trail, ends = Trail(), list[Path]()
    app, _ = an_app(trail)

    class Slow:
        def __aiter__(self) -> "Slow":
            return self

        async def __anext__(self) -> int:
            try:
                await asyncio.sleep(10)
            finally:
                ends.append(path.get())
            return 1

    @app.middleware
    async def slow(query: Users, call_next: CallNext) -> Any:
        return Slow()

    async with app, app.stream(Users()) as rows:
        row: Any = rows.__anext__()
        row.send(None)
        row.close()
        assert ends == [("stream Users",)]
        assert trail.ended == [("stream Users", "GeneratorExit")]


@in_virtual_time
async def test_a_hook_may_gather_the_rows_of_a_stream() -> None:
    gathered: list[int] = []

    class Gathering(Hooks):
        def sending(self, details: Sending, /) -> None:
            details.rows = gathered

    app, _ = an_app(Gathering())
    async with app, app.stream(Users()) as rows:
        await anext(rows)
        await anext(rows)
    assert gathered == [0, 1]


class Manual(Hooks):
    """Goes without contextlib, and raises the error again, as hand-written context managers do."""

    def __init__(self, name: str, order: list[str]) -> None:
        self.name, self.order = name, order

    def sending(self, details: Sending, /) -> "Manual":
        return self

    def __enter__(self) -> None:
        self.order.append(f"{self.name} in")

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.order.append(f"{self.name} out")
        if error is not None:
            raise error


@in_virtual_time
async def test_hooks_are_entered_in_order_and_left_in_reverse(caplog: pytest.LogCaptureFixture) -> None:
    order: list[str] = []
    app, _ = an_app(Manual("a", order), Manual("b", order))
    async with app:
        await app.send(Join())
        assert order == ["a in", "b in", "b out", "a out"]
        with pytest.raises(Broken):
            await app.send(Join(fail=True))
    assert order[4:] == order[:4]
    assert "failed" not in caplog.text


class Bad(Hooks):
    """Raises before, on entering, or on leaving; beside hooks that are well."""

    def __init__(self, when: str, error: BaseException) -> None:
        self.when, self.error = when, error

    def _wrap(self) -> AbstractContextManager[None]:
        if self.when == "call":
            raise self.error
        return self._raising()

    @contextmanager
    def _raising(self) -> Generator[None]:
        if self.when == "enter":
            raise self.error
        try:
            yield
        finally:
            raise self.error

    def sending(self, details: Sending, /) -> AbstractContextManager[None]:
        return self._wrap()

    def handling(self, details: Handling, /) -> AbstractContextManager[None]:
        return self._wrap()

    def publishing(self, details: Publishing, /) -> AbstractContextManager[None]:
        return self._wrap()

    def propagate(self, details: Collected, /) -> Mapping[str, str]:
        raise self.error

    def collected(self, details: Collected, /) -> None:
        raise self.error


@pytest.mark.parametrize("when", ["call", "enter", "leave"])
@pytest.mark.parametrize("error", [Broken(), asyncio.CancelledError(), SystemExit(), GeneratorExit()], ids=repr)
def test_a_hook_that_raises_is_logged_once_by_name_and_changes_nothing(
    when: str, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        trail = Trail()
        app, seen = an_app(trail, Bad(when, error), trail)
        async with app:
            assert await app.send(Join()) == "joined"
            with pytest.raises(Broken):
                await app.send(Join(fail=True))
            async with app.stream(Users()) as rows:
                assert [row async for row in rows] == [0, 1, 2]
        assert seen[0] == ("join", ("send Join", "send Join", "handle Join", "handle Join"))
        assert {how for _, how in trail.ended} == {"well", "Broken"}
        assert len(trail.ended) == len(trail.entered)

    caplog.set_level(logging.ERROR, "diator")
    in_virtual_time(scenario)()
    failures = [record.getMessage() for record in caplog.records]
    names = ("sending", "handling", "handling", "collected", "publishing")
    assert set(failures) == {f"the hook {name} of Bad failed" for name in (*names, "propagate")}
    assert failures.count("the hook sending of Bad failed") == 3
    assert failures.count("the hook publishing of Bad failed") == 1


def test_a_hook_may_be_interrupted_by_the_keyboard() -> None:
    trail = Trail()

    async def scenario() -> None:
        app, _ = an_app(trail, Bad("enter", KeyboardInterrupt()))
        async with app:
            await app.send(Join())

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(scenario())
    assert trail.ended == [("send Join", "KeyboardInterrupt")]


class Reports(Hooks):
    def __init__(self, headers: Mapping[str, str] | None = None) -> None:
        self.all: list[Collected] = []
        self.headers = headers

    def collected(self, details: Collected, /) -> None:
        self.all.append(details)

    def propagate(self, details: Collected, /) -> Mapping[str, str] | None:
        return self.headers


@in_virtual_time
async def test_events_are_reported_where_they_are_published() -> None:
    reports, watch = Reports(), Watch()
    app, _ = an_app(reports, watch)

    @app.command
    class Leave:
        @dataclass(frozen=True)
        class Now(Command[None]):
            pass

        def __init__(self) -> None:
            self.events: list[Joined | Followed] = [Joined(5), Followed(6)]

        async def handle(self, command: Now) -> None:
            pass

    async with app:
        await app.send(Join())
        await app.send(Leave.Now())
        await app.publish(Followed(9), Joined(8))
        with pytest.raises(Broken):
            await app.send(Join(fail=True))
    assert [(one.event, one.handler and one.handler.name, one.message_id is None) for one in reports.all] == [
        (Joined(1), "join", True),
        (Announced(1), "join", False),
        (Joined(5), "Leave", True),
        (Followed(6), "Leave", False),
        (Followed(9), None, False),
        (Joined(1), "join", True),
        (Announced(1), "join", False),
    ]
    published = [message.id for details in watch.of("published") for message in details.messages]
    assert published == [reports.all[1].message_id, reports.all[3].message_id, reports.all[4].message_id]


@in_virtual_time
async def test_a_report_has_the_options_of_the_event() -> None:
    reports = Reports()
    app = Diator("meetings", broker=Flaky(), hooks=[reports])

    @app.command
    async def join(command: Join, publish: Publish[Announced]) -> str:
        publish(Announced(), after=5, headers={"X-Tenant": "acme"})
        return ""

    async with app:
        await app.send(Join())
        await app.publish(Announced(), after=7)
    assert [(one.after, one.headers) for one in reports.all] == [(5, {"X-Tenant": "acme"}), (7, None)]


@in_virtual_time
async def test_headers_of_a_propagator_travel_beside_those_of_the_sender() -> None:
    watch = Watch()
    app, _ = an_app(Reports({"traceparent": "00-a-b-01", "X-Tenant": "of the hook"}), Reports(None), watch)
    async with app:
        await app.using(headers={"X-Tenant": "of the sender", "X-User": "7", "traceparent": "00-1-2-01"}).send(Join())
        await app.publish(Followed())
    first, second = (details.messages[0].envelope for details in watch.of("published"))
    assert first.traceparent == second.traceparent == "00-a-b-01"
    assert first.diatorheaders == '{"X-Tenant":"of the hook","X-User":"7"}'


@in_virtual_time
async def test_headers_that_a_handler_gives_an_event_win_over_those_of_a_propagator() -> None:
    watch = Watch()
    app = Diator("meetings", broker=Flaky(), hooks=[Reports({"X-Tenant": "of the hook", "X-User": "7"}), watch])

    @app.command
    async def join(command: Join, publish: Publish[Announced]) -> str:
        publish(Announced(), headers={"X-Tenant": "of the event"})
        return ""

    async with app:
        await app.send(Join())
    (published,) = watch.of("published")
    assert published.messages[0].envelope.diatorheaders == '{"X-Tenant":"of the event","X-User":"7"}'


@in_virtual_time
async def test_headers_of_a_propagator_that_cannot_travel_are_logged_and_left_out() -> None:
    watch, bad = Watch(), Reports({"X": "line\nbreak"})
    app, _ = an_app(bad, Reports({"X-User": "7"}), watch)
    async with app:
        await app.publish(Followed())
    assert watch.of("published")[0].messages[0].envelope.diatorheaders == '{"X-User":"7"}'


@dataclass
class Ids(Hooks):
    needs_context: bool = True
    found: list[Context] = field(default_factory=list[Context])

    def handling(self, details: Handling, /) -> None:
        self.found.append(details.context)


@pytest.mark.parametrize("needs_context", [True, False])
def test_messages_have_a_context_only_if_something_needs_one(
    needs_context: bool, caplog: pytest.LogCaptureFixture
) -> None:
    ids, seen = Ids(needs_context), list[Context]()
    app = Diator(hooks=[ids])

    @app.command
    async def outer(command: Outer, app: Diator) -> str:
        return await app.send(Join())

    @app.command
    async def join(command: Join, context: Context) -> str:
        seen.append(context)
        return ""

    async def scenario() -> None:
        async with app:
            await app.send(Outer())

    asyncio.run(scenario())
    if needs_context:
        assert [one.causation_id for one in ids.found] == [None, ids.found[0].message_id]
    else:
        assert "set needs_context = True" in caplog.text
        assert issubclass(DiatorError, Exception)
        assert ids.found == seen
        assert seen[0].causation_id is None


@in_virtual_time
async def test_apps_are_compiled_with_hooks_only_where_one_wraps_or_reports_in_process() -> None:
    """A handler that needs nothing is called directly, whatever hooks observe of brokered events."""

    async def join(command: Join) -> str:
        return ""

    for hooks, is_direct in (([], True), ([Watch()], True), ([Hooks()], True), ([Trail()], False)):
        app = Diator("meetings", broker=Flaky(), hooks=hooks)
        app.command(join)
        async with app:
            call: Any = app.send(Join())
            assert (call.cr_code is join.__code__) is is_direct
            await call


class AsGenerator(Hooks):
    def sending(self, details: Sending, /) -> Iterator[None]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]  # odd on purpose
        yield


class AsAsync(Hooks):
    @asynccontextmanager
    async def handling(self, details: Handling, /) -> AsyncGenerator[None]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]  # odd on purpose
        yield


def test_hooks_that_could_not_wrap_are_refused_with_the_fix() -> None:
    with pytest.raises(ConfigurationError, match=r"sending is a generator[^$]*contextlib\.contextmanager"):
        Diator(hooks=[AsGenerator()])
    with pytest.raises(ConfigurationError, match=r"handling is async[^$]*plain function"):
        Diator(hooks=[AsAsync()])


@in_virtual_time
async def test_a_message_that_a_middleware_puts_in_place_is_the_one_that_is_handled() -> None:
    trail = Trail()
    app, _ = an_app(trail)

    @app.middleware
    async def other(message: Message, call_next: CallNext) -> Any:
        return await call_next(Join(8) if isinstance(message, Join) else message)

    async with app:
        await app.send(Join(7))
    assert trail.details[0].messages == (Join(7),)
    assert trail.details[1].message == Join(8)


@in_virtual_time
async def test_a_rejected_message_is_seen_as_such() -> None:
    trail, watch = Trail(), Watch()
    app = Diator("meetings", broker=Flaky(), hooks=[trail, watch])

    @app.on_event
    async def announced(event: Announced) -> None:
        raise Reject("no")

    async with app, app.worker():
        await app.publish(Announced())
        await watch.settle(1)
    assert trail.ended[-1] == ("handle Announced", "Reject")
