"""What the user said, as small records.

Named tuples and plain classes here and elsewhere in the engine: data classes take long to import.
"""

import enum
from typing import Any, Literal, NamedTuple

from diator._locations import SourceLocation, attribute, location_of, written
from diator.messages import Command, Event, Message, Query
from diator.retry import Retry

DeliveryGuarantee = Literal["at-least-once", "at-most-once"]


class HandlerKind(enum.Enum):
    """What a handler handles."""

    COMMAND = "command"
    QUERY = "query"
    EVENT = "event"

    @property
    def base(self) -> type[Message]:
        """The class that messages of this kind derive from."""
        return _BASES[self]

    @property
    def decorator(self) -> str:
        """The decorator that registers handlers of this kind."""
        return "@app.on_event" if self is HandlerKind.EVENT else f"@app.{self.value}"


_BASES: dict[HandlerKind, type[Message]] = {
    HandlerKind.COMMAND: Command,
    HandlerKind.QUERY: Query,
    HandlerKind.EVENT: Event,
}


class SubscriptionOptions(NamedTuple):
    """How a handler of brokered events wants to be given them; ``None`` leaves it to the app."""

    subscription: str | None = None
    retry: Retry | None = None
    concurrency: int | None = None
    timeout: float | None = None
    ordered: bool | None = None
    delivery: DeliveryGuarantee | None = None
    once: bool | None = None


UNSET = SubscriptionOptions()


class Registration:
    """One handler, as it was registered."""

    __slots__ = ("declared", "kind", "options", "registered_at", "target", "thread", "timeout")

    def __init__(
        self,
        kind: HandlerKind,
        target: Any,
        declared: type[Message] | None,
        timeout: float | None,
        thread: bool,
        registered_at: SourceLocation,
        options: SubscriptionOptions = UNSET,
    ) -> None:
        self.kind = kind
        self.target = target
        """The function, class or bound method, unchanged. ``Any``: it has a signature of its own."""
        self.declared = declared
        """The message that the decorator was given, if it was given one."""
        self.timeout = timeout
        """Seconds that its unit of work may take."""
        self.thread = thread
        """Whether it runs in a thread."""
        self.registered_at = registered_at
        """The line that registered it."""
        self.options = options
        """What was said of brokered events."""

    @property
    def name(self) -> str:
        """The qualified name of the handler."""
        return name_of(self.target)

    @property
    def location(self) -> SourceLocation:
        """Where the handler stands: the line of its definition, or else of its registration."""
        return location_of(self.target) or self.registered_at

    def __repr__(self) -> str:
        return f"<{self.kind.value} handler {self.name} at {self.location}>"


class MiddlewareRegistration:
    """One middleware, as it was registered."""

    __slots__ = ("inside", "registered_at", "target")

    def __init__(self, target: Any, registered_at: SourceLocation, *, inside: bool = False) -> None:
        self.target = target
        """The callable. ``Any``: it has a signature of its own."""
        self.inside = inside
        """Whether it runs inside the unit of work."""
        self.registered_at = registered_at
        """The line that registered it."""

    @property
    def name(self) -> str:
        """The qualified name of the middleware, or of its class."""
        return name_of(self.target)

    @property
    def location(self) -> SourceLocation:
        """Where the middleware stands: the line of its definition, or else of its registration."""
        return location_of(self.target) or self.registered_at

    def __repr__(self) -> str:
        return f"<middleware {self.name} at {self.location}>"


def name_of(target: object) -> str:
    """The qualified name of a handler; of its class, for an object that is called."""
    target = written(target)
    name = attribute(target, "__qualname__")
    if not isinstance(name, str) or not name:
        name = str(type.__dict__["__qualname__"].__get__(type(target)))  # also where a metaclass answers for it
    return name.rpartition("<locals>.")[2]
