"""Links on which the client sends: to queues and topics, and to the request nodes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

from servicebus_test_server.amqp.values import CodecError, Described, ULong, Value
from servicebus_test_server.errors import DECODE_ERROR, SIZE_EXCEEDED, RefusalError, error
from servicebus_test_server.faults import Point
from servicebus_test_server.messages import BATCH_FORMAT, AmqpMessage, read_batch, read_message
from servicebus_test_server.performatives import RECEIVER, Attach, Disposition, Flow, Transfer

if TYPE_CHECKING:
    from servicebus_test_server.channel import Channel
    from servicebus_test_server.namespace import SendTarget

ACCEPTED = Described(ULong(0x24), [])
CREDIT = 5000


class IncomingLink(ABC):
    """Puts transfers together to messages, and answers each with a disposition."""

    def __init__(self, channel: Channel, attach: Attach, path: str, max_message_bytes: int) -> None:
        self.channel = channel
        self.attach = attach
        self.path = path
        self.max_message_bytes = max_message_bytes
        self._parts = bytearray()
        self._first: Transfer | None = None
        self._delivery_count = attach.initial_delivery_count or 0
        self._credit = 0

    def on_flow(self, flow: Flow) -> None:
        """Take notice of how much the client has sent."""
        if flow.echo:
            self.give_credit()

    def on_transfer(self, transfer: Transfer, payload: bytes) -> None:
        """Take a part of a message, or the whole of one."""
        first = self._first = self._first or transfer
        if len(self._parts) <= self.max_message_bytes:  # what comes after is too much anyway
            self._parts += payload
        if transfer.more and not transfer.aborted:
            return
        data = bytes(self._parts)
        self._parts.clear()
        self._first = None
        self._delivery_count += 1
        self._credit -= 1
        if self._credit < CREDIT // 2:
            self.give_credit()
        if not transfer.aborted:
            settled = bool(first.settled or transfer.settled)
            self.complete(data, first.message_format or 0, -1 if settled else first.delivery_id or 0)

    @abstractmethod
    def complete(self, data: bytes, message_format: int, delivery_id: int) -> None:
        """Do something with a whole message; the delivery id is -1 where the client wants no answer."""

    def answer(self, delivery_id: int, state: Value) -> None:
        """Settle a delivery."""
        if delivery_id >= 0:
            self.channel.send(Disposition(RECEIVER, delivery_id, delivery_id, True, state).write())

    def give_credit(self) -> None:
        """Let the client send."""
        self._credit = CREDIT
        self.channel.send_flow(self.attach.handle, self._delivery_count, CREDIT)

    def closed(self) -> None:
        """Forget the half of a message that may be there."""
        self._parts.clear()


class PublishLink(IncomingLink):
    """Stores messages in a queue or topic."""

    def __init__(self, channel: Channel, attach: Attach, send_target: SendTarget) -> None:
        super().__init__(channel, attach, send_target.path, send_target.max_message_bytes)
        self._inlet = send_target

    def complete(self, data: bytes, message_format: int, delivery_id: int) -> None:
        """Store a message or a batch."""

        def apply() -> None:
            self._publish(data, message_format)
            self.answer(delivery_id, ACCEPTED)

        def refuse(refusal: RefusalError) -> None:
            rejected = Described(ULong(0x25), [error(refusal.condition, refusal.description)])
            self.answer(delivery_id, rejected)

        self.channel.connection.guard(Point.INCOMING, self.path, apply, refuse)

    def _publish(self, data: bytes, message_format: int) -> None:
        if len(data) > self.max_message_bytes:
            raise RefusalError(SIZE_EXCEEDED, f"more than the {self.max_message_bytes} bytes that {self.path} takes")
        try:
            messages = read_batch(data) if message_format == BATCH_FORMAT else [read_message(data)]
        except CodecError as cause:
            raise RefusalError(DECODE_ERROR, str(cause)) from cause
        self._inlet.publish(messages)


class RequestLink(IncomingLink):
    """Hands requests to a node. What is wrong with one is told in the answer, never in the disposition."""

    def __init__(self, channel: Channel, attach: Attach, path: str, handle: Callable[[AmqpMessage], None]) -> None:
        super().__init__(channel, attach, path, 4 << 20)
        self._handle = handle

    def complete(self, data: bytes, message_format: int, delivery_id: int) -> None:  # noqa: ARG002 - requests have one format
        """Accept the request, then handle it."""
        try:
            request = read_message(data)
        except CodecError as cause:
            self.answer(delivery_id, Described(ULong(0x25), [error(DECODE_ERROR, str(cause))]))
            return
        self.answer(delivery_id, ACCEPTED)
        self._handle(request)
