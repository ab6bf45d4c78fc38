"""What the SDK can do but does not offer.

`Reader`, `Turns`, `Copy` and `keep_payloads` use private parts of it as well, and nothing else does. All is
written for version 7.15. Each function falls back to what is public where a later version has taken away what it
needs.
"""

import time
from functools import partial
from typing import Any, cast

from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus._pyamqp.error import AMQPConnectionError, AMQPException
from azure.servicebus.aio import ServiceBusReceiver, ServiceBusSender
from azure.servicebus.exceptions import MessageLockLostError, ServiceBusConnectionError

_LOOK, _DRAIN = 0.5, 0.1
"""Seconds of waiting before the token is looked at again, and for what is still on its way."""
_GAP = 0.002
"""Seconds after messages within which the next one must come to be of the same batch."""


async def fetch(receiver: ServiceBusReceiver, limit: int, seconds: float) -> list[ServiceBusReceivedMessage]:
    """Wait for messages and give at most ``limit``; none after so many seconds. Opens the link where it is closed.

    As ``receive_messages``, which waits for another 0.2 s after each message for one more: too long for a handler that
    has nothing to do. It may be cancelled: what had come then is kept for `take_back` and the next call.
    """
    private = cast("Any", receiver)
    if not hasattr(private, "_do_retryable_operation") or not hasattr(private, "_receive_context"):
        return await receiver.receive_messages(limit, seconds)
    private._check_live()
    found: list[ServiceBusReceivedMessage] = await private._do_retryable_operation(
        partial(_fetch, private, limit), timeout=seconds, operation_requires_timeout=True
    )
    return found


async def _fetch(private: Any, limit: int, timeout: float) -> list[ServiceBusReceivedMessage]:
    end = time.monotonic() + timeout
    private._receive_context.set()
    try:
        await private._open(timeout)
        handler = private._handler
        came = handler._received_messages
        if (missing := limit - came.qsize()) > 0:
            await _ask(handler._link, missing)
        while came.empty() and (left := end - time.monotonic()) > 0:
            if handler._shutdown:
                break
            if await handler.client_ready_async():
                await handler._connection.listen(wait=min(_LOOK, left))
        await _take_what_follows(handler, came, limit)
        return [private._build_received_message(came.get_nowait()) for _ in range(min(limit, came.qsize()))]
    finally:
        private._receive_context.clear()


async def _ask(link: Any, number: int) -> None:
    """Ask for so many messages, unless about as many are on their way."""
    if not number // 2 < link.current_link_credit <= number:
        await link.flow(link_credit=number)


async def _take_what_follows(handler: Any, came: Any, limit: int) -> None:
    """Wait for the rest of a batch. One that comes alone is not of any."""
    while 1 < (before := came.qsize()) < limit:
        await handler._connection.listen(wait=_GAP)
        if came.qsize() == before:
            return


async def take_back(receiver: ServiceBusReceiver) -> None:
    """Take no more messages, and give back those that are on their way: as ``close`` does, but the link stays open.

    Without it a message could lie in the socket of a receiver that nobody asks, locked. Takes 0.1 s after the last that
    comes. Where it can't be done the receiver is closed; it opens a new link when it is asked again.
    """
    private = cast("Any", receiver)
    handler = getattr(private, "_handler", None)
    if handler is None:
        return
    try:
        if handler._link.current_link_credit > 0:
            await handler._link.flow(link_credit=0, drain=True)
            await _until_nothing_comes(handler)
        await private._amqp_transport.drain_and_release_messages_async(handler)
    except (AttributeError, AMQPException):
        await private._close_handler()


async def _until_nothing_comes(handler: Any) -> None:
    """Wait until no message has come for a while. Other frames don't count: settlements may be confirmed meanwhile."""
    before, ends = -1, 0.0
    while True:
        count, now = handler._received_messages.qsize(), time.monotonic()
        if count != before:
            before, ends = count, now + _DRAIN
        if now >= ends:
            return
        await handler._connection.listen(wait=ends - now)


async def ensure_open(sdk: ServiceBusSender | ServiceBusReceiver) -> None:
    """Open the link where it is closed. The SDK does so for sending and receiving, and not for settling."""
    if not is_open(sdk):
        await sdk.__aenter__()


def tell_roles_apart(session: Any) -> None:
    """Give a confirmation to the links that it is for: its role is that of who settles (AMQP 1.0, part 2, 2.7.6).

    In version 7.15 the confirmation that delivery 3 is a dead letter also passes for the answer to request 3 of the
    management node. That has no outcome that way, and waits for ever.
    """
    if not hasattr(session, "_input_handles"):
        return

    async def incoming(frame: Any) -> None:
        for link in tuple(session._input_handles.values()):
            if link.role != frame[0]:
                await link._incoming_disposition(frame)

    session._incoming_disposition = incoming


def is_open(sdk: ServiceBusSender | ServiceBusReceiver) -> bool:
    """Whether a link is there, as far as anybody knows; the SDK opens it where it is needed."""
    return bool(getattr(sdk, "_running", True))


def link_of(receiver: ServiceBusReceiver) -> object:
    """Give the link that the receiver has now; deliveries belong to the one that they came by."""
    return getattr(getattr(receiver, "_handler", None), "_link", None)


async def give_back(receiver: ServiceBusReceiver, message: ServiceBusReceivedMessage, link: object) -> bool:
    """Give a message back without counting a delivery: AMQP's outcome ``released``, which the SDK has on closing.

    False where the count goes up all the same, since the message came by a link that is gone: it is abandoned then.
    """
    handler: Any = getattr(receiver, "_handler", None)
    delivery = cast("Any", message)
    if link is not None and link is link_of(receiver) and hasattr(handler, "settle_messages_async"):
        try:
            await handler.settle_messages_async(delivery._delivery_id, delivery._delivery_tag, "released")
        except AMQPConnectionError as error:
            raise ServiceBusConnectionError(message=str(error), error=error) from error
        except AMQPException as error:  # the link knows no such delivery
            raise MessageLockLostError(message=str(error), error=error) from error
        delivery._settled = True
        return True
    await receiver.abandon_message(message)
    return False
