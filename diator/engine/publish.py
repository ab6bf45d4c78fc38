"""`Publish`: what a handler may publish, and where what it publishes goes."""

from collections.abc import Callable, Iterable, Mapping
from types import MethodType
from typing import Any, NoReturn

from diator.engine.events import DomainEventTable, is_brokered, needs_store
from diator.engine.hints import format_hint
from diator.engine.outbound import Outbound, SendingUnit
from diator.engine.registrations import HandlerKind, Registration
from diator.engine.unit import CLOSED, Delay, HandlerRun, UnitOfWork
from diator.errors import ConfigurationError, DiatorError, InvalidMessageError, LatePublishError, UndeclaredEventError
from diator.messages import DomainEvent, Event

_NOTHING: Any = object()
"""Where ``publish`` was given no event. ``Any``: it stands for one."""


Collect = Callable[[Event, Registration, "Outbound | None", "Delay | None", "Mapping[str, str] | None"], None]
"""Sees each event that a handler publishes; a brokered one as what its unit of work owns."""


class PublishGuard:
    """What one handler may publish."""

    __slots__ = (
        *("_brokered", "_collected", "_declared", "_handler", "_known", "_table", "_without_unit"),
        *("allowed", "bind", "publish"),
    )

    def __init__(
        self,
        handler: Registration,
        declared: tuple[type[Event], ...],
        table: DomainEventTable,
        collected: "Collect | None" = None,
        *,
        without_unit: bool = False,
    ) -> None:
        self._without_unit = without_unit
        self._collected = collected
        self._handler = handler
        self._declared = declared
        self._table = table
        self._known: set[type] = set()
        """The classes of domain events that were let through before."""
        self.allowed = self._known if collected is None else set[type]()
        """Those that need no other look; where hooks see each event, none."""
        self._brokered: set[type] = set()
        self.publish = self._publish()
        """`Publish` as a function of the run and the event, to be bound for each run.

        A bound method is the one callable with a state that the interpreter calls as fast as a function.
        """
        cancels = table.sender is not None and table.sender.cancel is not None
        leaves = any(not issubclass(cls, DomainEvent) for cls in declared)
        self.publish.cancel = self._nothing_to_cancel if cancels else _cannot_cancel  # type: ignore[attr-defined]  # which a bound method has, too
        self.bind: Callable[[Any, HandlerRun], Any] = CancellingPublish if cancels and leaves else MethodType
        """Binds it. ``Any``: type checkers have no type for a bound method that is made by hand."""

    def begin(self, unit: UnitOfWork) -> Any:
        """Begin a run of the handler in a unit of work, and return its `Publish`."""
        run = unit.run = HandlerRun()
        run.allowed, run.events, run.unit = self.allowed, unit.events, unit
        return self.bind(self.publish, run)

    def _publish(self) -> Callable[..., str | None]:
        def publish(
            run: HandlerRun,
            event: Event = _NOTHING,
            /,
            *more: Event,
            after: Delay | None = None,
            headers: Mapping[str, str] | None = None,
        ) -> str | None:
            if more or event is _NOTHING:
                got = f"publish got {len(more) + (event is not _NOTHING)} events; expected one"
                raise TypeError(f"{got}; call it for each: publish(first), then publish(second)")
            if type(event) not in run.allowed or after is not None or headers is not None:
                return self._take(run, event, after, headers)
            run.events.append(event)
            return None

        publish.__qualname__ = "publish"  # what Python says of keywords
        return publish

    def _take(
        self, run: HandlerRun, event: Event, after: Delay | None = None, headers: Mapping[str, str] | None = None
    ) -> str | None:
        if run.allowed is CLOSED:
            raise LatePublishError(_too_late(event))
        outbound: Outbound | None = None
        try:
            leaves = self._is_brokered(event)
        except DiatorError as error:
            raise error.with_traceback(
                None
            ) from error.__cause__  # where the look-up failed would only confuse the caller
        if leaves:
            outbound = run.unit.collect(event, after, headers)
        else:
            ensure_may_wait(event, after, headers)
            run.events.append(event)
        if self._collected is not None:
            self._collected(event, self._handler, outbound, after, headers)
        return None if outbound is None else outbound.id

    def _is_brokered(self, event: Event) -> bool:
        cls = type(event)
        if cls not in self._brokered and cls not in self._known:
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
            text = f"{self._handler.name} published {event!r}, which is not an event"
            many = isinstance(event, (list, tuple, set, frozenset))
            raise InvalidMessageError(f"{text}; publish each: for event in events: publish(event)" if many else text)
        cls = type(event)
        if not isinstance(event, self._declared):
            raise UndeclaredEventError(self._undeclared(cls))
        self._table.prepare(cls)
        if self._without_unit and self._table.steps.get(cls, ((), True))[1]:
            text = (
                f"{format_hint(cls)} was defined after the app started, and reaches handlers that need a unit of work"
            )
            raise DiatorError(f"{text}; import the module of every event before the app starts")
        (self._brokered if cls in self._table.brokered else self._known).add(cls)

    def _undeclared(self, cls: type[Event]) -> str:
        if self._handler.kind is HandlerKind.QUERY:
            return (
                f"{self._handler} published {format_hint(cls)}; a query changes nothing, "
                f"so it has no events to publish: make it a command"
            )
        declared = " | ".join(map(format_hint, self._declared)) or "nothing"
        more = f"Publish[{' | '.join(map(format_hint, (*self._declared, cls)))}]"
        return (
            f"{self._handler} published {format_hint(cls)}, but declares {declared}; annotate its parameter as {more}"
        )

    def _nothing_to_cancel(self, _message_id: object) -> NoReturn:
        """Stand for ``publish.cancel`` of a handler that publishes domain events only."""
        fix = "declare the event that is cancelled, as in Publish[Reminder], or use `await app.cancel(id)`"
        raise DiatorError(
            f"{self._handler} called publish.cancel, but declares no event that goes over a broker; {fix}"
        )

    def collect(self, raised: Iterable[Event] | None, run: HandlerRun) -> None:
        """Take over the ``events`` of a class handler."""
        for event in raised or ():
            self._take(run, event)


