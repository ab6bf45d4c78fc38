"""Domain events inside a unit of work: who may publish which, and which handlers run for a class of events."""

from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from diator.engine.hints import show
from diator.engine.records import Kind, Registration
from diator.engine.unit import CLOSED, Published, Work
from diator.errors import (
    ConfigurationError,
    DiatorError,
    InvalidMessageError,
    LatePublishError,
    Problem,
    UndeclaredEventError,
)
from diator.messages import BROKERED, DomainEvent, Event, Message

Plain = Callable[[Any], Coroutine[Any, Any, None]]
"""A handler that needs nothing but the event."""


class Sending(Protocol):
    """How brokered events leave a unit of work. The core has no broker: this is what it knows of one."""

    def admit(self, cls: type[Event], /) -> None:
        """Get ready for a class of brokered events. Raises `ConfigurationError` where it can't be serialised."""
        ...

    def encode(self, events: Sequence[Event], published: bool, /) -> Sequence[Any]:
        """Make messages of brokered events, inside of the unit of work: what fails here fails it.

        The context is that of the command that raised them or, where they were ``published``, their own.
        ``Any``: what it makes is for `send` alone.
        """
        ...

    async def send(self, messages: Sequence[Any], events: Sequence[Event], /) -> None:
        """Hand messages to the broker, after the unit has closed well. Raises `PublishError`."""
        ...


class Publishing(Sending, Protocol):
    """How an app sends brokered events, also those that no command has raised."""

    async def publish(self, events: Sequence[Event], /) -> None:
        """Encode and send events that no command has raised, where nothing in process has to do with them."""
        ...


class Step(NamedTuple):
    """One event handler: as it runs inside any unit of work and, where it needs nothing of that, by itself."""

    classes: tuple[type[Message], ...]
    work: Work
    plain: Plain | None


class EventTable:
    """The handlers of each class of domain events, looked up by exact class once that has been admitted."""

    def __init__(self, around: Callable[[type[Event], Work], Work], sending: Publishing | None = None) -> None:
        self.sending = sending
        """Where brokered events go; none in an app without a broker."""
        self.steps: list[Step] = []
        self.work: dict[type, tuple[Work, ...]] = {}
        self.brokered: set[type] = set()
        self.plain: dict[type, tuple[Plain, ...]] = {}
        """Of the classes whose handlers all need nothing but the event."""
        self._around = around

    def admit(self, cls: type[Event]) -> None:
        """Work out the handlers of a class of events.

        Raises `ConfigurationError` for one that needs a broker where there is none, or that can't be serialised.
        """
        if cls in self.work:
            return
        if self.sending is not None and is_brokered(cls):
            self.sending.admit(cls)
            self.brokered.add(cls)
            self.work[cls] = ()  # it is handled where the broker delivers it
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
    return issubclass(cls, BROKERED)


def needs_broker(cls: type[Event], what: str) -> Problem:
    """The problem of an event that can't stay in the process."""
    if issubclass(cls, BROKERED):
        text = f"{show(cls)} {what}, but the app has no message broker"
        remedy = 'give it one, as in Diator("meetings", broker="redis://localhost:6379") or broker="memory://"'
        return Problem("no-broker", text, f"{remedy}, or make the event a DomainEvent if it stays in this process")
    text = f"{show(cls)} {what}, and is none of the three kinds of events"
    return Problem("no-broker", text, "derive it from DomainEvent")


class Rule:
    """What one handler may publish."""

    __slots__ = ("_declared", "_handler", "_plain_only", "_table", "allowed", "publish")

    def __init__(
        self, handler: Registration, declared: tuple[type[Event], ...], table: EventTable, plain: bool
    ) -> None:
        self._handler = handler
        self._declared = declared
        self._table = table
        self._plain_only = plain
        self.allowed: set[type] = set()
        """The classes that were let through before."""
        self.publish = self._publish()
        """`Publish` as a function of `Published` and the event, to be bound for each message.

        A bound method is the one callable with a state that the interpreter calls as fast as a function.
        """

    def _publish(self) -> Callable[[Published, Event], None]:
        def publish(events: Published, event: Event, /) -> None:
            if type(event) not in events.allowed:
                if events.allowed is CLOSED:
                    raise LatePublishError(_too_late(event))
                self.admit(event)
            events.append(event)

        return publish

    def admit(self, event: object) -> None:
        """Let a class of events through, or raise for it. Called once for each class."""
        if isinstance(event, type) and issubclass(event, Event):
            text = f"{self._handler.name} published the class {show(event)}; publish an instance: {show(event)}(...)"
            raise InvalidMessageError(text)
        if not isinstance(event, Event):
            raise InvalidMessageError(f"{self._handler.name} published {event!r}, which is no event")
        cls = type(event)
        if not isinstance(event, self._declared):
            raise UndeclaredEventError(self._undeclared(cls))
        self._table.admit(cls)
        if self._plain_only and cls not in self._table.plain:
            text = f"{show(cls)} was defined after the app started and reaches handlers that its plans do not know"
            raise DiatorError(f"{text}; import the module of every event before the app starts")
        self.allowed.add(cls)

    def _undeclared(self, cls: type[Event]) -> str:
        if self._handler.kind is Kind.QUERY:
            return (
                f"{self._handler} published {show(cls)}; a query changes nothing, so nothing happens: make it a command"
            )
        declared = " | ".join(map(show, self._declared)) or "nothing"
        more = f"Publish[{' | '.join(map(show, (*self._declared, cls)))}]"
        return f"{self._handler} published {show(cls)}, but declares {declared}; hint its parameter as {more}"

    def collect(self, raised: Iterable[Event] | None, events: list[Event]) -> None:
        """Take over the ``events`` of a class handler."""
        for event in raised or ():
            if type(event) not in self.allowed:
                self.admit(event)
            events.append(event)


def _too_late(event: Event) -> str:
    text = f"{type(event).__qualname__} was published after the handler had returned; nobody would handle it"
    return f"{text}; publish before the return, and await what the handler starts"
