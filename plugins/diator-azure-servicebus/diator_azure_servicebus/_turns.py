"""Opening and closing links of the SDK: one task at a time, never for ever, and with no socket left behind.

In version 7.15 each call that finds the connection broken closes the link and opens another, beside the others that do
the same, and does so also while it is closed for good. An opening that is not answered holds up everybody else. And the
socket stays open where the peer has hung up first, or where opening is cut short.
"""

import asyncio
import contextlib
from contextvars import ContextVar
from typing import Any, cast

from azure.servicebus.aio import ServiceBusReceiver, ServiceBusSender
from azure.servicebus.exceptions import OperationTimeoutError, ServiceBusConnectionError

from diator_azure_servicebus._payloads import keep_payloads
from diator_azure_servicebus._reader import Reader
from diator_azure_servicebus._sdk import tell_roles_apart

_PATIENCE = 10.0
"""Seconds that opening may take; it takes half a second."""
_NEEDED = ("_open", "_close_handler", "_create_handler", "_handler", "_running")

_opening: "ContextVar[Turns | None]" = ContextVar("diator_azure_servicebus_opening", default=None)
"""What is being opened in this task, and in those that it has started for that."""


def tidy(sdk: ServiceBusSender | ServiceBusReceiver, patience: float = _PATIENCE) -> None:
    """Have a link opened and closed in turns, read by one task, and its messages kept as they came.

    Opening may take ``patience`` seconds.
    """
    private = cast("Any", sdk)
    if all(hasattr(private, name) for name in _NEEDED):
        Turns(private, patience)
    if isinstance(sdk, ServiceBusReceiver):
        keep_payloads(sdk)


class Turns:
    """Stands in for what opens and closes the link of one sender or receiver. ``Any``: all of it is private."""

    def __init__(self, private: Any, patience: float) -> None:
        self._private = private
        self._patience = patience
        self._sdk_open, self._sdk_close_handler, self._sdk_close = private._open, private._close_handler, private.close
        private._open, private._close_handler, private.close = self._open, self._close_handler, self._close
        self._lock = asyncio.Lock()
        self._reader: Reader | None = None
        self._is_closed = False

    async def _open(self, timeout: float | None = None) -> None:
        if self._private._running:
            return
        seconds = self._patience if timeout is None else min(timeout, self._patience)
        try:
            await asyncio.wait_for(self._open_in_turn(timeout), seconds)
        except asyncio.TimeoutError as error:
            raise OperationTimeoutError(message=f"the link did not open within {seconds:g} s") from error

    async def _open_in_turn(self, timeout: float | None) -> None:
        async with self._lock:
            if self._is_closed:
                raise ServiceBusConnectionError(message="the link was closed for good")
            if self._private._running:
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
            tell_roles_apart(getattr(self._private._handler, "_session", None))
            connection = self._connection
            self._reader = Reader(connection) if Reader.can_read(connection) else None

    @property
    def _connection(self) -> Any:
        return getattr(self._private._handler, "_connection", None)

    async def _stop_reading(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.stop()

    async def _close_handler(self) -> None:
        handler = self._private._handler
        if _opening.get() is self:  # and has failed
            await self._hang_up_after_closing()
            return
        async with self._lock:
            if self._private._handler is handler:
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
