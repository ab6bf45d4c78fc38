"""Copies: a message that is sent again, with everything that its sender gave it, types included."""

import time
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any, NamedTuple, cast

from azure.servicebus import ServiceBusMessage, ServiceBusMessageBatch, ServiceBusReceivedMessage

from diator_azure_servicebus._messages import DELIVERIES, FAILURES, OWN, body_of, text_of
from diator_azure_servicebus._sdk import payload_of
from diator_azure_servicebus._sections import (
    ANNOTATIONS,
    APPLICATION,
    DELIVERY_ANNOTATIONS,
    HEADER,
    NULL,
    PROPERTIES,
    items,
    join,
    list_of,
    map_of,
    number_of,
    pairs,
    split,
    string,
    symbol,
    timestamp,
)

_SCHEDULED = "x-opt-scheduled-enqueue-time"
_OF_THE_SERVICE = frozenset(
    {
        _SCHEDULED,
        "x-opt-sequence-number",
        "x-opt-enqueue-sequence-number",
        "x-opt-enqueued-time",
        "x-opt-locked-until",
        "x-opt-lock-token",
        "x-opt-message-state",
        "x-opt-partition-id",
        "x-opt-deadletter-source",
    }
)
"""Annotations that the service sets on each message itself."""
_MAX_TTL = timedelta(days=40)
"""Above it there is none: the wire has 32 bits for milliseconds."""
_FIRST = (HEADER, ANNOTATIONS, PROPERTIES, APPLICATION)
"""The sections before the body, in their order."""
_INT = range(-(2**31), 2**31)


class Copy(NamedTuple):
    """A message as it came, encoded. ``plain`` makes what the SDK can make of it, for one too large for a batch."""

    encoded: bytes
    message_id: str
    session_id: str | None
    partition_key: str | None
    plain: "partial[ServiceBusMessage]"

    def put_into(self, batch: ServiceBusMessageBatch) -> bool:
        """Add it to a batch, in which the SDK keeps messages that are encoded; false where it does not fit."""
        private = cast("Any", batch)
        size = private._size + len(self.encoded) + _BATCHED
        if size > batch.max_size_in_bytes:
            return False
        private._message[5].append(self.encoded)
        private._size, private._count = size, private._count + 1
        if private._count == 1:
            transport = private._amqp_transport
            transport.set_batch_envelope_properties(
                private._message, self.message_id, self.session_id, self.partition_key
            )
        return True


_BATCHED = 8
"""Bytes that a message takes in a batch beside its own."""


def copy_of(
    message: ServiceBusReceivedMessage,
    message_id: str,
    *,
    failures: int = 0,
    deliveries: int = 0,
    delay: float = 0.0,
) -> Copy | ServiceBusMessage:
    """Make a copy to be delivered again after ``delay`` seconds, which differs in its id and in what `OWN` says."""
    counts = {name: str(count) for name, count in ((FAILURES, failures), (DELIVERIES, deliveries)) if count}
    due = time.time() + delay if delay > 0 else None
    plain = partial(_plain, message, message_id, counts, due)
    payload = payload_of(message)
    if payload is None:
        return plain()
    encoded = _encoded(payload, message_id, counts, due)
    return Copy(encoded, message_id, message.session_id, message.session_id or message.partition_key, plain)


def _encoded(payload: bytes, message_id: str, counts: Mapping[str, str], due: float | None) -> bytes:
    first = dict.fromkeys(_FIRST, NULL)
    rest: list[tuple[int, bytes]] = []
    for code, content in split(payload):
        if code in first:
            first[code] = content
        elif code != DELIVERY_ANNOTATIONS:
            rest.append((code, content))
    header, life = _header(first[HEADER])
    scheduled = [] if due is None else [symbol(_SCHEDULED), timestamp(round(due * 1000))]
    counted = [string(text) for entry in counts.items() for text in entry]
    sections = (
        (HEADER, header),
        (ANNOTATIONS, _map(first[ANNOTATIONS], _OF_THE_SERVICE, scheduled)),
        (PROPERTIES, _properties(first[PROPERTIES], message_id, life)),
        (APPLICATION, _map(first[APPLICATION], OWN, counted)),
    )
    return join([*sections, *rest])


def _header(content: bytes) -> tuple[bytes, int | None]:
    """Keep the durability, the priority and the life of a message, which begins again; the latter in milliseconds."""
    fields = items(content)[:3]
    life = number_of(fields[2]) if len(fields) > 2 else None
    if life is None or timedelta(milliseconds=life) >= _MAX_TTL:
        return list_of(fields[:2]), None
    return list_of(fields), life


def _properties(content: bytes, message_id: str, life: int | None) -> bytes:
    fields = items(content)
    if len(fields) > _EXPIRES and life is not None:
        now = round(time.time() * 1000)
        for at, moment in ((_EXPIRES, now + life), (_EXPIRES + 1, now)):
            if at < len(fields) and fields[at] != NULL:
                fields[at] = timestamp(moment)
    return list_of([string(message_id), *fields[1:]])


_EXPIRES = 8
"""The place of the absolute expiry time in the properties; the time of creation follows."""


def _map(content: bytes, left_out: Collection[str], added: Sequence[bytes]) -> bytes:
    kept = [one for name, *entry in pairs(content) if name not in left_out for one in entry]
    return map_of([*kept, *added])


def _plain(
    message: ServiceBusReceivedMessage, message_id: str, counts: Mapping[str, str], due: float | None
) -> ServiceBusMessage:
    raw = message.application_properties or {}
    properties: dict[str | bytes, Any] = {
        text_of(name): _as_long(value) for name, value in raw.items() if text_of(name) not in OWN
    }
    properties.update(counts)
    lives = message.time_to_live
    return ServiceBusMessage(
        body_of(message),
        message_id=message_id,
        session_id=message.session_id,
        partition_key=message.session_id or message.partition_key,
        subject=message.subject,
        content_type=message.content_type,
        correlation_id=message.correlation_id,
        to=message.to,
        reply_to=message.reply_to,
        time_to_live=lives if lives is not None and lives < _MAX_TTL else None,
        scheduled_enqueue_time_utc=None if due is None else datetime.fromtimestamp(due, timezone.utc),
        application_properties=properties,
    )


def _as_long(value: object) -> object:
    """Make the SDK write 64 bits if a number needs them: it encodes every number in 32."""
    is_long = isinstance(value, int) and not isinstance(value, bool) and value not in _INT
    return {"TYPE": "LONG", "VALUE": value} if is_long else value
