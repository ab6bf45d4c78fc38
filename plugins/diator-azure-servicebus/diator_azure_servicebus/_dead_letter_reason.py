"""Why a message is a dead letter, within the two short texts that Service Bus keeps of it.

The reason is kept as it is; the description is JSON with the rest. Each has room for 4,096 bytes. What is longer is cut
where people see it, and the whole is packed beside it (JSON, zlib, base 64); a traceback that is too long even so
loses its beginning.
"""

import base64
import zlib
from datetime import datetime, timezone

import msgspec
from azure.servicebus import ServiceBusReceivedMessage

from diator.brokers import MoveToDeadLetters
from diator_azure_servicebus._messages import text_properties

ROOM = 4_096
_SHOWN = 400


class _Told(msgspec.Struct, omit_defaults=True):
    """The description."""

    at: datetime
    attempts: int = 0
    error: str | None = None
    traceback: str | None = None
    packed: str | None = None


def write(why: MoveToDeadLetters) -> tuple[str, str]:
    """Return the reason and the description of a dead letter, neither with a part of a character."""
    now = datetime.now(timezone.utc)
    told = _Told(now, why.attempts, why.error, why.traceback)
    text = msgspec.json.encode(told)
    if len(text) <= ROOM and len(why.reason.encode()) <= ROOM:
        return why.reason, text.decode()
    shown = _Told(now, why.attempts, why.error and why.error[:_SHOWN])
    return _cut(why.reason), msgspec.json.encode(_packed(shown, why)).decode()


def _packed(shown: _Told, why: MoveToDeadLetters) -> _Told:
    traceback = why.traceback
    while True:
        whole = msgspec.json.encode([why.reason, why.error, traceback])
        shown.packed = base64.b64encode(zlib.compress(whole, 9)).decode()
        if len(msgspec.json.encode(shown)) <= ROOM:
            return shown
        if not traceback:
            shown.packed = None  # the reason and the error alone are too long: what is shown must do
            return shown
        traceback = traceback[len(traceback) // 4 + 1 :]


def read(message: ServiceBusReceivedMessage) -> tuple[MoveToDeadLetters, datetime]:
    """Return why a message is a dead letter, and since when, which is not known if the service made it one."""
    properties = text_properties(message)
    reason = properties.get("DeadLetterReason", "")
    description = properties.get("DeadLetterErrorDescription") or None
    try:
        told = msgspec.json.decode((description or "").encode(), type=_Told)
        return _unpacked(told, reason), told.at
    except (msgspec.DecodeError, ValueError, zlib.error):  # written by the service itself, or by another program
        since = message.enqueued_time_utc or datetime.now(timezone.utc)
        return MoveToDeadLetters(reason or "unknown", description), since.replace(tzinfo=since.tzinfo or timezone.utc)


def _unpacked(told: _Told, reason: str) -> MoveToDeadLetters:
    if told.packed is None:
        return MoveToDeadLetters(reason, told.error, told.traceback, told.attempts)
    whole = zlib.decompress(base64.b64decode(told.packed))
    reason, error, traceback = msgspec.json.decode(whole, type=tuple[str, str | None, str | None])
    return MoveToDeadLetters(reason, error, traceback, told.attempts)


def _cut(text: str) -> str:
    return text.encode()[:ROOM].decode(errors="ignore")
