"""What travels: events of topics, copies of them that wait to be retried, and dead letters."""

import json
import time
from collections.abc import Mapping
from copy import copy
from datetime import datetime, timezone
from typing import Any

from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from diator.brokers.envelope import STRUCTURED, parse_envelope
from diator.brokers.port import DeadLetter, Delivery, MoveToDeadLetters
from diator.errors import UnreadableMessageError
from diator_rabbitmq._link import Link, tag_of

_TOPIC, _FAILURES, _DELIVERIES = "x-diator-topic", "x-diator-failures", "x-diator-deliveries"
_COUNT = "x-delivery-count"
_PREFIXES = ("cloudEvents:", "cloudEvents_")
"""How headers of an event in binary mode begin, in the two forms that CloudEvents allows."""
_OF_SERVER = ("x-death", "x-first-death", "x-last-death")
_LAST = [0]


def event_properties() -> Basic.Properties:
    """Return the properties of an event in structured mode. The client adds an id of its own to each."""
    return Basic.Properties(content_type=STRUCTURED, delivery_mode=2)


class Taken:
    """One delivery, which belongs to a channel, and what is known of it."""

    def __init__(self, message: DeliveredMessage, link: Link, topics: Mapping[str, str]) -> None:
        self._properties = message.header.properties
        table: dict[str, Any] = self._properties.headers or {}
        self.link, self.channel, self.tag = link, message.channel, tag_of(message)
        self.consumer, self.body = str(message.consumer_tag), message.body
        exchange = str(message.exchange)
        self.topic = _text(table.get(_TOPIC)) or topics.get(exchange, exchange)
        self.headers, self.read_error = _attributes(table, self._properties.content_type)
        self.failures = _number(table.get(_FAILURES))
        before, again = _number(table.get(_DELIVERIES)), _number(table.get(_COUNT))
        self.deliveries = before + again + 1
        self.is_redelivered = again > 0
        """Whether it was with a receiver that has gone; that need not have handed it out."""
        self.key: str | None = None
        self.due = 0.0
        """Not before this time, in seconds since 1970."""
        self.is_settled = False

    @property
    def id(self) -> str:
        """Identifies the message, also when it is delivered again."""
        return str(self._properties.message_id or "")

    @property
    def is_valid(self) -> bool:
        """Whether the server still counts it as delivered here, as far as is known."""
        return not self.is_settled and self.link.is_alive and not self.channel.is_closed

    def again(self, failures: int, deliveries: int, due: float) -> "Taken":
        """Return the same message as a delivery of its own, which keeps its place."""
        one = copy(self)
        one.failures, one.deliveries, one.due = failures, deliveries, due
        return one

    def read_key(self) -> None:
        """Read the key that it is ordered by; a message that can't be read has none."""
        try:
            self.key = parse_envelope(self.headers, self.body).partitionkey
        except UnreadableMessageError:  # which the engine reports
            self.key = None

    def delivery(self) -> Delivery:
        """Return it as the port wants it."""
        return Delivery(
            self.topic,
            self.body,
            self.headers,
            key=self.key,
            failures=self.failures,
            deliveries=self.deliveries,
            read_error=self.read_error,
            receipt=self,
        )

    def copied(self, failures: int, deliveries: int) -> Basic.Properties:
        """Return the properties of a copy that takes its place, with these counts."""
        own = {_TOPIC: self.topic, _FAILURES: failures, _DELIVERIES: deliveries}
        return self._again({**_foreign(self._properties.headers or {}), **own})

    def dead_letter(self, why: MoveToDeadLetters) -> tuple[bytes, Basic.Properties]:
        """Return it as a dead letter: a line of JSON that says why, and then its body as it was."""
        _LAST[0] = max(_LAST[0] + 1, time.time_ns())
        known = [self.topic, list(why), self.deliveries, _LAST[0]]
        properties = self._again({**_foreign(self._properties.headers or {}), _TOPIC: self.topic})
        properties.message_id = f"{_LAST[0]:020d}-{self.id}"
        return json.dumps(known).encode() + b"\n" + self.body, properties

    def _again(self, headers: dict[str, Any]) -> Basic.Properties:
        old = self._properties
        return Basic.Properties(
            content_type=old.content_type,
            content_encoding=old.content_encoding,
            correlation_id=old.correlation_id,
            message_id=old.message_id,
            timestamp=old.timestamp,
            message_type=old.message_type,
            app_id=old.app_id,
            headers=headers,
            delivery_mode=2,
        )


class StoredLetter:
    """A dead letter as it lies in its queue."""

    def __init__(self, message: DeliveredMessage) -> None:
        self._properties = message.header.properties
        self.message, self.id = message, str(self._properties.message_id)
        head, _, self.body = message.body.partition(b"\n")
        self.topic, self._why, self._deliveries, self._at = json.loads(head)

    def letter(self, subscription: str) -> DeadLetter:
        """Return it as the port wants it."""
        table: dict[str, Any] = self._properties.headers or {}
        headers, _ = _attributes(table, self._properties.content_type)
        at = datetime.fromtimestamp(self._at / 1e9, timezone.utc)
        why = MoveToDeadLetters(*self._why)
        return DeadLetter(self.id, subscription, self.topic, why, at, self._deliveries, headers, self.body)

    def key(self) -> str | None:
        """Return the key that it is ordered by, if any."""
        headers, _ = _attributes(self._properties.headers or {}, self._properties.content_type)
        try:
            return parse_envelope(headers, self.body).partitionkey
        except UnreadableMessageError:
            return None

    def replayed(self) -> Basic.Properties:
        """Return the properties of the message that it was, as a new one."""
        old = self._properties
        headers = {**_foreign(old.headers or {}), _TOPIC: self.topic}
        return Basic.Properties(content_type=old.content_type, headers=headers, delivery_mode=2)


def _foreign(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headers that are neither the server's nor ours."""
    ours = (_TOPIC, _FAILURES, _DELIVERIES, _COUNT)
    return {name: value for name, value in table.items() if name not in ours and not name.startswith(_OF_SERVER)}


def _attributes(table: Mapping[str, Any], content_type: str | None) -> tuple[dict[str, str], str | None]:
    """Return the attributes of an event in binary mode by their plain names, and what of them can't be read."""
    found: dict[str, str] = {}
    for name, value in table.items():
        if name.startswith(_PREFIXES):
            text = _text(value)
            if text is None:
                return found, f"its header {name!r} is {type(value).__name__}; expected a text"
            found[name[len(_PREFIXES[0]) :]] = text
    if "specversion" in found and content_type:
        found["datacontenttype"] = content_type
    return found, None


def _text(value: object) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, (str, int)) else None


def _number(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
