"""The watcher: the hooks that write down what an app sends, publishes and handles."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from functools import partial
from types import TracebackType

from diator.app import Diator
from diator.brokers.envelope import OutgoingMessage
from diator.engine.events import is_brokered
from diator.engine.registrations import HandlerKind, Registration
from diator.errors import NotPublishedError
from diator.hooks import Collected, Handling, Hooks, Publishing, Sending
from diator.messages import Message
from diator.testing.activity import ActivityTracker
from diator.testing.entries import Entry, EntryKind


class _Raised:
    """A domain event that waits for its handlers, or has had them."""

    __slots__ = ("entry", "handlers", "root")

    def __init__(self, entry: Entry, root: Entry | None) -> None:
        self.entry = entry
        self.root = root
        """The run whose unit of work it belongs to; none for ``app.publish``."""
        self.handlers: set[Registration] = set()
        """Those that have got it."""


class _Frame:
    """Where the code that runs now stands: in which entry, and among which events."""

    __slots__ = ("brokered", "entry", "raised", "root", "streams")

    def __init__(
        self, entry: Entry | None, raised: list[_Raised], root: Entry | None = None, *, streams: bool = False
    ) -> None:
        self.entry = entry
        self.raised = raised
        self.root = root
        """The run that began the unit of work."""
        self.streams = streams
        self.brokered: list[Entry] = []
        """Of ``app.publish``, the brokered events that have no id yet."""


_current: ContextVar[_Frame | None] = ContextVar("diator.testing", default=None)


class RecordingHooks(Hooks):
    """Keeps entries, in the order in which things began."""

    needs_context = False

    def __init__(self) -> None:
        self.apps: list[Diator] = []
        """The apps that it watches: several if their sessions share a broker."""
        self.entries: list[Entry] = []
        self.activity = ActivityTracker(self.entries)
        """What goes over the broker, and what is under way."""

    def sending(self, details: Sending, /) -> AbstractContextManager[None]:
        """Write down what is sent, streamed, or published with ``app.publish``."""
        outer = _current.get()
        cause = outer.entry if outer else None
        if details.verb == "publish":
            return self._publishing(details, cause)
        entry = self._add("sent", details.messages[0], cause)
        if details.verb == "stream":
            return _Running(_Frame(entry, [], streams=True), details)
        self.activity.begin((entry,))
        return _Running(_Frame(entry, []), details, partial(self.activity.end, (entry,)))

    def _publishing(self, details: Sending, cause: Entry | None) -> AbstractContextManager[None]:
        entries = tuple(self._add("published", event, cause) for event in details.messages)
        frame = _Frame(cause, [_Raised(entry, None) for entry in entries if not _is_brokered(entry)])
        frame.brokered = list(filter(_is_brokered, entries))
        self.activity.begin(entries)
        return _Running(frame, None, partial(self.activity.end, entries))

    def handling(self, details: Handling, /) -> AbstractContextManager[None]:
        """Write down what a handler does."""
        outer = _current.get() or _Frame(None, [])
        entry = Entry("handled", details.message, details.handler)
        if is_brokered(type(details.message)):
            entry.context = details.context
            entry.cause = self.activity.cause_of(entry.context)
            self.activity.runs(entry, entry.context)
            frame = _Frame(entry, [], entry)
        elif details.handler.kind is HandlerKind.EVENT:
            entry.cause = _event_entry(outer, details.handler, details.message) or outer.entry
            frame = _Frame(entry, outer.raised, outer.root)
        else:
            entry.cause, outer.root = outer.entry, entry
            outer.raised[:] = [one for one in outer.raised if one.root is None or not one.root.done]  # tried again
            frame = _Frame(entry, outer.raised, entry, streams=outer.streams)
        self.entries.append(entry)
        return _Running(frame, details)

    def publishing(self, details: Publishing, /) -> AbstractContextManager[None]:
        """Write down what the broker takes."""
        return _Leaving(self.activity, details)

    def collected(self, details: Collected, /) -> None:
        """Write down what a handler publishes, and which message an event will be."""
        frame = _current.get() or _Frame(None, [])
        is_own = details.handler is None  # of ``app.publish``, whose events are written down already
        entry = frame.brokered.pop(0) if is_own else self._add("published", details.event, frame.entry)
        entry.after, entry.headers = details.after, details.headers
        if details.message_id is not None:
            self.activity.is_published(details.message_id, entry)
        else:
            frame.raised.append(_Raised(entry, frame.root))

    def _add(self, what: EntryKind, message: Message, cause: Entry | None) -> Entry:
        entry = Entry(what, message, cause.by if cause else None, cause)
        entry.done = what == "published" and not _is_brokered(entry)  # the broker has to take those
        self.entries.append(entry)
        return entry


def _is_brokered(entry: Entry) -> bool:
    return is_brokered(type(entry.message))


class _Running(AbstractContextManager[None]):
    """What is sent or handled, while it runs; writes down how it ends.

    No generator: `contextlib` sets the traceback of what passes through one, which not every error allows.
    """

    def __init__(
        self, frame: _Frame, details: Sending | Handling | None, ended: Callable[[], None] | None = None
    ) -> None:
        self._frame = frame
        self._details = details
        self._ended = ended
        self._token: Token[_Frame | None] | None = None

    def __enter__(self) -> None:
        self._token = _current.set(self._frame)
        entry = self._frame.entry
        if self._details is not None and self._frame.streams and entry is not None:
            entry.result = self._details.rows = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._token is not None
        _current.reset(self._token)
        entry = self._frame.entry
        if self._details is not None and entry is not None:
            if error is not None:
                entry.error = error
            elif not self._frame.streams:
                entry.result = self._details.result
            entry.done = True
        if self._ended is not None:
            self._ended()


class _Leaving(AbstractContextManager[None]):
    """Messages while they are passed to the broker: they may be handled before that has returned."""

    def __init__(self, activity: ActivityTracker, details: Publishing) -> None:
        self._activity = activity
        self._details = details

    def __enter__(self) -> None:
        self._activity.leaves(self._details.messages, self._details.context)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        lost, rejected = (set[str](), set[str]()) if error is None else _failed(error, self._details.messages)
        for message in self._details.messages:
            if error is not None and message.id in lost:
                self._activity.not_sent(message, error, rejected=message.id in rejected)
            else:
                self._activity.sent(message)


def _failed(error: BaseException, messages: Sequence[OutgoingMessage]) -> tuple[set[str], set[str]]:
    """The ids of those that were not sent or whose outcome is unknown, and of those among them that never will be."""
    failed = error if isinstance(error, NotPublishedError) else error.__cause__  # the first is what relays get
    if isinstance(failed, NotPublishedError):
        rejected = {message.id for message in failed.rejected}
        return {message.id for message in (*failed.unsent, *failed.unknown)} | rejected, rejected
    # Publishing goes to its end before a cancel is raised.
    return set() if isinstance(error, asyncio.CancelledError) else {message.id for message in messages}, set()


def _event_entry(frame: _Frame, registration: Registration, message: Message) -> Entry | None:
    """The entry of the event that a handler has got: of several equal ones, the first that it has not had yet.

    A middleware may have put another event of its class in its place.
    """
    waiting = [raised for raised in frame.raised if registration not in raised.handlers]
    same = [raised for raised in waiting if raised.entry.message is message]
    alike = [raised for raised in waiting if type(raised.entry.message) is type(message)]
    for raised in (*same, *alike):
        raised.handlers.add(registration)
        return raised.entry
    return None
