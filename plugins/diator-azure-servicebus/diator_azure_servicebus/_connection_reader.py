"""One task reads a connection of the SDK for all calls that listen to it, and writing does not wait for reading.

In version 7.15 of the SDK each call that waits for an answer reads the socket itself, frame by frame, each in a task of
its own, and holds a lock that writing needs too. So a call that waits for messages blocks the calls that settle.
With a `ConnectionReader` all calls are woken when a frame has come, for any of them.
"""

import asyncio
from typing import Any

from azure.servicebus._pyamqp.error import AMQPConnectionError, ErrorCondition

_LISTEN = 0.5
"""Seconds of one call without a limit: calls that listen are woken when a frame comes, and need not look often."""


class ConnectionReader:
    """Reads until it is stopped, or the connection ends. Until then it replaces two methods of the connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._transport = connection._transport
        self._listen = connection.listen
        self._came = asyncio.get_running_loop().create_future()
        self._writing = asyncio.Lock()
        self._is_stopped = False
        connection.listen = self._wait
        self._transport.write = self._write
        self._task = asyncio.ensure_future(self._run())

    async def stop(self) -> None:
        """Leave the connection as it was: the SDK closes it in its own way."""
        del self._connection.listen, self._transport.write
        self._is_stopped = True
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        connection, receive = self._connection, self._transport.receive_frame
        try:
            while connection._can_read():
                # What has come with the last frame is there at once; so calls that wait are woken once for all of it.
                channel, frame = await receive()
                await connection._process_incoming_frame(channel, frame)
                self._wake()
            self._fail(ErrorCondition.ConnectionCloseForced, "The connection was closed.")
        except asyncio.CancelledError:
            if not self._is_stopped:  # as all tasks are at the end of an event loop
                self._fail(ErrorCondition.ConnectionCloseForced, "Reading was cancelled.")
            raise
        except Exception as error:  # noqa: BLE001 - each call that listens raises it
            self._fail(ErrorCondition.SocketError, f"The connection can't be read: {error}", error)
        finally:
            self._wake()

    def _fail(self, condition: ErrorCondition, description: str, error: Exception | None = None) -> None:
        """Make each call raise: ``listen`` does so from then on."""
        if self._connection._error is None:
            self._connection._error = AMQPConnectionError(condition, description=description, error=error)

    def _wake(self) -> None:
        if not self._came.done():
            self._came.set_result(None)

    async def _wait(self, wait: float | bool = False, batch: int = 1, **_: object) -> None:
        """Replace ``Connection.listen``: return when something has come, or after ``wait`` seconds."""
        await self._listen(batch=0)  # what it does beside reading: raise errors, keep the connection alive
        if batch == 0:
            return
        if self._came.done() and not self._task.done():
            self._came = asyncio.get_running_loop().create_future()
        seconds = None if wait is True else _LISTEN if wait is False else wait
        await asyncio.wait({self._came}, timeout=seconds)

    async def _write(self, data: bytes) -> None:
        """Replace ``AsyncTransport.write``: its lock is not the one that reading holds."""
        async with self._writing:
            await self._transport._write(data)
