"""Access to the server for all parts of a broker: its connection, and the two streams of its prefix."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from diator.errors import BrokerError, BrokerUnavailableError
from diator_nats._connection import Connection
from diator_nats._errors import RejectedError
from diator_nats._names import Names

OLDEST = (2, 12)
"""The oldest version of the server."""
MAX_MESSAGE_BYTES = 960 * 1024
"""A dead letter, which has a reason too, must fit into what a server accepts by default, 1 MiB."""
REASON_BYTES = 56 * 1024
"""The room for the reason of a dead letter."""
LATER = "diator-later"
"""The consumer of events that are not due."""
NOT_CONNECTED = "the broker is not connected: call connect() first"
_EXISTS_OTHERWISE = 10058
HOLD_LATER = 10.0
"""Seconds after which another process moves an event that is due, if one that took it has died."""


def nanoseconds(seconds: float) -> int:
    """Return a time as the server takes it."""
    return int(seconds * 1e9)


class Access:
    """Opens a connection when there is none, and creates what all need."""

    # Any: options of nats-py.
    def __init__(
        self, names: Names, options: Callable[[], Mapping[str, Any]], timeout: float, window: float, replicas: int
    ) -> None:
        self.names, self.timeout = names, timeout
        self._options, self._window, self._replicas = options, window, replicas
        self._connection: Connection | None = None
        self._lock, self._is_closed = asyncio.Lock(), False

    async def close(self) -> None:
        """Close the connection, and allow no other."""
        connection, self._connection, self._is_closed = self._connection, None, True
        if connection is not None:
            await connection.close()

    @property
    def opened(self) -> Connection | None:
        """The connection, if it is open, as far as is known."""
        return self._connection if self._connection is not None and self._connection.is_open else None

    async def connection(self) -> Connection:
        """Return a connection that is open, as far as is known. Raises `~diator.BrokerError`."""
        if (opened := self.opened) is not None:
            return opened
        async with self._lock:
            if self._is_closed:
                raise BrokerError(NOT_CONNECTED)
            if (opened := self.opened) is None:
                if self._connection is not None:
                    await self._connection.close()
                opened = self._connection = await self._open()
        return opened

    async def _open(self) -> Connection:
        options = self._options()  # read for each connection: credentials expire, and their file is replaced
        connection = Connection(self.timeout)
        await connection.open(options)
        try:
            if not connection.is_open:  # it broke between two steps of the client
                raise BrokerUnavailableError("NATS: the connection was lost")  # noqa: TRY301 - closed below
            _check_version(connection)
            await self._create(connection)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _create(self, connection: Connection) -> None:
        names = self.names
        common = {"storage": "file", "discard": "new", "num_replicas": self._replicas, "allow_direct": True}
        await _stream(
            connection,
            names.events,
            common
            | {
                "subjects": names.stored(),
                "retention": "interest",
                "duplicate_window": nanoseconds(max(self._window, 120)),
                "max_msg_size": MAX_MESSAGE_BYTES + 4096,
            },
        )
        await _stream(
            connection,
            names.state,
            common
            | {
                "subjects": [f"{names.prefix}.st.>"],
                "max_msgs_per_subject": 1,
                "allow_msg_ttl": True,
            },
        )
        await self._check_window(connection)
        await create_consumer(
            connection,
            names.events,
            LATER,
            {
                "filter_subjects": [f"{names.prefix}.la.>"],
                "deliver_policy": "all",
                "ack_wait": nanoseconds(HOLD_LATER),
            },
        )

    async def _check_window(self, connection: Connection) -> None:
        if self._window:
            found = await connection.api(f"STREAM.INFO.{self.names.events}")
            kept = found["config"]["duplicate_window"] / 1e9
            if kept < self._window:
                text = f"stream {self.names.events!r} detects duplicates for {kept:g} s, not {self._window:g} s"
                raise BrokerError(f"{text}; change the stream: nats stream edit --dupe-window")


def _check_version(connection: Connection) -> None:
    version = connection.client.connected_server_version
    if (version.major, version.minor) < OLDEST:
        text = f"the NATS server is {version.major}.{version.minor}.{version.patch}; expected 2.12 or newer"
        raise BrokerError(f"{text}: update the server")


async def create_consumer(
    connection: Connection, stream: str, name: str, config: Mapping[str, Any], action: str = ""
) -> None:
    """Create a consumer that is read by requests, or update it."""
    common = {"durable_name": name, "name": name, "ack_policy": "explicit", "max_deliver": -1, "max_waiting": 8192}
    common |= {"max_ack_pending": -1}  # the default would count what is delayed
    wanted = {"stream_name": stream, "config": common | dict(config), "action": action}
    await connection.api(f"CONSUMER.CREATE.{stream}.{name}", **wanted)


async def _stream(connection: Connection, name: str, config: Mapping[str, Any]) -> None:
    """Create a stream; one that exists is as its operator wants it."""
    try:
        await connection.api(f"STREAM.CREATE.{name}", name=name, **config)
    except RejectedError as error:
        if error.code != _EXISTS_OTHERWISE:
            raise
