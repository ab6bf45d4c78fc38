"""The watcher: goes around every send and every handler of an app, and writes down what they do."""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, cast

from diator._groups import with_members
from diator.context import Context, current
from diator.engine.events import EventPublisher, EventSender, is_brokered
from diator.engine.plan import Call
from diator.engine.records import Registration
from diator.engine.unit import Delay, Published, SendingUnit, StreamUnit, Unit, Work
from diator.errors import RetryLater
from diator.messages import Event, Message, Query
from diator.testing.activity import Activity
from diator.testing.entries import Entry, What
from diator.testing.sending import SeenPublishing, SeenSending


class _Raised:
    """An event that waits for its handlers, or has had them."""

    __slots__ = ("entry", "handlers", "unit")

    def __init__(self, entry: Entry, unit: Unit | None) -> None:
        self.entry = entry
        self.unit = unit
        """The unit of work that it was raised in; none for ``app.publish``, which has one unit for all its events."""
        self.handlers: set[Registration] = set()
        """Those that have got it."""


class _Frame:
    """Where the code that runs now stands: in which entry, and among which events."""

    __slots__ = ("context", "entry", "raised")

    def __init__(self, entry: Entry | None, raised: list[_Raised], context: Context | None = None) -> None:
        self.entry = entry
        self.raised = raised
        self.context = context
        """The context of the brokered event that is being handled, for the handler that it was delivered to."""


_current: ContextVar[_Frame | None] = ContextVar("diator.testing", default=None)


class Watcher:
    """A `diator.engine.plan.Watch` that keeps entries, in the order in which things began.

    With ``at_once``, handlers that ask to be tried again later are tried again at once, and events with a delay
    leave at once.
    """

    def __init__(self, *, at_once: bool = False) -> None:
        self.entries: list[Entry] = []
        self.activity = Activity(self.entries)
        """What goes over the broker, and what is under way."""
        self.at_once = at_once

    def sender(self, sender: EventSender) -> EventSender:
        """Write down what leaves over the broker from a handler that it was delivered to."""
        return SeenSending(sender, self.activity, at_once=self.at_once)

    def publisher(self, sender: EventPublisher) -> EventPublisher:
        """Write down what leaves over the broker otherwise."""
        return SeenPublishing(sender, self.activity, _published_here, at_once=self.at_once)

    def call(self, call: Call) -> Call:
        """Write down what is sent, published with ``app.publish``, or delivered by the broker."""

        # Any: messages and results of all kinds meet here.
        async def watched(message: Any) -> Any:
            if isinstance(message, Event):
                return await self._deliver(message, call)
            outer = _current.get()
            cause = outer.entry if outer else None
            if isinstance(message, tuple):
                return await self._publish(cast("tuple[Event, ...]", message), cause, call)
            entry = self._add("sent", message, cause)
            with self.activity.under_way(entry):
                return await _outcome(entry, _within(_Frame(entry, []), call(message)))

        return watched

    async def _publish(self, events: tuple[Event, ...], cause: Entry | None, call: Call) -> Any:
        raised = [_Raised(self._add("published", event, cause), None) for event in events]
        with self.activity.under_way(*(one.entry for one in raised)):
            return await _within(_Frame(cause, raised), call(events))

    async def _deliver(self, event: Event, call: Call) -> Any:
        context = current.get()
        assert context is not None, "a consumer sets a context"
        try:
            return await _within(_Frame(self.activity.cause_of(context), [], context), call(event))
        except BaseException as error:
            if self.at_once and any(isinstance(one, RetryLater) for one in with_members(error)):
                raise _at_once(error) from error
            raise

    def handler(self, registration: Registration, work: Work) -> Work:
        """Write down what a handler does."""

        async def watched(message: Any, unit: Unit) -> Any:
            outer = _current.get()
            assert outer is not None
            raised = _event_entry(outer, registration, message, unit)
            context = None if raised else outer.context
            entry = Entry("handled", message, registration, raised or outer.entry, context=context)
            self.entries.append(entry)
            if context is not None:
                self.activity.runs(entry, context)
            frame = _Frame(entry, outer.raised)
            return await _outcome(entry, _within(frame, work(message, self._unit(frame, unit))), unit)

        return watched

    def _add(self, what: What, message: Message, cause: Entry | None) -> Entry:
        entry = Entry(what, message, cause.by if cause else None, cause)
        entry.done = what == "published" and not is_brokered(type(message))  # the broker has to take those
        self.entries.append(entry)
        return entry

    def _unit(self, frame: _Frame, unit: Unit) -> Unit:
        """The unit of work as one handler sees it: what the handler raises is written down on its way."""
        return _SeenUnit(unit, self.activity, lambda event: self._raised(event, frame, unit))

    def _raised(self, event: Event, frame: _Frame, unit: Unit) -> Entry:
        entry = self._add("published", event, frame.entry)
        if not is_brokered(type(event)):
            frame.raised.append(_Raised(entry, unit))
        return entry


