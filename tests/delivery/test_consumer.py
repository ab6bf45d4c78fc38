"""One subscription in one worker: its own outcome, acknowledged after success only, with the right context."""

import asyncio
import contextvars
import gc
import logging
import sys
import threading
import weakref
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import pytest

from diator import (
    CallNext,
    Command,
    Context,
    Diator,
    DomainEvent,
    ECSTEvent,
    NotificationEvent,
    Publish,
    Retry,
    contract,
)
from tests.brokered import Flaky, Watch, die, letters, put
from tests.journal import Journal, Session
from tests.virtual_time import in_virtual_time

QUICK = Retry(attempts=3, delay=1.0, jitter=0.0)


@dataclass(frozen=True)
class Join(Command[None]):
    meeting: int = 1


@contract("meetings.joined", key=None)
@dataclass(frozen=True)
class Joined(NotificationEvent):
    meeting: int = 1


@dataclass(frozen=True)
class Greeted(ECSTEvent):
    text: str = ""


@dataclass(frozen=True)
class Noted(DomainEvent):
    meeting: int = 1


class Broken(Exception):
    pass


# ----------------------------------------------------------------------------------------------- each stands alone


@in_virtual_time
async def test_a_failing_handler_never_reruns_delays_or_hides_another() -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch], retry=QUICK)
    calls: dict[str, list[float]] = {"good": [], "bad": [], "late": []}
    loop = asyncio.get_running_loop()

    @app.on_event
    async def bad(event: Joined) -> None:
        calls["bad"].append(loop.time())
        raise Broken("bad")

    @app.on_event
    async def good(event: Joined) -> None:
        calls["good"].append(loop.time())

    @app.on_event
    async def late(event: Joined) -> None:
        calls["late"].append(loop.time())
        if len(calls["late"]) == 1:
            raise Broken("late")

    async with app, app.worker():
        began = loop.time()
        await app.publish(Joined())
        await watch.settle(3, "meetings.bad")
        await watch.settle(2, "meetings.late")
        assert calls["good"] == [began]
        assert [when - began for when in calls["bad"]] == pytest.approx([0, 1, 3], abs=0.5)
        assert len(calls["late"]) == 2
        assert watch.outcomes("meetings.bad") == ["RetryAfter", "RetryAfter", "MoveToDeadLetters"]
        assert watch.outcomes("meetings.good") == ["Ack"]
        assert watch.outcomes("meetings.late") == ["RetryAfter", "Ack"]
        assert [letter.subscription for letter in await letters(broker)] == ["meetings.bad"]


@in_virtual_time
async def test_a_handler_that_hangs_delays_no_other() -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch], concurrency=1)

    @app.on_event
    async def hangs(event: Joined) -> None:
        await asyncio.sleep(200)

    @app.on_event
    async def quick(event: Joined) -> None: ...

    async with app, app.worker(grace=0):
        await app.publish(*(Joined(number) for number in range(20)))
        await watch.settle(20, "meetings.quick", within=2)


@in_virtual_time
async def test_a_message_is_acknowledged_only_after_its_handler_has_succeeded() -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch])
    begun, may_end = asyncio.Event(), asyncio.Event()

    @app.on_event
    async def slow(event: Joined) -> None:
        begun.set()
        await may_end.wait()

    async with app, app.worker():
        await app.publish(Joined())
        await begun.wait()
        await asyncio.sleep(50)
        assert not watch.of("settled")
        may_end.set()
        await watch.settle(1)
        assert watch.lines[-2:] == ["handled: well", "settled: Ack"]


@in_virtual_time
async def test_the_scope_closes_well_before_follow_ups_are_sent_and_these_before_the_ack() -> None:
    journal = Journal()
    broker, watch = Flaky(lines=journal.lines), Watch(journal.lines)
    app = Diator("meetings", broker=broker, hooks=[watch], container=journal)

    @app.on_event
    async def greet(event: Joined, session: Session, publish: Publish[Greeted]) -> None:
        publish(Greeted("hello"))
        await asyncio.sleep(0.1)
        journal.write("handler ends")

    async with app, app.worker():
        await app.publish(Joined())
        await watch.settle(1)
    wanted = ["scope", "handler", "broker has Greeted", "broker settled", "settled"]
    lines = [line for line in journal.lines if any(map(line.startswith, wanted))]
    assert lines == [
        "scope 1 opens",
        "handler ends",
        "scope 1 closes",
        "broker has Greeted",
        "broker settled Ack",
        "settled: Ack",
    ]


