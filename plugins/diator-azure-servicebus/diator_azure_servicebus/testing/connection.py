"""One client's connection: headers, SASL, frames in and out, and the faults that strike on it."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from diator_azure_servicebus.testing.attaching import on_attach
from diator_azure_servicebus.testing.channel import Channel
from diator_azure_servicebus.testing.errors import (
    CONNECTION_FORCED,
    DECODE_ERROR,
    DETACH_FORCED,
    FRAMING_ERROR,
    RefusalError,
    error,
)
from diator_azure_servicebus.testing.faults import Action, Fault, Point
from diator_azure_servicebus.testing.frames import (
    AMQP_FRAME,
    AMQP_HEADER,
    SASL_FRAME,
    SASL_HEADER,
    Frame,
    FrameError,
    FrameReader,
    write_frame,
)
from diator_azure_servicebus.testing.outgoing import OutgoingLink
from diator_azure_servicebus.testing.performatives import (
    Attach,
    Begin,
    Close,
    Detach,
    Disposition,
    End,
    Flow,
    Open,
    Performative,
    SaslInit,
    Transfer,
    read_performative,
    sasl_mechanisms,
    sasl_outcome,
)
from diator_azure_servicebus.testing.values import CodecError

if TYPE_CHECKING:
    from diator_azure_servicebus.testing.node import Node

_ANONYMOUS = "ANONYMOUS"
_RESET = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)


class Connection(asyncio.Protocol):
    """Reads what arrives and answers at once; nothing here waits."""

    def __init__(self, node: Node) -> None:
        self.namespace = node.namespace
        self.container_id = ""
        self.peer_frame_size = 512
        self.channels: dict[int, Channel] = {}
        self._node = node
        self._reader = FrameReader(node.max_frame_size)
        self._transport: asyncio.Transport | None = None
        self._header_next = True
        self._sasl = False
        self._open = False
        self._deaf = False
        self._silent = False
        self._idle_time_out: float | None = None
        self._last_sent = 0.0
        self._outbox: list[bytes] = []

    # -- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take part."""
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(f"a stream transport is needed, not {transport!r}")
        self._transport = transport
        self._node.connections.add(self)
        self.guard(Point.ACCEPT, "", lambda: None, lambda _refusal: self.reset())

    def data_received(self, data: bytes) -> None:
        """Handle every whole frame. Malformed ones end the connection with an error."""
        if self._deaf:
            return
        self._reader.feed(data)
        try:
            while self._step():
                pass
        except FrameError as cause:
            self.fail(FRAMING_ERROR, str(cause))
        except CodecError as cause:
            self.fail(DECODE_ERROR, str(cause))
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """End all links."""
        self._deaf = True
        self._transport = None
        self._node.connections.discard(self)
        for channel in self.channels.values():
            channel.closed()
        self.channels.clear()

    # -- sending

    def send(self, channel: int, body: bytes, payload: bytes = b"") -> None:
        """Send a frame, together with what else is sent until the loop's next turn."""
        self._write(write_frame(AMQP_FRAME, channel, body, payload))

    def _write(self, data: bytes) -> None:
        if self._silent or self._transport is None:
            return
        if not self._outbox:
            self._node.loop.call_soon(self._flush)
        self._outbox.append(data)

    def _flush(self) -> None:
        if self._outbox and self._transport is not None:
            self._transport.write(b"".join(self._outbox))
            self._last_sent = self._node.loop.time()
        self._outbox.clear()

    def keep_alive(self) -> None:
        """Send an empty frame before the client's patience ends (part 2, section 2.4.5)."""
        if self._idle_time_out is not None and self._node.loop.time() - self._last_sent > self._idle_time_out / 2:
            self.send(0, b"")

    # -- ending

    def reset(self) -> None:
        """Cut the connection as a failing network does: no last words, and a TCP reset."""
        self._deaf = True
        self._outbox.clear()
        if self._transport is not None:
            raw = self._transport.get_extra_info("socket")
            if raw is not None and raw.fileno() >= 0:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()

    def fail(self, condition: str, description: str) -> None:
        """Close the connection with an error."""
        if not self._open and not self._sasl and not self._deaf:
            self._write(AMQP_HEADER + write_frame(AMQP_FRAME, 0, Open(self._node.container_id).write()))
        self.send(0, Close(error(condition, description)).write())
        self._hang_up()

    def _hang_up(self) -> None:
        self._deaf = True
        self._flush()
        if self._transport is not None:
            self._transport.close()

    # -- faults

    def strike(self, point: Point, entity: str) -> Fault | None:
        """Report an occasion for faults."""
        return self._node.faults.strike(point, entity, self.container_id)

    def attempt(self, apply: Callable[[], None], refuse: Callable[[RefusalError], None]) -> None:
        """Do something, or tell why not."""
        try:
            apply()
        except RefusalError as refusal:
            refuse(refusal)

    def guard(
        self, point: Point, entity: str, apply: Callable[[], None], refuse: Callable[[RefusalError], None]
    ) -> None:
        """Do something, unless a fault strikes."""
        fault = self.strike(point, entity)
        if fault is None:
            self.attempt(apply, refuse)
        elif fault.action is Action.REFUSE:
            refuse(RefusalError(fault.condition, "refused by a fault"))
        else:
            self._suffer(fault, apply, refuse)

    def _suffer(self, fault: Fault, apply: Callable[[], None], refuse: Callable[[RefusalError], None]) -> None:
        if fault.applies:
            self._silent = True
            self.attempt(apply, refuse)
            self._silent = False
        if fault.drops:
            self.reset()
        elif fault.point in (Point.ACCEPT, Point.OPEN):
            self._deaf = True  # what the client has sent ahead is not answered either

    def fail_delivery(self, fault: Fault, link: OutgoingLink) -> None:
        """Let a fault strike at a delivery."""
        if fault.action is Action.DROP_BEFORE:
            self.reset()
        elif fault.action is Action.DROP_AFTER:
            self._hang_up()
        elif fault.action is Action.REFUSE:
            link.channel.detach(link, RefusalError(fault.condition, "refused by a fault"))

    # -- receiving

    def _step(self) -> bool:
        if self._deaf:
            return False
        if self._header_next:
            header = self._reader.header()
            if header is not None:
                self._on_header(header)
            return header is not None
        frame = self._reader.frame()
        if frame is not None:
            self._on_frame(frame)
        return frame is not None

    def _on_header(self, header: bytes) -> None:
        self._header_next = False
        if header == SASL_HEADER and not self._sasl:
            self._sasl = True
            self._write(SASL_HEADER + write_frame(SASL_FRAME, 0, sasl_mechanisms(_ANONYMOUS)))
        elif header == AMQP_HEADER:
            self._sasl = False
            self._write(AMQP_HEADER)
        else:  # answer with what is supported, and close (part 2, section 2.2)
            self._write(SASL_HEADER)
            self._hang_up()

    def _on_frame(self, frame: Frame) -> None:
        if frame.kind != (SASL_FRAME if self._sasl else AMQP_FRAME):
            raise FrameError(f"a frame of type {frame.kind} is not expected here")
        if not frame.body:
            return
        performative, payload = read_performative(frame.body)
        if self._sasl:
            self._on_sasl(performative)
        elif not self._open:
            self._on_open(performative)
        else:
            self._dispatch(frame.channel, performative, payload)

    def _on_sasl(self, performative: Performative) -> None:
        if not isinstance(performative, SaslInit):
            raise FrameError(f"{type(performative).__name__} in place of the choice of a mechanism")
        known = performative.mechanism == _ANONYMOUS
        self._write(write_frame(SASL_FRAME, 0, sasl_outcome(0 if known else 1)))
        self._header_next = True
        if not known:
            self._hang_up()

    def _on_open(self, performative: Performative) -> None:
        if not isinstance(performative, Open):
            raise FrameError(f"{type(performative).__name__} before Open")
        self.container_id = performative.container_id
        self.peer_frame_size = max(512, performative.max_frame_size)
        if performative.idle_time_out:
            self._idle_time_out = performative.idle_time_out / 1000
        self._open = True
        answer = Open(self._node.container_id, None, self._node.max_frame_size).write()

        def refuse(refusal: RefusalError) -> None:
            self.send(0, answer)
            self.fail(refusal.condition, refusal.description)

        self.guard(Point.OPEN, "", lambda: self.send(0, answer), refuse)

    def _dispatch(self, number: int, performative: Performative, payload: bytes) -> None:
        if isinstance(performative, Begin):
            if number in self.channels:
                raise CodecError(f"channel {number} has a session already")
            self.channels[number] = Channel(self, number, performative)
        elif isinstance(performative, Close):
            self.send(0, Close().write())
            self._hang_up()
        elif number not in self.channels:
            raise CodecError(f"{type(performative).__name__} on channel {number}, which has no session")
        else:
            self._dispatch_to(self.channels[number], performative, payload)

    def _dispatch_to(self, channel: Channel, performative: Performative, payload: bytes) -> None:
        if isinstance(performative, Transfer):
            channel.on_transfer(performative, payload)
        elif isinstance(performative, Disposition):
            channel.on_disposition(performative)
        elif isinstance(performative, Flow):
            channel.on_flow(performative)
        elif isinstance(performative, Attach):
            on_attach(channel, performative)
        elif isinstance(performative, Detach):
            channel.on_detach(performative)
        elif isinstance(performative, End):
            del self.channels[channel.number]
            channel.closed()
            channel.send(End().write())
        else:
            raise CodecError(f"{type(performative).__name__} is not expected here")

    def force_close(self) -> None:
        """Close because the server ends."""
        self.fail(CONNECTION_FORCED, "the server is shutting down")

    def detach(self, path: str, condition: str = DETACH_FORCED) -> int:
        """Detach the links to an entity; return how many there were."""
        found = [
            (channel, link)
            for channel in self.channels.values()
            for link in channel.links.values()
            if link.path.lower() == path.lower()
        ]
        for channel, link in found:
            channel.detach(link, RefusalError(condition, "detached on command"))
        return len(found)
