"""Hooks: each is told with its details, and what one raises changes nothing."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from diator import (
    Command,
    ConfigurationError,
    Context,
    Diator,
    Hooks,
    NotificationEvent,
    Publish,
    Reject,
    Retry,
    contract,
)
from diator.brokers import ACK, MoveToDeadLetters, RetryAfter
from diator.hooks import DeadLettered, Handled, Published, Received, Retried, Settled
from tests.brokered import Flaky, Watch, put
from tests.virtual_time import in_virtual_time


@contract("meetings.joined")
@dataclass(frozen=True)
class Joined(NotificationEvent):
    number: int = 1


@dataclass(frozen=True)
class Join(Command[None]):
    pass


class Broken(Exception):
    pass


class Bad(Hooks):
    """Raises whatever it is told."""

    error: BaseException = Broken()

    def published(self, details: Published, /) -> None:
        raise self.error

    def received(self, details: Received, /) -> None:
        raise self.error

    def handled(self, details: Handled, /) -> None:
        raise self.error

    def retried(self, details: Retried, /) -> None:
        raise self.error

    def dead_lettered(self, details: DeadLettered, /) -> None:
        raise self.error

    def settled(self, details: Settled, /) -> None:
        raise self.error


def an_app(broker: Flaky, *hooks: Hooks) -> Diator:
    app = Diator("meetings", broker=broker, hooks=hooks, retry=Retry(attempts=2, delay=7, jitter=0))

    @app.command
    async def join(command: Join, publish: Publish[Joined]) -> None:
        publish(Joined(1))
        publish(Joined(2))

    @app.on_event
    async def joined(event: Joined, context: Context) -> None:
        await asyncio.sleep(3)
        if event.number == 2:
            if context.attempt == 1:
                raise Broken("at first")
            raise Reject("in the end")

    return app


@in_virtual_time
async def test_each_hook_is_told_with_its_details() -> None:
    broker, watch = Flaky(), Watch()
    app = an_app(broker, watch)
    async with app, app.worker():
        await app.send(Join())
        await watch.settle(3)
        await put(broker, "meetings.joined", b"?")
        await watch.settle(4)
    (published,) = watch.of("published")
    assert [message.envelope.type for message in published.messages] == ["meetings.joined"] * 2
    assert published.seconds >= 0
    ids = [message.id for message in published.messages]

    received = watch.of("received")
    assert {one.subscription for one in received} == {"meetings.joined"}
    assert sum(len(one.deliveries) for one in received) == 4

    handled: list[Handled] = watch.of("handled")
    assert [(one.event, one.context.message_id, one.context.attempt) for one in handled] == [
        (Joined(1), ids[0], 1),
        (Joined(2), ids[1], 1),
        (Joined(2), ids[1], 2),
    ]
    assert [one.seconds for one in handled] == pytest.approx([3, 3, 3], abs=0.1)
    assert [type(one.error).__name__ for one in handled] == ["NoneType", "Broken", "Reject"]

    (retried,) = watch.of("retried")
    assert isinstance(retried, Retried)
    assert (retried.subscription, retried.delay) == ("meetings.joined", 7)
    assert retried.context is not None
    assert retried.context.message_id == ids[1]
    assert isinstance(retried.error, Broken)

    rejected, unreadable = watch.of("dead_lettered")
    assert rejected.failure.reason == "rejected: in the end"
    assert rejected.context.attempt == 2
    assert unreadable.context is None

    settled: list[Settled] = watch.of("settled")
    assert [one.message_id for one in settled] == [ids[0], ids[1], ids[1], None]
    assert settled[0].outcome is ACK
    assert settled[1].outcome == RetryAfter(7)
    assert isinstance(settled[2].outcome, MoveToDeadLetters)
    assert not any(one.lease_lost for one in settled)


@pytest.mark.parametrize("error", [Broken(), asyncio.CancelledError(), SystemExit(), GeneratorExit()], ids=repr)
def test_a_hook_that_raises_is_logged_and_changes_nothing(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    @in_virtual_time
    async def scenario() -> None:
        broker, watch, bad = Flaky(), Watch(), Bad()
        bad.error = error
        app = an_app(broker, bad, watch)
        async with app, app.worker():
            await app.send(Join())
            await watch.settle(3)
        assert sorted(watch.outcomes()) == ["Ack", "MoveToDeadLetters", "RetryAfter"]
        assert len(broker.receivers) == 1

    scenario()
    for name in ("published", "received", "handled", "retried", "dead_lettered", "settled"):
        assert f"the hook {name} of Bad failed" in caplog.text


@in_virtual_time
async def test_hooks_are_told_of_what_is_published_outside_of_a_worker_too() -> None:
    watch = Watch()
    app = an_app(Flaky(), watch)
    async with app:
        await app.send(Join())
        await app.publish(Joined())
    assert len(watch.of("published")) == 2


@in_virtual_time
async def test_a_cancel_out_of_nowhere_is_told_as_such() -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch], retry=Retry(attempts=1))

    @app.on_event
    async def joined(event: Joined) -> None:
        raise asyncio.CancelledError

    async with app, app.worker():
        await app.publish(Joined())
        await watch.settle(1)
    assert isinstance(watch.of("handled")[0].error, asyncio.CancelledError)


@in_virtual_time
async def test_what_hooks_are_told_of_a_cancel_by_the_worker_names_no_part_of_diator() -> None:
    broker, watch = Flaky(), Watch()
    app = an_app(broker, watch)
    async with app:
        async with app.worker(grace=0):
            await app.publish(Joined())
            await asyncio.sleep(1)
    (handled,) = watch.of("handled")
    assert isinstance(handled.error, asyncio.CancelledError)
    assert watch.outcomes() == ["Release"]


@in_virtual_time
async def test_spans_may_be_opened_in_a_middleware_and_closed_by_its_end() -> None:
    """What a tracing library does: a context manager around the handler, with the headers of the message."""
    broker, watch, spans = Flaky(), Watch(), list[Any]()
    app = an_app(broker, watch)

    @contextmanager
    def span(parent: str | None) -> Generator[None, None, None]:
        spans.append(parent)
        yield

    @app.middleware
    async def trace(event: NotificationEvent, call_next: Any, context: Context) -> Any:
        with span(context.headers.get("traceparent")):
            return await call_next(event)

    async with app, app.worker():
        await app.using(headers={"traceparent": "00-1-2-01"}).publish(Joined())
        await watch.settle(1)
    assert spans == ["00-1-2-01"]


def test_hooks_without_a_list_are_refused_with_the_way_to_write_them() -> None:
    hooks: Any = Hooks()
    with pytest.raises(ConfigurationError, match=r"hooks=.* such as \[MyHooks\(\)\]"):
        Diator("meetings", broker="memory://", hooks=hooks)
