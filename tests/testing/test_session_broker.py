"""Which broker a session uses, what it leaves behind, and that a record knows brokered events without a session."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from diator import (
    Command,
    ConfigurationError,
    Context,
    Diator,
    DiatorError,
    DomainEvent,
    Hooks,
    NotificationEvent,
    NotPublishedError,
    NotRunningError,
    Publish,
    PublishError,
    Reject,
    contract,
)
from diator.brokers import MemoryBroker, OutgoingMessage
from diator.errors import BrokerError, BrokerUnavailableError
from diator.hooks import Handled
from diator.testing import record


@dataclass(frozen=True)
class Join(Command[None]):
    user: int


@dataclass(frozen=True)
class Seated(DomainEvent):
    user: int


@contract("session-broker.joined")
@dataclass(frozen=True)
class Joined(NotificationEvent):
    user: int


async def join(command: Join, publish: Publish[Joined]) -> None:
    publish(Joined(command.user))
    if command.user < 0:
        raise ValueError("no such user")


class Untouched(MemoryBroker):
    async def connect(self) -> None:
        raise AssertionError("the app's own broker was used")


class Slow(MemoryBroker):
    """Has a message handled, and settled, before its publisher knows that it was taken."""

    async def publish(
        self, messages: Sequence[OutgoingMessage], /, *, timeout: float, wait_for_room: bool = True
    ) -> None:
        await super().publish(messages, timeout=timeout, wait_for_room=wait_for_room)
        await asyncio.sleep(0.1)


class Away(MemoryBroker):
    async def publish(
        self, messages: Sequence[OutgoingMessage], /, *, timeout: float, wait_for_room: bool = True
    ) -> None:
        raise NotPublishedError(messages) from BrokerUnavailableError("away")


def make_app(broker: object = "memory://", **options: Any) -> tuple[Diator, list[int]]:
    app, seen = Diator("meetings", broker=broker, **options), list[int]()
    app.add_command(join)

    @app.on_event
    async def count(event: Joined, context: Context) -> None:
        seen.append(event.user)
        if event.user >= 100 and context.attempt == 1:
            raise ConnectionError("no route")

    return app, seen


# The broker


async def test_the_own_broker_of_the_app_is_left_alone() -> None:
    app, seen = make_app(Untouched())
    for user in (1, 2):
        async with app.testing() as session:
            await session.send(Join(user))
            await session.settled()
        assert session.published == session.handled.of(Joined) == [Joined(user)]
    assert seen == [1, 2]
    with pytest.raises(BrokerError, match="own broker was used"):
        async with app:
            pass


async def test_two_sessions_of_one_app_share_nothing() -> None:
    app, seen = make_app()
    async with app.testing() as first:
        await first.send(Join(100))  # nobody waits for its retry, or for its handler at all
    async with app.testing() as second:
        await second.settled()
        await second.send(Join(2))
        await second.settled()
    assert second.entries[0].message == Join(2)
    assert second.handled.of(Joined) == [Joined(2)]
    assert first.sent == [Join(100)]
    assert seen[-1] == 2


async def test_the_app_is_afterwards_what_it_was_before() -> None:
    app, seen = make_app()
    before = {name: value for name, value in vars(app).items() if name != "_state"}
    async with app.testing() as session:
        await session.send(Join(1))
        await session.settled()
    assert {name: value for name, value in vars(app).items() if name != "_state"} == before
    with pytest.raises(NotRunningError):
        await app.send(Join(1))

    @app.on_event
    async def late(event: Joined) -> None: ...

    async with app.testing() as session:
        await session.send(Join(2))
        await session.settled()
    assert session.handled.one(Joined, by=late) == Joined(2)
    assert seen == [1, 2]


async def test_an_app_that_runs_with_a_worker_gets_its_own_broker_back() -> None:
    app, seen = make_app(broker := MemoryBroker())
    async with app, app.worker():
        async with app.testing() as session:
            await session.send(Join(1))
            await session.settled()
        assert seen == [1]
        await app.send(Join(2))
        async with app.testing(broker=MemoryBroker()) as session:
            await session.settled()
        assert seen == [1, 2]
        assert not session.entries
        assert (await broker.status(()))[:] == []
    with pytest.raises(NotRunningError):
        await app.send(Join(3))


@pytest.mark.parametrize("runs", [False, True])
async def test_a_session_may_keep_the_broker_and_waits_for_none_of_what_others_have_put_there(runs: bool) -> None:
    broker = MemoryBroker()
    other = Diator("other", broker=broker)
    other.publishes(Joined)
    app, seen = make_app(broker)
    stuck = asyncio.Event()

    @app.on_event
    async def wait(event: Joined, publish: Publish[Seated]) -> None:
        publish(Seated(event.user))
        if event.user == 50:
            await stuck.wait()
        if event.user == 51:
            raise ValueError("not ours")

    async with other, AsyncExitStack() as stack:
        if runs:
            await stack.enter_async_context(app)
        async with app.testing(broker="keep") as session:
            await other.publish(Joined(50), Joined(51))
            await session.send(Join(1))
            await session.settled()
            assert {1, 50, 51} <= set(seen)
        assert session.handled.of(Joined, by=wait) == [Joined(1)]
        assert session.published == [Joined(1), Seated(1)]
        session.dead_letters.none()
        async with app.testing(broker=broker) as session:
            await session.send(Join(2))
            await session.settled()
        assert session.handled.of(Joined, by=wait) == [Joined(2)]
        if runs:
            await app.send(Join(3))


async def test_a_broker_may_be_given_by_its_address_and_drop_duplicates() -> None:
    app, seen = make_app()
    failures = [ConnectionError("after the handler")]

    @app.middleware
    async def outside(message: Joined, call_next: Any) -> Any:
        await call_next(message)
        if failures:
            raise failures.pop()

    @contract("session-broker.counted")
    @dataclass(frozen=True)
    class Counted(NotificationEvent):
        user: int

    @app.on_event
    async def twice(event: Joined, publish: Publish[Counted]) -> None:
        publish(Counted(event.user))

    @app.on_event
    async def end(event: Counted) -> None: ...

    for address, handled in (("memory://?duplicate_window=60", 1), ("memory://", 2)):
        failures[:] = [ConnectionError("1"), ConnectionError("2")]
        async with app.testing(broker=address) as session:
            await session.send(Join(1))
            await session.settled()
        assert session.handled.of(Counted) == [Counted(1)] * handled
    assert len(seen) == 4


async def test_it_does_not_matter_what_is_faster_the_answer_to_the_publisher_or_the_handler() -> None:
    app, seen = make_app()

    async with app.testing(broker=Slow()) as session:
        tasks = [asyncio.ensure_future(session.send(Join(user))) for user in (1, 102)]
        await session.settled()
        assert all(task.done() for task in tasks)
    assert sorted(seen) == [1, 102, 102]
    assert session.published == [Joined(1), Joined(102)]


async def test_an_app_without_a_broker_has_none_to_exchange() -> None:
    with pytest.raises(ConfigurationError, match="has no message broker that it could replace"):
        async with Diator().testing(broker="memory://"):
            pass


async def test_a_session_and_a_record_of_one_app_refuse_each_other() -> None:
    app, _ = make_app()
    async with app.testing():
        for other in (app.testing(), record(app)):
            with pytest.raises(DiatorError, match="is being recorded already"):
                async with other:
                    pass


async def test_hooks_of_the_app_are_told_during_a_session_and_not_twice() -> None:
    told: list[Handled] = []

    class Metrics(Hooks):
        def handled(self, details: Handled, /) -> None:
            told.append(details)

    app, _ = make_app(hooks=[Metrics()])
    async with app.testing() as session:
        await session.send(Join(1))
        await session.settled()
    async with app.testing() as session:
        await session.send(Join(2))
        await session.settled()
    assert [details.event for details in told] == [Joined(1), Joined(2)]


async def test_an_error_in_the_block_ends_the_session_at_once() -> None:
    app, _ = make_app()

    @app.on_event
    async def wait(event: Joined) -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(ZeroDivisionError):
        async with app.testing() as session:
            await session.send(Join(1))
            await asyncio.sleep(0.01)
            raise ZeroDivisionError
    async with app.testing() as session:
        await session.settled()


# What did not leave


async def test_a_brokered_event_counts_as_published_when_the_broker_has_taken_it() -> None:
    app, seen = make_app()
    async with app.testing() as session:
        with pytest.raises(ValueError, match="no such user"):
            await session.send(Join(-1))
        await session.settled()
    session.published.none()
    assert str(session).splitlines()[2] == "      published Joined(user=-1), not sent"
    assert seen == []


async def test_what_the_broker_did_not_take_is_not_waited_for() -> None:
    app, _ = make_app()
    async with app.testing(broker=Away()) as session:
        with pytest.raises(PublishError):
            await session.send(Join(1))
        await session.settled(0.5)
    session.published.none()
    assert "published Joined(user=1), raised PublishError(" in str(session)


async def test_one_event_object_raised_again_by_a_middleware_is_the_one_that_leaves() -> None:
    app, seen = make_app()
    event, tries = Joined(7), list[int]()

    @dataclass(frozen=True)
    class Again(Command[None]):
        pass

    @app.middleware
    async def retry(message: Again, call_next: Any) -> Any:
        try:
            return await call_next(message)
        except OSError:
            return await call_next(message)

    @app.command
    async def flaky(command: Again, publish: Publish[Joined]) -> None:
        publish(event)
        tries.append(1)
        if len(tries) == 1:
            raise OSError("no route")
        publish(event)

    async with app.testing() as session:
        await session.send(Again())
        await session.settled()
    first, second, third = (entry for entry in session.entries if entry.kind == "published")
    assert [first.done, second.done, third.done] == [False, True, True]
    assert [entry.cause for entry in session.handled.of(Joined).entries] == [second, third]
    assert seen == [7, 7]


# Records


async def test_a_record_shows_what_leaves_with_its_context_and_what_a_worker_handles() -> None:
    app, seen = make_app()
    async with record(app) as recorded, app.worker():
        await app.using(headers={"tenant": "7"}).send(Join(1))
        await app.publish(Joined(2))
        for _ in range(100):
            await asyncio.sleep(0)
    assert seen == [1, 2]
    published = recorded.published.entries[0]
    assert published.context is not None
    assert published.context.headers == {"tenant": "7"}
    assert published.context.causation_id == published.context.correlation_id
    assert published.context.published_at is not None
    assert recorded.handled.of(Joined).entries[0].cause is published
    assert str(recorded).splitlines() == [
        "  sent Join(user=1)",
        "    handled by join",
        "      published Joined(user=1)",
        "        handled by count",
        "  published Joined(user=2)",
        "    handled by count",
    ]


async def test_a_record_shows_dead_letters_and_what_came_from_elsewhere() -> None:
    broker = MemoryBroker()
    other = Diator("other", broker=broker)
    other.publishes(Joined)
    done = asyncio.Event()

    class End(Hooks):
        def settled(self, details: Any, /) -> None:
            done.set()

    app = Diator("meetings", broker=broker, hooks=[End()])

    @app.on_event
    async def refuse(event: Joined) -> None:
        raise Reject("banned")

    async with other, record(app) as recorded, app.worker():
        await other.publish(Joined(5))
        await done.wait()
    assert str(recorded).splitlines() == [
        "  handled Joined(user=5) by refuse, attempt 1, raised Reject('banned')",
        "    dead-lettered for refuse: rejected: banned",
    ]
    assert recorded.dead_letters == [Joined(5)]


@pytest.mark.parametrize("started", ["by the record", "inside", "before"])
async def test_a_recorded_app_sends_over_its_own_broker_also_without_a_worker(started: str) -> None:
    broker = MemoryBroker()
    app, _ = make_app(broker)
    other, seen = make_app(broker)
    async with other, other.worker(), AsyncExitStack() as stack:
        if started == "before":
            await stack.enter_async_context(app)
        if started == "inside":
            with record(app) as recorded:
                await stack.enter_async_context(app)
                await app.send(Join(1))
        else:
            async with record(app) as recorded:
                await app.send(Join(1))
        if started != "by the record":
            await app.send(Join(2))
        for _ in range(100):
            await asyncio.sleep(0)
    assert recorded.published == [Joined(1)]
    recorded.handled.none(Joined)
    assert seen == ([1] if started == "by the record" else [1, 2])


async def test_a_record_shows_what_a_worker_handles_that_runs_already() -> None:
    app, seen = make_app()
    async with app, app.worker():
        async with record(app) as recorded:
            await app.send(Join(1))
            for _ in range(100):
                await asyncio.sleep(0)
        await app.send(Join(2))
        for _ in range(100):
            await asyncio.sleep(0)
    assert str(recorded).splitlines()[2:] == ["      published Joined(user=1)", "        handled by count"]
    assert seen == [1, 2]


async def test_an_app_that_was_recorded_can_have_a_worker_afterwards() -> None:
    app, seen = make_app()
    async with app:
        async with record(app):
            await app.publish(Joined(1))  # nobody subscribes yet
        async with app.worker():
            await app.send(Join(2))
            for _ in range(100):
                await asyncio.sleep(0)
    assert seen == [2]
