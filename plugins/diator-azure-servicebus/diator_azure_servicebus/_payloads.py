"""Payloads: the bytes of each message as it came, kept beside what the SDK makes of them.

In version 7.15 of the SDK the values of a message no longer say which AMQP types they had, so that it could not be sent
again as it came. And a type that the SDK does not know (char, decimal32, a described UUID) breaks the connection, each
time that the message is delivered: what it can't decode is left out for it here.
"""

import struct
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, cast

from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus._pyamqp._decode import decode_payload
from azure.servicebus.aio import ServiceBusReceiver

from diator_azure_servicebus._sections import ANNOTATIONS, APPLICATION, char_of, join, map_of, pairs, split, string

_NEEDED = ("_create_handler", "_build_received_message", "_mgmt_request_response_with_retry")
_KEPT = "_diator_payload"
_UNDECODABLE = (ValueError, KeyError, IndexError, TypeError, EOFError, ArithmeticError, struct.error)
"""What the SDK raises where it can't decode a message."""


def payload_of(message: ServiceBusReceivedMessage) -> bytes | None:
    """Give a message as it came; none where the SDK has nothing of what this needs."""
    payload: Any = getattr(message, _KEPT, None)
    return None if payload is None else bytes(payload)


def keep_payloads(receiver: ServiceBusReceiver) -> None:
    """Have each message of a receiver know its payload, whether it is received or peeked at."""
    private = cast("Any", receiver)
    if not all(hasattr(private, name) for name in _NEEDED):
        return
    create, build = private._create_handler, private._build_received_message
    request = private._mgmt_request_response_with_retry

    def create_handler(auth: Any) -> None:
        create(auth)
        _watch(private._handler)

    def build_received_message(received: Any) -> Any:
        frame, _ = received
        return _kept(build(received), frame[_PAYLOAD])

    async def request_with_retry(operation: Any, message: Any, callback: Any, **options: Any) -> Any:
        return await request(operation, message, partial(_answered, callback), **options)

    private._create_handler, private._build_received_message = create_handler, build_received_message
    private._mgmt_request_response_with_retry = request_with_retry


def _kept(message: Any, payload: object) -> Any:
    setattr(message, _KEPT, payload)
    return message


def _answered(callback: Callable[..., Any], status: Any, answer: Any, description: Any, **options: Any) -> Any:
    """Take the answer to a request, which may be messages that were peeked at."""
    value: Any = answer.value
    wrapped: list[dict[bytes, Any]] = value.get(b"messages", []) if hasattr(value, "get") else []
    payloads: list[bytes] = [one[b"message"] for one in wrapped]
    for one in wrapped:
        if not _is_decodable(one[b"message"]):
            one[b"message"] = readable(one[b"message"])
    result = callback(status, answer, description, **options)
    if not payloads:
        return result
    return [_kept(message, payload) for message, payload in zip(result, payloads, strict=True)]


# A transfer is a list; these are the places of what is looked at.
_DELIVERY_ID, _MORE, _PAYLOAD = 1, 5, 11


def _watch(handler: Any) -> None:
    """Put `_Transfers` in front of the link as soon as there is one: nothing was read then."""
    ready: Callable[[], Awaitable[bool]] = handler._client_ready_async
    watched: Any = None

    async def client_ready() -> bool:
        nonlocal watched
        is_ready = await ready()
        if handler._link is not None and handler._link is not watched:
            watched = handler._link
            _Transfers(watched)
        return is_ready

    handler._client_ready_async = client_ready


class _Transfers:
    """Stands in for what takes the frames of a link: each message is decoded from its whole payload."""

    def __init__(self, link: Any) -> None:
        self._link = link
        self._incoming: Callable[[Any], Awaitable[None]] = link._incoming_transfer
        self._first: list[Any] = []
        self._parts = bytearray()
        link._incoming_transfer = self._take

    async def _take(self, transfer: Any) -> None:
        frame = [*transfer]
        if frame[_DELIVERY_ID] is not None:
            self._first, self._parts = frame, bytearray()
        if self._parts or frame[_MORE]:
            self._parts += frame[_PAYLOAD]
        if frame[_MORE]:
            frame[_PAYLOAD] = b""
            await self._incoming(frame)
            return
        payload = memoryview(self._parts) if self._parts else frame[_PAYLOAD]
        self._first[_PAYLOAD] = frame[_PAYLOAD] = payload
        try:
            await self._incoming(frame)
        except _UNDECODABLE:
            message = decode_payload(memoryview(readable(bytes(payload))))
            await self._link._process_incoming_message(self._first, message)


def readable(payload: bytes) -> bytes:
    """Leave out what the SDK can't decode of a message. Raises `ValueError` for what is no message at all."""
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
