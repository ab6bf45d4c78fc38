"""A socket that speaks AMQP frames: protocol headers, SASL, reading and writing."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from abc import ABC, abstractmethod

from servicebus_test_server.amqp.values import CodecError
from servicebus_test_server.errors import DECODE_ERROR, FRAMING_ERROR
from servicebus_test_server.frames import (
    AMQP_FRAME,
    AMQP_HEADER,
    SASL_FRAME,
    SASL_HEADER,
    Frame,
    FrameError,
    FrameReader,
    write_frame,
)
from servicebus_test_server.performatives import (
    Performative,
    SaslInit,
    read_performative,
    sasl_mechanisms,
    sasl_outcome,
)

_ANONYMOUS = "ANONYMOUS"
_RESET = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)


class AmqpProtocol(asyncio.Protocol, ABC):
    """Reads what arrives and answers at once; nothing here waits.

    A subclass gives the five methods whose names start with ``on_``.

    Attributes:
        deaf: Nothing that arrives is looked at any more.
        silent: Nothing is written.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, max_frame_size: int) -> None:
        self.loop = loop
        self.deaf = False
        self.silent = False
        self.last_sent = 0.0
        self._reader = FrameReader(max_frame_size)
        self._transport: asyncio.Transport | None = None
        self._header_next = True
        self._sasl = False
        self._outbox: list[bytes] = []

    @abstractmethod
    def on_start(self) -> None:
        """Begin."""

    @abstractmethod
    def on_end(self) -> None:
        """Clean up; this may happen more than once."""

    @abstractmethod
    def on_performative(self, channel: int, performative: Performative, payload: bytes) -> None:
        """Handle a frame. ``CodecError`` and ``FrameError`` may be raised."""

    @abstractmethod
    def on_malformed(self, condition: str, description: str) -> None:
        """End the connection with an error, within AMQP."""

    # -- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take part."""
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(f"a stream transport is needed, not {transport!r}")
        self._transport = transport
        self.on_start()

    def data_received(self, data: bytes) -> None:
        """Handle every whole frame. Malformed ones end the connection with an error."""
        self._reader.feed(data)
        try:
            while not self.deaf and self._step():
                pass
        except FrameError as cause:
            self._refuse(FRAMING_ERROR, str(cause))
        except CodecError as cause:
            self._refuse(DECODE_ERROR, str(cause))
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - however it ended
        """Take no part any more."""
        self.deaf = True
        self._transport = None
        self.on_end()

    # -- writing

    def send(self, channel: int, body: bytes, payload: bytes = b"") -> None:
        """Send a frame, together with what else is sent until the loop's next turn."""
        self._write(write_frame(AMQP_FRAME, channel, body, payload))

    def _write(self, data: bytes) -> None:
        if self.silent or self._transport is None:
            return
        if not self._outbox:
            self.loop.call_soon(self.flush)
        self._outbox.append(data)

    def flush(self) -> None:
        """Hand what is to be sent to the network."""
        if self._outbox and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._outbox))
            self.last_sent = self.loop.time()
        self._outbox.clear()

    def reset(self) -> None:
        """Cut the connection as a failing network does: no last words, and a TCP reset."""
        self.deaf = True
        self._outbox.clear()
        if self._transport is not None:
            raw = self._transport.get_extra_info("socket")
            if raw is not None and raw.fileno() >= 0:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()
        self.on_end()

    def hang_up(self) -> None:
        """Send what is to be sent and end the connection."""
        self.flush()
        self.deaf = True
        if self._transport is not None:
            self._transport.close()
        self.on_end()

    # -- reading

    def _step(self) -> bool:
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
            self.hang_up()

    def _on_frame(self, frame: Frame) -> None:
        if frame.kind != (SASL_FRAME if self._sasl else AMQP_FRAME):
            raise FrameError(f"a frame of type {frame.kind} is not expected here")
        if not frame.body:  # a heartbeat
            return
        performative, payload = read_performative(frame.body)
        if self._sasl:
            self._on_sasl(performative)
        else:
            self.on_performative(frame.channel, performative, payload)

    def _on_sasl(self, performative: Performative) -> None:
        if not isinstance(performative, SaslInit):
            raise FrameError(f"{type(performative).__name__} in place of the choice of a mechanism")
        known = performative.mechanism == _ANONYMOUS
        self._write(write_frame(SASL_FRAME, 0, sasl_outcome(0 if known else 1)))
        self._header_next = True
        if not known:
            self.hang_up()

    def _refuse(self, condition: str, description: str) -> None:
        if self._sasl or self._header_next:  # there is no frame that could tell an error
            self.hang_up()
        else:
            self.on_malformed(condition, description)
