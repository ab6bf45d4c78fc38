"""Entries: what is written down of one message that was sent, published or handled, and the tree of many."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Literal

from typing_extensions import TypeVar

from diator.engine.records import Registration
from diator.messages import Message

M_co = TypeVar("M_co", bound=Message, covariant=True, default=Message)

What = Literal["sent", "published", "handled"]

_LONGEST = 300
"""Characters that are shown of one message, result or error."""


@dataclass(eq=False, slots=True)
class Entry(Generic[M_co]):
    """One message that was sent or published, or one run of a handler."""

    what: What
    """What was done with the message. A query that is streamed counts as sent."""
    message: M_co
    """The message itself, not a copy."""
    by: Registration | None = None
    """The handler that did it: ran, or sent, or published. None where the test did it, or code outside of handlers."""
    cause: "Entry | None" = None
    """Of a handler's run, the entry of the message that it handles; of a message, the run that sent or published it."""
    result: Any = None
    """What came back of sending or of handling; of a stream, the list of the rows that were read. ``Any``: each request
    has a result of its own."""
    error: BaseException | None = None
    """What was raised instead."""
    done: bool = False
    """Whether it has ended. Publishing ends at once."""

    def __str__(self) -> str:
        return f"{self._did()}{self._came_out()}"

    def _did(self) -> str:
        if self.what != "handled" or self.by is None:
            return f"{self.what} {show(self.message)}"
        same = self.cause is not None and self.cause.message is self.message
        return f"handled by {self.by.name}" if same else f"handled {show(self.message)} by {self.by.name}"

    def _came_out(self) -> str:
        if self.error is not None:
            return f", raised {show(self.error)}"
        if not self.done:
            return ", still running"
        # A request has one handler, whose result is the one of sending: one of the two is enough to read.
        return "" if self.result is None or self.what == "handled" else f", returned {show(self.result)}"


def show(thing: object) -> str:
    """The ``repr`` of something, cut where it is long; a record must be readable when a test has failed."""
    try:
        text = repr(thing)
    except Exception as error:  # noqa: BLE001 - an object whose database session is closed, for example
        text = f"<{type(thing).__qualname__}, whose repr raised {type(error).__qualname__}>"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def tree(entries: Iterable[Entry]) -> str:
    """Lay out entries with everything below what caused it, in the order in which it happened."""
    entries = list(entries)
    known = set(map(id, entries))
    below: dict[int | None, list[Entry]] = {}
    for entry in entries:
        cause = id(entry.cause) if id(entry.cause) in known else None
        below.setdefault(cause, []).append(entry)
    return "\n".join(_lines(below, None, "  ")) or "  (nothing)"


def _lines(below: dict[int | None, list[Entry]], cause: int | None, indent: str) -> Iterator[str]:
    for entry in below.get(cause, ()):
        yield f"{indent}{entry}"
        yield from _lines(below, id(entry), f"{indent}  ")