@in_virtual_time
async def test_a_failing_handler_sends_nothing_and_its_scope_sees_the_error() -> None:
    journal = Journal()
    broker, watch = Flaky(lines=journal.lines), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch], container=journal, retry=Retry(attempts=1))

    @app.on_event
    async def greet(event: Joined, session: Session, publish: Publish[Greeted]) -> None:
        publish(Greeted("hello"))
        raise Broken

    async with app, app.worker():
        await app.publish(Joined())
        await watch.settle(1)
    assert "broker has Greeted" not in journal.lines
    assert "scope 1 undone by Broken" in journal.lines
    assert watch.outcomes() == ["MoveToDeadLetters"]


@in_virtual_time
async def test_a_scope_that_fails_to_close_is_a_failure_and_nothing_is_sent() -> None:
    journal = Journal(closing_fails=Broken("no commit"))
    broker, watch = Flaky(lines=journal.lines), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch], container=journal, retry=Retry(attempts=1))

    @app.on_event
    async def greet(event: Joined, session: Session, publish: Publish[Greeted]) -> None:
        publish(Greeted("hello"))

    async with app, app.worker():
        await app.publish(Joined())
        await watch.settle(1)
    assert "broker has Greeted" not in journal.lines
    assert watch.outcomes() == ["MoveToDeadLetters"]


# ---------------------------------------------------------------------------------------- middlewares, domain events


@in_virtual_time
async def test_middlewares_wrap_handlers_of_brokered_events() -> None:
    journal, lines = Journal(), list[str]()
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch], container=journal)

    @app.middleware
    async def twice(event: NotificationEvent, call_next: CallNext) -> Any:
        try:
            return await call_next(event)
        except Broken:
            lines.append("again")
            return await call_next(event)

    @app.middleware(inside=True)
    async def inside(event: NotificationEvent, call_next: CallNext, session: Session) -> Any:
        lines.append(f"inside {session.number}")
        return await call_next(event)

    @app.middleware
    async def of_commands(command: Command[Any], call_next: CallNext) -> Any:
        raise AssertionError("it wraps commands only")

    @app.on_event
    async def fails_once(event: Joined, session: Session) -> None:
        lines.append(f"handler {session.number}")
        if session.number == 1:
            raise Broken

    async with app, app.worker():
        await app.publish(Joined())
        await watch.settle(1)
    assert lines == ["inside 1", "handler 1", "again", "inside 2", "handler 2"]
    assert watch.outcomes() == ["Ack"]


@pytest.mark.parametrize("publishes", [False, True])
def test_a_middleware_inside_the_unit_can_not_undo_that_it_has_failed(publishes: bool) -> None:
    @in_virtual_time
    async def scenario() -> None:
        journal = Journal()
        broker, watch = Flaky(lines=journal.lines), Watch()
        app = Diator("meetings", broker=broker, hooks=[watch], container=journal, retry=Retry(attempts=1))

        @app.middleware(inside=True)
        async def forgives(event: NotificationEvent, call_next: CallNext, session: Session) -> Any:
            try:
                return await call_next(event)
            except Broken:
                return None

        if publishes:

            @app.on_event
            async def publisher(event: Joined, publish: Publish[Greeted]) -> None:
                publish(Greeted())
                raise Broken

        else:

            @app.on_event
            async def joined(event: Joined) -> None:
                raise Broken

        async with app, app.worker():
            await app.publish(Joined())
            await watch.settle(1)
        assert watch.outcomes() == ["MoveToDeadLetters"]
        assert isinstance(watch.of("handled")[0].error, Broken)
        assert "scope 1 undone by Broken" in journal.lines
        assert "broker has Greeted" not in journal.lines

    scenario()


@in_virtual_time
async def test_a_middleware_around_the_unit_may_forgive() -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch])

    @app.middleware
    async def forgives(event: NotificationEvent, call_next: CallNext) -> Any:
        try:
            return await call_next(event)
        except Broken:
            return None

    @app.on_event
    async def joined(event: Joined) -> None:
        raise Broken

    async with app, app.worker():
        await app.publish(Joined())
        await watch.settle(1)
    assert watch.outcomes() == ["Ack"]


