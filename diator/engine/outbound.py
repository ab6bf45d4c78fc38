"""Outbound: the brokered events of a unit of work, from the moment a handler publishes them until they are handed over.

The engine has no broker and no store; `EventSender` is what it knows of either.
"""

from collections.abc import Awaitable, Callable, Collection, Container, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from diator._keys import Key
from diator._shielding import shielded
from diator.context import Context, current_context
from diator.engine.resources import ContainerScopes
from diator.engine.unit import NO_VALUES, Delay, UnitCall, UnitOfWork
from diator.messages import Event

if TYPE_CHECKING:
    from diator.stores.port import Transaction


class Outbound:
    """A brokered event of a unit of work, from the moment it is published until it is handed over."""

    __slots__ = ("after", "caused", "event", "headers", "id", "message", "number")

    def __init__(
        self, event: Event, event_id: str, after: float | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        self.event = event
        self.id = event_id
        self.after = after
        """The seconds before it is delivered."""
        self.headers = headers
        """The headers of this event alone."""
        self.number = 1
        """Counts the events of one class in a unit that was delivered, from 1."""
        self.caused = True
        """Whether the message of the context caused it; otherwise the context is its own."""
        self.message: Any = None
        """What the event has become, once it is sealed. ``Any``: the sender makes it, and nothing else reads it."""


class SendingUnit(UnitOfWork):
    """A unit of work that may publish brokered events, and owns them until they are handed over."""

    __slots__ = ("cancelled", "context", "outbound", "sender", "transaction")

    def __init__(self, context: Context, sender: "EventSender") -> None:
        self.context = context
        self.sender = sender
        self.cancelled: BaseException | None = None
        """The cancel that came while the unit closed without an error."""
        self.outbound: list[Outbound] = []
        """The brokered events, in the order of publishing."""
        self.transaction: Transaction | None = None
        """What a store does in the unit's transaction; none in an app without a store."""

    def collect(self, event: Event, after: Delay | None, headers: Mapping[str, str] | None, /) -> Outbound:
        """Take over a brokered event, and return it. Raises what its sender says of its delay or its headers."""
        self.sender.collect(self, event, after, headers)
        return self.outbound[-1]

    def fail(self, error: BaseException) -> None:
        """Remember the first error, and publish nothing."""
        super().fail(error)
        self.outbound.clear()
        if self.transaction is not None:
            self.transaction.fail()

    def cancel(self, error: BaseException) -> None:
        """Have the cancel raised when the events are handed over: what is committed belongs together with them."""
        self.cancelled = error


class EventSender(Protocol):
    """Where the brokered events of a unit of work go. The engine has no broker: this is what it knows of one.

    A unit passes three points: `begin`, before anything else runs inside it; `collect`, whenever a handler publishes;
    and the end, which is `hand_over` inside the unit and `send` after it.
    """

    @property
    def keys(self) -> Collection[Key]:
        """What it resolves from the unit, such as a database session."""
        ...

    @property
    def begin(self) -> Callable[[Any, SendingUnit], Awaitable[bool]] | None:
        """Called with the message before inner middlewares and handler; they do not run where it answers false.

        ``None`` compiles nothing into the plans. With it, `hand_over` and `send` are called for each unit that has
        completed, also where nothing was published.
        """
        ...

    @property
    def sees_deliveries(self) -> bool:
        """Whether deliveries pass these points also where their handlers publish nothing, as an inbox needs."""
        ...

    @property
    def cancel(self) -> Callable[[SendingUnit, str], Awaitable[bool]] | None:
        """Cancel a delayed event by its id, in the transaction of the unit. ``None`` where that is not possible."""
        ...

    def prepare(self, cls: type[Event], /) -> None:
        """Prepare a class of brokered events. Raises `ConfigurationError` if it can't be serialized."""
        ...

    def collect(
        self, unit: SendingUnit, event: Event, after: Delay | None, headers: Mapping[str, str] | None, /
    ) -> None:
        """Append an event to ``unit.outbound``. Raises `InvalidMessageError` for a delay or headers it can't carry."""
        ...

    async def hand_over(self, unit: SendingUnit, /) -> None:
        """Seal what is outbound, before inner middlewares return, since one of them may commit.

        What fails here fails the unit.
        """
        ...

    async def send(self, unit: SendingUnit, /) -> None:
        """Hand what is outbound to the broker, after the unit has completed. Raises `PublishError`."""
        ...


class EventPublisher(EventSender, Protocol):
    """The sender of an app, which also takes events that no command raised."""

    def collect_published(self, unit: SendingUnit, events: Sequence[Event], after: Delay | None, /) -> None:
        """Append the events of one ``app.publish`` to ``unit.outbound``; the context of the unit is theirs."""
        ...


Take = Callable[[SendingUnit, Sequence[Event], Delay | None], None]
"""Puts the events of one ``app.publish`` into their unit of work, with their delay."""


def hand_over_after(call: UnitCall, sender: EventSender) -> UnitCall:
    """Seal the brokered events of a unit when all its handlers have run."""
    always = sender.begin is not None

    async def work(message: Any, unit: Any) -> Any:  # a SendingUnit, in these plans
        result = await call(message, unit)
        if always or unit.outbound:
            await sender.hand_over(unit)
        return result

    return work


def ask_before(work: UnitCall, begin: Callable[[Any, SendingUnit], Awaitable[bool]]) -> UnitCall:
    """Ask the sender before anything else runs inside the unit, whether it is to run at all."""

    async def beginning(message: Any, unit: Any) -> Any:  # a SendingUnit, in these plans
        if not await begin(message, unit):
            return None
        try:
            return await work(message, unit)
        except BaseException as error:
            unit.fail(error)  # a middleware may have failed after the events were written
            raise

    return beginning


def compile_sending_unit(
    run: Callable[..., Coroutine[Any, Any, Any]],
    sender: EventSender,
    resources: ContainerScopes,
    take: Take | None = None,
) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Make the unit that owns its brokered events, and hand them to the broker once it has completed."""
    always = sender.begin is not None

    async def plan(message: Any, provided: Mapping[Key, object] = NO_VALUES, after: Delay | None = None) -> Any:
        context = current_context.get()
        assert context is not None, "plans that send set a context"
        unit = SendingUnit(context, sender).begin(resources.resolve, provided)
        published = None
        if take is not None:
            take(unit, message, after)
            published = unit.outbound[0].id if len(message) == 1 and unit.outbound else None
        result = await run(message, provided, unit)
        if always or unit.outbound:
            resources.enter()
            try:
                await (sender.send(unit) if unit.cancelled is None else shielded(sender.send(unit), unit.cancelled))
            finally:
                resources.leave()
        if unit.cancelled is not None:
            raise unit.cancelled
        return published or result

    return plan


def take_brokered(brokered: Container[type], sender: EventPublisher) -> Take:
    """Give the unit of one ``app.publish`` those of its events that leave."""

    def take(unit: SendingUnit, events: Sequence[Event], after: Delay | None) -> None:
        sender.collect_published(unit, [event for event in events if type(event) in brokered], after)

    return take
