"""The link to a namespace: one client, the senders that stay open, and the receivers that are opened from it."""

import asyncio
import contextlib
from typing import Any

from azure.servicebus import NEXT_AVAILABLE_SESSION, ServiceBusSubQueue
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver
from azure.servicebus.exceptions import MessagingEntityNotFoundError, ServiceBusError

from diator.errors import BrokerUnavailableError
from diator_azure_servicebus._errors import quietly, translate
from diator_azure_servicebus._sender import Sender
from diator_azure_servicebus._settings import Settings
from diator_azure_servicebus._turns import tidy

_LOOK = 0.02
"""Seconds for which the SDK listens at a time. Closing a receiver takes two of them."""
_DIAL = 5.0
"""Seconds."""
_PORT, _EMULATOR_PORT = 5671, 5672


class Link:
    """A client, and what is open on it, in one event loop."""

    def __init__(self, client: ServiceBusClient, settings: Settings, *, owned: bool, port: int | None) -> None:
        self.settings = settings
        self._client = client
        self._owned = owned
        self._port = port
        self._senders: dict[str, Sender] = {}

    async def dial(self) -> None:
        """See that somebody listens there. Raises `~diator.BrokerUnavailableError`."""
        host, _, port = self._client.fully_qualified_namespace.partition(":")
        if self._port is None and not port:
            return
        try:
            connecting = asyncio.open_connection(host, int(port) if port else self._port)
            _, writer = await asyncio.wait_for(connecting, _DIAL)
        except (OSError, asyncio.TimeoutError) as error:
            text = f"Service Bus at {self._client.fully_qualified_namespace} can't be reached: {error}"
            raise BrokerUnavailableError(text) from error
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    def sender(self, path: str) -> Sender:
        """Give the sender to a queue or topic, which is opened when it is used first and stays open."""
        if path not in self._senders:
            # To the SDK a topic and a queue are the same to send to.
            sdk = self._client.get_queue_sender(path)
            tidy(sdk)
            self._senders[path] = Sender(sdk, path)
        return self._senders[path]

    async def receiver(self, path: str, *, dead_letters: bool = False) -> ServiceBusReceiver:
        """Open a receiver of a queue. Raises `~diator.BrokerError`."""
        sub_queue = ServiceBusSubQueue.DEAD_LETTER if dead_letters else None
        return await self._opened(path, self._client.get_queue_receiver(path, sub_queue=sub_queue, **self._receiving))

    async def probe(self, path: str) -> None:
        """See that a queue or topic is there. Raises what the SDK raises."""
        sender = self._client.get_queue_sender(path, keep_alive=0)
        tidy(sender)
        try:
            await sender.__aenter__()
        finally:
            await quietly(sender.close())

    async def has_sessions(self, queue: str) -> bool:
        """Tell whether a queue that can be received from has sessions. Raises what the SDK raises."""
        receiver = self._client.get_queue_receiver(queue, **self._receiving)
        tidy(receiver)
        try:
            await receiver.__aenter__()
        except ServiceBusError as error:
            if type(error) is not ServiceBusError or "amqp:not-allowed" not in str(error):
                raise
            return True  # it refuses a receiver that asks for no session
        finally:
            await quietly(receiver.close())
        return False

    async def probe_subscription(self, topic: str, name: str) -> None:
        """See that a subscription is there. Raises what the SDK raises: where it is not, that it was not found."""
        receiver = self._client.get_subscription_receiver(topic, name, **self._receiving)
        tidy(receiver)
        try:
            await receiver.__aenter__()
        except MessagingEntityNotFoundError:
            raise
        except ServiceBusError as error:
            if type(error) is not ServiceBusError:
                raise  # else it is there, but refuses receivers, since it forwards
        finally:
            await quietly(receiver.close())

    async def session(self, path: str, wait: float) -> ServiceBusReceiver:
        """Open a receiver of the next session that is free. Raises what the SDK raises."""
        receiver = self._client.get_queue_receiver(
            path, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=wait, **self._receiving
        )
        tidy(receiver, 2 * wait)
        try:
            await receiver.__aenter__()
        except BaseException:
            await quietly(receiver.close())
            raise
        return receiver

    async def _opened(self, path: str, receiver: ServiceBusReceiver) -> ServiceBusReceiver:
        tidy(receiver)
        try:
            await receiver.__aenter__()
        except BaseException as error:
            await quietly(receiver.close())
            if isinstance(error, Exception):
                raise translate(error, path) from error
            raise
        return receiver

    async def aclose(self) -> None:
        """Close the senders, and the client if it is ours."""
        senders, self._senders = list(self._senders.values()), {}
        await asyncio.gather(*(sender.aclose() for sender in senders))
        if self._owned:
            await quietly(self._client.close())

    @property
    def _receiving(self) -> dict[str, Any]:
        """Options of receivers.

        What comes between two fetches is kept, not given back: so messages stay in order. There is no task that keeps
        the connection alive, for which closing would wait up to a second: locks are renewed, or a fetch runs. A
        settlement that is not confirmed is asked for again over the management node while the lock still holds.
        """
        confirmed = max(0.5, min(15.0, self.settings.lease / 4))
        return {"prefetch_count": 1, "keep_alive": 0, "timeout": confirmed, "socket_timeout": _LOOK}


def default_port(connection_string: str | None) -> int:
    """Give the port of the service, or of its emulator."""
    emulated = connection_string is not None and "usedevelopmentemulator=true" in connection_string.lower()
    return _EMULATOR_PORT if emulated else _PORT
