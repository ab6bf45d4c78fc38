"""Connections: the one place that talks to redis-py, whose types are partly ``Any``.

A `Link` holds one connection of the pool and does one exchange at a time: what was packed once is written as it is, and
the replies are read without the work that a client of redis-py adds to each command. A timer cuts the connection where
the server is silent for too long, so that no exchange costs a task.
"""

import asyncio
import contextlib
import math
from collections import deque
from typing import Any

from redis import exceptions as redis_errors
from redis.asyncio import ConnectionPool

from diator.errors import BrokerError
from diator_redis._errors import NO_CLUSTER, POOL_IS_EMPTY, is_breaking, is_reply, translate
from diator_redis._scripts import Script

Argument = bytes | str | int | float


def pack(*arguments: Argument) -> bytes:
    """Write one command as it travels."""
    parts = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        value = argument if isinstance(argument, bytes) else str(argument).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(value), value))
    return b"".join(parts)


class Cut(Exception):  # noqa: N818 - internal, says what happened to the exchange
    """An exchange did not end: ``sent`` tells whether anything may have reached the server."""

    def __init__(self, error: BaseException, *, sent: bool, cancelled: asyncio.CancelledError | None = None) -> None:
        super().__init__(error)
        self.error, self.sent, self.cancelled = error, sent, cancelled


class Link:
    """One connection, opened by the first exchange and again by the next one after it broke."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._connection: Any = None
        self._expired = False
        self.opened = 0
        """How often it was connected: whoever keeps something of the connection's own looks here."""

    async def exchange(
        self, data: bytes, count: int, replies: list[Any], timeout: float, *, to_the_end: bool = False
    ) -> asyncio.CancelledError | None:
        """Write packed commands and append ``count`` replies, errors of the server among them, to ``replies``.

        Raises `Cut` where the connection broke or ``timeout`` seconds passed. ``to_the_end``: a cancel that comes while
        the replies are awaited does not interrupt; it is given back, to be raised later.
        """
        sent = False
        cancelled: asyncio.CancelledError | None = None
        loop = asyncio.get_running_loop()
        ends = loop.time() + timeout
        try:
            connection = await self._connected(timeout)
            timer = loop.call_at(ends, self._expire)
            try:
                sent = True
                await connection.send_packed_command(data, check_health=False)
                while len(replies) < count:
                    try:
                        replies.append(await _reply(connection))
                    except asyncio.CancelledError as error:
                        if not to_the_end:
                            raise
                        cancelled = error
            finally:
                timer.cancel()
            if count and is_breaking(replies[-1]):
                await self.drop()
        except (redis_errors.RedisError, OSError, asyncio.TimeoutError, EOFError) as error:
            await self.drop()
            raise Cut(self._why(error), sent=sent, cancelled=cancelled) from error
        except BaseException:
            await self.drop()
            raise
        return cancelled

    async def _connected(self, timeout: float) -> Any:
        connection = self._connection
        if connection is not None and connection.is_connected:
            # Closed by the server while nobody looked: what is written to it now would be of unknown fate for nothing.
            if not connection._reader.at_eof():
                return connection
            await self.drop()
        self._expired = False
        try:
            await asyncio.wait_for(self._connect(), timeout)
        except asyncio.TimeoutError as error:
            if self._connection is None and not _has_room(self._pool):  # a pool that waits for a free connection
                raise redis_errors.ConnectionError(f"{POOL_IS_EMPTY[1]} within {timeout:g} s") from error
            raise redis_errors.TimeoutError(f"no connection within {timeout:g} s") from error
        self.opened += 1
        return self._connection

    async def _connect(self) -> None:
        if self._connection is None:
            self._connection = await _get_connection(self._pool)
        elif not self._connection.is_connected:
            await self._connection.connect()

    def _expire(self) -> None:
        self._expired = True
        self.abort()

    def _why(self, error: BaseException) -> BaseException:
        return redis_errors.TimeoutError("the server did not answer in time") if self._expired else error

    @property
    def is_ready(self) -> bool:
        """Whether an exchange can begin at once, as far as anybody knows."""
        return self.is_open and not self._connection._reader.at_eof()

    @property
    def is_open(self) -> bool:
        """Whether there is a connection now."""
        return self._connection is not None and bool(self._connection.is_connected)

    def abort(self) -> None:
        """Cut the connection at once, whoever waits on it."""
        writer = self._connection and self._connection._writer
        if writer is not None:
            writer.transport.abort()

    async def drop(self) -> None:
        """Close the connection, not the link."""
        connection = self._connection
        if connection is not None and connection.is_connected:
            self.abort()
            await connection.disconnect()

    async def aclose(self) -> None:
        """Close the connection and give it back to the pool."""
        await self.drop()
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._pool.release(connection)


