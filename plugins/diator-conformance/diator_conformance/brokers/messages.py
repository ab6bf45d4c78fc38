"""The messages that cases send, each known by its number."""

from collections.abc import Iterable

import msgspec

from diator.brokers.envelope import Envelope, OutgoingMessage, parse_envelope
from diator.brokers.port import DeadLetter, Delivery, Topic


def message(number: int, topic: Topic, key: str | None = None, data: bytes = b'{"some":"data"}') -> OutgoingMessage:
    """Make a message with this number as its id."""
    envelope = Envelope(
        specversion="1.0",
        id=str(number),
        source="conformance",
        type="thing.happened",
        partitionkey=key,
        data=msgspec.Raw(data),
    )
    return OutgoingMessage(topic.name, envelope)


def messages(count: int, topic: Topic, key: str | None = None, *, first: int = 0) -> list[OutgoingMessage]:
    """Make so many messages, of one key or of none."""
    return [message(number, topic, key) for number in range(first, first + count)]


def envelope_of(delivery: Delivery) -> Envelope:
    """Read a delivery."""
    return parse_envelope(delivery.headers, delivery.body)


def number(delivery: Delivery) -> int:
    """Give the number of what was delivered."""
    return int(envelope_of(delivery).id)


def numbers(deliveries: Iterable[Delivery]) -> list[int]:
    """Give the numbers of what was delivered."""
    return [number(delivery) for delivery in deliveries]


def number_of(letter: DeadLetter) -> int:
    """Give the number of the message that became a dead letter."""
    return int(parse_envelope(letter.headers, letter.body).id)
