"""The names of what is stored: of a topic with the hash tag ``{topic}``, of a subscription with ``{subscription}``."""

from typing import NamedTuple
from urllib.parse import unquote

from diator.brokers.port import Subscription


class Stream(NamedTuple):
    """A stream that a subscription reads."""

    name: bytes
    topic: str | None
    """``None``: it belongs to the subscription, its entries have their topic, and are deleted when they are settled."""


class Keys:
    """The names, under one prefix."""

    def __init__(self, prefix: str) -> None:
        self._prefix = _quoted(prefix)

    def events(self, topic: str) -> bytes:
        """A stream: the messages."""
        return self._of(topic, "events")

    def all_of(self, kind: str) -> bytes:
        """Return a pattern that all keys of this kind match."""
        return f"{self._prefix.translate(_NO_PATTERN)}:{{*}}:{kind}".encode()

    def key_queues(self, subscription: str) -> bytes:
        """Return a pattern that the queues of keys match, each of which is a key of its own."""
        return self._of(subscription, "queue:").decode().translate(_NO_PATTERN).encode() + b"*"

    def owner(self, key: bytes, kind: str) -> str | None:
        """Return the topic or subscription whose key of this kind it is; ``None`` if it is another program's."""
        quoted = key.decode(errors="replace")[len(self._prefix) + 2 : -len(kind) - 2]
        name = unquote(quoted)
        return name if self._of(name, kind) == key else None

    def topic(self, topic: str) -> list[bytes]:
        """Return the stream, and of messages that are scheduled a sorted set, by their milliseconds, and a hash."""
        return [self._of(topic, kind) for kind in ("events", "due", "scheduled")]

    def streams(self, subscription: Subscription) -> list[Stream]:
        """Return the streams that a subscription reads: those of its topics, and its own."""
        found = [Stream(self.events(topic.name), topic.name) for topic in subscription.topics]
        return [*found, Stream(self.again(subscription.name), None)]

    def again(self, subscription: str) -> bytes:
        """A stream: what comes again, such as dead letters that were replayed."""
        return self._of(subscription, "again")

    def dead(self, subscription: str) -> bytes:
        """A stream: the dead letters."""
        return self._of(subscription, "dead")

    def retries(self, subscription: str) -> list[bytes]:
        """Return the stream of a subscription, and of retries that wait a sorted set and a hash, as `topic` does."""
        return [self._of(subscription, kind) for kind in ("again", "retries-due", "retries")]

    def meta(self, subscription: str) -> bytes:
        """A hash: the clock, and how far the queues were read."""
        return self._of(subscription, "meta")

    def queues(self, subscription: str) -> list[bytes]:
        """What a subscription has beside its streams, in the order of the scripts (queues.lua)."""
        names = ("queue", "free", "later", "held", "holds", "out", "counts", "meta", "bell", "dead")
        return [self._of(subscription, name) for name in names]

    def subscription(self, subscription: str) -> list[bytes]:
        """Return what a subscription has beside the groups on its topics and the queues of keys."""
        return [*dict.fromkeys([*self.retries(subscription), *self.queues(subscription)])]

    def _of(self, name: str, kind: str) -> bytes:
        return f"{self._prefix}:{{{_quoted(name)}}}:{kind}".encode()


_QUOTED = str.maketrans({character: f"%{ord(character):02X}" for character in "%{}:"})

_NO_PATTERN = str.maketrans({character: f"\\{character}" for character in "*?[]^\\"})


def _quoted(name: str) -> str:
    return name.translate(_QUOTED)
