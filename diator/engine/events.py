"""Domain events inside a unit of work: who may publish which, and which handlers run for a class of events."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from types import MethodType
from typing import Any, NamedTuple, NoReturn, cast

from diator._locations import caller, location_in_frame
from diator.engine.hints import format_hint
from diator.engine.outbound import EventPublisher, Outbound, SendingUnit
from diator.engine.registrations import HandlerKind, Registration
from diator.engine.unit import Delay, UnitCall, UnitOfWork
from diator.errors import (
    ConfigurationError,
    DiatorError,
    InvalidMessageError,
    LatePublishError,
    Problem,
    UndeclaredEventError,
)
from diator.messages import BROKERED_KINDS, DomainEvent, Event, Message

_NOTHING: Any = object()
"""Where ``publish`` was given no event. ``Any``: it stands for one."""


Collect = Callable[[Event, Registration, "Outbound | None", "Delay | None", "Mapping[str, str] | None"], None]
"""Sees each event that a handler publishes; a brokered one as what its unit of work owns."""


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

        Raises `ConfigurationError` for one that needs a broker where there is none, or that can't be serialised.
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
            unit.publisher = None
            for event in unit.events:  # the list grows: what these handlers publish joins its end
                handlers, in_unit = steps[type(event)]
                if not in_unit:
                    for handler in handlers:
                        await handler(event)
                    continue
                for handler in handlers:
                    await handler(event, unit)
                    unit.publisher = None
                    if unit.failure is not None:  # a middleware of events can't undo that one has failed
                        raise suppressed_failure(event, unit.failure)
            return result
        finally:
            unit.publisher = None

    return work


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
    text = f"a handler of {type(event).__qualname__} was cancelled, and a middleware of events went on without it"
    error = DiatorError(f"{text}; what fails inside a unit of work fails it as a whole")
    error.__cause__ = failure
    return error


def is_brokered(cls: type[Message]) -> bool:
    """Whether an event goes over the broker."""
    return issubclass(cls, BROKERED_KINDS)


def needs_broker(cls: type[Event], what: str) -> Problem:
    """The problem of an event that can't stay in the process."""
    if issubclass(cls, BROKERED_KINDS):
        text = f"{format_hint(cls)} {what}, but the app has no message broker"
        fix = 'give it one, as in Diator("meetings", broker="redis://localhost:6379") or broker="memory://"'
        return Problem("no-broker", text, f"{fix}, or make the event a DomainEvent if it stays in this process")
    text = f"{format_hint(cls)} {what}, and is none of the three kinds of events"
    return Problem("no-broker", text, "derive it from DomainEvent")


class CancellingPublish:
    """`Publish` in an app with a store: it can cancel, too."""

    __slots__ = ("_publish", "_unit")

    def __init__(self, publish: Callable[..., str | None], unit: UnitOfWork) -> None:
        self._publish = publish
        self._unit = unit

    def __call__(
        self, *events: Event, after: Delay | None = None, headers: Mapping[str, str] | None = None
    ) -> str | None:
        """Collect one event."""
        return self._publish(self._unit, *events, after=after, headers=headers)

    async def cancel(self, message_id: str, /) -> bool:
        """Cancel a delayed event in the transaction of the unit of work."""
        unit = self._unit
        if unit.publisher is None:
            raise LatePublishError("publish.cancel was called after the handler had returned; call it before that")
        if not isinstance(unit, SendingUnit) or unit.sender.cancel is None:
            text = "publish.cancel was called in a unit of work that publishes no brokered events"
            fix = "declare the event in the handler's hint, as in Publish[Reminder], or use `await app.cancel(id)`"
            raise DiatorError(f"{text}, so it takes no part in the transaction; {fix}")
        return await unit.sender.cancel(unit, message_id)


def _cannot_cancel(_message_id: object) -> NoReturn:
    """Stand for ``publish.cancel`` in an app without a store."""
    raise ConfigurationError([needs_store("publish.cancel was called")])


def needs_store(text: str) -> Problem:
    """The problem of a call that only an app with a store can do."""
    text = f"{text}, but the app has no store, so what was published has left"
    return Problem("no-store", text, 'pass one: Diator("meetings", broker=..., store=...)', location_in_frame(caller()))


class PublishGuard:
    """What one handler may publish."""

    __slots__ = ("_brokered", "_collected", "_declared", "_handler", "_table", "allowed", "bind", "publish")

    def __init__(
        self,
        handler: Registration,
        declared: tuple[type[Event], ...],
        table: DomainEventTable,
        collected: "Collect | None" = None,
    ) -> None:
        self._collected = collected
        self._handler = handler
        self._declared = declared
        self._table = table
        self.allowed: set[type] = set()
        """The classes of domain events that were accepted before."""
        self._brokered: set[type] = set()
        self.publish = self._publish() if collected is None else self._reporting(self._publish(), collected)
        """`Publish` as a function of the unit of work and the event, to be bound for each message.

        A bound method is the one callable with a state that the interpreter calls as fast as a function.
        """
        self.publish.cancel = _cannot_cancel  # type: ignore[attr-defined]  # which a bound method has, too
        cancels = table.sender is not None and table.sender.cancel is not None
        self.bind: Callable[[Any, UnitOfWork], Any] = CancellingPublish if cancels else MethodType
        """Binds it. ``Any``: type checkers have no type for a bound method that is made by hand."""

    def _publish(self) -> Callable[..., str | None]:
        allowed = self.allowed

        def publish(
            unit: UnitOfWork,
            event: Event = _NOTHING,
            /,
            *more: Event,
            after: Delay | None = None,
            headers: Mapping[str, str] | None = None,
        ) -> str | None:
            if more or event is _NOTHING:
                raise TypeError(_one_by_one(len(more) + (event is not _NOTHING)))
            if type(event) in allowed and unit.publisher is self and after is None and headers is None:
                unit.events.append(event)
            elif unit.publisher is not self:
                raise LatePublishError(_too_late(event))
            elif self._is_brokered(event):
                return unit.collect(event, after, headers)
            else:
                ensure_may_wait(event, after, headers)
                unit.events.append(event)
            return None

        publish.__qualname__ = "publish"  # what Python says of keywords
        return publish

    def _reporting(self, publish: Callable[..., str | None], collected: "Collect") -> Callable[..., str | None]:
        """`Publish` where hooks see each event."""

        def reporting(
            unit: UnitOfWork,
            event: Event = _NOTHING,
            /,
            *more: Event,
            after: Delay | None = None,
            headers: Mapping[str, str] | None = None,
        ) -> str | None:
            message_id = publish(unit, event, *more, after=after, headers=headers)
            outbound = cast("SendingUnit", unit).outbound[-1] if self._is_brokered(event) else None
            collected(event, self._handler, outbound, after, headers)
            return message_id

        reporting.__qualname__ = publish.__qualname__
        return reporting

    def _is_brokered(self, event: Event) -> bool:
        cls = type(event)
        if cls not in self._brokered and cls not in self.allowed:
            self.prepare(event)
        return cls in self._brokered

    def prepare(self, event: object) -> None:
        """Let a class of events through, or raise for it. Called once for each class."""
        if isinstance(event, type) and issubclass(event, Event):
            text = (
                f"{self._handler.name} published the class {format_hint(event)}; publish an instance: "
                f"{format_hint(event)}(...)"
            )
            raise InvalidMessageError(text)
        if not isinstance(event, Event):
            text = f"{self._handler.name} published {event!r}, which is no event"
            many = isinstance(event, (list, tuple, set, frozenset))
            raise InvalidMessageError(f"{text}; publish each: for event in events: publish(event)" if many else text)
        cls = type(event)
        if not isinstance(event, self._declared):
            raise UndeclaredEventError(self._undeclared(cls))
        self._table.prepare(cls)
        (self._brokered if cls in self._table.brokered else self.allowed).add(cls)

    def _undeclared(self, cls: type[Event]) -> str:
        if self._handler.kind is HandlerKind.QUERY:
            return (
                f"{self._handler} published {format_hint(cls)}; a query changes nothing, so nothing happens: "
                f"make it a command"
            )
        declared = " | ".join(map(format_hint, self._declared)) or "nothing"
        more = f"Publish[{' | '.join(map(format_hint, (*self._declared, cls)))}]"
        return f"{self._handler} published {format_hint(cls)}, but declares {declared}; hint its parameter as {more}"

    def collect(self, raised: Iterable[Event] | None, unit: UnitOfWork) -> None:
        """Take over the ``events`` of a class handler."""
        for event in raised or ():
            outbound: Outbound | None = None
            if self._is_brokered(event):
                unit.collect(event)
                outbound = cast("SendingUnit", unit).outbound[-1]
            else:
                unit.events.append(event)
            if self._collected is not None:
                self._collected(event, self._handler, outbound, None, None)


def ensure_may_wait(event: Event, after: Delay | None, headers: Mapping[str, str] | None = None) -> None:
    """Raise `InvalidMessageError` for options that only a brokered event can have."""
    if (after is None and headers is None) or is_brokered(type(event)):
        return
    option = f"after={after!r}" if after is not None else f"headers={headers!r}"
    text = f"{type(event).__qualname__} was published with {option}, but a domain event is handled in its unit of work"
    raise InvalidMessageError(f"{text}; publish it without, or make it a NotificationEvent, which leaves over a broker")


def _one_by_one(count: int) -> str:
    return f"publish got {count} events; expected one; call it for each: publish(first), then publish(second)"


def _too_late(event: Event) -> str:
    text = f"{type(event).__qualname__} was published after the handler had returned; nobody would handle it"
    return f"{text}; publish before the return, and await what the handler starts"
