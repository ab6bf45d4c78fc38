"""What the SDK can do but does not offer: everything private that this plugin uses of it, version 7.15, in one place.

Each function falls back to what is public where a later version has taken away what it needs.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Generator
from contextvars import ContextVar
from functools import partial
from typing import Any, cast

from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus._pyamqp.error import AMQPConnectionError, AMQPException
from azure.servicebus.aio import ServiceBusReceiver, ServiceBusSender
from azure.servicebus.exceptions import MessageLockLostError, ServiceBusConnectionError

_LONG, _SHORT, _DRAIN = 0.2, 0.02, 0.05
"""Seconds of one look at the socket: alone, with others, and for what is still on its way (twice)."""
_GAP = 0.002
"""Seconds after a message within which the next one must come to be of the same batch."""


async def fetch(
    receiver: ServiceBusReceiver, limit: int, seconds: float, is_shared: Callable[[], bool] = lambda: False
) -> list[ServiceBusReceivedMessage]:
    """Wait for messages and give at most ``limit``; none after so many seconds. Opens the link where it is closed.

    As ``receive_messages``, which waits for another 0.2 s after each message for one more: too long for a handler that
    has nothing to do. It may be cancelled: what had come then is kept for `take_back` and the next call.

    While it looks for a message nobody else can use the connection. So each look is long where it is alone, which is
    cheap, and short where ``is_shared`` says that something may have to be settled.
    """
    private = cast("Any", receiver)
    if not hasattr(private, "_do_retryable_operation") or not hasattr(private, "_receive_context"):
        return await receiver.receive_messages(limit, seconds)
    private._check_live()
    work = partial(_fetch, private, limit, is_shared)
    found: list[ServiceBusReceivedMessage] = await private._do_retryable_operation(
        work, timeout=seconds, operation_requires_timeout=True
    )
    return found


async def _fetch(
    private: Any, limit: int, is_shared: Callable[[], bool], timeout: float
) -> list[ServiceBusReceivedMessage]:
    end = time.monotonic() + timeout
    private._receive_context.set()
    try:
        await private._open(timeout)
        handler = private._handler
        came = handler._received_messages
        if came.empty():
            await handler._link.flow(link_credit=limit)
        while came.empty() and time.monotonic() < end:
            with _looking(handler, _SHORT if is_shared() else _LONG):
                if not await handler.do_work_async():
                    break
        await _take_what_follows(handler, came, limit)
        return [private._build_received_message(came.get_nowait()) for _ in range(min(limit, came.qsize()))]
    finally:
        private._receive_context.clear()


@contextlib.contextmanager
def _looking(handler: Any, seconds: float) -> Generator[None, None, None]:
    """Let the client look at its socket for so long at a time."""
    before = handler._socket_timeout
    handler._socket_timeout = seconds
    try:
        yield
    finally:
        handler._socket_timeout = before


async def _take_what_follows(handler: Any, came: Any, limit: int) -> None:
    while 0 < (before := came.qsize()) < limit:
        await handler._connection.listen(wait=_GAP, batch=limit - before)
        if came.qsize() == before:
            return


async def take_back(receiver: ServiceBusReceiver) -> None:
    """Take no more messages, and give back those that are on their way: as ``close`` does, but the link stays open.

    Without it a message could lie in the socket of a receiver that nobody asks, locked. Takes up to twice the socket
    timeout. Where it can't be done the receiver is closed; it opens a new link when it is asked again.
    """
    private = cast("Any", receiver)
    handler = getattr(private, "_handler", None)
    if handler is None:
        return
    try:
        with _looking(handler, _DRAIN):
            await private._amqp_transport.drain_and_release_messages_async(handler)
    except (AttributeError, AMQPException):
        await private._close_handler()


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


def tidy(sdk: ServiceBusSender | ServiceBusReceiver) -> None:
    """Let a link be opened and closed by one task at a time, and leave no socket open where opening fails.

    In version 7.15 each call that finds the connection broken closes the link and opens another, beside the others that
    do the same; and one whose opening is cut short keeps its socket.
    """
    private = cast("Any", sdk)
    if all(hasattr(private, name) for name in ("_open", "_close_handler", "_create_handler")):
        _Turns(private)


_opening: "ContextVar[_Turns | None]" = ContextVar("diator_azure_servicebus_opening", default=None)
"""What is being opened in this task, and in those that it has started for that."""


class _Turns:
    def __init__(self, private: Any) -> None:
        self._private = private
        self._opening, self._closing = private._open, private._close_handler
        self._lock = asyncio.Lock()
        private._open, private._close_handler = self._open, self._close

    async def _open(self, *args: Any, **kwargs: Any) -> None:
        if self._private._running:
            return
        async with self._lock:
            token = _opening.set(self)
            try:
                await self._opening(*args, **kwargs)
            finally:
                _opening.reset(token)

    async def _close(self) -> None:
        handler = self._private._handler
        if _opening.get() is self:  # and has failed
            try:
                await self._closing()
            finally:
                await _hang_up(handler)
            return
        async with self._lock:
            if self._private._handler is handler:
                await self._closing()


async def _hang_up(handler: Any) -> None:
    transport = getattr(getattr(handler, "_connection", None), "_transport", None)
    if transport is not None:
        with contextlib.suppress(Exception):
            await asyncio.wait_for(transport.close(), 1.0)
