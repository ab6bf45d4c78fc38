"""What the user said, as small frozen records."""

import enum
from dataclasses import dataclass
from typing import Any

from diator._places import Place, place_of, written
from diator.messages import Command, Event, Message, Query


class Kind(enum.Enum):
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
        return "@app.on_event" if self is Kind.EVENT else f"@app.{self.value}"


_BASES: dict[Kind, type[Message]] = {Kind.COMMAND: Command, Kind.QUERY: Query, Kind.EVENT: Event}


@dataclass(frozen=True, slots=True, eq=False)
class Registration:
    """One handler, as it was registered."""

    kind: Kind
    target: Any
    """The function, class or bound method, unchanged. ``Any``: its signature is its own, and read by `signature`."""
    declared: type[Message] | None
    """The message that the decorator was given, if it was given one."""
    timeout: float | None
    """Seconds that its unit of work may take."""
    thread: bool
    """Whether it runs in a thread."""
    registered: Place
    """The line that registered it."""

    @property
    def name(self) -> str:
        """The qualified name of the handler."""
        return name_of(self.target)

    @property
    def place(self) -> Place:
        """Where the handler stands: the line of its definition, or else of its registration."""
        return place_of(self.target) or self.registered

    def __repr__(self) -> str:
        return f"<{self.kind.value} handler {self.name} at {self.place}>"


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One middleware, as it was registered."""

    target: Any
    """The callable. ``Any``: its signature is its own, and read by `signature`."""
    registered: Place
    """The line that registered it."""

    @property
    def name(self) -> str:
        """The qualified name of the middleware, or of its class."""
        return name_of(self.target)

    @property
    def place(self) -> Place:
        """Where the middleware stands: the line of its definition, or else of its registration."""
        return place_of(self.target) or self.registered

    def __repr__(self) -> str:
        return f"<middleware {self.name} at {self.place}>"


def name_of(target: object) -> str:
    """The qualified name of a handler; of its class, for an object that is called."""
    target = written(target)
    name = getattr(target, "__qualname__", None) or type(target).__qualname__
    return str(name).rpartition("<locals>.")[2]
