"""Receiver links that keep the bytes of each message, and survive those that the SDK can't decode.

In version 7.15 of the SDK the values of a message no longer say which AMQP types they had, so that it could not be sent
again as it came. And a type that the SDK does not know (char, decimal32, a described UUID) breaks the connection, each
time that the message is delivered: what it can't decode is left out for it here.
"""

import struct
from collections.abc import Iterator
from typing import Any, cast

from azure.servicebus._pyamqp._decode import decode_payload
from azure.servicebus._pyamqp.aio._client_async import ReceiveClientAsync
from azure.servicebus._pyamqp.aio._receiver_async import ReceiverLink
from azure.servicebus._pyamqp.aio._session_async import Session

from diator_azure_servicebus._sections import ANNOTATIONS, APPLICATION, char_of, join, map_of, pairs, split, string

# A transfer is a list; these are the places of what is looked at.
DELIVERY_ID, MORE, PAYLOAD = 1, 5, 11
_UNDECODABLE = (ValueError, KeyError, IndexError, TypeError, EOFError, ArithmeticError, struct.error)
"""What the SDK raises where it can't decode a message."""


class Client(ReceiveClientAsync):
    """The client of one receiver; its link is a `Link`."""

    async def _client_ready_async(self) -> bool:
        is_ready: bool = await cast("Any", super())._client_ready_async()
        link = cast("Any", self)._link
        if type(link) is ReceiverLink:  # it has just been made, and has read nothing
            link.__class__ = Link
        return is_ready


class Link(ReceiverLink):
    """Decodes each message from its whole payload, which the frame keeps."""

    _parts = bytearray()
    _first_frame: Any

    async def _incoming_transfer(self, frame: Any) -> None:
        sdk, transfer = cast("Any", super()), [*frame]
        if transfer[DELIVERY_ID] is not None:
            self._parts = bytearray()
        if self._parts or transfer[MORE]:
            self._parts += transfer[PAYLOAD]
            transfer[PAYLOAD] = b""
        if self._parts and not transfer[MORE]:
            self._first_frame[PAYLOAD] = transfer[PAYLOAD] = memoryview(self._parts)
        try:
            await sdk._incoming_transfer(transfer)
        except _UNDECODABLE:
            message = decode_payload(memoryview(readable(bytes(transfer[PAYLOAD]))))
            await sdk._process_incoming_message(self._first_frame, message)


class RoleSession(Session):
    """Passes a confirmation to the links that it is for: its role is the side that settles (AMQP 1.0, part 2, 2.7.6).

    In version 7.15 the confirmation that delivery 3 is a dead letter also passes for the answer to request 3 of the
    management node. That has no outcome that way, and waits forever.
    """

    async def _incoming_disposition(self, frame: Any) -> None:
        for link in tuple(cast("Any", self)._input_handles.values()):
            if link.role != frame[0]:
                await link._incoming_disposition(frame)


def readable(payload: bytes) -> bytes:
    """Leave out what the SDK can't decode of a message. Raises `ValueError` for what is no message at all."""
    if _is_decodable(payload):
        return payload
    return join((code, content) for section in split(payload) for code, content in _readable(*section))


def _readable(code: int, content: bytes) -> Iterator[tuple[int, bytes]]:
    if _is_decodable(join([(code, content)])):
        yield code, content
    elif code in (ANNOTATIONS, APPLICATION):
        entries = [(key, _without_char(value)) for _, key, value in pairs(content)]
        yield code, map_of([one for entry in entries if _is_decodable(join([(code, map_of(entry))])) for one in entry])


def _without_char(value: bytes) -> bytes:
    character = char_of(value)
    return value if character is None else string(character)


def _is_decodable(payload: bytes) -> bool:
    try:
        decode_payload(memoryview(payload))
    except _UNDECODABLE:
        return False
    return True
