"""Sending to one entity: one call at a time, and together what waits for its turn."""

import asyncio
from collections import deque
from collections.abc import Sequence

from azure.servicebus import ServiceBusMessage, ServiceBusMessageBatch
from azure.servicebus.aio import ServiceBusSender
from azure.servicebus.exceptions import MessageSizeExceededError, OperationTimeoutError

from diator.errors import BrokerUnavailableError
from diator_azure_servicebus._copies import Copy
from diator_azure_servicebus._errors import is_temporary, quietly, translate
from diator_azure_servicebus._sdk import is_open

Wire = ServiceBusMessage | ServiceBusMessageBatch | Copy


class _Call:
    """Something to send, and its answer: the error, or ``None`` once it is stored."""

    __slots__ = ("answer", "deadline", "wire")

    def __init__(self, wire: Wire, deadline: float) -> None:
        self.wire = wire
        self.deadline = deadline
        self.answer: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    def end(self, error: BaseException | None = None) -> None:
        """Answer, unless nobody waits any more."""
        if not self.answer.done():
            self.answer.set_result(error)


class Sender:
    """What sends to one entity. The SDK takes several calls at a time, but not when the connection breaks.

    Messages that wait while another is on its way leave in one batch.
    """

    def __init__(self, sdk: ServiceBusSender, path: str) -> None:
        self.path = path
        self._sdk = sdk
        self._waiting: deque[_Call] = deque()
        self._sending: asyncio.Task[None] | None = None

    async def packed(self, messages: Sequence[ServiceBusMessage]) -> list[Wire]:
        """Fill batches of the size that the service takes, in order; opens the link if need be.

        What is too large for any stands alone: the service may take it all the same.
        """
        found: list[Wire] = []
        current: ServiceBusMessageBatch | None = None
        for message in messages:
            if current is None or not _fits(current, message):
                current = await self._sdk.create_message_batch()
                if not _fits(current, message):
                    found.append(message)
                    current = None
                    continue
                found.append(current)
        return found

    async def send(self, wire: Wire, timeout: float) -> None:
        """Send, and wait until it is stored. Raises what the SDK raises; `~diator.BrokerError` if it never left."""
        call = _Call(wire, asyncio.get_running_loop().time() + timeout)
        self._waiting.append(call)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.ensure_future(self._send_all())
        try:
            await asyncio.wait({call.answer}, timeout=timeout)
        finally:
            if has_stayed := call in self._waiting:
                self._waiting.remove(call)
        if has_stayed:
            raise BrokerUnavailableError(f"Service Bus, {self.path}: others were sending for {timeout:g} s")
        if not call.answer.done():
            raise OperationTimeoutError(message=f"the service did not answer within {timeout:g} s")
        if (error := call.answer.result()) is not None:
            raise error

    async def _send_all(self) -> None:
        while self._waiting:
            await self._send_next()

    async def _send_next(self) -> None:
        """Send what waits longest, and with it the messages behind it that fit into one batch."""
        calls = [self._waiting.popleft()]
        try:
            await self._send_with_others(calls)
        finally:  # the event loop ends, where any has no answer yet
            _end(calls, OperationTimeoutError(message="sending was cancelled"))

    async def _send_with_others(self, calls: list[_Call]) -> None:
        try:
            await self._open(calls[0])
        except Exception as error:  # noqa: BLE001 - raised by `send`
            _end(calls, translate(error, self.path))  # nothing has left
            return
        try:
            wire = await self._gathered(calls)
            await self._send(wire, calls)
        except Exception as error:  # noqa: BLE001 - raised by `send`
            if len(calls) == 1 or is_temporary(error):
                _end(calls, error)
                return
        else:
            _end(calls)
            return
        for call in calls:  # each gets its own answer, and none that of another
            try:
                await self._send(call.wire, [call])
            except Exception as error:  # noqa: BLE001 - raised by `send`
                call.end(error)
            else:
                call.end()

    async def _open(self, call: _Call) -> None:
        """Open the link where it is closed."""
        left = call.deadline - asyncio.get_running_loop().time()
        if not is_open(self._sdk):
            await asyncio.wait_for(self._sdk.__aenter__(), max(0.001, left))

    async def _send(self, wire: Wire, calls: Sequence[_Call]) -> None:
        left = max(call.deadline for call in calls) - asyncio.get_running_loop().time()
        if isinstance(wire, Copy):
            wire = await self._alone(wire)
        await self._sdk.send_messages(wire, timeout=max(0.001, left))

    async def _alone(self, copy: Copy) -> ServiceBusMessage | ServiceBusMessageBatch:
        """Make a batch of one: only there can be sent what is encoded already."""
        batch = await self._sdk.create_message_batch()
        return batch if copy.put_into(batch) else copy.plain()

    async def _gathered(self, calls: list[_Call]) -> Wire:
        first = calls[0].wire
        if isinstance(first, ServiceBusMessageBatch) or not self._waiting:
            return first
        batch = await self._sdk.create_message_batch()
        if not _fits(batch, first):
            return first
        while self._waiting and _fits(batch, self._waiting[0].wire):
            calls.append(self._waiting.popleft())
        return batch

    async def aclose(self) -> None:
        """Close, whatever happens."""
        await quietly(self._sdk.close())


def _end(calls: Sequence[_Call], error: BaseException | None = None) -> None:
    for call in calls:
        call.end(error)


def _fits(batch: ServiceBusMessageBatch, wire: Wire) -> bool:
    """Put a message into a batch, if it is one and has room there."""
    if isinstance(wire, ServiceBusMessageBatch):
        return False
    if isinstance(wire, Copy):
        return wire.put_into(batch)
    try:
        batch.add_message(wire)
    except MessageSizeExceededError:
        return False
    return True
