"""One connection to the server: the task that finds it lost opens another one.

Not one that reconnects by itself: what was on its way would be lost without a sign, and settlements of a connection
that is gone would be sent to the next one.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from ssl import SSLContext
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

import aiormq
from aiormq import exceptions as amqp
from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp.commands import Basic

from diator.errors import BrokerError, BrokerUnavailableError
from diator_rabbitmq._errors import is_unroutable, translate

T = TypeVar("T")


_MAX_CHANNELS = 65_535
CLOSE_TIMEOUT = 4.0
"""Seconds at most to close a connection, or what a receiver has: less than the engine waits for a receiver."""
_SECOND_LOOK = 0.1
"""Seconds to wait on once the time is over: if the process or its machine has paused, the answer is in the socket."""
_REPORTED = ("error when creating transport", "Cancelling cause reader exited abnormally")
"""Log lines of the client about a connection that fails: an error at each try. Diator reports an outage once."""


def _is_news(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_REPORTED)


logging.getLogger("aiormq.connection").addFilter(_is_news)


class Put(NamedTuple):
    """A message to be stored."""

    exchange: str
    routing_key: str
    body: bytes
    properties: Basic.Properties


class _Connection(aiormq.Connection):
    """A connection with room for all that is to be written.

    If there is none, the client drops its answer to a server that has closed a channel, such as one that asked for a
    queue that does not exist. The server then keeps the channel, and closes the connection when its number is
    used again.
    """

    FRAME_BUFFER_SIZE = 0


class Link:
    """A connection, with a channel on which messages are stored."""

    def __init__(self, connection: Any, timeout: float) -> None:
        self._connection, self.timeout = connection, timeout
        self._publishing: AbstractChannel | None = None
        self._opening = asyncio.Lock()
        self.known: set[str] = set()
        """Exchanges and queues that were declared, as long as nothing says that they are gone."""
        self.dropped: set[str] = set()
        """Topics whose last event, published on this connection, was sent back because no queue gets it."""
        self.declared: dict[str, float] = {}
        """When queues that expire were declared, in time of the event loop."""
        self.silent: set[str] = set()
        """Those of them that did not confirm a message in time: the server may be unable to open them."""
        self.locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """Of what only one task of this connection may do at a time."""
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sending: set[asyncio.Future[Any]] = set()
        """What is being stored."""
        self._number = 0
        self._tasks: set[asyncio.Future[None]] = set()
        connection.closing.add_done_callback(self._on_closed)

    @classmethod
    async def open(cls, urls: Sequence[str], context: SSLContext | None, timeout: float) -> "Link":
        """Connect to the first server that answers. Raises `~diator.BrokerError`."""
        failures: list[BrokerError] = []
        for url in urls:
            make: Any = _Connection
            connection = make(url, context=context)
            try:
                await answer(connection.connect(), timeout)
                return cls(connection, timeout)
            except BrokerError as error:
                failures.append(_located(error, url))
        raise next((one for one in failures if isinstance(one, BrokerUnavailableError)), failures[0])

    def _on_closed(self, closing: "asyncio.Future[Any]") -> None:
        if not closing.cancelled():
            closing.exception()  # which is told by those who wait
        self.lose()

    def lose(self) -> None:
        """Count it as lost, so that every wait for an answer ends. It is closed when the next one is opened."""
        if not self._lost.done():
            self._lost.set_result(None)
            for one in self._sending:  # the client would wait forever to write to a connection that is gone
                one.cancel()

    def when_lost(self, call: Callable[[], None]) -> None:
        """Have something called once the connection is lost."""
        self._lost.add_done_callback(lambda _: call())

    @property
    def is_alive(self) -> bool:
        """Whether the connection is there, as far as is known."""
        return not self._lost.done() and self._connection.is_opened

    async def call(self, work: Awaitable[T]) -> T:
        """Wait for an answer of the server. Raises `~diator.BrokerError`; without an answer the connection is lost."""
        try:
            return await answer(work, self.timeout, self._lost)
        except BrokerUnavailableError as error:
            if isinstance(error.__cause__, asyncio.TimeoutError):
                self.lose()
            raise

    async def channel(self, *, confirms: bool = False) -> AbstractChannel:
        """Open a channel. Raises `~diator.BrokerError`."""
        if not self.is_alive:
            raise BrokerUnavailableError("RabbitMQ: the connection was lost")
        opened: Awaitable[AbstractChannel] = self._connection.channel(
            self._next_number(), publisher_confirms=confirms, on_return_raises=True
        )
        return await self.call(opened)

    def _next_number(self) -> int:
        """Return a number for a channel: the client would take one again before the server has released it."""
        tune = self._connection.connection_tune
        while True:
            self._number = self._number % (tune.channel_max or _MAX_CHANNELS) + 1
            if self._number not in self._connection.channels:
                return self._number

    @asynccontextmanager
    async def own_channel(self) -> AsyncGenerator[AbstractChannel, None]:
        """Open a channel for something that may fail, which closes it."""
        channel = await self.channel()
        try:
            yield channel
        finally:
            await self.close_channel(channel)

    async def close_channel(self, channel: AbstractChannel) -> None:
        """Close a channel: what was taken on it and not acknowledged goes back."""
        if self.is_alive and not channel.is_closed:
            with suppress(BrokerError):
                await self.call(channel.close())

    def close_soon(self, channel: AbstractChannel) -> None:
        """Close a channel from within a callback."""
        task = asyncio.ensure_future(self.close_channel(channel))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def synchronize(self, channel: AbstractChannel) -> None:
        """Wait until the server has read all that was sent on a channel. Raises `~diator.BrokerError`."""
        await self.call(channel.flow(active=True))  # which changes nothing, and has an answer

    async def put(self, messages: Sequence[Put], timeout: float | None = None) -> list[BaseException | None]:
        """Store messages, in order; return for each ``None``, or why it was not confirmed."""
        opened = await self._publishing_channel()
        channel: Any = opened
        sending: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(
                channel.basic_publish(
                    one.body,
                    exchange=one.exchange,
                    routing_key=one.routing_key,
                    properties=one.properties,
                    mandatory=True,  # or the server would confirm what no queue gets
                    wait=False,
                )
            )
            for one in messages
        ]
        self._sending.update(sending)
        try:
            await _wait(sending, self.timeout if timeout is None else timeout, "ALL_COMPLETED")
        finally:
            self._sending.difference_update(sending)
            found = [_outcome_of(one) for one in sending]
        if any(found):
            self._learn_from(messages, found, opened)
        return found

    def _learn_from(
        self, messages: Sequence[Put], failures: Sequence[BaseException | None], channel: AbstractChannel
    ) -> None:
        if any(isinstance(error, amqp.ChannelNotFoundEntity) for error in failures):
            self.known.clear()
        if any(is_unroutable(error) for error in failures):
            self.declared.clear()
        late = {
            one.exchange or one.routing_key
            for one, error in zip(messages, failures, strict=True)
            if isinstance(error, asyncio.TimeoutError)
        }
        self.silent |= late & {*self.declared}
        if late and self._publishing is channel:
            self._publishing = None  # one that a restarting server has forgotten would never confirm
            asyncio.get_running_loop().call_later(self.timeout, self.close_soon, channel)  # others still wait there

    async def store(self, messages: Sequence[Put]) -> None:
        """Store messages, in order. Raises `~diator.BrokerError` if one was not confirmed."""
        if messages:
            for error in await self.put(messages):
                if error is not None:
                    raise translate(error) from error

    async def _publishing_channel(self) -> AbstractChannel:
        async with self._opening:
            if self._publishing is None or self._publishing.is_closed or not self.is_alive:
                self._publishing = await self.channel(confirms=True)
            return self._publishing

    async def aclose(self) -> None:
        """Close the connection, which may be lost."""
        self.lose()
        with suppress(BrokerError):
            await answer(self._connection.close(), min(self.timeout, CLOSE_TIMEOUT))


def _located(error: BrokerError, url: str) -> BrokerError:
    """Return an error of a connection that also names the server and the virtual host, without user and password."""
    parts = urlsplit(url)
    vhost = unquote(parts.path.removeprefix("/")) or "/"
    located = type(error)(f"{error} (at {parts.netloc.rpartition('@')[2]}, virtual host {vhost!r})")
    located.__cause__ = error.__cause__
    return located


async def answer(work: Awaitable[T], timeout: float, lost: "asyncio.Future[None] | None" = None) -> T:
    """Wait for an answer. Raises `~diator.BrokerError`, also where the client reports a lost connection as a cancel."""
    task = asyncio.ensure_future(work)
    try:
        waiting: set[asyncio.Future[Any]] = {task} if lost is None else {task, lost}
        await _wait(waiting, timeout, "FIRST_COMPLETED")
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not task.done():
        task.cancel()
        if lost is not None and lost.done():
            raise BrokerUnavailableError("RabbitMQ: the connection was lost")
        text = f"RabbitMQ: no answer within {timeout:g} s"
        raise BrokerUnavailableError(text) from asyncio.TimeoutError()
    error = failure_of(task)
    if error is not None:
        raise translate(error) from error
    return task.result()


async def _wait(futures: "Collection[asyncio.Future[Any]]", timeout: float, return_when: str) -> None:
    """Wait for all, or for the first, at most so many seconds."""
    for seconds in (timeout, _SECOND_LOOK):
        done, left = await asyncio.wait(futures, timeout=seconds, return_when=return_when)
        if not left or (done and return_when == "FIRST_COMPLETED"):
            return


async def all_ended(calls: Iterable[Awaitable[object]]) -> None:
    """Wait until all have ended, and raise the first error: after that of a plain `gather` the others would go on."""
    for found in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(found, BaseException):
            raise found


def _outcome_of(task: "asyncio.Future[Any]") -> BaseException | None:
    """Return why a message was not confirmed, ``None`` if it was. One that is late is not waited for any longer."""
    if task.done():
        return failure_of(task)
    task.cancel()
    return asyncio.TimeoutError("no confirmation came")


def failure_of(task: "asyncio.Future[Any]") -> BaseException | None:
    """Return why a task has failed."""
    return asyncio.CancelledError() if task.cancelled() else task.exception()


async def open_channel(link: Link, bell: asyncio.Event) -> AbstractChannel:
    """Open a channel that rings when it is closed; the server closes one that asks for what is missing."""
    channel: Any = await link.channel()
    on_closed(channel, bell.set)
    # aiormq before 7.1, which is what Python 3.10 gets, does not report that the server has cancelled a consumer.
    callbacks: set[Callable[[object], None]] = getattr(channel, "on_consumer_cancel_callbacks", set())
    callbacks.add(lambda _: link.close_soon(channel))
    opened: AbstractChannel = channel
    return opened


def on_closed(channel: AbstractChannel, call: Callable[[], None]) -> None:
    """Have something called once a channel is closed."""
    opened: Any = channel  # Any: the interface leaves out what every channel has
    closing: asyncio.Future[object] = opened.closing
    closing.add_done_callback(lambda _: call())


async def acknowledge(link: Link, channel: AbstractChannel, tag: int) -> None:
    """Acknowledge a message, without an answer. Raises `~diator.BrokerError`."""
    await link.call(channel.basic_ack(tag, wait=False))


def tag_of(message: DeliveredMessage) -> int:
    """Return the number of a delivery on its channel."""
    assert message.delivery_tag is not None, "it was delivered to a consumer"
    return message.delivery_tag


class Links:
    """The connection of a broker for one purpose, opened again when it was lost."""

    def __init__(self, urls: Sequence[str], context: SSLContext | None, timeout: float) -> None:
        self._urls, self._context, self._timeout = urls, context, timeout
        self._lock = asyncio.Lock()
        self._link: Link | None = None
        self._is_closed = False
        self._closing: set[asyncio.Future[None]] = set()

    @property
    def current(self) -> Link | None:
        """The connection, if it is alive as far as is known."""
        return self._link if self._link is not None and self._link.is_alive else None

    async def get(self) -> Link:
        """Return a connection that is alive, as far as is known. Raises `~diator.BrokerError`."""
        if self.current is not None:
            return self.current
        async with self._lock:
            if self._is_closed:
                raise BrokerError("the broker is not connected: call connect() first")
            if self._link is None or not self._link.is_alive:
                if self._link is not None:
                    task = asyncio.ensure_future(self._link.aclose())
                    self._closing.add(task)
                    task.add_done_callback(self._closing.discard)
                    self._link = None
                self._link = await Link.open(self._urls, self._context, self._timeout)
            return self._link

    async def aclose(self) -> None:
        """Close it permanently."""
        self._is_closed = True
        async with self._lock:
            link, self._link = self._link, None
        if link is not None:
            await link.aclose()
        if self._closing:
            await asyncio.wait(self._closing)
