"""Entries: what is written down of one message that was sent, published or handled, and the tree of many."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal

from typing_extensions import TypeVar

from diator.context import Context
from diator.engine.registrations import Registration
from diator.messages import Message

if TYPE_CHECKING:
    from datetime import timedelta

    from diator.brokers.port import MoveToDeadLetters

M_co = TypeVar("M_co", bound=Message, covariant=True, default=Message)

EntryKind = Literal["sent", "published", "handled", "dead-lettered"]

_LONGEST = 300
"""Characters that are shown of one message, result or error."""


@dataclass(eq=False, slots=True)
class Entry(Generic[M_co]):
    """One message that was sent or published, one run of a handler, or one dead letter."""

    kind: EntryKind
    """What was done with the message. A query that is streamed counts as sent."""
    message: M_co
    """The message itself, not a copy."""
    by: Registration | None = None
    """The handler that did it: ran, or sent, or published; of a dead letter, the one whose it is. None where the test
    did it, or code outside handlers."""
    cause: "Entry | None" = None
    """Of a handler's run, the entry of the message that it handles, or none where that came from elsewhere over the
    broker; of a message, the run that sent or published it; of a dead letter, the last run, or the message."""
    result: Any = None
    """What came back of sending or of handling; of a stream, the list of the rows that were read. ``Any``: each request
    has a result of its own."""
    error: BaseException | None = None
    """What was raised instead; by a handler of a brokered event or, where that returned, by what came after it."""
    done: bool = False
    """Whether it has ended. Publishing ends at once or, for a brokered event, when the broker has taken it."""
    context: Context | None = None
    """Of a brokered event, the ids and headers that it left with; of the run of its handler, the context of that
    delivery. None for what stays in the process, and for what has not left it."""
    why: "MoveToDeadLetters | None" = None
    """Of a dead letter, the reason and how often it was tried."""
    after: "float | timedelta | None" = None
    """Of a brokered event, the delay that it was published with."""
    headers: Mapping[str, str] | None = None
    """Of a brokered event, the headers that it was published with; those of its sender are in ``context``."""

    @property
    def attempt(self) -> int:
        """Which try a handler's run is, from 1; above 1 only for brokered events."""
        return 1 if self.context is None else self.context.attempt

    def __str__(self) -> str:
        return f"{self._did()}{self._came_out()}"

    def _did(self) -> str:
        if self.by is None or self.kind in ("sent", "published"):
            return f"{self.kind} {short_repr(self.message)}"
        # What came over a broker is another object; only if it looks different is it worth a second look.
        same = self.cause is not None and (
            self.cause.message is self.message or short_repr(self.cause.message) == short_repr(self.message)
        )
        whose = f"{'for' if self.kind == 'dead-lettered' else 'by'} {self.by.name}"
        return f"{self.kind} {whose}" if same else f"{self.kind} {short_repr(self.message)} {whose}"

    def _came_out(self) -> str:
        if self.why is not None:
            return f": {self.why.reason}"
        if self.error is not None:
            attempt = "" if self.context is None or self.kind != "handled" else f", attempt {self.attempt}"
            return f"{attempt}, raised {short_repr(self.error)}"
        if not self.done:
            return ", not sent" if self.kind == "published" else ", still running"
        # A request has one handler, whose result is the one of sending: one of the two is enough to read.
        return "" if self.result is None or self.kind == "handled" else f", returned {short_repr(self.result)}"


def short_repr(thing: object) -> str:
    """The ``repr`` of something, cut where it is long; a record must be readable when a test has failed."""
    try:
        text = repr(thing)
    except Exception as error:  # noqa: BLE001 - an object whose database session is closed, for example
        text = f"<{type(thing).__qualname__}, whose repr raised {type(error).__qualname__}>"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def tree(entries: Iterable[Entry], line: Callable[[Entry], str] = str) -> str:
    """Lay out entries with everything below what caused it, in the order in which it happened."""
    entries = list(entries)
    known = set(map(id, entries))
    below: dict[int | None, list[Entry]] = {}
    for entry in entries:
        cause = id(entry.cause) if id(entry.cause) in known else None
        below.setdefault(cause, []).append(entry)
    return "\n".join(f"{indent}{line(entry)}" for entry, indent in _laid_out(below, None, "  ")) or "  (nothing)"


def _laid_out(below: dict[int | None, list[Entry]], cause: int | None, indent: str) -> Iterator[tuple[Entry, str]]:
    for entry in below.get(cause, ()):
        yield entry, indent
        yield from _laid_out(below, id(entry), f"{indent}  ")
