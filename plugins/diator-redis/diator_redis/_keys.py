"""The names of what is stored. All that belongs to one topic carries the hash tag ``{topic}``.

So each script that moves a message stays within one slot of a Cluster, as long as a subscription has one topic. Tagged
``{subscription}`` are only which workers there are, and how they wake each other.
"""

from time import time_ns
from zlib import crc32


def partition_of(key: str | bytes, partitions: int) -> int:
    """Give the partition of a key: the same in each process and on each machine."""
    return crc32(key if isinstance(key, bytes) else key.encode("utf-8", "surrogatepass")) % partitions


class Stamps:
    """When keyed messages were published, in microseconds, to order those of several topics; each only once."""

    def __init__(self) -> None:
        self._last = 0

    def next(self) -> int:
        """Give the next one."""
        self._last = max(self._last + 1, time_ns() // 1000)
        return self._last


class Keys:
    """The names, under one prefix."""

    def __init__(self, prefix: str) -> None:
        self._prefix = _quoted(prefix)
        self._streams: dict[tuple[str, int | None], bytes] = {}

    def topic(self, topic: str) -> bytes:
        """A hash: in how many partitions the topic keeps its keyed messages."""
        return self._of(topic, "topic")

    def events(self, topic: str, partition: int | None = None) -> bytes:
        """A stream: the messages without a key, or those of one partition."""
        found = self._streams.get((topic, partition))
        if found is None:  # asked for with each message that is published
            found = self._streams[topic, partition] = self._of(topic, "events", *_suffix(partition))
        return found

    def again(self, topic: str, subscription: str, partition: int | None = None) -> bytes:
        """A stream: what one subscription gets again, as it was given back, fell due or was replayed."""
        return self._of(topic, "again", subscription, *_suffix(partition))

    def later(self, topic: str, subscription: str) -> bytes:
        """A sorted set: what is to be retried, by the millisecond when it is due."""
        return self._of(topic, "later", subscription)

    def kept(self, topic: str, subscription: str) -> bytes:
        """A hash: the fields of what is to be retried."""
        return self._of(topic, "kept", subscription)

    def dead(self, topic: str, subscription: str) -> bytes:
        """A stream: the dead letters."""
        return self._of(topic, "dead", subscription)

    def leases(self, topic: str, subscription: str) -> bytes:
        """A hash: which worker has which partition, and until when; it is the fence for reading and settling."""
        return self._of(topic, "leases", subscription)

    def state(self, topic: str, subscription: str) -> bytes:
        """A hash for each partition: failures and due times of entries that wait in place."""
        return self._of(topic, "state", subscription)

    def workers(self, subscription: str) -> bytes:
        """A sorted set: the workers that share the partitions, by when they were last seen."""
        return f"{self._prefix}:{{{_quoted(subscription)}}}:workers".encode()

    def bell(self, subscription: str) -> bytes:
        """A stream without content: workers that wait are woken by it when partitions change hands."""
        return f"{self._prefix}:{{{_quoted(subscription)}}}:bell".encode()

    def _of(self, topic: str, kind: str, *rest: str) -> bytes:
        return ":".join((self._prefix, f"{{{_quoted(topic)}}}", kind, *map(_quoted, rest))).encode()


def _suffix(partition: int | None) -> tuple[str, ...]:
    return () if partition is None else (str(partition),)


_QUOTED = str.maketrans({character: f"%{ord(character):02X}" for character in "%{}:"})


def _quoted(name: str) -> str:
    return name.translate(_QUOTED)
