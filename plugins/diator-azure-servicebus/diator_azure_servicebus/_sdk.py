"""Senders and receivers of the SDK, with what they can do but do not offer.

What is private to the SDK is used by `_private`, `_reader`, `_transfers` and `_copies`, in version 7.15, which the
distribution is pinned to. With any other version messages are sent and received with what is public: more slowly, and
without what the methods here add.
"""

from typing import Any, cast

from azure.servicebus import ServiceBusReceivedMessage, __version__
from azure.servicebus.aio import ServiceBusReceiver, ServiceBusSender

KNOWN = __version__.startswith("7.15.")
OPEN_TIMEOUT = 10.0
"""Seconds that opening a link may take; it takes half a second."""


class Sender(ServiceBusSender):
    """A sender, by what is public."""

    @property
    def is_open(self) -> bool:
        """Whether a link is there, as far as is known. The SDK opens it to send and to receive, and not to settle."""
        return True


class Receiver(ServiceBusReceiver):
    """A receiver, by what is public."""

    @property
    def is_open(self) -> bool:
        """Whether a link is there, as far as is known."""
        return True

    @property
    def link(self) -> object:
        """The link that the receiver has now; deliveries belong to the one that they came by."""
        return None

    async def fetch(self, limit: int, seconds: float) -> list[ServiceBusReceivedMessage]:
        """Wait for messages and return at most ``limit``; none after so many seconds. Opens the link if it is closed.

        As ``receive_messages``, which waits for another 0.2 s after each message for one more: too long for a handler
        that has nothing to do. It may be cancelled: what had come then is kept for the next call, or released by
        `return_prefetched`.
        """
        return await self.receive_messages(limit, seconds)

    async def return_prefetched(self) -> None:
        """Take no more messages, and release those that are on their way: as ``close`` does, but the link stays open.

        Without it a locked message could lie in the socket of a receiver that no call uses.
        """

    async def release(self, message: ServiceBusReceivedMessage, link: object) -> None:  # noqa: ARG002 - a replacement needs it
        """Release a message without counting a delivery, if the link that it came by is still there."""
        await self.abandon_message(message)


def adapt_sender(sdk: ServiceBusSender) -> Sender:
    """Return the sender, with what `Sender` adds."""
    return cast("Sender", _adapt(sdk, Sender, OPEN_TIMEOUT))


def adapt(sdk: ServiceBusReceiver, patience: float = OPEN_TIMEOUT) -> Receiver:
    """Return the receiver, with what `Receiver` adds. Opening may take ``patience`` seconds."""
    return cast("Receiver", _adapt(sdk, Receiver, patience))


def _adapt(sdk: Any, public: type, patience: float) -> Any:
    sdk.__class__ = public
    if KNOWN:
        from diator_azure_servicebus import _private  # noqa: PLC0415 - only that version has what it needs

        _private.adapt(sdk, patience)
    return sdk


def payload_of(message: ServiceBusReceivedMessage) -> bytes | None:
    """Return the bytes of a message; None if the SDK has not kept them."""
    payload: Any = getattr(message, "diator_payload", None)
    return None if payload is None else bytes(payload)
