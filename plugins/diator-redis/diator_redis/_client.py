"""Requests to Redis: the only module that sends commands over redis-py, whose types are partly ``Any``.

Each exchange uses one connection of a pool exclusively. A client of redis-py repeats commands whose replies were lost,
which would store messages twice, so this module uses connections directly.
"""

import asyncio
import contextlib
import math
import sys
from collections.abc import Coroutine, Sequence
from typing import Any

from redis import exceptions as redis_errors
from redis.asyncio import ConnectionPool

from diator.errors import BrokerError
from diator_redis._errors import NO_CLUSTER, POOL_IS_EMPTY, is_breaking, is_reply, translate
from diator_redis._scripts import TEXTS, Argument, Command, Script


class Lost(Exception):  # noqa: N818 - takes the place of a reply
    """Takes the place of a reply that did not arrive: why, and whether the server may have got the command."""

    def __init__(self, error: BaseException, *, sent: bool) -> None:
        super().__init__(error)
        self.error, self.sent = error, sent


class Client:
    """Sends commands to one server, or to the master behind a Sentinel. It closes a pool that is ``owned``."""

    def __init__(self, pool: ConnectionPool, timeout: float, *, owned: bool = False) -> None:
        self.pool, self._owned = pool, owned
        self.timeout = timeout
        """Seconds to wait for an answer of the server."""

    async def send(self, *commands: Command, wait: float = 0.0) -> list[Any]:
        """Return the result of each command: its reply, an error of the server, or `Lost`.

        ``wait``: seconds for which the commands themselves may block.
        """
        exchange = _Exchange(self.pool, commands)
        try:
            await _within(self.timeout + wait, exchange.run())
        except (redis_errors.RedisError, OSError, asyncio.TimeoutError, EOFError) as error:
            lost = Lost(self._reason(error, exchange), sent=exchange.is_sent)
            exchange.replies += [lost] * (len(commands) - len(exchange.replies))
        for at, reply in enumerate(exchange.replies):
            if isinstance(reply, redis_errors.NoScriptError) and commands[at][0] == b"EVALSHA":
                _, sha, *rest = commands[at]
                (exchange.replies[at],) = await self.send((b"EVAL", TEXTS[sha], *rest), wait=wait)
        return exchange.replies

    def _reason(self, error: BaseException, exchange: "_Exchange") -> BaseException:
        pool: Any = self.pool
        if not isinstance(error, asyncio.TimeoutError):
            return error
        if not exchange.is_sent and not pool.can_get_connection():  # all connections are in use
            return redis_errors.ConnectionError(f"{POOL_IS_EMPTY[1]} within {self.timeout:g} s")
        return redis_errors.TimeoutError("the server did not answer in time")

    async def call(self, *command: Argument, wait: float = 0.0) -> Any:
        """Return the reply to one command. Raises `~diator.BrokerError`."""
        return checked((await self.send(command, wait=wait))[0])

    async def run(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument] = ()) -> Any:
        """Return the reply of a script. Raises `~diator.BrokerError`."""
        return await self.call(*script.command(keys, arguments))

    async def greet(self, *, is_cluster_fine: bool = False) -> bool:
        """Ensure that the server answers; return whether it is a node of a cluster. Raises `~diator.BrokerError`."""
        answer, about = await self.send((b"PING",), (b"HELLO",))
        checked(answer)
        # Servers before version 6 do not know HELLO.
        in_cluster = not isinstance(about, Exception) and as_mapping(about).get(b"mode") == b"cluster"
        if in_cluster and not is_cluster_fine:
            raise BrokerError(NO_CLUSTER)
        return in_cluster

    async def aclose(self) -> None:
        """Close the connections."""
        if self._owned:
            with contextlib.suppress(Exception):  # the server may be unavailable
                await self.pool.aclose()


class _Exchange:
    """Commands that are written together, and the replies that have arrived."""

    def __init__(self, pool: Any, commands: Sequence[Command]) -> None:
        self._pool, self._commands = pool, commands
        self.replies: list[Any] = []
        self.is_sent = False

    async def run(self) -> None:
        # redis-py before 5.3 requires the name of a command.
        connection = await self._pool.get_connection()
        is_whole = False
        try:
            # Newer pools return connections that the server has closed: this looks like a push message to them.
            if await getattr(connection, "can_read", connection.can_read_destructive)():
                await connection.disconnect(nowait=True)
                await connection.connect()
            data = b"".join(map(_packed, self._commands))
            self.is_sent = True
            await connection.send_packed_command(data, check_health=False)
            while len(self.replies) < len(self._commands):
                self.replies.append(await _reply(connection))
            is_whole = not is_breaking(self.replies[-1])
        finally:
            if not is_whole:
                await connection.disconnect(nowait=True)
            await self._pool.release(connection)


if sys.version_info >= (3, 11):  # before 3.12 `asyncio.wait_for` creates a task for each call

    async def _within(seconds: float, work: Coroutine[Any, Any, None]) -> None:
        async with asyncio.timeout(seconds):
            await work
else:

    async def _within(seconds: float, work: Coroutine[Any, Any, None]) -> None:
        await asyncio.wait_for(work, seconds)


def checked(reply: Any) -> Any:
    """Return a reply. Raises `~diator.BrokerError` for one that is an error."""
    if isinstance(reply, Exception):
        error = reply.error if isinstance(reply, Lost) else reply
        raise translate(error) from error
    return reply


def as_mapping(reply: Any) -> dict[bytes, Any]:
    """Return a mapping, which RESP2 writes as a list of names and values; the first of equal names counts."""
    if hasattr(reply, "items"):
        return dict(reply)
    return dict(zip(reply[-2::-2], reply[::-2], strict=False))


def _packed(command: Command) -> bytes:
    """Return a command in the wire format. redis-py takes several times as long, most of the time of a message."""
    parts = [b"*%d\r\n" % len(command)]
    for argument in command:
        value = argument if isinstance(argument, bytes) else str(argument).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(value), value))
    return b"".join(parts)


async def _reply(connection: Any) -> Any:
    try:
        return await connection.read_response(disable_decoding=True, timeout=math.inf, disconnect_on_error=False)
    except redis_errors.RedisError as error:
        if not is_reply(error):
            raise
        return error
