"""The wire format of diator 0.1, so that its subscribers and publishers keep working.

Each message had a channel of its own, ``python_diator_channel:{notification_event|ecst_event}:{message id}``, read by a
pattern. It is a JSON object with ``message_type``, ``message_name``, ``message_id`` and ``payload``, which has
``event_id`` and ``event_timestamp`` besides the event's own fields.
"""

from datetime import datetime, timezone
from typing import Any

import msgspec

from diator.brokers.envelope import Envelope, Outgoing
from diator.errors import UnreadableMessageError

TYPES = {"notification": "notification_event", "ecst": "ecst_event"}
KINDS = {value: key for key, value in TYPES.items()}


class Message(msgspec.Struct):
    """A message as the predecessor wrote it."""

    message_type: str
    message_name: str
    message_id: str
    payload: dict[str, Any]


_decoder = msgspec.json.Decoder(Message)
_encoder = msgspec.json.Encoder()
_anything = msgspec.json.Decoder()


def channel_of(prefix: str, message: Outgoing) -> str:
    """Give the channel of one message."""
    return f"{prefix}:{_type_of(message.envelope)}:{message.id}"


def write(message: Outgoing) -> bytes:
    """Give one message as the predecessor wrote it."""
    envelope = message.envelope
    data: Any = _anything.decode(message.data)
    payload: dict[str, Any] = {"event_id": envelope.id, "event_timestamp": _naive(envelope.time)}
    payload |= {"data": data} if not isinstance(data, dict) else data
    return _encoder.encode(Message(_type_of(envelope), envelope.type, envelope.id, payload))


def read(body: bytes, source: str) -> Envelope:
    """Give the event that a message of the predecessor is. Raises `~diator.UnreadableMessageError`."""
    try:
        message = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableMessageError(f"it is no message of diator 0.1: {error}") from error
    stamp = message.payload.get("event_timestamp")
    return Envelope(
        specversion="1.0",
        id=message.message_id,
        source=source,
        type=message.message_name,
        time=_aware(stamp) if isinstance(stamp, str) else None,
        diatorkind=KINDS.get(message.message_type),
        data=msgspec.Raw(_encoder.encode(message.payload)),
    )


def structured(envelope: Envelope) -> bytes:
    """Give an event as it travels now."""
    return _encoder.encode(envelope)


def _type_of(envelope: Envelope) -> str:
    return TYPES.get(envelope.diatorkind or "", "notification_event")


def _naive(time: datetime | None) -> str:
    """Give a time as the predecessor did: in UTC, without saying so."""
    moment = time or datetime.now(timezone.utc)
    return (moment.astimezone(timezone.utc).replace(tzinfo=None) if moment.tzinfo else moment).isoformat()


def _aware(stamp: str) -> datetime | None:
    try:
        moment = msgspec.convert(stamp.replace(" ", "T", 1), datetime)
    except msgspec.ValidationError:
        return None
    return moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment
