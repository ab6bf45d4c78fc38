"""Domain events inside a unit of work: who may publish which, and which handlers run for a class of events."""

from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, NamedTuple, cast

from diator.engine.hints import format_hint
from diator.engine.outbound import EventPublisher, Outbound, SendingUnit
from diator.engine.registrations import HandlerKind, Registration
from diator.engine.unit import CLOSED, Delay, PublishBuffer, UnitCall, UnitOfWork
from diator.errors import (
    ConfigurationError,
    DiatorError,
    InvalidMessageError,
    LatePublishError,
    Problem,
    UndeclaredEventError,
)
from diator.messages import BROKERED_KINDS, DomainEvent, Event, Message

Plain = Callable[[Any], Coroutine[Any, Any, None]]
"""A handler that needs nothing but the event."""


_NOTHING: Any = object()
"""Where ``publish`` was given no event. ``Any``: it stands for one."""


Collect = Callable[[Event, Registration, "Outbound | None", "Delay | None", "Mapping[str, str] | None"], None]
"""Sees each event that a handler publishes; a brokered one as what its unit of work owns."""


class CompiledHandler(NamedTuple):
    """One event handler: as it runs inside any unit of work and, where it needs nothing of that, by itself."""

    classes: tuple[type[Message], ...]
    work: UnitCall
    plain: Plain | None


class DomainEventTable:
    """The handlers of each class of domain events, looked up by exact class once that has been admitted."""

    def __init__(
        self, around: Callable[[type[Event], UnitCall], UnitCall], sender: EventPublisher | None = None
    ) -> None:
        self.sender = sender
        """Where brokered events go; none in an app without a broker."""
        self.steps: list[CompiledHandler] = []
        self.work: dict[type, tuple[UnitCall, ...]] = {}
        self.brokered: set[type] = set()
        self.plain: dict[type, tuple[Plain, ...]] = {}
        """Of the classes whose handlers all need nothing but the event."""
        self._around = around

    def prepare(self, cls: type[Event]) -> None:
        """Work out the handlers of a class of events.

        Raises `ConfigurationError` for one that needs a broker where there is none, or that can't be serialised.
        """
        if cls in self.work:
            return
        if self.sender is not None and is_brokered(cls):
            if cls not in self.brokered:  # it is handled where the broker delivers it
                self.sender.prepare(cls)
                self.brokered.add(cls)
            return
        if not issubclass(cls, DomainEvent) or is_brokered(cls):
            raise ConfigurationError([needs_broker(cls, "was published")])
        steps = [step for step in self.steps if issubclass(cls, step.classes)]
        wrapped = [self._around(cls, step.work) for step in steps]
        plain = [step.plain for step, work in zip(steps, wrapped, strict=True) if step.plain and work is step.work]
        if len(plain) == len(steps):
            self.plain[cls] = tuple(plain)
        self.work[cls] = tuple(wrapped)


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


class PublishGuard:
    """What one handler may publish."""

    __slots__ = ("_brokered", "_collected", "_declared", "_handler", "_plain_only", "_table", "allowed", "publish")

    def __init__(
        self,
        handler: Registration,
        declared: tuple[type[Event], ...],
        table: DomainEventTable,
        plain: bool,
        collected: "Collect | None" = None,
    ) -> None:
        self._collected = collected
        self._handler = handler
        self._declared = declared
        self._table = table
        self._plain_only = plain
        self.allowed: set[type] = set()
        """The classes of domain events that were accepted before."""
        self._brokered: set[type] = set()
        self.publish = self._publish() if collected is None else self._reporting(self._publish(), collected)
        """`Publish` as a function of `Published` and the event, to be bound for each message.

        A bound method is the one callable with a state that the interpreter calls as fast as a function.
        """

    def _publish(self) -> Callable[..., None]:
        def publish(
            events: PublishBuffer,
            event: Event = _NOTHING,
            /,
            *more: Event,
            after: Delay | None = None,
            headers: Mapping[str, str] | None = None,
        ) -> None:
            if more or event is _NOTHING:
                raise TypeError(_one_by_one(len(more) + (event is not _NOTHING)))
            if type(event) in events.allowed and after is None and headers is None:
                events.append(event)
            elif events.allowed is CLOSED:
                raise LatePublishError(_too_late(event))
            elif self._is_brokered(event):
                events.unit.collect(event, after, headers)
            else:
                ensure_may_wait(event, after, headers)
                events.append(event)

        publish.__qualname__ = "publish"  # what Python says of keywords
        return publish

    def _reporting(self, publish: Callable[..., None], collected: "Collect") -> Callable[..., None]:
        """`Publish` where hooks see each event."""

        def reporting(
            events: PublishBuffer,
            event: Event = _NOTHING,
            /,
            *more: Event,
            after: Delay | None = None,
            headers: Mapping[str, str] | None = None,
        ) -> None:
            publish(events, event, *more, after=after, headers=headers)
            outbound = cast("SendingUnit", events.unit).outbound[-1] if self._is_brokered(event) else None
            collected(event, self._handler, outbound, after, headers)

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
        if self._plain_only and cls not in self._table.plain:
            text = (
                f"{format_hint(cls)} was defined after the app started and reaches handlers that its plans do not know"
            )
            raise DiatorError(f"{text}; import the module of every event before the app starts")
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
