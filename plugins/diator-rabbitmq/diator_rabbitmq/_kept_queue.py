"""Queues that are read without being emptied: one process at a time reads one, and what it does not remove goes back.

AMQP shows a message only by delivering it.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from uuid import uuid4

from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp.commands import Basic

from diator.errors import BrokerError, BrokerUnavailableError
from diator_rabbitmq._errors import is_locked
from diator_rabbitmq._link import Link, Put, acknowledge, on_closed, tag_of
from diator_rabbitmq._topology import size_of

_PAUSE, _PATIENCE = 0.02, 30.0
"""Seconds between two attempts to be the one who reads, and for all of them."""
_MARK = "diator.mark"
"""The type of a message that says where the others end."""
_CHUNK = 200
"""Messages that are looked at together."""


class KeptQueue:
    """A queue whose messages stay until they are removed one by one."""

    def __init__(self, link: Link, name: str) -> None:
        self._link, self._name = link, name

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[AsyncIterator[list[DeliveredMessage]], None]:
        """Be the only one who reads, and give all messages in chunks. Raises `~diator.BrokerError`."""
        link, lock = self._link, f"{self._name}:reader"
        async with link.locks[lock]:
            await self._reserve(lock)
            try:
                async with link.own_channel() as channel, aclosing(self._chunks(channel)) as chunks:
                    yield chunks
                    # The answer to the second says that the first was done: closing a channel would not.
                    await link.call(channel.basic_nack(0, multiple=True, wait=False))
                    await link.call(channel.basic_cancel(self._name))
            finally:
                async with link.own_channel() as channel:
                    await link.call(channel.queue_delete(lock))

    async def remove(self, message: DeliveredMessage) -> None:
        """Remove a message that is being read. Raises `~diator.BrokerError`."""
        await acknowledge(self._link, message.channel, tag_of(message))

    async def _reserve(self, lock: str) -> None:
        """Create a queue that is this connection's own, and ends with it."""
        ends = asyncio.get_running_loop().time() + _PATIENCE
        while True:
            try:
                async with self._link.own_channel() as channel:
                    await self._link.call(channel.queue_declare(lock, exclusive=True))
                    return
            except BrokerError as error:
                if not is_locked(error.__cause__) or asyncio.get_running_loop().time() > ends:
                    raise
            await asyncio.sleep(_PAUSE)

    async def _chunks(self, channel: AbstractChannel) -> AsyncGenerator[list[DeliveredMessage], None]:
        """Take all messages up to a mark; they stay taken, and what is not acknowledged goes back together."""
        if await size_of(self._link, self._name) is None:
            return
        came: asyncio.Queue[DeliveredMessage | None] = asyncio.Queue()

        async def on_message(message: DeliveredMessage) -> None:
            came.put_nowait(message)

        on_closed(channel, lambda: came.put_nowait(None))
        mark = uuid4().hex
        await self._link.store([Put("", self._name, b"", Basic.Properties(message_id=mark, message_type=_MARK))])
        await self._link.call(channel.basic_consume(self._name, on_message, consumer_tag=self._name))
        some: list[DeliveredMessage] = []
        is_all = False
        while not is_all:
            message = await self._next(came)
            properties = message.header.properties
            if properties.message_type == _MARK:
                await self.remove(message)
                is_all = properties.message_id == mark
            else:
                some.append(message)
            if len(some) == _CHUNK or is_all:
                yield some
                some = []

    async def _next(self, came: "asyncio.Queue[DeliveredMessage | None]") -> DeliveredMessage:
        one = await self._link.call(came.get())
        if one is None:
            raise BrokerUnavailableError(f"RabbitMQ: the connection was lost while queue {self._name!r} was read")
        return one
