"""Domain events inside a unit of work: who may publish which, and which handlers run for a class of events."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from types import MethodType
from typing import TYPE_CHECKING, Any, NamedTuple

from diator._locations import caller, location_in_frame
from diator.engine.hints import format_hint
from diator.engine.outbound import EventPublisher
from diator.engine.unit import CLOSED, NO_RUN, HandlerRun, UnitCall, UnitOfWork
from diator.errors import (
    ConfigurationError,
    DiatorError,
    Problem,
)
from diator.messages import BROKERED_KINDS, DomainEvent, Event, Message

if TYPE_CHECKING:
    from diator.engine.publish import PublishGuard

# Any: results of handlers of events are not looked at.
Step = Callable[..., Coroutine[Any, Any, Any]]


class CompiledHandler(NamedTuple):
    """One event handler: as it runs in any unit of work and, where it needs nothing but the event, by itself."""

    classes: tuple[type[Message], ...]
    work: UnitCall
    direct: Step | None


class DomainEventTable:
    """The handlers of each class of domain events, looked up by exact class once that has been admitted."""

    def __init__(
        self, around: Callable[[type[Event], UnitCall], UnitCall], sender: EventPublisher | None = None
    ) -> None:
        self.sender = sender
        """Where brokered events go; none in an app without a broker."""
        self.handlers: list[CompiledHandler] = []
        self.steps: dict[type, tuple[tuple[Step, ...], bool]] = {}
        """What handles a class, in order, and whether it takes the unit of work too: where none needs it, none does."""
        self.brokered: set[type] = set()
        self._around = around

    def prepare(self, cls: type[Event]) -> None:
        """Work out the handlers of a class of events.

        Raises `ConfigurationError` for one that needs a broker where there is none, or that can't be serialized.
        """
        if cls in self.steps:
            return
        if self.sender is not None and is_brokered(cls):
            if cls not in self.brokered:  # it is handled where the broker delivers it
                self.sender.prepare(cls)
                self.brokered.add(cls)
            return
        if not issubclass(cls, DomainEvent) or is_brokered(cls):
            raise ConfigurationError([needs_broker(cls, "was published")])
        found = [handler for handler in self.handlers if issubclass(cls, handler.classes)]
        wrapped = tuple(self._around(cls, handler.work) for handler in found)
        direct = [one.direct for one, work in zip(found, wrapped, strict=True) if one.direct and work is one.work]
        self.steps[cls] = (tuple(direct), False) if len(direct) == len(found) else (wrapped, True)


def with_events(call: UnitCall, steps: Mapping[type, tuple[tuple[Step, ...], bool]]) -> UnitCall:
    """Compile a handler with the domain events that follow it, first in first out."""

    async def work(message: Any, unit: UnitOfWork) -> Any:
        try:
            result = await call(message, unit)
            unit.run.allowed = CLOSED
            for event in unit.events:  # the list grows: what these handlers publish joins its end
                handlers, in_unit = steps[type(event)]
                if not in_unit:
                    for handler in handlers:
                        await handler(event)
                    continue
                for handler in handlers:
                    await handler(event, unit)
                    unit.run.allowed = CLOSED
                    if unit.failure is not None:  # a middleware of events can't undo that one has failed
                        raise suppressed_failure(event, unit.failure)
            return result
        finally:
            unit.run.allowed = CLOSED
            unit.run = NO_RUN  # a run refers to its unit

    return work


def publish_then_handle(
    function: Callable[..., Awaitable[Any]], guard: "PublishGuard", table: DomainEventTable
) -> Callable[[Any], Coroutine[Any, Any, Any]]:
    """Compile the plan of a handler that needs `Publish` alone, for events whose handlers need nothing but the event.

    No handler, middleware or scope has a use for a unit of work, so there is none: only the run of the handler.
    """
    publish, steps = guard.publish, table.steps

    async def plan(message: Any) -> Any:
        run = HandlerRun()
        run.allowed, run.events = guard.allowed, []
        try:
            result = await function(message, MethodType(publish, run))
        finally:
            run.allowed = CLOSED
        for event in run.events:
            for handler in steps[type(event)][0]:
                await handler(event)
        return result

    return plan


def only_events(table: DomainEventTable) -> Callable[[Iterable[Event]], Coroutine[Any, Any, None]]:
    """Compile the plan of published events whose handlers need nothing else."""
    steps = table.steps

    async def plan(events: Iterable[Event]) -> None:
        for event in events:
            for handler in steps[type(event)][0]:
                await handler(event)

    return plan


def collect_events(table: DomainEventTable) -> UnitCall:
    """Stand in the place of a handler for events that were published by none."""

    async def call(events: Iterable[Event], unit: UnitOfWork) -> None:
        unit.events.extend(event for event in events if type(event) in table.steps)  # the others leave over the broker

    return call


def suppressed_failure(event: Event, failure: BaseException) -> BaseException:
    """Return what to raise where a middleware of events has put a result in the place of an error."""
    if not issubclass(type(failure), asyncio.CancelledError):
        return failure
    # Raised again it would pass for a cancellation of the caller's task, which was never requested.
    text = f"a handler of {type(event).__qualname__} was cancelled, and a middleware of events continued regardless"
    error = DiatorError(f"{text}; an error inside a unit of work fails all of it")
    error.__cause__ = failure
    return error


def is_brokered(cls: type[Message]) -> bool:
    """Whether an event goes over the broker."""
    return issubclass(cls, BROKERED_KINDS)


def needs_broker(cls: type[Event], what: str) -> Problem:
    """The problem of an event that can't stay in the process."""
    if issubclass(cls, BROKERED_KINDS):
        text = f"{format_hint(cls)} {what}, but the app has no message broker"
        fix = 'pass one: Diator("meetings", broker="redis://localhost:6379") or broker="memory://"'
        return Problem("no-broker", text, f"{fix}, or make the event a DomainEvent if it stays in this process")
    text = f"{format_hint(cls)} {what}, but is not a DomainEvent, NotificationEvent or ECSTEvent"
    return Problem("no-broker", text, "derive it from DomainEvent")


def needs_store(text: str) -> Problem:
    """The problem of a call that only an app with a store can do."""
    text = f"{text}, but the app has no store, so published events are already at the broker"
    return Problem("no-store", text, 'pass one: Diator("meetings", broker=..., store=...)', location_in_frame(caller()))
