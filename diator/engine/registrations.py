"""What the user said, as small records.

Named tuples and plain classes here and elsewhere in the engine: data classes take long to import.
"""

import enum
from typing import Any, Literal, NamedTuple

from diator._locations import SourceLocation, attribute, location_of, written
from diator.engine.hints import classes_in, result_of, split_annotated
from diator.engine.signature import EMPTY, NOTHING, Unresolved
from diator.errors import Problem
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


class Record:
    """Something that was registered: a handler or a middleware."""

    __slots__ = ("registered_at", "signature", "target", "what")

    def __init__(self, what: str, target: Any, registered_at: SourceLocation) -> None:
        self.what = what
        """What it is, as errors name it: "command handler"."""
        self.target = target
        """The function, class, object or bound method, unchanged. ``Any``: it has a signature of its own."""
        self.registered_at = registered_at
        """The line that registered it."""
        self.signature = NOTHING
        """What its hints say, as far as they can be resolved."""

    @property
    def name(self) -> str:
        """The qualified name of what was registered; of an object, of its class."""
        return name_of(self.target)

    @property
    def title(self) -> str:
        """What it is, and its name: "command handler join"."""
        return f"{self.what} {self.name}"

    @property
    def is_unbound(self) -> bool:
        """Whether it is a method that was registered inside its class, where there is no object for ``self`` yet."""
        first = next(iter(self.signature.parameters), None)
        return first is not None and first.name == "self" and first.hint is EMPTY

    @property
    def location(self) -> SourceLocation:
        """The line of its definition, or else of its registration."""
        return location_of(self.target) or self.registered_at

    def problem(self, code: str, text: str, fix: str, severity: Literal["error", "warning"] = "error") -> Problem:
        """Make a problem at its line."""
        return Problem(code, text, fix, self.location, severity)

    def unbound_problem(self, code: str, add: str) -> Problem:
        """Make the problem of a method that is not bound; ``add`` registers one that is."""
        text = f"{self.title} takes 'self': it is registered inside its class"
        method = self.name.rpartition(".")[2]
        return self.problem(code, text, f"register the method of an object: app.{add}(service.{method})")

    def __repr__(self) -> str:
        return f"<{self.title} at {self.location}>"


class Registration(Record):
    """One handler, as it was registered."""

    __slots__ = ("declared", "kind", "options", "thread", "timeout")

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
        super().__init__(f"{kind.value} handler", target, registered_at)
        self.kind = kind
        self.declared = declared
        """The message that the decorator was given, if it was given one."""
        self.timeout = timeout
        """Seconds that its unit of work may take."""
        self.thread = thread
        """Whether it runs in a thread."""
        self.options = options
        """What was said of brokered events."""

    @property
    def message_types(self) -> tuple[type[Message], ...] | None:
        """The classes of messages that it takes; none if its hint can't be resolved yet."""
        hint = self.message_hint
        return None if isinstance(hint, Unresolved) else classes_in(hint)

    @property
    def message_hint(self) -> Any:
        """The message as it was written: ``GetById[Meeting]``, where the class that is claimed is ``GetById``."""
        if self.declared is not None or not self.signature.parameters:
            return self.declared
        return split_annotated(self.signature.parameters[0].hint)[0]

    @property
    def is_settled(self) -> bool:
        """Whether every hint could be evaluated, that of the result and what the message promises included."""
        if self.signature.result_unresolved or any(self.signature.unresolved):
            return False
        if self.signature.unreadable is not None:
            return True  # and reading it again would tell nothing new
        try:
            result_of(self.message_hint)
        except Exception:  # noqa: BLE001 - a string in Command["..."] is code of the user's: anything may come out
            return False
        return True


class MiddlewareRegistration(Record):
    """One middleware, as it was registered."""

    __slots__ = ("inside",)

    def __init__(self, target: Any, registered_at: SourceLocation, *, inside: bool = False) -> None:
        super().__init__("middleware", target, registered_at)
        self.inside = inside
        """Whether it runs inside the unit of work."""


def name_of(target: object) -> str:
    """The qualified name of a handler; of its class, for an object that is called."""
    target = written(target)
    name = attribute(target, "__qualname__")
    if not isinstance(name, str) or not name:
        name = str(type.__dict__["__qualname__"].__get__(type(target)))  # also where a metaclass answers for it
    return name.rpartition("<locals>.")[2]