@in_virtual_time
async def test_what_a_middleware_raises_is_a_failure() -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch], retry=Retry(attempts=1))

    @app.middleware
    async def refuses(event: NotificationEvent, call_next: CallNext) -> Any:
        raise Broken

    @app.on_event
    async def never(event: Joined) -> None:
        raise AssertionError

    async with app, app.worker():
        await app.publish(Joined())
        await watch.settle(1)
    assert watch.outcomes() == ["MoveToDeadLetters"]
    assert isinstance(watch.of("handled")[0].error, Broken)


@in_virtual_time
async def test_domain_events_run_in_the_unit_of_work_of_the_brokered_event() -> None:
    journal = Journal()
    broker, watch = Flaky(lines=journal.lines), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch], container=journal, retry=QUICK)
    contexts: list[Context] = []

    @app.on_event
    async def joined(event: Joined, session: Session, publish: Publish[Noted], context: Context) -> None:
        contexts.append(context)
        publish(Noted(session.number))

    @app.on_event
    async def noted(event: Noted, session: Session, publish: Publish[Greeted], context: Context) -> None:
        assert event.meeting == session.number
        contexts.append(context)
        publish(Greeted())
        if session.number == 1:
            raise Broken

    async with app, app.worker():
        await app.publish(Joined())
        await watch.settle(2)
    assert watch.outcomes() == ["RetryAfter", "Ack"]
    assert [line for line in journal.lines if "scope" in line or "Greeted" in line] == [
        "scope 1 opens",
        "scope 1 undone by Broken",
        "scope 2 opens",
        "scope 2 closes",
        "broker has Greeted",
    ]
    assert contexts[0] is contexts[1]


# -------------------------------------------------------------------------------------------------------- the context


@in_virtual_time
async def test_the_context_tells_attempt_ids_headers_time_and_subscription() -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch], retry=QUICK)
    seen: list[Context] = []
    commands: list[Context] = []

    @app.command
    async def join(command: Join, publish: Publish[Joined], context: Context) -> None:
        commands.append(context)
        publish(Joined())

    @app.on_event(subscription="greeter")
    async def greet(event: Joined, context: Context) -> None:
        seen.append(context)
        if context.attempt < 3:
            raise Broken

    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=b"}
    async with app, app.worker():
        before = datetime.now(timezone.utc)
        await app.using(headers={**trace, "tenant": "ö"}, correlation_id="all").send(Join())
        await watch.settle(3)
        after = datetime.now(timezone.utc)
    assert [context.attempt for context in seen] == [1, 2, 3]
    last = seen[-1]
    assert last.correlation_id == "all"
    assert last.causation_id == commands[0].message_id
    assert len({context.message_id for context in seen}) == 1
    assert last.message_id != commands[0].message_id
    assert last.headers == {**trace, "tenant": "ö"}
    assert last.published_at is not None
    assert before <= last.published_at <= after
    assert last.subscription == "greeter"


@in_virtual_time
async def test_follow_ups_and_nested_sends_carry_correlation_causation_and_trace() -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch])
    seen: dict[str, Context] = {}

    @app.on_event
    async def joined(event: Joined, publish: Publish[Greeted], context: Context, app: Diator) -> None:
        seen["joined"] = context
        publish(Greeted())
        await app.send(Join())

    @app.command
    async def join(command: Join, context: Context) -> None:
        seen["join"] = context

    @app.on_event
    async def greeted(event: Greeted, context: Context) -> None:
        seen["greeted"] = context

    async with app, app.worker():
        await app.using(headers={"traceparent": "00-1-2-01"}, correlation_id="all").publish(Joined())
        await watch.settle(2)
    assert {context.correlation_id for context in seen.values()} == {"all"}
    assert seen["joined"].causation_id is None
    for caused in ("join", "greeted"):
        assert seen[caused].causation_id == seen["joined"].message_id
        assert seen[caused].headers["traceparent"] == "00-1-2-01"


@in_virtual_time
async def test_nothing_that_a_handler_sets_in_its_context_is_seen_by_the_next_message() -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch], concurrency=1)
    tenant: contextvars.ContextVar[int] = contextvars.ContextVar("tenant")
    seen: list[int | None] = []

    @app.on_event
    async def joined(event: Joined) -> None:
        seen.append(tenant.get(None))
        tenant.set(event.meeting)
        await asyncio.sleep(0.01)
        assert tenant.get() == event.meeting

    async with app, app.worker():
        await app.publish(Joined(1), Joined(2), Joined(3))
        await watch.settle(3)
    assert seen == [None, None, None]


