"""Dead letters: a queue that one process at a time reads. What it does not remove goes back."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from heapq import nsmallest
from typing import Any
from uuid import uuid4

from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp.commands import Basic

from diator.brokers.port import DeadLetter, Subscription
from diator.errors import BrokerError, BrokerUnavailableError
from diator_rabbitmq._errors import is_locked
from diator_rabbitmq._link import Link, Put
from diator_rabbitmq._messages import StoredLetter
from diator_rabbitmq._names import partition_of
from diator_rabbitmq._receiver import acknowledge, on_closed
from diator_rabbitmq._topology import Topology

_PAUSE, _PATIENCE = 0.02, 30.0
"""Seconds between two attempts to be the one who looks, and for all of them."""
_MARK = "diator.mark"
"""The type of a message that says where the letters end."""
_CHUNK = 200
"""Letters that are looked at together."""


class DeadLetters:
    """The dead letters of a subscription."""

    def __init__(self, link: Link, topology: Topology, subscription: Subscription) -> None:
        self._link, self._topology, self._subscription = link, topology, subscription
        self._name = topology.names.dead(subscription)

    async def page(self, after: str | None, limit: int) -> Sequence[DeadLetter]:
        """Return those after one, the oldest first. Raises `~diator.BrokerError`."""
        found: list[StoredLetter] = []
        if await self._topology.size(self._link, self._name) is None:
            return []
        async with self._looking() as channel:
            async for some in self._chunks(channel):
                later = [one for one in some if after is None or one.id > after]
                found = nsmallest(limit, [*found, *later], key=lambda one: one.id)
        return [one.letter(self._subscription.name) for one in found]

    async def remove(self, ids: Collection[str], *, replay: bool) -> list[str]:
        """Remove dead letters, and return the ids of those that were there. Raises `~diator.BrokerError`."""
        removed: list[str] = []
        wanted = set(ids)
        if not wanted or await self._topology.size(self._link, self._name) is None:
            return removed
        async with self._looking() as channel:
            async for some in self._chunks(channel):
                chosen = [one for one in some if one.id in wanted]
                await self._link.store([self._replayed(one) for one in chosen] if replay else [])
                for one in chosen:
                    await acknowledge(self._link, channel, one.tag)
                    removed.append(one.id)
                if len(removed) == len(wanted):
                    break
        return removed

    def _replayed(self, one: StoredLetter) -> Put:
        partition: int | None = None
        if self._subscription.ordered:
            key = one.key()
            partition = partition_of(one.id if key is None else key)
        return Put("", self._topology.names.queue(self._subscription, partition), one.body, one.replayed())

    async def _chunks(self, channel: AbstractChannel) -> AsyncIterator[list[StoredLetter]]:
        """Take all letters up to a mark; they stay taken, and what is not acknowledged goes back together."""
        came: asyncio.Queue[DeliveredMessage | None] = asyncio.Queue()

        async def on_message(message: DeliveredMessage) -> None:
            came.put_nowait(message)

        on_closed(channel, lambda: came.put_nowait(None))
        mark = uuid4().hex
        await self._link.store([Put("", self._name, b"", Basic.Properties(message_id=mark, message_type=_MARK))])
        await self._link.call(channel.basic_consume(self._name, on_message, consumer_tag=self._name))
        some: list[StoredLetter] = []
        is_all = False
        while not is_all:
            message = await self._next(came)
            properties = message.header.properties
            if properties.message_type == _MARK:
                delivered: Any = message.delivery
                await acknowledge(self._link, channel, int(delivered.delivery_tag))
                is_all = properties.message_id == mark
            else:
                some.append(StoredLetter(message))
            if len(some) == _CHUNK or is_all:
                yield some
                some = []

    async def _next(self, came: "asyncio.Queue[DeliveredMessage | None]") -> DeliveredMessage:
        try:
            one = await asyncio.wait_for(came.get(), self._link.timeout)
        except asyncio.TimeoutError:
            one = None
        if one is None:
            raise BrokerUnavailableError("RabbitMQ: the connection was lost while dead letters were read")
        return one

    @asynccontextmanager
    async def _looking(self) -> AsyncGenerator[AbstractChannel, None]:
        """Be the only one who looks, and give a channel."""
        link, lock = self._link, self._topology.names.of("look", self._subscription.name)
        async with link.locks[lock]:
            await self._reserve(lock)
            try:
                async with link.own_channel() as channel:
                    yield channel
                    # The answer to the second says that the first was done: closing a channel would not.
                    await link.call(channel.basic_nack(0, multiple=True, wait=False))
                    await link.call(channel.basic_cancel(self._name))
            finally:
                async with link.own_channel() as channel:
                    await link.call(channel.queue_delete(lock))

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
