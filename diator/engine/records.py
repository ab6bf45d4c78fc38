"""What the user said, as small frozen records."""

import enum
import sys
from dataclasses import dataclass
from types import FrameType
from typing import Any

from diator.errors import Place
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
    while (inner := getattr(target, "func", None)) is not None:  # functools.partial
        target = inner
    name = getattr(target, "__qualname__", None) or type(target).__qualname__
    return str(name).rpartition("<locals>.")[2]


def place_of(target: object) -> Place | None:
    """The line where a function or method is defined; none for classes and objects, whose line nobody keeps."""
    code = getattr(target, "__code__", None)
    return Place(code.co_filename, code.co_firstlineno) if code else None


def caller() -> FrameType:
    """The frame outside of Diator that is being executed. Not to be kept: it holds every local of its function."""
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]  # inspect's own way reads source files
    while frame.f_back and str(frame.f_globals.get("__name__")).partition(".")[0] == "diator":
        frame = frame.f_back
    return frame


def place_in(frame: FrameType) -> Place:
    """The line that a frame is executing."""
    return Place(frame.f_code.co_filename, frame.f_lineno)
