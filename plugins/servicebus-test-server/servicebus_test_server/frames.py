"""Cutting a stream of bytes into protocol headers and frames (AMQP 1.0, part 2, sections 2.2 and 2.3)."""

from __future__ import annotations

import struct
from typing import NamedTuple

AMQP_HEADER = b"AMQP\x00\x01\x00\x00"
SASL_HEADER = b"AMQP\x03\x01\x00\x00"
AMQP_FRAME = 0
SASL_FRAME = 1

_HEAD = struct.Struct(">IBBH")


class FrameError(ValueError):
    """The bytes are no frame, or a frame of a size that was not agreed."""


class Frame(NamedTuple):
    """One frame; an empty body is a heartbeat."""

    kind: int
    channel: int
    body: bytes


class FrameReader:
    """Collects what arrives and gives out headers and frames as they become whole."""

    def __init__(self, max_frame_size: int) -> None:
        self._buffer = bytearray()
        self._start = 0
        self._max_frame_size = max_frame_size

    def feed(self, data: bytes) -> None:
        """Add bytes from the network."""
        if self._start:
            del self._buffer[: self._start]
            self._start = 0
        self._buffer += data

    def header(self) -> bytes | None:
        """Take a protocol header, 8 bytes; None while it is not whole."""
        return self._take(8) if len(self._buffer) - self._start >= 8 else None

    def frame(self) -> Frame | None:
        """Take a frame; None while it is not whole.

        Raises:
            FrameError: Its size or the offset of its body is out of bounds.
        """
        available = len(self._buffer) - self._start
        if available < 8:
            return None
        size, offset, kind, channel = _HEAD.unpack_from(self._buffer, self._start)
        if not 8 <= size <= self._max_frame_size:
            raise FrameError(f"a frame of {size} bytes; from 8 to {self._max_frame_size} are taken")
        if not 2 <= offset <= size // 4:
            raise FrameError(f"a data offset of {offset} in a frame of {size} bytes")
        if available < size:
            return None
        return Frame(kind, channel, self._take(size)[offset * 4 :])

    def _take(self, size: int) -> bytes:
        end = self._start + size
        taken = bytes(self._buffer[self._start : end])
        self._start = end
        return taken


def write_frame(kind: int, channel: int, body: bytes, payload: bytes = b"") -> bytes:
    """Encode a frame."""
    return _HEAD.pack(8 + len(body) + len(payload), 2, kind, channel) + body + payload
