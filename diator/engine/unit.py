"""The unit of work as it runs: its events, what has failed it, and how a middleware inside goes on."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from diator._keys import Key
from diator.errors import CallNextError
from diator.messages import Event, Message

# Any: handlers of all signatures and results meet here.
Resolve = Callable[[Key], Awaitable[Any]]
Work = Callable[[Any, "Unit"], Coroutine[Any, Any, Any]]
"""What runs inside a unit of work: takes the message and the unit."""

NO_VALUES: Mapping[Key, object] = MappingProxyType({})
"""What a sender provides that provides nothing."""

CLOSED: frozenset[type] = frozenset()
"""What may be published once the handler has returned."""


class Leaving:
    """The brokered events of one unit of work, and the messages that they became."""

    __slots__ = ("events", "messages")

    def __init__(self) -> None:
        self.events: Sequence[Event] = ()
        self.messages: Sequence[Any] = ()


class Noted:
    """A message, and where its unit of work notes what is to leave."""

    __slots__ = ("leaving", "message")

    def __init__(self, message: Any, leaving: Leaving) -> None:
        self.message = message
        self.leaving = leaving


class Published(list[Event]):
    """What one handler has published for one message."""

    __slots__ = ("allowed",)

    allowed: set[type] | frozenset[type]
    """The classes of events that it may publish, as far as they were let through before."""


class Unit:
    """One unit of work."""

    __slots__ = ("events", "failure", "leaving", "provided", "resolve")

    leaving: "Leaving"
    """What leaves when the unit has closed; set only in plans that can send."""

    def __init__(self, resolve: Resolve, provided: Mapping[Key, object]) -> None:
        self.events: list[Event] = []
        """The domain events of this unit, a list that grows while it is walked."""
        self.resolve = _overlay(resolve, provided) if provided else resolve
        self.provided = provided
        self.failure: BaseException | None = None
        """What was raised inside, whether or not a middleware has let it through."""

    def published(self) -> Published:
        """Make the list that collects what one handler publishes; it joins ``events`` when that handler has ended.

        Who watches an app (`diator.engine.plan.Watch`) puts a list of its own here.
        """
        return Published()


def _overlay(resolve: Resolve, provided: Mapping[Key, object]) -> Resolve:
    async def resolve_or_take(key: Key) -> Any:
        return provided[key] if key in provided else await resolve(key)

    return resolve_or_take


class StreamUnit(Unit):
    """The unit of work of a stream, which knows the rows as the handler gives them."""

    __slots__ = ("rows",)

    def __init__(self, resolve: Resolve, provided: Mapping[Key, object]) -> None:
        super().__init__(resolve, provided)
        self.rows: Any = None
        """The async generator of the handler, which a middleware may have wrapped into another."""


def opening(call: Work) -> Work:
    """The work of a stream: calls the handler, whose rows are read later."""

    async def work(query: Any, unit: Any) -> Any:
        unit.rows = await call(query, unit)
        return unit.rows

    return work


class Once:
    """The ``call_next`` of a middleware inside the unit of work: usable once, and remembers what has failed."""

    __slots__ = ("_under_way", "_unit", "_work")

    def __init__(self, work: Work, unit: Unit) -> None:
        self._work: Work | None = work
        self._unit = unit
        self._under_way = False

    async def __call__(self, message: Message, /) -> Any:
        """Go on, the first time; remember what fails there."""
        work, self._work = self._work, None
        if work is None:
            raise CallNextError(_twice(message))
        self._under_way = True
        try:
            return await work(message, self._unit)
        except BaseException as error:
            if self._unit.failure is None:
                self._unit.failure = error
            raise
        finally:
            self._under_way = False

    def refuse_if_left_behind(self, message: Message) -> None:
        """Raise `CallNextError` where the middleware has returned before what it called."""
        if self._under_way:
            text = f"a middleware returned while what it had called for {type(message).__qualname__} was still running"
            raise CallNextError(f"{text}; await call_next: the unit of work ends with the middleware")


def _twice(message: Message) -> str:
    text = f"call_next was called twice for {type(message).__qualname__}, by a middleware inside the unit of work"
    if isinstance(message, Event):
        return f"{text}, as those of events are; to try again, wrap the command: hint Command[Any]"
    return f"{text}; to try again, use a middleware without dependencies: each of its calls is a new unit of work"
