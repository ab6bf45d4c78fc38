"""Listening to channels: one receiver of Pub/Sub, and how it reads what it hears."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Sequence
from typing import Any

from redis import exceptions as redis_errors
from redis.asyncio import Redis

from diator.brokers.port import Ack, Delivery, Settlement, Subscription
from diator.errors import UnreadableMessageError
from diator_redis import _predecessor
from diator_redis._client import Client
from diator_redis._errors import translate

logger = logging.getLogger("diator.redis")


class Reader:
    """What is listened to, and how it is read."""

    pattern = False

    def __init__(self, channels: dict[bytes, str]) -> None:
        self.channels = channels

    def read(self, channel: bytes, body: bytes) -> Delivery | None:
        """Give the delivery that a message is; ``None`` for what does not concern this subscription."""
        topic = self.channels.get(channel)
        return None if topic is None else Delivery(topic, body)


class PredecessorReader(Reader):
    """Reads all that diator 0.1 publishes, and leaves out what this subscription has no topic for."""

    pattern = True

    def __init__(self, prefix: str, subscription: Subscription) -> None:
        escaped = "".join(f"\\{letter}" if letter in "*?[]\\^-" else letter for letter in prefix)
        super().__init__({f"{escaped}:*".encode(): ""})
        self._prefix = prefix
        self._topics = {name: topic.name for topic in subscription.topics for name in topic.types}
        self._first = subscription.topics[0].name if subscription.topics else ""

    def read(self, channel: bytes, body: bytes) -> Delivery | None:  # noqa: ARG002 - the name says it all
        """Give the delivery that a message is, as a CloudEvent."""
        try:
            envelope = _predecessor.read(body, self._prefix)
        except UnreadableMessageError as error:
            return Delivery(self._first, body, damage=str(error))
        topic = self._topics.get(envelope.type)
        return None if topic is None else Delivery(topic, _predecessor.structured(envelope))


class PubSubReceiver:
    """Listens for one subscription, on a connection of its own."""

    def __init__(
        self,
        client: Client,
        subscription: Subscription,
        reader: Reader,
        closed: Callable[["PubSubReceiver"], None],
    ) -> None:
        self._timeout = client.timeout
        self._client: Any = Redis(connection_pool=client.pool)
        self._name = subscription.name
        self._reader = reader
        self._closed = closed
        self._pubsub: Any = None
        self._taken: list[Delivery] = []
        self._reading: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()
        self._lost_at: float | None = None

    async def open(self) -> None:
        """Begin to listen. Raises `~diator.BrokerError`."""
        try:
            await asyncio.wait_for(self._listen(), self._timeout)
        except (redis_errors.RedisError, OSError, asyncio.TimeoutError) as error:
            await self._drop()
            raise translate(error) from error

    async def receive(self, limit: int, /) -> Sequence[Delivery]:
        """Wait for messages, and give at most ``limit`` of them. Raises `~diator.BrokerError`."""
        loop = asyncio.get_running_loop()
        while not self._ended.is_set():
            if self._taken:
                found, self._taken = self._taken[:limit], self._taken[limit:]
                return found
            reading = self._reading = self._reading or loop.create_task(self._read(limit))
            ended = loop.create_task(self._ended.wait())
            try:
                await asyncio.wait({reading, ended}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                ended.cancel()
            if reading.done() and not self._ended.is_set():
                self._reading = None
                reading.result()
        return ()

    async def settle(self, settlements: Sequence[Settlement], /) -> Collection[Delivery]:
        """Do nothing: a message is gone with its delivery. What should have come again is logged."""
        for delivery, outcome in settlements:
            if not isinstance(outcome, Ack):
                word = type(outcome).__name__
                logger.warning("%s: a message from %s is lost: Pub/Sub has no %s", self._name, delivery.topic, word)
        return ()

    async def renew(self, deliveries: Sequence[Delivery], /) -> Collection[Delivery]:  # noqa: ARG002
        """Do nothing: no other receiver can get them."""
        return ()

    async def aclose(self) -> None:
        """Listen no more. Idempotent."""
        self._ended.set()
        task, self._reading = self._reading, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._drop()
        self._closed(self)

    # Listening.

    async def _read(self, limit: int) -> None:
        try:
            if self._pubsub is None:
                await asyncio.wait_for(self._listen(), self._timeout)
            await self._wait()
            while len(self._taken) < limit and await self._next(0.0):
                pass
        except (redis_errors.RedisError, OSError, asyncio.TimeoutError) as error:
            self._lost_at = self._lost_at or asyncio.get_running_loop().time()
            await self._drop()
            raise translate(error) from error

    async def _wait(self) -> None:
        """Wait for one message that concerns this subscription. A silent server is asked whether it is there."""
        asked = False
        while not self._taken and not self._ended.is_set():
            if await self._next(self._timeout):
                asked = False
            elif asked:
                raise redis_errors.TimeoutError("the server did not answer in time")
            else:
                asked = True
                await self._pubsub.ping()

    async def _next(self, timeout: float) -> bool:
        """Take the next message there is; tell whether there was one."""
        message: Any = await self._pubsub.get_message(timeout=timeout)
        if message is None:
            return False
        if message["type"] in ("message", "pmessage"):
            delivery = self._reader.read(_as_bytes(message["channel"]), _as_bytes(message["data"]))
            if delivery is not None:
                self._taken.append(delivery)
        return True

    async def _listen(self) -> None:
        """Subscribe, and wait until the server has confirmed it."""
        pubsub: Any = self._client.pubsub()
        self._pubsub = pubsub
        subscribe = pubsub.psubscribe if self._reader.pattern else pubsub.subscribe
        await subscribe(*self._reader.channels)
        missing = len(self._reader.channels)
        while missing:
            message: Any = await pubsub.get_message(timeout=self._timeout)
            missing -= message is not None and message["type"] in ("subscribe", "psubscribe")
        if self._lost_at is not None:
            gap = asyncio.get_running_loop().time() - self._lost_at
            self._lost_at = None
            logger.warning("%s did not listen for %.1f s: what was published meanwhile is lost to it", self._name, gap)

    async def _drop(self) -> None:
        pubsub, self._pubsub = self._pubsub, None
        if pubsub is not None:
            with contextlib.suppress(redis_errors.RedisError, OSError, asyncio.TimeoutError):
                await asyncio.wait_for(pubsub.aclose(), 1.0)


def _as_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")
