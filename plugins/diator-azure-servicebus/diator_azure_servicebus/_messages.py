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

from diator.brokers import Outgoing, Subscription
from diator.brokers.envelope import STRUCTURED
from diator_azure_servicebus._names import LONGEST_ID, message_id_of, partition_of, session_of

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
_LONGEST_TTL = timedelta(days=40)
"""Above it there is none: the wire has 32 bits for milliseconds."""


class Content(NamedTuple):
    """What a message on the wire says."""

    topic: str
    headers: Mapping[str, str]
    body: bytes
    failures: int
    deliveries: int
    damage: str | None


def to_wire(message: Outgoing, *, sessions: bool) -> ServiceBusMessage:
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
        subject=message.envelope.type[:LONGEST_ID],
        content_type=content_type,
        correlation_id=correlation if correlation and len(correlation) <= LONGEST_ID else None,
        application_properties=properties,
    )


def from_wire(message: ServiceBusReceivedMessage, subscription: Subscription) -> Content:
    """Read a message. Whatever stands there, nothing is raised: what makes no sense is the damage."""
    topic, headers, failures, deliveries = subscription.topics[0].name if subscription.topics else "", {}, 0, 0
    try:
        properties = text_properties(message)
        failures, deliveries = _number(properties.get(FAILURES)), _number(properties.get(DELIVERIES))
        headers = _headers(properties, message.content_type)
        topic = properties.get(TOPIC) or _topic_of(headers, subscription) or topic
        return Content(topic, headers, body_of(message), failures, deliveries, None)
    except Exception as error:  # noqa: BLE001 - whatever an unknown sender has sent must not stop a receiver
        return Content(topic, headers, b"", failures, deliveries, f"unreadable: {type(error).__name__}: {error}")


def copy_of(
    message: ServiceBusReceivedMessage,
    message_id: str,
    *,
    failures: int = 0,
    deliveries: int = 0,
    delay: float = 0.0,
) -> ServiceBusMessage:
    """Make a copy to be delivered again after ``delay`` seconds, which differs in what `OWN` says only."""
    raw = message.application_properties or {}
    properties: dict[str | bytes, Any] = {_text(name): value for name, value in raw.items() if _text(name) not in OWN}
    properties.update({name: str(count) for name, count in ((FAILURES, failures), (DELIVERIES, deliveries)) if count})
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
        time_to_live=lives if lives is not None and lives < _LONGEST_TTL else None,
        scheduled_enqueue_time_utc=datetime.now(timezone.utc) + timedelta(seconds=delay) if delay > 0 else None,
        application_properties=properties,
    )


def text_properties(message: ServiceBusReceivedMessage) -> dict[str, str]:
    """Give the application properties as texts."""
    return {_text(name): _text(value) for name, value in (message.application_properties or {}).items()}


def body_of(message: ServiceBusReceivedMessage) -> bytes:
    """Give the body: the data sections, or a value that is a text or binary. Raises `ValueError` for anything else."""
    body: Any = message.body
    if message.body_type is AmqpMessageBodyType.DATA:
        return b"".join(map(bytes, body))
    if message.body_type is AmqpMessageBodyType.VALUE and isinstance(body, (bytes, str)):
        return body.encode() if isinstance(body, str) else body
    raise ValueError(f"its body is of type {message.body_type}, where bytes were expected")


def _headers(properties: Mapping[str, str], content_type: str | None) -> dict[str, str]:
    if content_type is not None and content_type.partition(";")[0].strip().lower() == STRUCTURED:
        return {}
    headers = {
        name[len(prefix) :]: value
        for prefix in reversed(PREFIXES)
        for name, value in properties.items()
        if name.startswith(prefix)
    }
    if headers.get("time", "").isdigit():  # a timestamp on the wire comes in milliseconds
        headers["time"] = datetime.fromtimestamp(int(headers["time"]) / 1000, timezone.utc).isoformat()
    if content_type:
        headers["datacontenttype"] = content_type
    return headers


def _topic_of(headers: Mapping[str, str], subscription: Subscription) -> str | None:
    """Find where a message that does not say it comes from, by its type."""
    kind = headers.get("type")
    return next((topic.name for topic in subscription.topics if kind in topic.types), None)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdigit() else 0