class CancellingPublish:
    """`Publish` in an app with a store: it can cancel, too."""

    __slots__ = ("_publish", "_run")

    def __init__(self, publish: Callable[..., str | None], run: HandlerRun) -> None:
        self._publish = publish
        self._run = run

    def __call__(
        self, *events: Event, after: Delay | None = None, headers: Mapping[str, str] | None = None
    ) -> str | None:
        """Collect one event."""
        return self._publish(self._run, *events, after=after, headers=headers)

    async def cancel(self, message_id: str, /) -> bool:
        """Cancel a delayed event in the transaction of the unit of work."""
        if self._run.allowed is CLOSED:
            raise LatePublishError("publish.cancel was called after the handler had returned; call it before that")
        unit = self._run.unit
        assert isinstance(unit, SendingUnit), "its handler declares an event that leaves"
        assert unit.sender.cancel is not None, "the sender of the app can cancel"
        return await unit.sender.cancel(unit, message_id)


def _cannot_cancel(_message_id: object) -> NoReturn:
    """Stand for ``publish.cancel`` in an app without a store."""
    raise ConfigurationError([needs_store("publish.cancel was called")])


def ensure_may_wait(event: Event, after: Delay | None, headers: Mapping[str, str] | None = None) -> None:
    """Raise `InvalidMessageError` for options that only a brokered event can have."""
    if (after is None and headers is None) or is_brokered(type(event)):
        return
    option = f"after={after!r}" if after is not None else f"headers={headers!r}"
    text = f"{type(event).__qualname__} was published with {option}, but a domain event is handled in its unit of work"
    raise InvalidMessageError(
        f"{text}; publish it without, or make it a NotificationEvent, which is sent over a broker"
    )


def _too_late(event: Event) -> str:
    text = f"{type(event).__qualname__} was published after the handler had returned, so no handler would receive it"
    return f"{text}; publish before the return, and await what the handler starts"
