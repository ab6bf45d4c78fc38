"""The wire format of diator 0.1, so that its subscribers and publishers keep working.

Each message had a channel of its own, ``python_diator_channel:{notification_event|ecst_event}:{message id}``, read by a
pattern. It is a JSON object with ``message_type``, ``message_name``, ``message_id`` and ``payload``, which has
``event_id`` and ``event_timestamp`` besides the event's own fields.
"""

from datetime import datetime, timezone
from typing import Any

import msgspec

from diator.brokers.envelope import Envelope, OutgoingMessage
from diator.brokers.port import Delivery, Subscription
from diator_redis._channels import Channels

TYPES = {"notification": "notification_event", "ecst": "ecst_event"}
KINDS = {value: key for key, value in TYPES.items()}


class Message(msgspec.Struct):
    """A message as diator 0.1 wrote it."""

    message_type: str
    message_name: str
    message_id: str
    payload: dict[str, Any]


_decoder = msgspec.json.Decoder(Message)
_encode = msgspec.json.Encoder().encode
_anything = msgspec.json.Decoder()


def write(prefix: str, message: OutgoingMessage) -> tuple[str, bytes]:
    """Return the channel and the body of a message as diator 0.1 wrote it."""
    envelope, data = message.envelope, _anything.decode(message.data)
    type_ = TYPES.get(envelope.diatorkind or "", "notification_event")
    # In UTC, without an offset.
    time = (envelope.time or datetime.now(timezone.utc)).astimezone(timezone.utc).replace(tzinfo=None)
    payload: dict[str, Any] = {"event_id": envelope.id, "event_timestamp": time.isoformat()}
    payload |= data if isinstance(data, dict) else {"data": data}
    return f"{prefix}:{type_}:{message.id}", _encode(Message(type_, envelope.type, envelope.id, payload))


def channels(prefix: str, subscription: Subscription) -> Channels:
    """Return all channels of diator 0.1; messages without a topic of the subscription are skipped."""
    topics = {name: topic.name for topic in subscription.topics for name in topic.types}

    def read(_: bytes, body: bytes) -> Delivery | None:
        try:
            message = _decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return Delivery(subscription.topics[0].name, body, read_error=f"it is not a message of diator 0.1: {error}")
        topic = topics.get(message.message_name)
        return None if topic is None else Delivery(topic, _encode(_envelope_of(message, prefix)))

    escaped = "".join(f"\\{letter}" if letter in "*?[]\\^-" else letter for letter in prefix)
    return Channels([f"{escaped}:*".encode()], are_patterns=True, read=read)


def _envelope_of(message: Message, source: str) -> Envelope:
    return Envelope(
        specversion="1.0",
        id=message.message_id,
        source=source,
        type=message.message_name,
        time=_time_of(message.payload.get("event_timestamp")),
        diatorkind=KINDS.get(message.message_type),
        data=msgspec.Raw(_encode(message.payload)),
    )


def _time_of(stamp: object) -> datetime | None:
    try:
        moment = msgspec.convert(str(stamp).replace(" ", "T", 1), datetime)
    except msgspec.ValidationError:
        return None
    return moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment
