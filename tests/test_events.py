"""Domain events: their order, who gets them, and what may be published when."""

import asyncio
import types
from collections.abc import Callable
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
    Event,
    InvalidMessageError,
    LatePublishError,
    NotificationEvent,
    Publish,
    UndeclaredEventError,
)


@dataclass(frozen=True)
class Go(Command[None]):
    name: str = ""


@dataclass(frozen=True)
class Happened(DomainEvent):
    name: str = ""


@dataclass(frozen=True)
class HappenedTwice(Happened):
    pass


@dataclass(frozen=True)
class Other(DomainEvent):
    name: str = ""


@dataclass(frozen=True)
class Abroad(NotificationEvent):
    pass


async def test_events_are_handled_first_in_first_out_and_those_of_events_after_those_of_the_command() -> None:
    app, seen = Diator(), list[Any]()

    @app.command
    async def go(command: Go, publish: Publish[Happened | Other]) -> None:
        publish(Happened("a"))
        publish(Happened("b"))
        publish(Other("c"))

    @app.on_event
    async def first(event: Happened, publish: Publish[Other]) -> None:
        seen.append(f"first {event.name}")
        publish(Other(f"after {event.name}"))

    @app.on_event
    async def second(event: Happened) -> None:
        seen.append(f"second {event.name}")

    @app.on_event
    async def third(event: Other) -> None:
        seen.append(f"third {event.name}")

    async with app:
        await app.send(Go())
    assert seen == [
        "first a", "second a", "first b", "second b", "third c", "third after a", "third after b",
    ]  # fmt: skip


async def test_events_are_handled_after_the_handler_has_returned() -> None:
    app, seen = Diator(), list[Any]()

    @app.command
    async def go(command: Go, publish: Publish[Happened]) -> None:
        publish(Happened())
        await asyncio.sleep(0)
        seen.append("handler")

    @app.on_event
    async def on(event: Happened) -> None:
        seen.append("event")

    async with app:
        await app.send(Go())
    assert seen == ["handler", "event"]


async def test_a_handler_of_a_base_class_gets_its_subclasses_and_not_the_other_way_round() -> None:
    app, seen = Diator(), list[Any]()

    @app.on_event
    async def any_domain_event(event: DomainEvent) -> None:
        seen.append(f"any {type(event).__name__}")

    @app.on_event
    async def base(event: Happened) -> None:
        seen.append(f"base {type(event).__name__}")

    @app.on_event
    async def derived(event: HappenedTwice) -> None:
        seen.append(f"derived {type(event).__name__}")

    async with app:
        await app.publish(Happened())
        await app.publish(HappenedTwice())
        await app.publish(Other())
    assert seen == [
        "any Happened", "base Happened",
        "any HappenedTwice", "base HappenedTwice", "derived HappenedTwice",
        "any Other",
    ]  # fmt: skip


async def test_a_handler_of_a_union_gets_each_of_its_members_once() -> None:
    app, seen = Diator(), list[Any]()

    @app.on_event
    async def on(event: Happened | HappenedTwice | Other) -> None:
        seen.append(type(event))

    async with app:
        await app.publish(Happened(), HappenedTwice(), Other())
    assert seen == [Happened, HappenedTwice, Other]


async def test_publish_outside_a_command_handles_events_in_order_and_takes_none_at_all() -> None:
    app, seen = Diator(), list[Any]()

    @app.on_event
    async def on(event: Happened) -> None:
        seen.append(event.name)

    async with app:
        await app.publish(Happened("a"), Happened("b"))
        await app.publish()
    assert seen == ["a", "b"]


async def test_an_event_that_was_not_declared_is_refused_where_it_is_published() -> None:
    app = Diator()

    @app.command
    async def go(command: Go, publish: Publish[Happened]) -> None:
        publish(Other())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # wrong on purpose

    async with app:
        with pytest.raises(
            UndeclaredEventError, match=r"go.*published Other, but declares Happened.*Publish\[Happened"
        ):
            await app.send(Go())


async def test_a_declared_base_class_covers_its_subclasses() -> None:
    app, seen = Diator(), list[Any]()

    @app.command
    async def go(command: Go, publish: Publish[Happened]) -> None:
        publish(HappenedTwice("x"))

    @app.on_event
    async def on(event: HappenedTwice) -> None:
        seen.append(event)

    async with app:
        await app.send(Go())
    assert seen == [HappenedTwice("x")]


@pytest.mark.parametrize("wrong", [Happened, object(), None, Go()], ids=["class", "object", "none", "command"])
async def test_what_is_no_event_is_refused_where_it_is_published(wrong: Any) -> None:
    app, seen = Diator(), list[Any]()

    @app.command
    async def go(command: Go, publish: Publish[Happened]) -> None:
        publish(wrong)

    @app.on_event
    async def on(event: Happened) -> None:
        seen.append(event)

    async with app:
        with pytest.raises(InvalidMessageError, match="go published"):
            await app.send(Go())
    assert seen == []


async def test_publishing_after_the_handler_has_returned_is_refused() -> None:
    app = Diator()
    kept: list[Callable[[Happened], object]] = []

    @app.command
    async def go(command: Go, publish: Publish[Happened]) -> None:
        kept.append(publish)

    async with app:
        await app.send(Go())
        with pytest.raises(LatePublishError, match="Happened was published after the handler had returned"):
            kept[0](Happened())


async def test_a_task_left_over_from_an_earlier_run_of_the_same_handler_is_refused() -> None:
    app, refused = Diator(), list[LatePublishError]()
    tasks, second_runs = list["asyncio.Task[None]"](), asyncio.Event()

    @app.command
    async def go(command: Go, publish: Publish[Happened]) -> None:
        publish(Happened("first"))
        publish(Happened("second"))

    @app.on_event
    async def on(event: Happened, publish: Publish[Other]) -> None:
        publish(Other())  # so that its class has been accepted, when the task publishes another
        if event.name == "first":
            tasks.append(asyncio.ensure_future(linger(publish)))
        else:
            second_runs.set()
            await asyncio.wait(tasks)

    async def linger(publish: Publish[Other]) -> None:
        await second_runs.wait()
        try:
            publish(Other())
        except LatePublishError as error:
            refused.append(error)

    handled = list[Other]()

    @app.on_event
    async def other(event: Other) -> None:
        handled.append(event)

    async with app:
        await app.send(Go())
    assert len(refused) == 1
    assert len(handled) == 2


async def test_a_brokered_event_behind_a_wide_declaration_is_refused_before_anything_is_handled() -> None:
    app, seen = Diator(), list[Any]()

    @app.command
    async def go(command: Go, publish: Publish[Event]) -> None:
        publish(Happened())
        publish(Abroad())

    @app.on_event
    async def on(event: Happened) -> None:
        seen.append(event)

    async with app:
        with pytest.raises(ConfigurationError, match="Abroad was published, but the app has no message broker"):
            await app.send(Go())
        with pytest.raises(ConfigurationError, match="no message broker"):
            _ = app.publish(Abroad())
    assert seen == []


async def test_a_class_handler_with_an_events_property_publishes_what_it_holds_after_handle() -> None:
    app, seen = Diator(), list[Any]()

    @app.command
    class GoHandler:
        def __init__(self) -> None:
            self._events: list[Event] = []

        @property
        def events(self) -> list[Event]:
            return self._events

        async def handle(self, command: Go) -> None:
            self._events.append(Happened("first"))
            self._events.append(Happened("second"))

    @app.on_event
    async def on(event: Happened) -> None:
        seen.append(event.name)

    async with app:
        await app.send(Go())
        await app.send(Go())
    assert seen == ["first", "second", "first", "second"], "in order, and none twice"


async def test_the_annotation_of_events_is_enforced() -> None:
    app = Diator()

    @app.command
    @dataclass
    class GoHandler:
        events: list[Happened] = field(default_factory=list[Happened], init=False)

        async def handle(self, command: Go) -> None:
            self.events.append(Other())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # wrong on purpose

    async with app:
        with pytest.raises(UndeclaredEventError, match="published Other, but declares Happened"):
            await app.send(Go())


async def test_events_of_a_handler_that_failed_are_not_handled() -> None:
    app, seen = Diator(), list[Any]()

    @app.command
    class GoHandler:
        def __init__(self) -> None:
            self.events: list[Event] = []

        async def handle(self, command: Go) -> None:
            self.events.append(Happened())
            raise ValueError

    @app.on_event
    async def on(event: Happened) -> None:
        seen.append(event)

    async with app:
        with pytest.raises(ValueError):
            await app.send(Go())
    assert seen == []


async def test_an_event_class_defined_after_the_start_reaches_the_handlers_of_its_base() -> None:
    app, seen = Diator(), list[Any]()

    @app.command
    async def go(command: Go, publish: Publish[Happened]) -> None:
        late = types.new_class("Late", (Happened,))
        publish(late("late"))

    @app.on_event
    async def on(event: Happened) -> None:
        seen.append(type(event).__name__)

    async with app:
        await app.send(Go())
    assert seen == ["Late"]


async def test_an_event_middleware_wraps_each_call_of_an_event_handler() -> None:
    app, seen = Diator(), list[Any]()

    @app.middleware
    async def around(event: Happened, call_next: CallNext) -> None:
        seen.append("in")
        await call_next(event)
        seen.append("out")

    @app.command
    async def go(command: Go, publish: Publish[Happened | Other]) -> None:
        publish(Happened())
        publish(Other())

    @app.on_event
    async def one(event: Happened) -> None:
        seen.append("one")

    @app.on_event
    async def two(event: Happened) -> None:
        seen.append("two")

    @app.on_event
    async def other(event: Other) -> None:
        seen.append("other")

    async with app:
        await app.send(Go())
    assert seen == ["in", "one", "out", "in", "two", "out", "other"]


async def test_an_event_middleware_cannot_undo_that_a_handler_failed() -> None:
    app, seen = Diator(), list[Any]()

    @app.middleware
    async def forgive(event: Event, call_next: CallNext) -> None:
        try:
            await call_next(event)
        except ValueError:
            seen.append("forgiven")

    @app.command
    async def go(command: Go, publish: Publish[Happened]) -> None:
        publish(Happened())

    @app.on_event
    async def one(event: Happened) -> None:
        raise ValueError

    @app.on_event
    async def two(event: Happened) -> None:
        seen.append("two")

    async with app:
        with pytest.raises(ValueError):
            await app.send(Go())
    assert seen == ["forgiven"]


async def test_sync_event_handlers_and_class_event_handlers_take_part_in_order() -> None:
    app, seen = Diator(), list[Any]()

    @app.on_event
    def one(event: Happened) -> None:
        seen.append("sync")

    @app.on_event
    class Two:
        def handle(self, event: Happened) -> None:
            seen.append("class")

    @app.on_event(thread=True)
    def three(event: Happened) -> None:
        seen.append("thread")

    @app.on_event
    class Four:
        async def handle(self, event: Happened, publish: Publish[Other]) -> None:
            publish(Other())
            seen.append("async class")

    @app.on_event
    async def five(event: Other) -> None:
        seen.append("other")

    async with app:
        await app.publish(Happened())
    assert seen == ["sync", "class", "thread", "async class", "other"]


async def test_ten_thousand_events_that_cause_each_other_need_no_recursion() -> None:
    app, last = Diator(), 0

    @dataclass(frozen=True)
    class Count(DomainEvent):
        n: int

    @app.on_event
    async def count(event: Count, publish: Publish[Count]) -> None:
        nonlocal last
        last = event.n
        if event.n < 10_000:
            publish(Count(event.n + 1))

    async with app:
        await app.publish(Count(1))
    assert last == 10_000


async def test_a_handler_that_only_a_late_event_reaches_is_never_given_a_context_that_is_none() -> None:
    app, seen = Diator(), list[Context | None]()

    class Placed(DomainEvent): ...

    class Audited(DomainEvent): ...

    class Place(Command[None]):
        def __init__(self, make: Callable[[], Placed]) -> None:
            self.make = make

    @app.command
    async def place(command: Place, publish: Publish[Placed]) -> None:
        publish(command.make())

    @app.on_event
    async def audit(event: Audited, context: Context) -> None:
        seen.append(context)

    async with app:

        class LatePlaced(Placed, Audited): ...

        with pytest.raises(DiatorError, match="import the module of every event before the app starts"):
            await app.send(Place(LatePlaced))
    assert seen == []
