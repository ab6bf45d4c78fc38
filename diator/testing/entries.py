"""Entries: the record of one message that was sent, published or handled, and the tree of many."""

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

_MAX_LENGTH = 300
"""Characters that are shown of one message, result or error."""


@dataclass(eq=False, slots=True)
class Entry(Generic[M_co]):
    """One message that was sent or published, one run of a handler, or one dead letter."""

    kind: EntryKind
    """What happened to the message. A streamed query counts as sent."""
    message: M_co
    """The message itself, not a copy."""
    by: Registration | None = None
    """The handler that ran, sent or published; of a dead letter, the handler that failed. None for the test itself, and
    for code outside handlers.
    """
    cause: "Entry | None" = None
    """Of a handler's run, the entry of its message, or None if another process published it; of a message, the run that
    sent or published it; of a dead letter, the last run, or the message.
    """
    result: Any = None
    """The result of sending or handling; of a stream, the list of its rows that were read. ``Any``: each request has
    its own type.
    """
    error: BaseException | None = None
    """The error that was raised; for a brokered event, by its handler or after it."""
    done: bool = False
    """Whether it has finished. Publishing finishes immediately or, for a brokered event, when the broker has stored it.
    """
    context: Context | None = None
    """Of a brokered event, the ids and headers with which it was sent; of the run of its handler, the context of that
    delivery. None for messages that stay in the process or were not sent.
    """
    failure: "MoveToDeadLetters | None" = None
    """Of a dead letter, the reason and the number of attempts."""
    after: "float | timedelta | None" = None
    """Of a brokered event, its delay."""
    headers: Mapping[str, str] | None = None
    """Of a brokered event, its own headers; those of its sender are in ``context``."""

    @property
    def attempt(self) -> int:
        """The number of the attempt, starting at 1; above 1 only for brokered events."""
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
        if self.failure is not None:
            return f": {self.failure.reason}"
        if self.error is not None:
            attempt = "" if self.context is None or self.kind != "handled" else f", attempt {self.attempt}"
            return f"{attempt}, raised {short_repr(self.error)}"
        if not self.done:
            return ", not sent" if self.kind == "published" else ", still running"
        # A request has one handler, whose result is the one of sending: one of the two is enough to read.
        return "" if self.result is None or self.kind == "handled" else f", returned {short_repr(self.result)}"


def short_repr(thing: object) -> str:
    """The ``repr`` of an object, cut if it is long, because a record must be readable when a test has failed."""
    try:
        text = repr(thing)
    except Exception as error:  # noqa: BLE001 - an object whose database session is closed, for example
        text = f"<{type(thing).__qualname__}, whose repr raised {type(error).__qualname__}>"
    return text if len(text) <= _MAX_LENGTH else f"{text[:_MAX_LENGTH]}..."


def tree(entries: Iterable[Entry], line: Callable[[Entry], str] = str) -> str:
    """Format entries as a tree: each is below its cause, in the order in which they happened."""
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
