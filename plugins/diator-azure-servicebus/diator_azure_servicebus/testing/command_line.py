"""Reading entities from the words of a command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from diator_azure_servicebus.testing.declarations import Accepted, Entity, Filter, Queue, Subscription, Topic

HELP = """\
An entity is a name, then options with commas between:
  sessions              sessions are required
  lock=SECONDS          how long messages and sessions are locked (60)
  max-delivery=COUNT    failed deliveries until a message is dead-lettered (10)
  ttl=SECONDS           how long messages live
  dead-letter-expired   messages that have lived too long are dead-lettered
  forward=NAME          all messages go on to this queue or topic
  duplicates=SECONDS    a message id is taken once within this time (queue, topic)
  max-bytes=BYTES       the largest message (queue, topic)
  subject=A|B           takes only these subjects (subscription)
  property.NAME=A|B     takes only these values; an empty one means: not there (subscription)
Example:
  --queue orders,lock=5 --topic news,duplicates=60 --topic "news/mail,subject=Sold|Paid,property.to=|mail"
"""
_SHARED: dict[str, tuple[str, Callable[[str], Any]]] = {
    "sessions": ("sessions", lambda _text: True),
    "lock": ("lock_seconds", float),
    "max-delivery": ("max_delivery_count", int),
    "ttl": ("default_ttl", float),
    "dead-letter-expired": ("dead_letter_on_expiry", lambda _text: True),
    "forward": ("forward_to", str),
}
_INLET: dict[str, tuple[str, Callable[[str], Any]]] = {
    "duplicates": ("duplicate_window", float),
    "max-bytes": ("max_message_bytes", int),
}


@dataclass(slots=True)
class _Words:
    """An entity's name and options, before it is known what it is."""

    name: str
    options: dict[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def split(cls, text: str) -> _Words:
        name, *options = text.split(",")
        if not name:
            raise ValueError(f"{text!r} has no name")
        pairs = [option.partition("=") for option in options]
        return cls(name, {key.strip(): value for key, _, value in pairs})

    def pick(self, *known: dict[str, tuple[str, Callable[[str], Any]]]) -> dict[str, Any]:
        merged = {key: entry for table in known for key, entry in table.items()}
        unknown = [key for key in self.options if key not in merged]
        if unknown:
            raise ValueError(f"{self.name!r} has no option {unknown[0]!r}; there are: {', '.join(sorted(merged))}")
        return {merged[key][0]: merged[key][1](value) for key, value in self.options.items()}


def read_entities(queues: Iterable[str], topics: Iterable[str]) -> list[Entity]:
    """Make the entities that ``--queue`` and ``--topic`` declare; see ``HELP`` for the form.

    Raises:
        ValueError: An option is unknown, or its value is no number.
    """
    found: list[Entity] = [_queue(_Words.split(text)) for text in queues]
    by_name: dict[str, Topic] = {}
    for words in map(_Words.split, topics):
        name, slash, subscription = words.name.partition("/")
        topic = by_name.get(name, Topic(name))
        if slash:
            words.name = subscription
            by_name[name] = replace(topic, subscriptions=(*topic.subscriptions, _subscription(words)))
        else:
            by_name[name] = replace(topic, **words.pick(_INLET))
    return [*found, *by_name.values()]


def _queue(words: _Words) -> Queue:
    return replace(Queue(words.name), **words.pick(_SHARED, _INLET))


def _subscription(words: _Words) -> Subscription:
    conditions = {key: value for key, value in words.options.items() if key == "subject" or key.startswith("property.")}
    words.options = {key: value for key, value in words.options.items() if key not in conditions}
    declared = replace(Subscription(words.name), **words.pick(_SHARED))
    return replace(declared, filters=(_filter(conditions),)) if conditions else declared


def _filter(conditions: dict[str, str]) -> Filter:
    values: dict[str, Accepted] = {
        key: tuple(part or None for part in text.split("|")) for key, text in conditions.items()
    }
    properties = {key.partition(".")[2]: accepted for key, accepted in values.items() if key != "subject"}
    return (
        Filter(subject=values["subject"], properties=properties)
        if "subject" in values
        else Filter(properties=properties)
    )