# ------------------------------------------------------------------------------------------- cancels, limits of time


@in_virtual_time
async def test_a_cancel_out_of_nowhere_is_a_failure() -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch], retry=QUICK)
    attempts: list[int] = []

    @app.on_event
    async def joined(event: Joined, context: Context) -> None:
        attempts.append(context.attempt)
        raise asyncio.CancelledError

    async with app, app.worker():
        await app.publish(Joined())
        await watch.settle(3)
        assert attempts == [1, 2, 3]
        (letter,) = await letters(broker)
        assert letter.failure.attempts == 3
        assert letter.failure.error is not None
        assert "CancelledError" in letter.failure.error


@pytest.mark.parametrize("how", ["before", "awaits", "returns", "twice", "swallows"])
def test_a_handler_that_cancels_its_own_task_harms_no_other_message(how: str) -> None:
    @in_virtual_time
    async def scenario() -> None:
        broker, watch = Flaky(), Watch()
        app = Diator("meetings", broker=broker, hooks=[watch], retry=QUICK, concurrency=1)
        calls: list[int] = []

        @app.on_event
        async def joined(event: Joined) -> None:
            calls.append(event.meeting)
            task = asyncio.current_task()
            assert task is not None
            if event.meeting == 1:
                task.cancel()
                if how == "before":
                    raise Broken
                if how == "awaits":
                    await asyncio.sleep(1)
                if how == "twice":
                    try:
                        await asyncio.sleep(1)
                    finally:
                        task.cancel()
                if how == "swallows":
                    try:
                        await asyncio.sleep(1)
                    except asyncio.CancelledError:
                        return
            else:
                await asyncio.sleep(0.01)

        async with app, app.worker():
            await app.publish(*(Joined(number) for number in (1, 2, 3)))
            well = how in ("returns", "swallows")
            await watch.settle(3 if well else 5)
            assert sorted(calls) == ([1, 2, 3] if well else [1, 1, 1, 2, 3])
            assert len(broker.receivers) == 1, "the consumer started again"
            outcomes = sorted(watch.outcomes())
            assert outcomes == (
                ["Ack"] * 3 if well else ["Ack", "Ack", "MoveToDeadLetters", "RetryAfter", "RetryAfter"]
            )
            await asyncio.sleep(600)
            assert len(watch.of("settled")) == len(outcomes)

    scenario()


@in_virtual_time
async def test_a_timeout_after_a_swallowed_cancel_is_no_surprise_for_later_messages() -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch], retry=QUICK, concurrency=1)
    leftovers: list[int] = []

    @app.on_event(timeout=1)
    async def joined(event: Joined) -> None:
        task: Any = asyncio.current_task()
        leftovers.append(task.cancelling() if hasattr(task, "cancelling") else 0)
        if event.meeting == 1:
            try:
                await asyncio.sleep(5)
            except asyncio.CancelledError:
                return
        await asyncio.sleep(0.5)

    async with app, app.worker():
        await app.publish(Joined(1), Joined(2))
        await watch.settle(2)
    assert watch.outcomes() == ["Ack", "Ack"]
    assert leftovers == [0, 0]


@in_virtual_time
async def test_a_handler_that_takes_too_long_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch], retry=Retry(attempts=2, delay=1, jitter=0))
    loop = asyncio.get_running_loop()
    times: list[float] = []

    @app.on_event(timeout=7)
    async def joined(event: Joined) -> None:
        times.append(loop.time())
        await asyncio.sleep(100)

    async with app, app.worker():
        await app.publish(Joined())
        await watch.settle(2)
        assert times[1] - times[0] == pytest.approx(8, abs=0.2)
        (letter,) = await letters(broker)
        assert letter.failure.error is not None
        assert "TimeoutError" in letter.failure.error
        assert "joined" in letter.failure.error
        assert "7 s" in letter.failure.error


@in_virtual_time
async def test_what_a_failed_handler_held_is_let_go_of_at_once() -> None:
    watch = Watch()
    app = Diator("meetings", broker=Flaky(), hooks=[watch], retry=Retry(attempts=1))
    held: list[weakref.ref[Session]] = []

    @app.on_event
    async def fails(event: Joined) -> None:
        session = Session(1)
        held.append(weakref.ref(session))
        raise Broken

    gc.disable()
    logging.disable(logging.CRITICAL)  # pytest keeps the errors that are logged
    try:
        async with app, app.worker():
            await app.publish(*(Joined(number) for number in range(3)))
            await watch.settle(3)
            watch.told.clear()
            assert [reference() for reference in held] == [None, None, None]
    finally:
        logging.disable(logging.NOTSET)
        gc.enable()