class Links:
    """The links of one broker: as many as there are exchanges at a time. An ``owned`` pool is closed with them."""

    def __init__(self, pool: ConnectionPool, timeout: float, *, owned: bool = False) -> None:
        self.pool = pool
        self._owned = owned
        self.timeout = timeout
        """How many seconds the server has to answer."""
        self._free: deque[Link] = deque()
        self._all: set[Link] = set()

    def take(self) -> Link:
        """Give a link that nobody else uses until it is put back."""
        if self._free:
            return self._free.pop()
        link = Link(self.pool)
        self._all.add(link)
        return link

    @property
    def has_ready(self) -> bool:
        """Whether the link that is taken next can be used at once, as far as anybody knows."""
        return bool(self._free) and self._free[-1].is_ready

    def put(self, link: Link) -> None:
        """Take a link back."""
        if link in self._all:
            self._free.append(link)

    async def discard(self, link: Link) -> None:
        """Close a link for good."""
        self._all.discard(link)
        await link.aclose()

    async def send(self, *commands: bytes) -> list[Any]:
        """Give the replies to packed commands, errors of the server among them. Raises `~diator.BrokerError`."""
        link = self.take()
        replies: list[Any] = []
        try:
            await link.exchange(b"".join(commands), len(commands), replies, self.timeout)
        except Cut as cut:
            raise translate(cut.error) from cut.error
        finally:
            self.put(link)
        return replies

    async def call(self, *arguments: Argument) -> Any:
        """Give the reply to one command. Raises `~diator.BrokerError`."""
        return checked((await self.send(pack(*arguments)))[0])

    async def run(self, script: Script, keys: list[bytes], arguments: list[Argument]) -> Any:
        """Give the reply of a script, loaded where the server does not know it. Raises `~diator.BrokerError`."""
        reply = (await self.send(pack(b"EVALSHA", script.sha, len(keys), *keys, *arguments)))[0]
        if isinstance(reply, redis_errors.NoScriptError):
            reply = (await self.send(pack(b"EVAL", script.text, len(keys), *keys, *arguments)))[0]
        return checked(reply)

    async def greet(self, *, is_cluster_fine: bool = False) -> bool:
        """See that the server answers, and tell whether it is a node of a cluster. Raises `~diator.BrokerError`."""
        answer, about = await self.send(pack(b"PING"), pack(b"HELLO"))
        checked(answer)
        # An old server knows no HELLO.
        in_cluster = not isinstance(about, Exception) and field_of(about, b"mode") == b"cluster"
        if in_cluster and not is_cluster_fine:
            raise BrokerError(NO_CLUSTER)
        return in_cluster

    async def aclose(self) -> None:
        """Close all of them."""
        links, self._all = self._all, set()
        self._free.clear()
        for link in links:
            await link.aclose()
        if self._owned:
            with contextlib.suppress(Exception):  # a server that is away can't be told
                await self.pool.aclose()


class Waiter:
    """A link for calls that wait in Redis, which somebody else may end."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._link = links.take()
        self._client: tuple[int, Any] = (0, None)

    async def call(self, command: bytes, wait: float) -> Any:
        """Give the reply to a command that waits for at most so many seconds. Raises `~diator.BrokerError`."""
        if self._client[0] != self._link.opened or not self._link.is_open:
            reply = await self._exchange(pack(b"CLIENT", b"ID"), 0)
            self._client = (self._link.opened, reply)
        return checked(await self._exchange(command, wait))

    async def _exchange(self, command: bytes, wait: float) -> Any:
        replies: list[Any] = []
        try:
            await self._link.exchange(command, 1, replies, wait + self._links.timeout)
        except Cut as cut:
            raise translate(cut.error) from cut.error
        return replies[0]

    async def unblock(self) -> None:
        """End the call that waits: it gives nothing. Once this returns, Redis gives nothing to it either."""
        opened, client = self._client
        if opened == self._link.opened and isinstance(client, int):
            reply = (await self._links.send(pack(b"CLIENT", b"UNBLOCK", client)))[0]
            if not isinstance(reply, Exception):
                return
        # Without the permission the connection is cut, and Redis gets a moment to notice.
        self._link.abort()
        await asyncio.sleep(0.05)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._links.discard(self._link)


def checked(reply: Any) -> Any:
    """Give a reply back. Raises `~diator.BrokerError` for one that is an error."""
    if isinstance(reply, Exception):
        raise translate(reply) from reply
    return reply


def field_of(mapping: Any, name: bytes) -> Any:
    """Give a value of a mapping in a reply, which RESP2 writes as a list."""
    pairs = mapping if hasattr(mapping, "items") else dict(zip(mapping[::2], mapping[1::2], strict=False))
    return pairs.get(name)


async def _reply(connection: Any) -> Any:
    try:
        return await connection.read_response(disable_decoding=True, timeout=math.inf, disconnect_on_error=False)
    except redis_errors.RedisError as error:
        if not is_reply(error):
            raise
        return error


def _has_room(pool: Any) -> bool:
    return bool(pool.can_get_connection())


async def _get_connection(pool: Any) -> Any:
    try:
        waiting = pool.get_connection()
    except TypeError:  # redis-py before 5.3 wants the name of a command
        waiting = pool.get_connection("_")
    return await waiting
