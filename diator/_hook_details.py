"""What hooks get: the details of what they wrap, and of what they are told."""

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
        """Which of the three."""
        self.messages = messages
        """The command or query; of ``app.publish``, its events."""
        self.result: Any = None
        """What it returns, once it has completed. ``Any``: each request has a result of its own."""
        self.rows: list[Any] | None = None
        """Set it to a list to have the rows of a stream appended to it. ``Any``: as above."""


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
        """The message; of a domain event or request, as middlewares have passed it on."""
        self.handler = handler
        """The handler as it was registered, with ``name``, ``kind`` and ``location``."""
        self.delivery = delivery
        """Of a brokered event, what the broker delivered: its topic, key, body and counts."""
        self.broker = broker
        """Of a brokered event, the broker that delivered it; its ``system`` and ``address`` name it in telemetry."""
        self.result: Any = None
        """What it returns, once it has completed. ``Any``: each request has a result of its own."""
        self.rows: list[Any] | None = None
        """Set it to a list to have the rows of a stream appended to it. ``Any``: as above."""


class Publishing(NamedTuple):
    """Messages are passed to the broker."""

    messages: "Sequence[OutgoingMessage]"
    context: Context | None
    """The context of the unit of work that published them."""
    broker: "Broker"
    """The broker that takes them; its ``system`` and ``address`` name it in telemetry."""


class Collected(_InContext):
    """An event was published, and waits for its handlers or for the end of its unit of work."""

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
        """The handler that published it; none of ``app.publish``."""
        self.message_id = message_id
        """The id that it will have as a message; none for a domain event, which stays in the process."""
        self.after = after
        """The delay that it was published with, in seconds or as a timedelta."""
        self.headers = headers
        """The headers that it was published with."""
        self.broker = broker
        """The app's broker; none for a domain event, which stays in the process."""


class Published(NamedTuple):
    """Events were handed to the broker, which took them."""

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
    """The age of the oldest of them in seconds, from when it was written or became due."""


class Received(NamedTuple):
    """Messages were taken from the broker; none has been looked at yet."""

    subscription: str
    deliveries: "Sequence[Delivery]"


class Handled(NamedTuple):
    """A handler has returned, or raised."""

    subscription: str
    event: "Event"
    context: Context
    seconds: float
    error: BaseException | None
    """What it raised; `asyncio.CancelledError` too."""
    message_type: str
    """The wire name of the event."""
    repeated: bool = False
    """Whether the inbox has it as handled already, so that the handler did not run; see ``Diator(store=...)``."""


class Retried(NamedTuple):
    """A message will be delivered again."""

    subscription: str
    context: Context | None
    """None where the message could not be read."""
    delay: float
    """In seconds."""
    error: BaseException | None
    message_type: str | None
    """The wire name of the event; None where the message could not be read."""


class DeadLettered(NamedTuple):
    """A message becomes a dead letter."""

    subscription: str
    context: Context | None
    """None where the message could not be read."""
    failure: "MoveToDeadLetters"
    message_type: str | None
    """The wire name of the event; None where the message could not be read."""


class Settled(NamedTuple):
    """The broker has recorded the outcome of a message."""

    subscription: str
    delivery: "Delivery"
    message_id: str | None
    """None where the message could not be read."""
    outcome: "Outcome"
    lease_lost: bool
    """Whether its lease was lost: another worker may hold it, and this outcome is discarded."""


for _public in (
    Sending, Handling, Publishing, Collected, Published, Received, Handled, Retried, DeadLettered, Settled, Stored,
    Relayed,
):  # fmt: skip
    _public.__module__ = "diator.hooks"
