"""What a message can cause: the domain events that may follow, the handlers that may run, and what those need."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from diator._keys import Key
from diator.engine.arguments import fits
from diator.engine.subclasses import with_subclasses
from diator.engine.wiring import WiredCallable
from diator.messages import BROKERED_KINDS, DomainEvent, Event, Message


class Requirements:
    """The requirements of a set of handlers and middlewares."""

    __slots__ = ("context", "keys", "required")

    def __init__(self, members: Iterable[WiredCallable]) -> None:
        members = tuple(members)
        self.keys: frozenset[Key] = frozenset(key for wired in members if not wired.is_outer for key in wired.keys)
        """What the unit of work resolves. Outer middlewares have singletons, and need no scope."""
        self.required: frozenset[Key] = frozenset(key for wired in members for key in wired.required_values)
        self.context = any(wired.needs_context for wired in members)


class Reachable(NamedTuple):
    """What may run because of some events."""

    handlers: tuple[WiredCallable, ...]
    middlewares: tuple[WiredCallable, ...]


class EventGraph:
    """Answers for one app, from its wired handlers and middlewares."""

    def __init__(
        self,
        handlers: Iterable[tuple[WiredCallable, tuple[type[Message], ...]]],
        middlewares: Iterable[WiredCallable],
        spelled: Mapping[type, Any],  # Any: `Paid[Money]` is not a class
    ) -> None:
        self._spelled = spelled
        """Generic classes as their handlers write them, with type arguments."""
        self._handlers = tuple(handlers)
        """The handlers of domain events, in the order of registration."""
        self._middlewares = tuple(middlewares)
        self._families: dict[type[Event], frozenset[type[Event]]] = {}
        self._matching: dict[type[Event], tuple[WiredCallable, ...]] = {}

    def middlewares_for(self, *classes: type[Message]) -> tuple[WiredCallable, ...]:
        """The middlewares around messages of any of these classes, outermost first."""
        messages = [self._spelled.get(cls, cls) for cls in classes]
        return tuple(
            middleware
            for middleware in self._middlewares
            if any(fits(message, wrapped) for message in messages for wrapped in middleware.wraps)
        )

    def reachable_from(self, events: Iterable[type[Event]]) -> Reachable:
        """Everything that may run when events of these classes, or what they cause, are published."""
        found: dict[int, WiredCallable] = {}
        seen: dict[type[Event], None] = {}
        waiting = list(events)
        while waiting:
            event = waiting.pop()
            if event in seen:
                continue
            seen[event] = None
            for wired in self.handlers_for(event):
                if id(wired) not in found:
                    found[id(wired)] = wired
                    waiting.extend(wired.publishes)
        # A brokered event is handled in a unit of its own, where the broker delivers it.
        classes = {cls for event in seen for cls in self.with_subclasses(event) if not issubclass(cls, BROKERED_KINDS)}
        return Reachable(tuple(found.values()), self.middlewares_for(*classes) if self._middlewares else ())

    def handlers_for(self, event: type[Event]) -> tuple[WiredCallable, ...]:
        """The handlers that an instance of a class of events, or of one of its subclasses, may reach."""
        if event not in self._matching:
            family = self.with_subclasses(event)
            self._matching[event] = tuple(
                wired for wired, classes in self._handlers if any(issubclass(cls, classes) for cls in family)
            )
        return self._matching[event]

    def can_send(self, publishes: Iterable[type[Event]]) -> bool:
        """Whether brokered events may be among what handlers with these declarations publish."""
        return any(issubclass(cls, BROKERED_KINDS) for event in publishes for cls in self.with_subclasses(event))

    def with_subclasses(self, event: type[Event]) -> frozenset[type[Event]]:
        """A class of events and its subclasses, as far as they are defined by now."""
        if event not in self._families:
            self._families[event] = with_subclasses(event)
        return self._families[event]

    def is_outdated(self) -> bool:
        """Whether subclasses were defined since these answers were given."""
        return any(not with_subclasses(event) <= family for event, family in self._families.items())


def brokered(events: Iterable[type[Event]]) -> Iterator[type[Event]]:
    """Those that need a broker, and those of no kind at all; `Event` itself means any, and is judged when it runs."""
    for event in events:
        if event is not Event and (issubclass(event, BROKERED_KINDS) or not issubclass(event, DomainEvent)):
            yield event
