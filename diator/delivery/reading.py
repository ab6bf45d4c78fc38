"""Reading: from bytes to an event and its context. Everything that is wrong becomes an `UnreadableMessageError`."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec

from diator.brokers.envelope import BOM, JSON, Envelope, parse_envelope
from diator.context import NO_HEADERS, Context, Headers
from diator.delivery.catalog import EventType
from diator.delivery.codec import Codec
from diator.delivery.error_texts import text_of
from diator.delivery.work_queue import Job
from diator.errors import UnreadableMessageError

_headers = msgspec.json.Decoder(dict[str, str])


def read_envelope(job: Job) -> Envelope:
    """Read the envelope of a job."""
    delivery = job.delivery
    if delivery.read_error is not None:
        raise UnreadableMessageError(delivery.read_error)
    envelope = job.envelope = parse_envelope(delivery.headers, delivery.body)
    return envelope


def build_context(job: Job, subscription: str) -> Context:
    """The context that a handler sees."""
    envelope = job.envelope
    assert envelope is not None
    return Context(
        message_id=envelope.id,
        correlation_id=envelope.diatorcorrelation or envelope.id,
        causation_id=envelope.diatorcausation,
        headers=_headers_of(envelope),
        attempt=job.delivery.failures + 1,
        published_at=envelope.time,
        subscription=subscription,
    )


def decode(envelope: Envelope, entry: EventType) -> Any:
    """Make the event. One of a version higher than known is tried all the same: unknown fields are ignored."""
    if envelope.datacontenttype != JSON and not envelope.has_json:
        raise UnreadableMessageError(f"its data is {envelope.datacontenttype!r}; expected {JSON!r}")
    try:
        return _decoded(entry.codec, envelope.data)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a class of events may raise anything for data that it rejects
        known, got = entry.contract.version, envelope.diatorversion
        other = f", of version {got}, where {known} is known," if got != known else ""
        text = f"the data of {envelope.type}{other} does not fit {entry.cls.__qualname__}: {text_of(error)}"
        missing = any(mark in text for mark in _MISSING)
        fix = "; give the field a default to read such messages" if missing else ""
        raise UnreadableMessageError(text + fix) from error


def _decoded(codec: Codec, data: msgspec.Raw) -> Any:
    try:
        return codec.decode(data)
    except Exception:
        if (other := _other_form(bytes(data))) is not None:
            with suppress(Exception):  # told as it came
                return codec.decode(other)
        raise


def _other_form(data: bytes) -> bytes | None:
    """Give JSON that stands in a text, which is how SDKs write data that is text to them, or behind a mark."""
    plain = data.removeprefix(BOM)
    if plain.lstrip()[:1] != b'"':
        return plain if plain is not data else None
    try:
        return msgspec.json.decode(plain, type=str).encode()
    except (msgspec.DecodeError, UnicodeEncodeError):
        return None


_MISSING = ("missing required field", "type=missing")
"""What msgspec and pydantic say of a message that lacks a field."""


def _headers_of(envelope: Envelope) -> Mapping[str, str]:
    if envelope.traceparent is None and envelope.diatorheaders is None:
        return NO_HEADERS
    try:
        headers = _headers.decode(envelope.diatorheaders) if envelope.diatorheaders is not None else {}
    except (msgspec.DecodeError, RecursionError) as error:
        raise UnreadableMessageError(f"its diatorheaders are not a JSON object of texts: {error}") from error
    for name in ("traceparent", "tracestate"):
        value = getattr(envelope, name)
        if value is not None:
            headers[name] = value
    return Headers(headers)
