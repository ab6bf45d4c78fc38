"""The way out: the unit of work owns its brokered events, and three points decide what becomes of them."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from diator import CallNext, Command, ConfigurationError, Diator, DomainEvent, NotificationEvent, Publish
from diator._inspection import inspect_app
from diator._keys import Key
from diator.brokers import BrokerCapability, MemoryBroker, OutgoingMessage
from diator.context import child_context, current_context
from diator.engine.calls import Call
from diator.engine.dispatch import Dispatch
from diator.engine.outbound import Outbound, SendingUnit
from diator.engine.resources import ContainerScopes
from diator.engine.unit import Delay
from diator.errors import InvalidMessageError
from diator.messages import Event
from tests.brokered import Flaky, Watch
from tests.journal import Journal, Session
from tests.virtual_time import in_virtual_time


@dataclass(frozen=True)
class Join(Command[str]):
    text: str = "a"


@dataclass(frozen=True)
class Joined(NotificationEvent):
    text: str


@dataclass(frozen=True)
class Greeted(NotificationEvent):
    text: str


@dataclass(frozen=True)
class Noted(DomainEvent):
    text: str


class WriteError(Exception):
    pass


@dataclass
class Store:
    """An `diator.engine.outbound.EventPublisher` that awaits a write in the unit's own session, as an outbox does."""

    lines: list[str]
    handled: set[str] = field(default_factory=set[str])
    fails: bool = False
    keys: Collection[Key] = (Key(Session),)
    sees_deliveries: bool = True
    cancel: None = None

    async def begin(self, message: Any, unit: SendingUnit) -> bool:
        session: Session = await unit.resolve(Key(Session))
        self.lines.append(f"begin {type(message).__name__} in {session.number}")
        return unit.context.message_id not in self.handled

    def prepare(self, cls: type[Event]) -> None: ...

    def collect(self, unit: SendingUnit, event: Event, after: Delay | None, headers: Mapping[str, str] | None) -> None:
        self.lines.append(f"collect {type(event).__name__}")
        unit.outbound.append(Outbound(event, "id", None, headers))

    def collect_published(self, unit: SendingUnit, events: Sequence[Event], after: Delay | None) -> None:
        for event in events:
            self.collect(unit, event, after, None)

    async def hand_over(self, unit: SendingUnit) -> None:
        session: Session = await unit.resolve(Key(Session))
        self.lines.append(f"write {len(unit.outbound)} in {session.number}")
        if self.fails:
            raise WriteError

    async def send(self, unit: SendingUnit) -> None:
        self.lines.append(f"notify {len(unit.outbound)}")


class Bench:
    """An app whose brokered events go to a `Store`."""

    def __init__(self, **options: Any) -> None:
        self.journal = Journal()
        self.store = Store(self.journal.lines, **options)
        app = Diator("meetings", broker="memory://", container=self.journal)

        @app.middleware(inside=True)
        async def inside(message: Command[Any] | NotificationEvent, call_next: CallNext, session: Session) -> Any:
            self.journal.write("inner middleware begins")
            result = await call_next(message)
            self.journal.write("inner middleware returns")
            return result

        @app.command
        async def join(command: Join, publish: Publish[Joined | Noted]) -> str:
            self.journal.write("handler")
            publish(Joined(command.text))
            publish(Noted(command.text))
            return "done"

        @app.on_event
        async def noted(event: Noted, publish: Publish[Greeted]) -> None:
            publish(Greeted(event.text))

        @app.on_event
        async def joined(event: Joined, publish: Publish[Greeted]) -> None:
            self.journal.write("handler")
            publish(Greeted(event.text))

        self.checked = inspect_app(app)
        assert [problem for problem in self.checked.problems if problem.severity == "error"] == []
        self.resources = ContainerScopes(self.journal)
        self.dispatch = Dispatch(self.checked, self.resources, app, sender=self.store)

    async def send(self, command: Join) -> Any:
        await self.resources.start()
        return await self.dispatch.plan_of(command).call(command)

    async def deliver(self, event: Joined, *, handled_before: bool = False) -> Any:
        await self.resources.start()
        (registration,) = (one for one, classes in self.checked.classes.items() if Joined in classes)
        wired = self.checked.handlers[registration]
        call: Call = self.dispatch.delivered(registration, wired, Joined, self.store)
        context = child_context()
        if handled_before:
            self.store.handled.add(context.message_id)
        current_context.set(context)
        return await call(event)


WHOLE = [
    "scope 1 opens",
    "begin Join in 1",
    "inner middleware begins",
    "handler",
    "collect Joined",
    "collect Greeted",
    "write 2 in 1",
    "inner middleware returns",
    "scope 1 closes",
    "notify 2",
]


async def test_a_unit_passes_three_points_in_order() -> None:
    bench = Bench()
    assert await bench.send(Join()) == "done"
    assert bench.journal.lines == WHOLE


async def test_a_write_that_fails_fails_the_unit_and_nothing_is_sent() -> None:
    bench = Bench(fails=True)
    with pytest.raises(WriteError):
        await bench.send(Join())
    assert bench.journal.lines == [*WHOLE[:7], "scope 1 undone by WriteError"]


async def test_a_brokered_handler_passes_the_same_points() -> None:
    bench = Bench()
    await bench.deliver(Joined("a"))
    assert bench.journal.lines == [
        "scope 1 opens",
        "begin Joined in 1",
        "inner middleware begins",
        "handler",
        "collect Greeted",
        "write 1 in 1",
        "inner middleware returns",
        "scope 1 closes",
        "notify 1",
    ]


async def test_what_was_handled_already_does_not_run_again() -> None:
    bench = Bench()
    await bench.deliver(Joined("a"), handled_before=True)
    assert bench.journal.lines == ["scope 1 opens", "begin Joined in 1", "scope 1 closes", "notify 0"]


# ------------------------------------------------------------------------------------------- delays and headers


def delayed_app(broker: Any = "memory://") -> tuple[Diator, list[tuple[str, float]]]:
    app = Diator("meetings", broker=broker)
    came: list[tuple[str, float]] = []

    @app.command
    async def join(command: Join, publish: Publish[Joined | Greeted]) -> str:
        publish(Joined(command.text), after=60)
        publish(Greeted(command.text), headers={"tenant": "mine"})
        return "done"

    @app.on_event
    async def joined(event: Joined) -> None:
        came.append((event.text, 0.0))

    @app.on_event
    async def greeted(event: Greeted) -> None: ...

    return app, came


@pytest.mark.parametrize("after", [60, 60.0, timedelta(minutes=1)])
@in_virtual_time
async def test_an_event_with_a_delay_is_due_later_and_the_others_at_once(after: Any) -> None:
    broker = Flaky()
    app, _ = delayed_app(broker)
    async with app:
        before = datetime.now(timezone.utc)
        await app.send(Join())
        await app.publish(Joined("b"), after=after)
        await app.using(headers={"tenant": "t"}).publish(Joined("c"), after=after)
    (first, second), (third,), (fourth,) = (messages for messages, _, _ in broker.publications)
    assert second.due is None
    for delayed in (first, third, fourth):
        assert delayed.due is not None
        assert timedelta(seconds=59) < delayed.due - before < timedelta(seconds=65)


@in_virtual_time
async def test_headers_of_one_event_travel_with_it_beside_those_of_the_sender() -> None:
    broker = Flaky()
    app, _ = delayed_app(broker)
    async with app:
        await app.using(headers={"tenant": "all", "user": "u"}).send(Join())
    ((joined, greeted),) = (messages for messages, _, _ in broker.publications)
    assert joined.envelope.diatorheaders == '{"tenant":"all","user":"u"}'
    assert greeted.envelope.diatorheaders == '{"tenant":"mine","user":"u"}'


@pytest.mark.parametrize("after", [-1, float("nan"), float("inf"), True, "60", timedelta(seconds=-1)])
async def test_a_delay_that_makes_no_sense_is_rejected_at_the_call(after: Any) -> None:
    app, _ = delayed_app()
    async with app:
        with pytest.raises(ConfigurationError, match=r"app.publish got after=.*; expected a timedelta, or a number of"):
            await app.publish(Joined("a"), after=after)


@pytest.mark.parametrize("headers", [{"a": 5}, {"": "x"}, {"a": "\ud800"}, ["a"]])
async def test_headers_that_make_no_sense_are_rejected_at_the_call(headers: Any) -> None:
    app = Diator("meetings", broker="memory://")

    @app.command
    async def join(command: Join, publish: Publish[Joined]) -> str:
        publish(Joined(command.text), headers=headers)
        return "done"

    async with app:
        with pytest.raises(ConfigurationError, match="publish got "):
            await app.send(Join())


class NoSchedules(MemoryBroker):
    @property
    def capabilities(self) -> BrokerCapability:
        return super().capabilities & ~BrokerCapability.SCHEDULES


async def test_a_broker_without_schedules_rejects_a_delay_and_is_named() -> None:
    app, _ = delayed_app(NoSchedules())
    async with app:
        with pytest.raises(ConfigurationError, match=r"Joined was published with after=60, but NoSchedules can't"):
            await app.publish(Joined("a"), after=60)
        with pytest.raises(ConfigurationError, match=r"can't deliver an event later"):
            await app.send(Join())


@pytest.mark.parametrize("options", [{"after": 1}, {"headers": {"a": "b"}}])
async def test_a_domain_event_can_not_wait_nor_carry_headers(options: dict[str, Any]) -> None:
    app = Diator("meetings", broker="memory://")

    @app.command
    async def join(command: Join, publish: Publish[Noted]) -> str:
        publish(Noted(command.text), **options)
        return "done"

    async with app:
        with pytest.raises(
            InvalidMessageError, match=r"Noted was published with .* domain event is handled in its unit"
        ):
            await app.send(Join())
        with pytest.raises(InvalidMessageError, match="Noted was published with after=1"):
            await app.publish(Noted("a"), after=1)


@in_virtual_time
async def test_the_broker_in_memory_delivers_when_it_is_due() -> None:
    app, came = delayed_app()
    async with app, app.worker():
        await app.send(Join("a"))
        await app.publish(Joined("b"), after=30)
        assert came == []
        await asyncio.sleep(31)
        assert [text for text, _ in came] == ["b"]
        await asyncio.sleep(31)
        assert [text for text, _ in came] == ["b", "a"]


async def test_a_testing_session_delivers_at_once() -> None:
    app, came = delayed_app()
    async with app.testing() as session:
        await session.send(Join("a"))
        await session.settled()
        assert [text for text, _ in came] == ["a"]
        assert session.published.entry(Joined).after == 60
        assert session.published.entry(Greeted).headers == {"tenant": "mine"}


@in_virtual_time
async def test_the_end_of_the_app_waits_for_what_is_leaving() -> None:
    class Slow(MemoryBroker):
        stored = False

        async def publish(
            self, messages: Sequence[OutgoingMessage], /, *, timeout: float, wait_for_room: bool = True
        ) -> None:
            await asyncio.sleep(1)
            await super().publish(messages, timeout=timeout, wait_for_room=wait_for_room)
            self.stored = True

    broker = Slow()
    app, _ = delayed_app(broker)
    async with app:
        sending = asyncio.ensure_future(app.publish(Greeted("a")))
        await asyncio.sleep(0.1)
    assert broker.stored
    await sending


async def test_watch_is_told_of_what_was_published() -> None:
    watch = Watch()
    app = Diator("meetings", broker="memory://", hooks=[watch])
    app.publishes(Joined)
    async with app:
        await app.publish(Joined("a"), Joined("b"))
    (published,) = watch.of("published")
    first, second = published.messages
    assert first.envelope.diatorcorrelation == second.envelope.diatorcorrelation == first.id
    assert first.envelope.diatorcausation is second.envelope.diatorcausation is None
