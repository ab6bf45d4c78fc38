"""Receiving from Pub/Sub channels."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from redis import exceptions as redis_errors
from redis.asyncio import Redis

from diator.brokers.port import Ack, Delivery, Settlement
from diator_redis._client import Client
from diator_redis._errors import translate

logger = logging.getLogger("diator.redis")
FAILURES = (redis_errors.RedisError, OSError, asyncio.TimeoutError)


class Channels(NamedTuple):
    """The channels of a subscription, and how it reads a message; ``None``: the message is for another subscription."""

    names: Sequence[bytes]
    are_patterns: bool
    read: Callable[[bytes, bytes], Delivery | None]


class PubSubReceiver:
    """Listens for one subscription, on a connection of its own."""

    def __init__(
        self, client: Client, name: str, channels: Channels, closed: Callable[["PubSubReceiver"], None]
    ) -> None:
        self._timeout, self._name, self._channels, self._closed = client.timeout, name, channels, closed
        self._client: Any = Redis(connection_pool=client.pool)
        self._pubsub: Any = None
        self._received: list[Delivery] = []
        self._reading: asyncio.Task[None] | None = None
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lost_at: float | None = None

    async def receive(self, limit: int, /) -> Sequence[Delivery]:
        """Wait for messages, and return at most ``limit`` of them. Raises `~diator.BrokerError`."""
        while not self._end.done():
            if self._received:
                found, self._received = self._received[:limit], self._received[limit:]
                return found
            reading = self._reading = self._reading or asyncio.ensure_future(self._read(limit))
            await asyncio.wait({reading, self._end}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done() and not self._end.done():
                self._reading = None
                reading.result()
        return ()

    async def settle(self, settlements: Sequence[Settlement], /) -> Collection[Delivery]:
        """Do nothing: a message is gone with its delivery. One that should have been redelivered is logged."""
        for delivery, outcome in settlements:
            if not isinstance(outcome, Ack):
                word = type(outcome).__name__
                logger.warning("%s: a message from %s is lost: Pub/Sub has no %s", self._name, delivery.topic, word)
        return ()

    async def renew(self, deliveries: Sequence[Delivery], /) -> Collection[Delivery]:  # noqa: ARG002 - as the protocol wants it
        """Do nothing: there are no leases."""
        return ()

    async def aclose(self) -> None:
        """Stop listening. Idempotent."""
        if not self._end.done():
            self._end.set_result(None)
        task, self._reading = self._reading, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._drop()
        self._closed(self)

    # Listening.

    async def open(self) -> None:
        """Subscribe, and wait for the confirmation of the server. Raises `~diator.BrokerError`."""
        try:
            await asyncio.wait_for(self._subscribe(), self._timeout)
        except FAILURES as error:
            await self._drop()
            raise translate(error) from error

    async def _subscribe(self) -> None:
        self._pubsub = self._client.pubsub()
        names, missing = self._channels.names, len(self._channels.names)
        await (self._pubsub.psubscribe if self._channels.are_patterns else self._pubsub.subscribe)(*names)
        while missing:
            message = await self._pubsub.get_message(timeout=self._timeout)
            missing -= message is not None and message["type"] in ("subscribe", "psubscribe")
        if self._lost_at is not None:
            gap = asyncio.get_running_loop().time() - self._lost_at
            self._lost_at = None
            logger.warning(
                "%s did not listen for %.1f s: messages that were published during that time are lost to it",
                self._name,
                gap,
            )

    async def _read(self, limit: int) -> None:
        if self._pubsub is None:
            await self.open()
        try:
            await self._wait()
            while len(self._received) < limit and await self._next(0.0):
                pass
        except FAILURES as error:
            self._lost_at = asyncio.get_running_loop().time()
            await self._drop()
            raise translate(error) from error

    async def _wait(self) -> None:
        """Wait for one message of this subscription. Ping a server that is silent for longer than the timeout."""
        pinged = False
        while not self._received:
            if await self._next(self._timeout):
                pinged = False
            elif pinged:
                raise redis_errors.TimeoutError("the server did not answer in time")
            else:
                pinged = True
                await self._pubsub.ping()

    async def _next(self, timeout: float) -> bool:
        """Read the next message; return whether there was one."""
        message = await self._pubsub.get_message(timeout=timeout)
        if message is not None and message["type"] in ("message", "pmessage"):
            delivery = self._channels.read(_as_bytes(message["channel"]), _as_bytes(message["data"]))
            self._received += [] if delivery is None else [delivery]
        return message is not None

    async def _drop(self) -> None:
        pubsub, self._pubsub = self._pubsub, None
        if pubsub is not None:
            with contextlib.suppress(*FAILURES):
                await asyncio.wait_for(pubsub.aclose(), 1.0)


def _as_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")