@in_virtual_time
async def test_the_timeout_of_the_app_holds_for_handlers_that_have_none() -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch], retry=Retry(attempts=1), event_timeout=3)

    @app.on_event
    async def joined(event: Joined) -> None:
        await asyncio.sleep(2 if event.meeting == 1 else 4)

    async with app, app.worker():
        await app.publish(Joined(1), Joined(2))
        await watch.settle(2)
    assert watch.outcomes() == ["Ack", "MoveToDeadLetters"]


@in_virtual_time
async def test_each_of_several_slow_handlers_has_its_own_limit_of_time() -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch], retry=Retry(attempts=1), event_timeout=10)
    loop = asyncio.get_running_loop()
    ended: dict[int, float] = {}

    @app.on_event
    async def joined(event: Joined) -> None:
        began = loop.time()
        try:
            await asyncio.sleep(100)
        finally:
            ended[event.meeting] = loop.time() - began

    async with app, app.worker():
        for number in range(4):
            await app.publish(Joined(number))
            await asyncio.sleep(3)
        await watch.settle(4)
    assert list(ended.values()) == pytest.approx([10, 10, 10, 10], abs=0.01)


# -------------------------------------------------------------------------------------------------------- all shapes


async def test_sync_handlers_threads_classes_and_methods_handle_brokered_events() -> None:
    journal = Journal()
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch], container=journal)
    ran: dict[str, int] = {}
    here = threading.get_ident()

    @app.on_event
    def in_place(event: Joined, context: Context) -> None:
        ran["in place"] = threading.get_ident()

    @app.on_event(thread=True)
    def in_thread(event: Joined, session: Session, publish: Publish[Greeted]) -> None:
        ran["thread"] = threading.get_ident()
        publish(Greeted("from a thread"))

    @app.on_event(subscription="by-class")
    class ByClass:
        events: list[Greeted]

        def __init__(self, session: Session) -> None:
            self.events = []

        async def handle(self, event: Joined) -> None:
            ran["class"] = threading.get_ident()
            self.events.append(Greeted("from a class"))

    class Service:
        async def handle(self, event: Joined) -> None:
            ran["method"] = threading.get_ident()

    app.add_event_handler(Service().handle, subscription="by-method")

    greetings: list[str] = []

    @app.on_event
    async def greeted(event: Greeted) -> None:
        greetings.append(event.text)

    async with app, app.worker():
        await app.publish(Joined())
        await watch.settle(6)
    assert ran.keys() == {"in place", "thread", "class", "method"}
    assert ran["thread"] != here
    assert ran["in place"] == ran["class"] == ran["method"] == here
    assert sorted(greetings) == ["from a class", "from a thread"]
    assert watch.outcomes() == ["Ack"] * 6


async def test_a_thread_that_takes_too_long_is_waited_for_and_has_failed() -> None:
    journal = Journal()
    broker, watch = Flaky(lines=journal.lines), Watch(journal.lines)
    app = Diator("meetings", broker=broker, hooks=[watch], container=journal, retry=Retry(attempts=1))
    release = threading.Event()

    @app.on_event(thread=True, timeout=0.05)
    def slow(event: Joined, session: Session) -> None:
        assert release.wait(10)
        journal.write("thread ends")

    async with app, app.worker():
        await app.publish(Joined())
        await asyncio.sleep(0.15)
        assert not watch.of("settled")
        release.set()
        await watch.settle(1)
    ends, closes = journal.lines.index("thread ends"), journal.lines.index("scope 1 undone by CancelledError")
    assert ends < closes
    assert watch.outcomes() == ["MoveToDeadLetters"]
    assert isinstance(watch.of("handled")[0].error, TimeoutError | asyncio.TimeoutError)


