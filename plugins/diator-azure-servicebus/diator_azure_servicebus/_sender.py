"""Sending to one entity: one request at a time, in the order of the calls; what waits meanwhile shares a batch."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from azure.servicebus import ServiceBusMessage, ServiceBusMessageBatch
from azure.servicebus.exceptions import MessageSizeExceededError, OperationTimeoutError

from diator.errors import BrokerUnavailableError
from diator_azure_servicebus import _sdk
from diator_azure_servicebus._copies import Copy
from diator_azure_servicebus._errors import REFUSED, is_temporary, quietly, translate

Wire = ServiceBusMessage | Copy
_Request = ServiceBusMessage | ServiceBusMessageBatch


class Sent(NamedTuple):
    """What came of a call: the first ``stored`` messages are, the next ``unknown`` may be, the others were not sent."""

    stored: int
    unknown: int
    error: BaseException | None


class _Call:
    """Messages to send, and how far this is. Those ``under_way`` come after the ones that are stored."""

    __slots__ = ("deadline", "ended", "error", "stored", "under_way", "wires")

    def __init__(self, wires: Sequence[Wire], deadline: float) -> None:
        self.wires = wires
        self.deadline = deadline
        self.stored = 0
        self.under_way = 0
        self.error: BaseException | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end(self, error: BaseException | None = None) -> None:
        """Note what came of the messages under way. After an error nothing more of the call is sent."""
        if error is None:
            self.stored += self.under_way
        if error is None or isinstance(error, REFUSED):
            self.under_way = 0
        if (error is not None or self.stored == len(self.wires)) and not self.ended.done():
            self.error = error
            self.ended.set_result(None)


class Sender:
    """What sends to one entity. The SDK takes several calls at a time, but not when the connection breaks."""

    def __init__(self, sdk: _sdk.Sender, path: str) -> None:
        self.path = path
        self._sdk = sdk
        self._waiting: deque[_Call] = deque()
        self._sending: asyncio.Task[None] | None = None

    async def send(self, wires: Sequence[Wire], timeout: float) -> Sent:
        """Send messages in order, and wait until they are stored. Takes no longer than ``timeout`` seconds."""
        call = _Call(wires, asyncio.get_running_loop().time() + timeout)
        self._waiting.append(call)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.ensure_future(self._send_all())
        try:
            await asyncio.wait({call.ended}, timeout=timeout)
        finally:
            self._withdraw(call)
        error = call.error
        if not call.ended.done():
            error = BrokerUnavailableError(f"Service Bus, {self.path}: others were sending for {timeout:g} s")
            if call.under_way:
                error = OperationTimeoutError(message=f"the service did not answer within {timeout:g} s")
        return Sent(call.stored, call.under_way, error)

    async def send_one(self, wire: Wire, timeout: float) -> None:
        """Send one message. Raises what the SDK raises, or `~diator.BrokerError` if it was not sent."""
        sent = await self.send([wire], timeout)
        if sent.error is not None:
            raise sent.error

    async def aclose(self) -> None:
        """Close, also after an error."""
        await quietly(self._sdk.close())

    async def _send_all(self) -> None:
        while self._waiting:
            calls: list[_Call] = []
            try:
                await self._send_next(calls)
            finally:  # if the event loop ends meanwhile
                for call in calls:
                    if call.under_way and not call.ended.done():
                        call.end(OperationTimeoutError(message="sending was cancelled"))

    async def _send_next(self, calls: list[_Call]) -> None:
        """Send one request: the first messages that wait, as many as fit into a batch, of these ``calls``."""
        first = self._waiting[0]
        try:
            if not self._sdk.is_open:
                left = first.deadline - asyncio.get_running_loop().time()
                await asyncio.wait_for(self._sdk.__aenter__(), max(0.001, left))
            wire = await self._gathered(calls)
        except Exception as error:  # noqa: BLE001 - returned by `send`
            for call in calls or [first]:
                call.under_way = 0
                self._end(call, translate(error, self.path))
            return
        failure = await self._transmit(wire, calls)
        if failure is None or len(calls) == 1 or is_temporary(failure):
            for call in calls:
                self._end(call, failure)
            return
        for call in calls:  # each gets an answer of its own, not that of another
            wire, _ = await self._filled(call.wires[call.stored : call.stored + call.under_way])
            self._end(call, await self._transmit(wire, [call]))

    async def _gathered(self, calls: list[_Call]) -> _Request | None:
        """Take what fits into one request off the calls that wait; None if they have all been withdrawn."""
        batch: _Request | None = None
        while self._waiting:
            call = self._waiting[0]
            left = call.wires[call.stored :]
            if batch is None and len(self._waiting) == len(left) == 1 and isinstance(left[0], ServiceBusMessage):
                batch, count = left[0], 1
            elif batch is None:
                batch, count = await self._filled(left)
            else:
                count = _fill(batch, left)
            if count:
                call.under_way = count
                calls.append(call)
            if count < len(left):
                break
            self._waiting.popleft()
        return batch

    async def _filled(self, wires: Sequence[Wire]) -> tuple[_Request, int]:
        """Make a batch of the first messages; one that is too large for any goes alone, as Premium allows."""
        batch = await self._sdk.create_message_batch()
        if count := _fill(batch, wires):
            return batch, count
        return wires[0] if isinstance(wires[0], ServiceBusMessage) else wires[0].plain(), 1

    async def _transmit(self, wire: _Request | None, calls: Sequence[_Call]) -> Exception | None:
        if wire is None:
            return None
        left = max(call.deadline for call in calls) - asyncio.get_running_loop().time()
        try:
            await self._sdk.send_messages(wire, timeout=max(0.001, left))
        except Exception as error:  # noqa: BLE001 - returned by `send`
            return error
        return None

    def _end(self, call: _Call, error: BaseException | None) -> None:
        call.end(error)
        if error is not None:
            self._withdraw(call)

    def _withdraw(self, call: _Call) -> None:
        if call in self._waiting:
            self._waiting.remove(call)


def _fill(batch: _Request, wires: Sequence[Wire]) -> int:
    """Put messages into a batch while there is room; tells how many."""
    for count, wire in enumerate(wires):
        if isinstance(batch, ServiceBusMessage) or not _fits(batch, wire):
            return count
    return len(wires)


def _fits(batch: ServiceBusMessageBatch, wire: Wire) -> bool:
    if isinstance(wire, Copy):
        return wire.put_into(batch)
    try:
        batch.add_message(wire)
    except MessageSizeExceededError:
        return False
    return True
