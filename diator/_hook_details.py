"""The details that hooks receive."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from diator.context import Context
from diator.errors import DiatorError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from diator.brokers.envelope import OutgoingMessage
    from diator.brokers.port import Broker, Delivery, MoveToDeadLetters, Outcome
    from diator.engine.registrations import Registration
    from diator.messages import Event, Message
    from diator.stores.port import StoredMessage

Verb = Literal["send", "stream", "publish"]


class _InContext:
    """Details of something that has a context."""

    __slots__ = ("_context",)

    def __init__(self, context: Context | None) -> None:
        self._context = context

    @property
    def context(self) -> Context:
        """The ids, headers and, of a brokered event, subscription and attempt of the message.

        Raises `DiatorError` if it has none, since neither a handler nor a hook needs one.
        """
        if self._context is None:
            raise DiatorError("the message has no context, since nothing needs one; set needs_context = True")
        return self._context


class Sending(_InContext):
    """``app.send``, ``app.stream`` or ``app.publish`` runs, called by the application or by a handler."""

    __slots__ = ("messages", "result", "rows", "verb")

    def __init__(self, verb: Verb, messages: "tuple[Message, ...]", context: Context | None) -> None:
        super().__init__(context)
        self.verb: Verb = verb
        """The name of the method."""
        self.messages = messages
        """The command or query; for ``app.publish``, its events."""
        self.result: Any = None
        """The result, after it has completed. ``Any``: each request has its own type."""
        self.rows: list[Any] | None = None
        """Set it to a list to collect the rows of a stream. ``Any``: as above."""


class Handling(_InContext):
    """A handler runs."""

    __slots__ = ("broker", "delivery", "handler", "message", "result", "rows")

    def __init__(
        self,
        message: "Message",
        handler: "Registration",
        context: Context | None,
        delivery: "Delivery | None" = None,
        broker: "Broker | None" = None,
    ) -> None:
        super().__init__(context)
        self.message = message
        """The message; for a domain event or a request, as passed on by middlewares."""
        self.handler = handler
        """The registered handler, with ``name``, ``kind`` and ``location``."""
        self.delivery = delivery
        """For a brokered event, the delivery from the broker: its topic, key, body and counts."""
        self.broker = broker
        """For a brokered event, its broker; ``system`` and ``address`` are its names in telemetry."""
        self.result: Any = None
        """The result, after it has completed. ``Any``: each request has its own type."""
        self.rows: list[Any] | None = None
        """Set it to a list to collect the rows of a stream. ``Any``: as above."""


class Publishing(NamedTuple):
    """Messages are sent to the broker."""

    messages: "Sequence[OutgoingMessage]"
    context: Context | None
    """The context of the unit of work that published them."""
    broker: "Broker"
    """The broker; ``system`` and ``address`` are its names in telemetry."""


class Collected(_InContext):
    """An event was published. It now waits for its handlers, or for the end of its unit of work."""

    __slots__ = ("after", "broker", "event", "handler", "headers", "message_id")

    def __init__(
        self,
        event: "Event",
        handler: "Registration | None",
        context: Context | None,
        message_id: str | None,
        after: "float | timedelta | None" = None,
        headers: Mapping[str, str] | None = None,
        broker: "Broker | None" = None,
    ) -> None:
        super().__init__(context)
        self.event = event
        self.handler = handler
        """The handler that published it; ``None`` for ``app.publish``."""
        self.message_id = message_id
        """The id of its message; ``None`` for a domain event, which stays in the process."""
        self.after = after
        """Its delay, in seconds or as a timedelta."""
        self.headers = headers
        """Its own headers."""
        self.broker = broker
        """The app's broker; ``None`` for a domain event, which stays in the process."""


class Published(NamedTuple):
    """The broker has stored events."""

    messages: "Sequence[OutgoingMessage]"
    seconds: float


class Stored(NamedTuple):
    """Events were written to the outbox, and committed."""

    messages: "Sequence[OutgoingMessage]"
    context: Context | None
    """The context of the unit of work that published them."""


class Relayed(NamedTuple):
    """Rows of the outbox were published."""

    rows: "Sequence[StoredMessage]"
    oldest: float
    """The age of the oldest one in seconds, since it was written or became due."""


class Received(NamedTuple):
    """Messages were received from the broker; none has been read yet."""

    subscription: str
    deliveries: "Sequence[Delivery]"


class Handled(NamedTuple):
    """A handler has returned, or raised an error."""

    subscription: str
    event: "Event"
    context: Context
    seconds: float
    error: BaseException | None
    """The error that it raised, including `asyncio.CancelledError`."""
    message_type: str
    """The wire name of the event."""
    repeated: bool = False
    """Whether the inbox already contained the message, so that the handler did not run; see ``Diator(store=...)``."""


class Retried(NamedTuple):
    """A message will be redelivered after a failure."""

    subscription: str
    context: Context | None
    """None if the message could not be read."""
    delay: float
    """The delay in seconds."""
    error: BaseException | None
    message_type: str | None
    """The wire name of the event; None if the message could not be read."""


class DeadLettered(NamedTuple):
    """A message becomes a dead letter."""

    subscription: str
    context: Context | None
    """None if the message could not be read."""
    failure: "MoveToDeadLetters"
    message_type: str | None
    """The wire name of the event; None if the message could not be read."""


class Settled(NamedTuple):
    """The broker has recorded the outcome of a message."""

    subscription: str
    delivery: "Delivery"
    message_id: str | None
    """None if the message could not be read."""
    outcome: "Outcome"
    lease_lost: bool
    """Whether its lease was lost: another worker may hold it, and this outcome is discarded."""


for _public in (
    Sending, Handling, Publishing, Collected, Published, Received, Handled, Retried, DeadLettered, Settled, Stored,
    Relayed,
):  # fmt: skip
    _public.__module__ = "diator.hooks"