@in_virtual_time
async def test_a_handler_of_a_union_and_of_a_base_class_gets_all_of_them() -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch])
    got: list[Any] = []

    class Base(NotificationEvent):
        pass

    @dataclass(frozen=True)
    class First(Base):
        number: int

    @dataclass(frozen=True)
    class Second(Base):
        text: str

    @app.on_event
    async def union(event: Joined | Greeted) -> None:
        got.append(event)

    @app.on_event
    async def family(event: Base) -> None:
        got.append(event)

    async with app, app.worker():
        await app.publish(Joined(7), Greeted("hi"), First(1), Second("two"))
        await watch.settle(4)
    assert len(got) == 4
    assert all(event in got for event in (Joined(7), Greeted("hi"), First(1), Second("two")))


# ------------------------------------------------------------------------------------------------------- concurrency


@pytest.mark.parametrize("limit", [1, 2, 7])
def test_no_more_messages_are_handled_at_a_time_than_allowed(limit: int) -> None:
    @in_virtual_time
    async def scenario() -> None:
        broker, watch = Flaky(), Watch()
        app = Diator("meetings", broker=broker, hooks=[watch], concurrency=3)
        now, most = 0, 0

        @app.on_event(concurrency=limit)
        async def joined(event: Joined) -> None:
            nonlocal now, most
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.1)
            now -= 1

        async with app, app.worker():
            await app.publish(*(Joined(number) for number in range(40)))
            await watch.settle(40)
        assert most == limit

    scenario()


@in_virtual_time
async def test_free_places_are_used_while_other_messages_take_long() -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch], concurrency=10)

    @app.on_event
    async def joined(event: Joined) -> None:
        await asyncio.sleep(200 if event.meeting else 0)

    async with app, app.worker(grace=0):
        await app.publish(*(Joined(number) for number in range(1, 7)))
        await asyncio.sleep(1)
        await app.publish(Joined(0))
        await watch.settle(1, within=5)


@in_virtual_time
async def test_the_worker_replaces_the_concurrency_of_all() -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch])
    now, most = 0, 0

    @app.on_event(concurrency=8)
    async def joined(event: Joined) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.1)
        now -= 1

    async with app, app.worker(concurrency=2):
        await app.publish(*(Joined(number) for number in range(10)))
        await watch.settle(10)
    assert most == 2


# ------------------------------------------------------------------------------------------------------------ leases


@in_virtual_time
async def test_leases_are_renewed_while_a_handler_runs() -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch])
    calls = 0

    @app.on_event
    async def slow(event: Joined) -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(290)

    async with app, app.worker(), app.worker():
        await app.publish(Joined())
        await watch.settle(1, within=400)
        assert calls == 1
        assert not watch.of("settled")[0].lease_lost
        assert broker.times["renew"] >= 290 / 10 - 1


@in_virtual_time
async def test_a_lost_lease_is_told_and_its_outcome_does_not_count(caplog: pytest.LogCaptureFixture) -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch], retry=Retry(attempts=1))
    may_fail = asyncio.Event()
    calls: list[int] = []

    @app.on_event
    async def joined(event: Joined, context: Context) -> None:
        calls.append(context.attempt)
        if len(calls) == 1:
            await may_fail.wait()
            raise Broken

    async with app, app.worker():
        broker.break_down("renew")
        await app.publish(Joined())
        await watch.until(lambda: len(calls) == 2, within=100)
        await watch.settle(1)
        broker.mend()
        may_fail.set()
        await watch.settle(2)
        first, second = watch.of("settled")
        assert (type(first.outcome).__name__, first.lease_lost) == ("Ack", False)
        assert (type(second.outcome).__name__, second.lease_lost) == ("MoveToDeadLetters", True)
        assert calls == [1, 1]
        assert not await letters(broker)
    text = [record.getMessage() for record in caplog.records if "has lost the lease" in record.getMessage()]
    assert len(text) == 1
    assert "meetings.joined" in text[0]
    assert first.message_id in text[0]


@in_virtual_time
async def test_a_worker_that_dies_loses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch])
    calls: list[tuple[int, int]] = []
    begun = asyncio.Event()

    @app.on_event
    async def joined(event: Joined, context: Context) -> None:
        calls.append((event.meeting, context.attempt))
        begun.set()
        if len(calls) <= 10:
            await asyncio.sleep(100)

    async with app:
        worker = await app.worker().__aenter__()
        await app.publish(*(Joined(number) for number in range(15)))
        await begun.wait()
        await die(app, broker, worker)
        calls_of_the_dead = len(calls)
        async with app.worker():
            await watch.settle(15, within=60)
            assert sorted(number for number, _ in calls[calls_of_the_dead:]) == list(range(15))
            assert {attempt for _, attempt in calls} == {1}


