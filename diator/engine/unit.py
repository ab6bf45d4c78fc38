"""The unit of work as it runs: its events, what has failed it, and how a middleware inside goes on."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from typing_extensions import Self

from diator._coroutines import marked
from diator._keys import Key
from diator.containers.port import Resolver
from diator.errors import CallNextError, DiatorError
from diator.messages import Event, Message

if TYPE_CHECKING:
    from diator.engine.outbound import Outbound

# Any: handlers of all signatures and results meet here.
Resolve = Callable[[Key], Awaitable[Any]]
UnitCall = Callable[[Any, "UnitOfWork"], Coroutine[Any, Any, Any]]
"""What runs inside a unit of work: takes the message and the unit."""

NO_VALUES: Mapping[Key, object] = MappingProxyType({})
"""What a sender provides that provides nothing."""

Delay = float | timedelta
"""The time before an event is delivered: seconds, or a timedelta."""


CLOSED: frozenset[type] = frozenset()
"""What a handler may publish once it has returned. It is compared by identity: the classes of others are sets."""


class HandlerRun:
    """One run of a handler that may publish: open until the handler has returned."""

    __slots__ = ("allowed", "events", "unit")

    allowed: set[type] | frozenset[type]
    """The classes of domain events that are accepted without another look; `CLOSED` after the end."""
    events: list[Event]
    """Where domain events go: those of the unit of work."""
    unit: "UnitOfWork"
    """Takes brokered events; not set in a plan without a unit of work."""


NO_RUN = HandlerRun()
"""What a unit has in the place of one, so that it need not ask."""


class UnitOfWork:
    """One unit of work: ``UnitOfWork().begin(...)``, which takes two thirds of the time that ``__init__`` would."""

    __slots__ = ("events", "failure", "provided", "resolve", "resolver", "run")

    events: list[Event]
    """The domain events of this unit, a list that grows while it is walked."""
    provided: Mapping[Key, object]
    failure: BaseException | None
    """What was raised inside, whether or not a middleware has let it through."""
    resolve: Resolve
    resolver: Resolver | None
    """The open scope, for the functions that resolve a key without awaiting; None without a scope."""
    run: HandlerRun
    """The last run of a handler that may publish. Between handlers it is closed."""

    def begin(self, resolve: Resolve, provided: Mapping[Key, object]) -> Self:
        """Begin without events; dependencies come from the values of the sender, then from ``resolve``."""
        self.events = []
        self.provided = provided
        self.failure = self.resolver = None
        self.run = NO_RUN
        self.resolve = _overlay(resolve, provided) if provided else resolve
        return self

    def open(self, resolver: Resolver) -> None:
        """Resolve dependencies from this scope from now on, after the values of the sender."""
        self.resolver = resolver
        self.resolve = _overlay(resolver.resolve, self.provided) if self.provided else resolver.resolve

    def collect(self, event: Event, _after: Delay | None, _headers: Mapping[str, str] | None, /) -> "Outbound":
        """Take over a brokered event. Raises `DiatorError`: in this unit of work no handler declares one."""
        text = f"{type(event).__qualname__} was defined after the app started, so the unit of work can't publish it"
        raise DiatorError(f"{text}; import the module of every event before the app starts")

    def fail(self, error: BaseException) -> None:
        """Remember the first error, whether or not a middleware lets it through."""
        if self.failure is None:
            self.failure = error

    def cancel(self, error: BaseException) -> None:
        """Raise the cancel that came while the unit closed without an error."""
        raise error


def _overlay(resolve: Resolve, provided: Mapping[Key, object]) -> Resolve:
    async def resolve_or_take(key: Key) -> Any:
        return provided[key] if key in provided else await resolve(key)

    return resolve_or_take


class StreamUnit(UnitOfWork):
    """The unit of work of a stream, which knows the rows as the handler gives them."""

    __slots__ = ("rows",)

    rows: Any
    """The async generator of the handler, which a middleware may have wrapped into another; set when it is called."""


def opening(call: UnitCall) -> UnitCall:
    """The work of a stream: calls the handler, whose rows are read later."""

    async def work(query: Any, unit: Any) -> Any:
        unit.rows = await call(query, unit)
        return unit.rows

    return work


@marked
class InnerCallNext:
    """The ``call_next`` of a middleware inside the unit of work: usable once, and remembers what has failed."""

    __slots__ = ("_under_way", "_unit", "_work")

    def __init__(self, work: UnitCall, unit: UnitOfWork) -> None:
        self._work: UnitCall | None = work
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
            self._unit.fail(error)
            raise
        finally:
            self._under_way = False

    def ensure_awaited(self, message: Message) -> None:
        """Raise `CallNextError` where the middleware has returned before what it called."""
        if self._under_way:
            text = f"a middleware returned while its call_next for {type(message).__qualname__} was still running"
            raise CallNextError(f"{text}; await call_next: the unit of work ends with the middleware")


def _twice(message: Message) -> str:
    text = f"call_next was called twice for {type(message).__qualname__}, by a middleware inside the unit of work"
    if isinstance(message, Event):
        return f"{text}; to retry, wrap the command instead: annotate the message as Command[Any]"
    return f"{text}; to retry, register it without inside=True: each call is then a new unit of work"
