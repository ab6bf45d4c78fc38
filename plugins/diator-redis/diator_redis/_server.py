"""What both brokers have in common: connecting, publishing and closing."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio import Redis

from diator.brokers.address import Parse
from diator.brokers.envelope import OutgoingMessage
from diator.errors import BrokerError, NotPublishedError
from diator_redis._client import Client
from diator_redis._publisher import Commands, Publisher
from diator_redis._settings import check_client, connect_to, pool_of, telemetry_address


class ServerBroker(ABC):
    """A broker on one Redis server, or on the master behind a Sentinel."""

    system = "redis"

    def __init__(self, url_or_client: str | Redis, timeout: float, settings: Mapping[str, Parse]) -> None:
        if isinstance(url_or_client, str):
            pool_of(url_or_client, timeout, settings)
        else:
            check_client(url_or_client)
        self._address, self._timeout, self._settings = url_or_client, timeout, settings
        self._client: Client | None = None
        self._receivers: set[Any] = set()

    @abstractmethod
    def _open(self, client: Client) -> Commands:
        """Prepare for a new connection, and return the function that makes commands of messages."""

    @property
    def address(self) -> str | None:
        """The server's address in telemetry."""
        return telemetry_address(self._address)

    async def connect(self) -> None:
        """Open, and ensure that the server answers. Raises `~diator.BrokerError`."""
        if self._client is None:
            self._client = connect_to(self._address, self._timeout, self._settings)
            self._publisher = Publisher(self._client, self._open(self._client))
        await self._greet(self._client)

    async def _greet(self, client: Client) -> None:
        await client.call(b"PING")

    async def aclose(self) -> None:
        """Close receivers and connections."""
        if self._client is None:
            return
        await asyncio.gather(*(receiver.aclose() for receiver in list(self._receivers)))
        client, self._client = self._client, None
        await self._publisher.aclose()
        await self._close()
        await client.aclose()

    async def _close(self) -> None:  # noqa: B027 - optional
        """Close what ``_open`` has created."""

    def _opened(self) -> Client:
        if self._client is None:
            raise BrokerError("the broker is not connected: call connect() first")
        return self._client

    async def publish(
        self,
        messages: Sequence[OutgoingMessage],
        /,
        *,
        timeout: float,
        wait_for_room: bool = True,  # noqa: ARG002 - there is no room to wait for
    ) -> None:
        """Send messages. Raises `~diator.NotPublishedError`."""
        if self._client is None:
            raise NotPublishedError(messages) from BrokerError("the broker is not connected: call connect() first")
        await self._publisher.publish(messages, timeout)