# --------------------------------------------------------------------------------------------------- brokers that lose


@in_virtual_time
async def test_a_broker_that_delivers_at_most_once_loses_with_a_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    from diator.brokers import BrokerCapability

    broker, watch = (
        Flaky(without=BrokerCapability.ACKNOWLEDGED | BrokerCapability.DEAD_LETTERS | BrokerCapability.DELAYED_RETRY),
        Watch(),
    )
    app = Diator("meetings", broker=broker, hooks=[watch], retry=QUICK)
    calls = 0

    @app.on_event(delivery="at-most-once")
    async def joined(event: Joined) -> None:
        nonlocal calls
        calls += 1
        raise Broken("so bad")

    async with app, app.worker():
        await app.publish(Joined())
        await watch.settle(1)
        await asyncio.sleep(100)
        await put(broker, "meetings.joined", b"no event")
        await watch.settle(2)
    assert calls == 1
    assert watch.outcomes() == ["Ack", "Ack"]
    record, unreadable = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "lost" in unreadable.getMessage()
    assert "lost" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], Broken)


@in_virtual_time
async def test_what_such_a_broker_loses_when_a_worker_ends_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    from diator.brokers import BrokerCapability

    broker, watch = (
        Flaky(without=BrokerCapability.ACKNOWLEDGED | BrokerCapability.DEAD_LETTERS | BrokerCapability.DELAYED_RETRY),
        Watch(),
    )
    app = Diator("meetings", broker=broker, hooks=[watch], concurrency=2)

    @app.on_event(delivery="at-most-once")
    async def joined(event: Joined) -> None:
        await asyncio.sleep(100)

    async with app:
        async with app.worker(grace=1):
            await app.publish(*(Joined(number) for number in range(3)))
            await asyncio.sleep(5)
    lost = [record for record in caplog.records if "is lost" in record.getMessage()]
    assert len(lost) == watch.outcomes().count("Release") == 2


@in_virtual_time
async def test_headers_are_a_mapping_that_nobody_can_change() -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch])
    seen: list[Any] = []

    @app.on_event
    async def joined(event: Joined, context: Context) -> None:
        seen.append(context.headers)

    async with app, app.worker():
        await app.using(headers={"a": "b"}).publish(Joined())
        await app.publish(Joined())
        await watch.settle(2)
    for headers in seen:
        with pytest.raises(TypeError, match="headers can't be changed"):
            headers["c"] = "d"


@in_virtual_time
async def test_handlers_may_use_all_of_asyncio() -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch], retry=Retry(attempts=1), concurrency=2)
    number: contextvars.ContextVar[int] = contextvars.ContextVar("number")
    seen: list[tuple[int, int]] = []
    later_asyncio: Any = asyncio if sys.version_info >= (3, 11) else None

    async def child(meeting: int) -> None:
        await asyncio.sleep(0.1)
        seen.append((meeting, number.get()))

    async def limited() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.sleep(10), 0.5)
        if later_asyncio is not None:
            with pytest.raises(TimeoutError):
                async with later_asyncio.timeout(0.5):
                    await asyncio.sleep(10)

    async def grouped(meeting: int) -> None:
        if later_asyncio is not None:
            with pytest.raises(Exception, match="unhandled errors") as caught:
                async with later_asyncio.TaskGroup() as group:
                    group.create_task(child(meeting))
                    await asyncio.sleep(0.2)
                    raise Broken
            errors: Any = getattr(caught.value, "exceptions", ())
            assert [type(error) for error in errors] == [Broken]

    @app.on_event
    async def joined(event: Joined) -> None:
        number.set(event.meeting)
        await limited()
        await grouped(event.meeting)
        await asyncio.gather(child(event.meeting), child(event.meeting))
        await asyncio.ensure_future(child(event.meeting))
        async for _ in rows():
            assert number.get() == event.meeting

    async def rows() -> AsyncIterator[int]:
        for row in range(3):
            await asyncio.sleep(0.1)
            yield row

    async with app, app.worker():
        await app.publish(*(Joined(number) for number in range(6)))
        await watch.settle(6)
    assert watch.outcomes() == ["Ack"] * 6, [one.error for one in watch.of("handled")]
    assert all(meeting == value for meeting, value in seen)
    assert len(seen) >= 18
