"""The names of what is stored. All that belongs to one topic carries the hash tag ``{topic}``.

Tagged ``{subscription}`` are the queues of a subscription, which has one for each key, whatever its topics.
"""

from typing import NamedTuple

from diator.brokers.port import Subscription


class Stream(NamedTuple):
    """A stream that a subscription reads."""

    name: bytes
    topic: str
    own: bool
    """Whether it belongs to this subscription alone, so that what is settled is deleted from it."""


class Keys:
    """The names, under one prefix."""

    def __init__(self, prefix: str) -> None:
        self._prefix = _quoted(prefix)

    def events(self, topic: str) -> bytes:
        """A stream: the messages."""
        return self._of(topic, "events")

    def due(self, topic: str) -> bytes:
        """A sorted set: what was scheduled, by the millisecond when it is due."""
        return self._of(topic, "due")

    def scheduled(self, topic: str) -> bytes:
        """A hash: the fields of what was scheduled."""
        return self._of(topic, "scheduled")

    def again(self, topic: str, subscription: str) -> bytes:
        """A stream: dead letters that were replayed to one subscription."""
        return self._of(topic, "again", subscription)

    def dead(self, topic: str, subscription: str) -> bytes:
        """A stream: the dead letters."""
        return self._of(topic, "dead", subscription)

    def streams(self, subscription: Subscription) -> list[Stream]:
        """Return the streams that a subscription reads."""
        found: list[Stream] = []
        for topic in subscription.topics:
            found.append(Stream(self.events(topic.name), topic.name, own=False))
            found.append(Stream(self.again(topic.name, subscription.name), topic.name, own=True))
        return found

    def queues(self, subscription: str) -> list[bytes]:
        """What a subscription has beside its streams, in the order of the scripts (queues.lua)."""
        names = ("queue", "free", "later", "held", "holds", "out", "counts", "meta", "bell")
        return [f"{self._prefix}:{{{_quoted(subscription)}}}:{name}".encode() for name in names]

    def _of(self, topic: str, kind: str, *rest: str) -> bytes:
        return ":".join((self._prefix, f"{{{_quoted(topic)}}}", kind, *map(_quoted, rest))).encode()


_QUOTED = str.maketrans({character: f"%{ord(character):02X}" for character in "%{}:"})


def _quoted(name: str) -> str:
    return name.translate(_QUOTED)
