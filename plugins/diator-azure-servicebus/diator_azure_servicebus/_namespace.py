"""The link to a namespace: one client, the senders that stay open, and the receivers that are opened from it."""

import asyncio
import contextlib
from typing import Any

from azure.servicebus import NEXT_AVAILABLE_SESSION, ServiceBusSubQueue
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver, ServiceBusSender
from azure.servicebus.exceptions import ServiceBusError

from diator.errors import BrokerUnavailableError
from diator_azure_servicebus._entities import Entity
from diator_azure_servicebus._errors import quietly, translated
from diator_azure_servicebus._sdk import Receiver, adapt, adapt_sender
from diator_azure_servicebus._sender import Sender
from diator_azure_servicebus._settings import Settings

_READ_INTERVAL = 0.02
"""Seconds for which the SDK listens at a time. Closing a receiver takes two of them."""
_CONNECT_TIMEOUT = 5.0
"""Seconds."""
_PORT, _EMULATOR_PORT = 5671, 5672


class NamespaceClient:
    """A client, and what is open on it, in one event loop."""

    def __init__(self, client: ServiceBusClient, settings: Settings, *, owned: bool, port: int | None) -> None:
        self.settings = settings
        self._client = client
        self._owned = owned
        self._port = port
        self._senders: dict[str, Sender] = {}

    async def dial(self) -> None:
        """Ensure that a server listens there. Raises `~diator.BrokerUnavailableError`."""
        host, _, port = self._client.fully_qualified_namespace.partition(":")
        if self._port is None and not port:
            return
        try:
            connecting = asyncio.open_connection(host, int(port) if port else self._port)
            _, writer = await asyncio.wait_for(connecting, _CONNECT_TIMEOUT)
        except (OSError, asyncio.TimeoutError) as error:
            text = f"Service Bus at {self._client.fully_qualified_namespace} can't be reached: {error}"
            raise BrokerUnavailableError(text) from error
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    def sender(self, path: str) -> Sender:
        """Return the sender to a queue or topic, which is opened when it is used first and stays open."""
        if path not in self._senders:
            # To the SDK a topic and a queue are the same to send to.
            self._senders[path] = Sender(adapt_sender(self._client.get_queue_sender(path)), path)
        return self._senders[path]

    async def receiver(self, path: str, *, dead_letters: bool = False) -> Receiver:
        """Open a receiver of a queue. Raises `~diator.BrokerError`."""
        sub_queue = ServiceBusSubQueue.DEAD_LETTER if dead_letters else None
        with translated(path):
            sdk = self._client.get_queue_receiver(path, sub_queue=sub_queue, **self._receiving)
            return await _opened(adapt(sdk))

    async def session(self, path: str, wait: float) -> Receiver:
        """Open a receiver of the next session that is free. Raises what the SDK raises."""
        asked: dict[str, Any] = {"session_id": NEXT_AVAILABLE_SESSION, "max_wait_time": wait, **self._receiving}
        return await _opened(adapt(self._client.get_queue_receiver(path, **asked), 2 * wait))

    async def probe(self, entity: Entity) -> bool:
        """Open a link to see that an entity is there; tells whether it refuses who asks for no session.

        Raises what the SDK raises.
        """
        sdk: ServiceBusReceiver | ServiceBusSender
        if entity.topic:
            sdk = adapt(self._client.get_subscription_receiver(entity.topic, entity.name, **self._receiving))
        elif entity.sessions is None:
            sdk = adapt_sender(self._client.get_queue_sender(entity.path, keep_alive=0))
        else:
            sdk = adapt(self._client.get_queue_receiver(entity.path, **self._receiving))
        try:
            await sdk.__aenter__()
        except ServiceBusError as error:
            is_refusal = entity.topic or (entity.sessions is not None and "amqp:not-allowed" in str(error))
            if type(error) is not ServiceBusError or not is_refusal:
                raise
            return True  # a subscription refuses receivers, since it forwards
        finally:
            await quietly(sdk.close())
        return False

    async def aclose(self) -> None:
        """Close the senders, and the client if it is ours."""
        senders, self._senders = list(self._senders.values()), {}
        await asyncio.gather(*(sender.aclose() for sender in senders))
        if self._owned:
            await quietly(self._client.close())

    @property
    def _receiving(self) -> dict[str, Any]:
        """Options of receivers.

        What comes between two fetches is kept, not released: so messages stay in order. There is no task that keeps
        the connection alive, for which closing would wait up to a second: locks are renewed, or a fetch runs. A
        settlement that is not confirmed is asked for again over the management node while the lock still holds.
        """
        confirmed = max(0.5, min(15.0, self.settings.lease / 4))
        return {"prefetch_count": 1, "keep_alive": 0, "timeout": confirmed, "socket_timeout": _READ_INTERVAL}


async def _opened(sdk: Receiver) -> Receiver:
    try:
        await sdk.__aenter__()
    except BaseException:
        await quietly(sdk.close())
        raise
    return sdk


def default_port(connection_string: str | None) -> int:
    """Return the port of the service, or of its emulator."""
    emulated = connection_string is not None and "usedevelopmentemulator=true" in connection_string.lower()
    return _EMULATOR_PORT if emulated else _PORT
