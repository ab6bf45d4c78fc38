"""Names of keys in Redis: of a topic with the hash tag ``{topic}``, of a subscription with ``{subscription}``."""

from typing import NamedTuple
from urllib.parse import unquote

from diator.brokers.port import Subscription


class Stream(NamedTuple):
    """A stream that a subscription reads."""

    name: bytes
    topic: str | None
    """``None``: the subscription's own stream, whose entries name their topic and are deleted when they are settled."""


class KeyNames:
    """Names of keys under one prefix."""

    def __init__(self, prefix: str) -> None:
        self._prefix = _quoted(prefix)

    def events(self, topic: str) -> bytes:
        """Return the stream of a topic's messages."""
        return self._of(topic, "events")

    def all_of(self, kind: str) -> bytes:
        """Return a pattern that all keys of this kind match."""
        return f"{self._prefix.translate(_NO_PATTERN)}:{{*}}:{kind}".encode()

    def key_queues(self, subscription: str) -> bytes:
        """Return a pattern that the queues of a subscription match; each message key has one."""
        return self._of(subscription, "queue:").decode().translate(_NO_PATTERN).encode() + b"*"

    def owner(self, key: bytes, kind: str) -> str | None:
        """Return the topic or subscription that a key of this kind belongs to; ``None`` if it is another program's."""
        quoted = key.decode(errors="replace")[len(self._prefix) + 2 : -len(kind) - 2]
        name = unquote(quoted)
        return name if self._of(name, kind) == key else None

    def topic(self, topic: str) -> list[bytes]:
        """Return the stream, and for scheduled messages a sorted set, by milliseconds, and a hash."""
        return [self._of(topic, kind) for kind in ("events", "due", "scheduled")]

    def streams(self, subscription: Subscription) -> list[Stream]:
        """Return the streams that a subscription reads: those of its topics, and its own."""
        found = [Stream(self.events(topic.name), topic.name) for topic in subscription.topics]
        return [*found, Stream(self.redelivery(subscription.name), None)]

    def redelivery(self, subscription: str) -> bytes:
        """Return the stream of messages to redeliver to one subscription, such as replayed dead letters."""
        return self._of(subscription, "redelivery")

    def dead_letters(self, subscription: str) -> bytes:
        """Return the stream of dead letters."""
        return self._of(subscription, "dead-letters")

    def retries(self, subscription: str) -> list[bytes]:
        """Return the stream of a subscription, and for delayed retries a sorted set and a hash, as `topic` does."""
        return [self._of(subscription, kind) for kind in ("redelivery", "retries-due", "retries")]

    def meta(self, subscription: str) -> bytes:
        """Return the hash with the clock and the positions up to which streams were read into queues."""
        return self._of(subscription, "meta")

    def queues(self, subscription: str) -> list[bytes]:
        """Return the keys of an ordered subscription beside its streams, in the order of queues.lua."""
        names = ("queue", "free", "delayed", "leases", "holders", "in-flight", "counts", "meta", "wakeup")
        return [*(self._of(subscription, name) for name in names), self.dead_letters(subscription)]

    def subscription(self, subscription: str) -> list[bytes]:
        """Return the keys of a subscription, except its queues."""
        return [*dict.fromkeys([*self.retries(subscription), *self.queues(subscription)])]

    def _of(self, name: str, kind: str) -> bytes:
        return f"{self._prefix}:{{{_quoted(name)}}}:{kind}".encode()


_QUOTED = str.maketrans({character: f"%{ord(character):02X}" for character in "%{}:"})

_NO_PATTERN = str.maketrans({character: f"\\{character}" for character in "*?[]^\\"})


def _quoted(name: str) -> str:
    return name.translate(_QUOTED)
