"""Messages: tests make assertions about them. A failed assertion shows everything that happened."""

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Generic, TypeVar, cast, overload

from diator.context import new_id
from diator.engine.hints import format_hint
from diator.engine.registrations import Registration, name_of
from diator.errors import InvalidMessageError
from diator.messages import Event, Message
from diator.testing.entries import Entry, EntryKind, tree

M_co = TypeVar("M_co", bound=Message, covariant=True)
T = TypeVar("T", bound=Message)


class Messages(Sequence[M_co], Generic[M_co]):
    """Messages that were sent, published or handled, in order. Equal to a list of the same messages.

    In all methods, ``by`` selects messages that one handler has sent, published or handled: the function, class or
    bound method that was registered. Anything else raises `ValueError`, because it would never match.
    """

    __slots__ = ("_entries", "_handlers", "_what", "_whole")
    __hash__ = None  # type: ignore[assignment]  # it grows, and equals lists

    def __init__(
        self,
        what: EntryKind,
        entries: Sequence[Entry[M_co]],
        whole: Sequence[Entry],
        handlers: Collection[Registration] = (),
    ) -> None:
        self._what: EntryKind = what
        self._entries = entries
        self._whole = whole
        """What is shown when an assertion fails."""
        self._handlers = handlers
        """Those that may have done it."""

    @property
    def entries(self) -> tuple[Entry[M_co], ...]:
        """The record of each: its cause, its result, its error."""
        return tuple(self._entries)

    def one(self, cls: type[T], /, *, by: object = None) -> T:
        """Return the only message of a class. Raises `AssertionError` if there are none or several."""
        return self.entry(cls, by=by).message

    def entry(self, cls: type[T], /, *, by: object = None) -> Entry[T]:
        """Return the entry of the only message of a class. Raises `AssertionError` if there are none or several."""
        found = self._matching(cls, by)
        if len(found) != 1:
            raise self._failed("one", cls, by, found)
        return found[0]

    def none(self, cls: type[Message] = Message, /, *, by: object = None) -> None:
        """Ensure that there are no messages of a class, or none at all. Raises `AssertionError` otherwise."""
        found = self._matching(cls, by)
        if found:
            raise self._failed("no", cls, by, found)

    def of(self, cls: type[T], /, *, by: object = None) -> "Messages[T]":
        """Return only the messages of a class."""
        return Messages(self._what, self._matching(cls, by), self._whole, self._handlers)

    def _matching(self, cls: type[T], by: object) -> list[Entry[T]]:
        self._ensure_handler(by)
        # No type checker follows that the class of its message makes an entry an Entry[T].
        return [
            cast("Entry[T]", entry) for entry in self._entries if isinstance(entry.message, cls) and _did(entry, by)
        ]

    def _ensure_handler(self, by: object) -> None:
        known = (*self._handlers, *(entry.by for entry in self._whole if entry.by))
        if by is not None and not any(handler.target == by for handler in known):
            names = ", ".join(dict.fromkeys(handler.name for handler in known)) or "none"
            raise ValueError(f"by={name_of(by)} is no handler of what was recorded; expected one of: {names}")

    def _failed(self, expected: str, cls: type[Message], by: object, found: Sequence[Entry]) -> AssertionError:
        handler = "" if by is None else f" by {name_of(by)}"
        count = len(found) or "none"
        text = f"expected {expected} {format_hint(cls)} to be {self._what}{handler}, found {count}; what happened:"
        return AssertionError(f"{text}\n{tree(self._whole)}")

    @overload
    def __getitem__(self, index: int) -> M_co: ...

    @overload
    def __getitem__(self, index: slice) -> list[M_co]: ...

    def __getitem__(self, index: int | slice) -> M_co | list[M_co]:
        return self._list()[index]

    def __len__(self) -> int:
        return len(self._entries)

    def __eq__(self, other: object) -> bool:
        return self._list() == [*other] if isinstance(other, list | Messages) else NotImplemented

    def __repr__(self) -> str:
        return repr(self._list())

    def _list(self) -> list[M_co]:
        return [entry.message for entry in self._entries]


class FakePublish(Messages[Event]):
    """A fake `Publish` to call a handler directly: ``await join_meeting(JoinMeeting(1, 2), api, publish)``.

    It accepts every event, and you can make assertions about it.
    """

    __slots__ = ("_taken", "cancelled")

    def __init__(self) -> None:
        self._taken: list[Entry[Event]] = []
        self.cancelled: list[str] = []
        """The cancelled ids, in order; their events are still among the published ones."""
        super().__init__("published", self._taken, self._taken)

    def __call__(
        self, event: Event, /, *, after: float | timedelta | None = None, headers: Mapping[str, str] | None = None
    ) -> str:
        """Record an event, and return an id. Raises `~diator.InvalidMessageError` if it is not an event."""
        if not isinstance(event, Event):  # pyright: ignore[reportUnnecessaryIsInstance]  # tests are not all typed
            raise InvalidMessageError(f"published {event!r}, which is not an event; expected an instance of Event")
        self._taken.append(Entry("published", event, done=True, after=after, headers=headers))
        return new_id()

    async def cancel(self, message_id: str, /) -> bool:
        """Record an id as cancelled, and return that it was in time."""
        self.cancelled.append(message_id)
        return True


def _did(entry: Entry, by: object) -> bool:
    return by is None or (entry.by is not None and entry.by.target == by)
