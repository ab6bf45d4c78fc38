"""Hooks: what an app tells about its brokered events, for metrics, tracing and tests."""

from typing import TYPE_CHECKING, NamedTuple

from diator._hooks import Hooks
from diator.context import Context

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diator.brokers.envelope import Outgoing
    from diator.brokers.port import Delivery, Outcome, Park
    from diator.messages import Event

__all__ = ["Handled", "Hooks", "Parked", "Published", "Received", "Retried", "Settled"]


class Published(NamedTuple):
    """Events were handed to the broker, which took them."""

    messages: "Sequence[Outgoing]"
    seconds: float


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


class Retried(NamedTuple):
    """A message will be delivered again."""

    subscription: str
    context: Context | None
    """None where the message could not be read."""
    delay: float
    """In seconds."""
    error: BaseException | None


class Parked(NamedTuple):
    """A message becomes a dead letter."""

    subscription: str
    context: Context | None
    """None where the message could not be read."""
    why: "Park"


class Settled(NamedTuple):
    """The broker has taken down what became of a message."""

    subscription: str
    delivery: "Delivery"
    message_id: str | None
    """None where the message could not be read."""
    outcome: "Outcome"
    lost: bool
    """Whether its lease had been lost, so that somebody else has it and nothing was taken down."""