Write = Callable[[Event], Entry]


class _SeenUnit(Unit):
    """A unit of work for one handler, whose events are written down where it raises them."""

    __slots__ = ("_activity", "_unit", "_write")

    def __init__(self, unit: Unit, activity: Activity, write: Write) -> None:
        super().__init__(unit.resolve, {})
        self.provided = unit.provided
        self.events = _Events(unit.events, write)
        self._unit = unit
        self._activity = activity
        self._write = write

    def published(self) -> Published:
        published = _Published(self._write)
        published.unit = self
        return published

    def collect(self, event: Event, after: Delay | None = None, headers: Mapping[str, str] | None = None) -> None:
        self._unit.collect(event, after, headers)
        assert isinstance(self._unit, SendingUnit), "no other takes over an event"
        entry = self._write(event)
        entry.after, entry.headers = after, headers
        self._activity.took_over(self._unit.outbound[-1], entry)


class _Published(Published):
    """What a handler publishes through its `Publish`."""

    __slots__ = ("_write",)

    def __init__(self, write: Write) -> None:
        super().__init__()
        self._write = write

    def append(self, event: Event, /) -> None:
        super().append(event)
        self._write(event)


class _Events(list[Event]):
    """The events of the unit, for one handler. What a class handler keeps in its ``events`` is appended here."""

    def __init__(self, own: list[Event], write: Write) -> None:
        super().__init__()
        self._own, self._write = own, write

    def append(self, event: Event, /) -> None:
        self._own.append(event)
        self._write(event)

    def extend(self, events: Iterable[Event], /) -> None:
        self._own.extend(events)


class _Rows:
    """The rows of a stream, written down as they are read. Code of the handler runs whenever one is asked for."""

    def __init__(self, rows: AsyncIterator[Any], entry: Entry) -> None:
        self.read: list[Any] = []
        self._rows = rows
        self._entry = entry
        self._frame = _Frame(entry, [])

    def __aiter__(self) -> "_Rows":
        return self

    async def __anext__(self) -> Any:
        try:
            row = await _within(self._frame, anext(self._rows))
        except StopAsyncIteration:
            self._entry.done = True
            raise
        except BaseException as error:
            self._entry.error, self._entry.done = error, True
            raise
        self.read.append(row)
        return row

    async def aclose(self) -> None:
        self._entry.done = True
        close = getattr(self._rows, "aclose", None)
        if close is not None:
            await _within(self._frame, close())


async def _within(frame: _Frame, running: Any) -> Any:
    token = _current.set(frame)
    try:
        return await running
    finally:
        _current.reset(token)


async def _outcome(entry: Entry, running: Coroutine[Any, Any, Any], unit: Unit | None = None) -> Any:
    """Write down how an entry ends; the handler of a stream does so when its rows do."""
    try:
        result = await running
    except BaseException as error:
        entry.error, entry.done = error, True
        raise
    # What was sent is a stream where its rows come back: it has not ended yet.
    if isinstance(unit, StreamUnit) or (isinstance(entry.message, Query) and hasattr(result, "__anext__")):
        rows = _Rows(result, entry)
        entry.result = rows.read
        return rows
    entry.result = result
    entry.done = True
    return result


def _event_entry(frame: _Frame, registration: Registration, message: Message, unit: Unit) -> Entry | None:
    """The entry of the event that a handler has got: of several equal ones, the first that it has not had yet.

    A middleware may have put another event of its class in its place.
    """
    waiting = [r for r in frame.raised if r.unit in (None, unit) and registration not in r.handlers]
    same = [r for r in waiting if r.entry.message is message]
    alike = [r for r in waiting if type(r.entry.message) is type(message)]
    for raised in (*same, *alike):
        raised.handlers.add(registration)
        return raised.entry
    return None


def _published_here(events: Sequence[Event]) -> list[Entry]:
    """The entries of the brokered events of the ``app.publish`` that runs here."""
    frame = _current.get()
    assert frame is not None
    brokered = [
        raised.entry for raised in frame.raised if raised.unit is None and is_brokered(type(raised.entry.message))
    ]
    return brokered[: len(events)]


def _at_once(error: Any) -> Any:
    """An error that asks for a later retry as one that asks for it now. ``Any``: it may be a group of some package."""
    if isinstance(error, RetryLater):
        return RetryLater(0.0)
    return error.derive([*map(_at_once, error.exceptions)]) if hasattr(error, "derive") else error
