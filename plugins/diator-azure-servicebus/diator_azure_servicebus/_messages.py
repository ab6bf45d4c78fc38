"""Messages: an event as Service Bus carries it, and back.

Events travel as the CloudEvents AMQP protocol binding says (cloudevents/bindings/amqp-protocol-binding.md): in binary
mode attributes are application properties named ``cloudEvents:id`` and so on. What is too long for that travels in
structured mode: Service Bus takes 64 KB of properties in all. Diator's own properties begin with ``diator-``.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from azure.servicebus import ServiceBusMessage, ServiceBusReceivedMessage
from azure.servicebus.amqp import AmqpMessageBodyType

from diator.brokers import OutgoingMessage, Subscription
from diator.brokers.envelope import ATTRIBUTES, STRUCTURED
from diator_azure_servicebus._names import MAX_ID, message_id_of, partition_of, session_of

PREFIX = "cloudEvents:"
PREFIXES = (PREFIX, "cloudEvents_")
"""Incoming attributes may have either: the binding allows the second for brokers that take no colon in names."""
TOPIC = "diator-topic"
FAILURES = "diator-failures"
DELIVERIES = "diator-deliveries"
OWN = (FAILURES, DELIVERIES, "DeadLetterReason", "DeadLetterErrorDescription")
"""What is said of a message while it is on its way, and not part of it."""

_ROOM = 16_384
"""Bytes of attributes that are carried as properties."""


class Content(NamedTuple):
    """What a message on the wire says."""

    topic: str
    headers: Mapping[str, str]
    body: bytes
    failures: int
    deliveries: int
    read_error: str | None


def to_wire(message: OutgoingMessage, *, sessions: bool) -> ServiceBusMessage:
    """Make a Service Bus message of an event."""
    attributes = message.attributes()
    binary = sum(map(len, map(str.encode, attributes.values()))) <= _ROOM
    content_type = attributes.pop("datacontenttype") if binary else STRUCTURED
    properties: dict[str | bytes, Any] = {TOPIC: message.topic}
    if binary:
        properties.update((PREFIX + name, value) for name, value in attributes.items())
    correlation = message.envelope.diatorcorrelation
    return ServiceBusMessage(
        message.data if binary else message.structured,
        message_id=message_id_of(message.id),
        session_id=session_of(message.key, message.id) if sessions else None,
        partition_key=None if sessions else partition_of(message.key),
        subject=message.envelope.type[:MAX_ID],
        scheduled_enqueue_time_utc=message.due and _whole_milliseconds(message.due),
        content_type=content_type,
        correlation_id=correlation if correlation and len(correlation) <= MAX_ID else None,
        application_properties=properties,
    )


def _whole_milliseconds(due: datetime) -> datetime:
    """Round up, since the wire carries milliseconds and a message must not come early."""
    return due + timedelta(microseconds=-due.microsecond % 1000)


def from_wire(message: ServiceBusReceivedMessage, subscription: Subscription) -> Content:
    """Read a message. Nothing is raised: what it does not understand is in `Content.read_error`."""
    topic, headers, failures, deliveries = subscription.topics[0].name if subscription.topics else "", {}, 0, 0
    try:
        properties = text_properties(message)
        failures, deliveries = _number(properties.get(FAILURES)), _number(properties.get(DELIVERIES))
        headers = _headers(properties, message.content_type)
        topic = properties.get(TOPIC) or _topic_of(headers, subscription) or topic
        return Content(topic, headers, body_of(message), failures, deliveries, None)
    except Exception as error:  # noqa: BLE001 - whatever an unknown sender has sent must not stop a receiver
        return Content(topic, headers, b"", failures, deliveries, f"unreadable: {type(error).__name__}: {error}")


def text_properties(message: ServiceBusReceivedMessage) -> dict[str, str]:
    """Return the application properties as texts, as the CloudEvents AMQP binding writes them, without nulls."""
    raw: Mapping[Any, Any] = message.application_properties or {}
    found = {text_of(name): value for name, value in raw.items() if value is not None}
    return {name: _READ.get(name, text_of)(value) for name, value in found.items()}


def body_of(message: ServiceBusReceivedMessage) -> bytes:
    """Return the body: the data sections, or a value that is text or binary. Raises `ValueError` for anything else."""
    body: Any = message.body
    if message.body_type is AmqpMessageBodyType.DATA:
        return b"".join(map(bytes, body))
    if message.body_type is AmqpMessageBodyType.VALUE and isinstance(body, (bytes, str)):
        return body.encode() if isinstance(body, str) else body
    raise ValueError(f"its body is of type {message.body_type}; expected bytes")


def _headers(properties: Mapping[str, str], content_type: str | None) -> dict[str, str]:
    if content_type is not None and content_type.partition(";")[0].strip().lower() == STRUCTURED:
        return {}
    headers = {
        name[len(prefix) :]: value
        for prefix in reversed(PREFIXES)
        for name, value in properties.items()
        if name.startswith(prefix)
    }
    if content_type:
        headers["datacontenttype"] = content_type
    return headers


def _topic_of(headers: Mapping[str, str], subscription: Subscription) -> str | None:
    """Find where a message that does not say it comes from, by its type."""
    kind = headers.get("type")
    return next((topic.name for topic in subscription.topics if kind in topic.types), None)


def text_of(value: object) -> str:
    """Return the name or value of a property as a text, of any type: only `_needed` ones must be right."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return str(value).lower() if isinstance(value, bool) else str(value)


def _needed(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else text_of(value)


def _moment(value: object) -> str:
    """Return a time as a text. A timestamp is in milliseconds."""
    if not isinstance(value, int) or isinstance(value, bool):
        return _needed(value)
    try:
        return (_EPOCH + timedelta(milliseconds=value)).isoformat()
    except OverflowError as error:
        raise ValueError(f"its time is {value} ms after 1970; expected one of the years 1 to 9999") from error


_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_READ = {prefix + name: _moment if name == "time" else _needed for prefix in PREFIXES for name in ATTRIBUTES}
"""How attributes of events are read. All others may hold what is no text."""


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdigit() else 0
