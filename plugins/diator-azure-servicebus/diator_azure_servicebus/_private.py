"""Senders and receivers as version 7.15 of the SDK allows: overridden where it is slow, or hangs, or forgets."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any, cast

from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus._pyamqp.aio._session_async import Session
from azure.servicebus._pyamqp.error import AMQPConnectionError, AMQPException
from azure.servicebus.exceptions import MessageLockLostError, OperationTimeoutError, ServiceBusConnectionError

from diator_azure_servicebus._connection_reader import ConnectionReader
from diator_azure_servicebus._sdk import Receiver, Sender
from diator_azure_servicebus._transfers import PAYLOAD, Client, RoleSession, readable

_READ_INTERVAL, _DRAIN = 0.5, 0.1
"""Seconds of waiting before the token is looked at again, and for what is still on its way."""
_GAP = 0.002
"""Seconds after messages within which the next one must come to be of the same batch."""


def adapt(sdk: Any, patience: float) -> None:
    """Make it one of the classes below. Opening may take ``patience`` seconds."""
    is_receiver = isinstance(sdk, Receiver)
    sdk.__class__ = _Receiver if is_receiver else _Sender
    if is_receiver:
        cast("_Receiver", sdk).keep_payloads()
    _LinkOpener(sdk, patience)


_opening: "ContextVar[_LinkOpener | None]" = ContextVar("diator_azure_servicebus_opening", default=None)
"""What is being opened in this task, and in those that it has started for that."""


class _LinkOpener:
    """Has one task at a time open or close the link, never forever, and leaves no socket behind.

    In version 7.15 each call that finds the connection broken closes the link and opens another, beside the others that
    do the same, and does so also while it is closed permanently. An unanswered opening blocks all other calls.
    And the socket stays open where the peer has hung up first, or where opening is cut short.
    """

    def __init__(self, sdk: Any, patience: float) -> None:
        self._sdk = sdk
        self._sdk_open, self._sdk_close_handler, self._sdk_close = sdk._open, sdk._close_handler, sdk.close
        sdk._open, sdk._close_handler, sdk.close = self._open, self._close_handler, self._close
        self._patience = patience
        self._lock = asyncio.Lock()
        self._reader: ConnectionReader | None = None
        self._is_closed = False

    @property
    def _connection(self) -> Any:
        return getattr(self._sdk._handler, "_connection", None)

    async def _open(self, timeout: float | None = None) -> None:
        if self._sdk._running:
            return
        seconds = self._patience if timeout is None else min(timeout, self._patience)
        try:
            await asyncio.wait_for(self._open_in_turn(timeout), seconds)
        except asyncio.TimeoutError as error:
            raise OperationTimeoutError(message=f"the link did not open within {seconds:g} s") from error

    async def _open_in_turn(self, timeout: float | None) -> None:
        async with self._lock:
            if self._is_closed:
                raise ServiceBusConnectionError(message="the link was closed permanently")
            if self._sdk._running:
                return
            await self._stop_reading()
            before = self._connection
            token = _opening.set(self)
            try:
                await self._sdk_open(timeout)
            except BaseException:
                await _hang_up(self._connection)
                raise
            finally:
                _opening.reset(token)
                if before is not self._connection:
                    await _hang_up(before)
            if type(session := getattr(self._sdk._handler, "_session", None)) is Session:
                session.__class__ = RoleSession
            self._reader = ConnectionReader(self._connection)

    async def _stop_reading(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.stop()

    async def _close_handler(self) -> None:
        handler = self._sdk._handler
        if _opening.get() is self:  # and has failed
            await self._hang_up_after_closing()
            return
        async with self._lock:
            if self._sdk._handler is handler:
                await self._stop_reading()
                await self._hang_up_after_closing()

    async def _hang_up_after_closing(self) -> None:
        connection = self._connection
        try:
            await self._sdk_close_handler()
        finally:
            await _hang_up(connection)

    async def _close(self) -> None:
        self._is_closed = True
        try:
            await self._sdk_close()
        finally:  # also if closing is cut short: a connection that stays open keeps its session locked
            writer = getattr(getattr(self._connection, "_transport", None), "writer", None)
            if writer is not None:
                writer.close()


async def _hang_up(connection: Any) -> None:
    transport = getattr(connection, "_transport", None)
    if transport is not None:
        with contextlib.suppress(Exception):
            await asyncio.wait_for(transport.close(), 1.0)


class _Sender(Sender):
    @property
    def is_open(self) -> bool:
        return bool(cast("Any", self)._running)


class _Receiver(Receiver):
    @property
    def _private(self) -> Any:  # the SDK has no types for what it keeps to itself
        return self

    @property
    def is_open(self) -> bool:
        return bool(self._private._running)

    @property
    def link(self) -> object:
        return getattr(self._private._handler, "_link", None)

    def keep_payloads(self) -> None:
        """Keep the bytes of each message that is received."""
        build = self._private._build_received_message

        def build_received_message(received: Any) -> Any:
            return _kept(build(received), received[0][PAYLOAD])

        self._private._build_received_message = build_received_message

    async def fetch(self, limit: int, seconds: float) -> list[ServiceBusReceivedMessage]:
        self._private._check_live()
        found: list[ServiceBusReceivedMessage] = await self._private._do_retryable_operation(
            partial(self._fetch, limit), timeout=seconds, operation_requires_timeout=True
        )
        return found

    async def _fetch(self, limit: int, timeout: float) -> list[ServiceBusReceivedMessage]:
        end = time.monotonic() + timeout
        self._private._receive_context.set()
        try:
            await self._private._open(timeout)
            handler = self._private._handler
            came, link = handler._received_messages, handler._link
            missing = limit - came.qsize()
            if missing > 0 and not missing // 2 < link.current_link_credit <= missing:  # else about as many are coming
                await link.flow(link_credit=missing)
            while came.empty() and (left := end - time.monotonic()) > 0 and not handler._shutdown:
                if await handler.client_ready_async():
                    await handler._connection.listen(wait=min(_READ_INTERVAL, left))
            before = 0
            while before < came.qsize() < limit and came.qsize() > 1:  # one that comes alone is not of any batch
                before = came.qsize()
                await handler._connection.listen(wait=_GAP)
            build = self._private._build_received_message
            return [build(came.get_nowait()) for _ in range(min(limit, came.qsize()))]
        finally:
            self._private._receive_context.clear()

    async def return_prefetched(self) -> None:
        handler = self._private._handler
        if handler is None:
            return
        try:
            if handler._link.current_link_credit > 0:
                await handler._link.flow(link_credit=0, drain=True)
                before, ends = -1, 0.0
                while (now := time.monotonic()) < ends or handler._received_messages.qsize() != before:
                    if (count := handler._received_messages.qsize()) != before:
                        before, ends = count, now + _DRAIN  # other frames don't count, such as confirmations
                    await handler._connection.listen(wait=ends - now)
            await self._private._amqp_transport.drain_and_release_messages_async(handler)
        except (AttributeError, AMQPException):
            await self._private._close_handler()

    async def release(self, message: ServiceBusReceivedMessage, link: object) -> None:
        if link is None or link is not self.link:
            await self.abandon_message(message)
            return
        delivery = cast("Any", message)
        try:
            handler = self._private._handler
            await handler.settle_messages_async(delivery._delivery_id, delivery._delivery_tag, "released")
        except AMQPConnectionError as error:
            raise ServiceBusConnectionError(message=str(error), error=error) from error
        except AMQPException as error:  # the link knows no such delivery
            raise MessageLockLostError(message=str(error), error=error) from error
        delivery._settled = True

    def _create_handler(self, auth: Any) -> None:
        cast("Any", super())._create_handler(auth)
        self._private._handler.__class__ = Client

    async def _mgmt_request_response_with_retry(
        self, mgmt_operation: Any, message: Any, callback: Any, timeout: float | None = None, **options: Any
    ) -> Any:
        request = cast("Any", super())._mgmt_request_response_with_retry
        return await request(mgmt_operation, message, partial(_answered, callback), timeout, **options)


def _kept(message: Any, payload: object) -> Any:
    message.diator_payload = payload
    return message


def _answered(callback: Callable[..., Any], status: Any, answer: Any, description: Any, **options: Any) -> Any:
    """Take the answer to a request, which may be messages that were peeked at."""
    wrapped: list[dict[bytes, Any]] = answer.value.get(b"messages", []) if hasattr(answer.value, "get") else []
    payloads: list[bytes] = [one[b"message"] for one in wrapped]
    for one in wrapped:
        one[b"message"] = readable(one[b"message"])
    result = callback(status, answer, description, **options)
    return [*map(_kept, result, payloads)] if payloads else result
