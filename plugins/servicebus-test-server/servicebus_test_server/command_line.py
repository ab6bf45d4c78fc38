"""Reading entities from the words of a command line."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from servicebus_test_server.declarations import Accepted, Entity, Filter, Queue, Subscription, Topic

HELP = """\
An entity is a name, then options with commas between:
  sessions              sessions are required
  lock=SECONDS          how long messages and sessions are locked (60)
  max-delivery=COUNT    failed deliveries until a message is dead-lettered (10)
  ttl=SECONDS           how long messages live
  dead-letter-expired   messages that have lived too long are dead-lettered
  forward=NAME          all messages go on to this queue or topic, which is declared too, in any order
  duplicates=SECONDS    a message id is taken once within this time (queue, topic)
  max-bytes=BYTES       the largest message (queue, topic)
  subject=A|B           takes only these subjects (subscription)
  property.NAME=A|B     takes only these values; an empty one means: not there (subscription)
Example:
  --queue orders,lock=5 --topic news,duplicates=60 --topic "news/mail,subject=Sold|Paid,property.to=|mail"
"""


class _Option(NamedTuple):
    """What an option sets, and how its value is read."""

    attribute: str
    read: Callable[[str], Any]
    expected: str


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise ValueError(text)
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _flag(text: str) -> bool:
    if text:
        raise ValueError(text)
    return True


_SECONDS = "a number of seconds is expected, such as 60"
_COUNT = "a whole number is expected, such as 10"
_SHARED = {
    "sessions": _Option("sessions", _flag, "it takes no value"),
    "lock": _Option("lock_seconds", _seconds, _SECONDS),
    "max-delivery": _Option("max_delivery_count", _count, _COUNT),
    "ttl": _Option("default_ttl", _seconds, _SECONDS),
    "dead-letter-expired": _Option("dead_letter_on_expiry", _flag, "it takes no value"),
    "forward": _Option("forward_to", str, "the name of a queue or topic is expected"),
}
_INLET = {
    "duplicates": _Option("duplicate_window", _seconds, _SECONDS),
    "max-bytes": _Option("max_message_bytes", _count, _COUNT),
}


@dataclass(slots=True)
class _Words:
    """An entity's name and options, before it is known what it is."""

    name: str
    options: dict[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def split(cls, text: str) -> _Words:
        name, *options = text.split(",")
        if not all(name.split("/")):
            raise ValueError(f"{text!r} has no name")
        pairs = [option.partition("=") for option in options]
        return cls(name, {key.strip(): value for key, _, value in pairs})

    def pick(self, *known: dict[str, _Option]) -> dict[str, Any]:
        options = {key: option for table in known for key, option in table.items()}
        unknown = [key for key in self.options if key not in options]
        if unknown:
            raise ValueError(f"{self.name!r} has no option {unknown[0]!r}; there are: {', '.join(sorted(options))}")
        return {options[key].attribute: self._read(key, options[key]) for key in self.options}

    def _read(self, key: str, option: _Option) -> Any:
        try:
            return option.read(self.options[key])
        except ValueError:
            text = f"option {key!r} of {self.name!r} is {self.options[key]!r}: {option.expected}"
            raise ValueError(text) from None


def read_entities(queues: Iterable[str], topics: Iterable[str]) -> list[Entity]:
    """Make the entities that ``--queue`` and ``--topic`` declare; see ``HELP`` for the form.

    Raises:
        ValueError: An option is unknown, its value is not what is expected, or a topic is declared twice.
    """
    found: list[Entity] = [_queue(_Words.split(text)) for text in queues]
    by_name: dict[str, Topic] = {}
    whole: set[str] = set()
    for words in map(_Words.split, topics):
        name, slash, subscription = words.name.partition("/")
        topic = by_name.get(name, Topic(name))
        if slash:
            by_name[name] = replace(topic, subscriptions=(*topic.subscriptions, _subscription(subscription, words)))
        elif name in whole:
            raise ValueError(f"the topic {name!r} is declared twice")
        else:
            whole.add(name)
            by_name[name] = replace(topic, **words.pick(_INLET))
    return [*found, *by_name.values()]


def _queue(words: _Words) -> Queue:
    return replace(Queue(words.name), **words.pick(_SHARED, _INLET))


def _subscription(name: str, words: _Words) -> Subscription:
    conditions = {key: value for key, value in words.options.items() if key == "subject" or key.startswith("property.")}
    words.options = {key: value for key, value in words.options.items() if key not in conditions}
    declared = replace(Subscription(name), **words.pick(_SHARED))
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
