"""The names of what is stored. All that belongs to one topic carries the hash tag ``{topic}``.

Tagged ``{subscription}`` are the queues of an ordered subscription, which has one for each key, whatever its topics.
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

    def again(self, topic: str, subscription: str) -> bytes:
        """A stream: what one subscription gets again, as it was given back, fell due or was replayed."""
        return self._of(topic, "again", subscription)

    def later(self, topic: str, subscription: str) -> bytes:
        """A sorted set: what is to be retried, by the millisecond when it is due."""
        return self._of(topic, "later", subscription)

    def kept(self, topic: str, subscription: str) -> bytes:
        """A hash: the fields of what is to be retried."""
        return self._of(topic, "kept", subscription)

    def dead(self, topic: str, subscription: str) -> bytes:
        """A stream: the dead letters."""
        return self._of(topic, "dead", subscription)

    def queues(self, subscription: str) -> list[bytes]:
        """What an ordered subscription knows beside its streams, in the order of the scripts (queues.lua)."""
        names = ("queue", "free", "later", "held", "holds", "out", "counts", "meta", "bell")
        return [f"{self._prefix}:{{{_quoted(subscription)}}}:{name}".encode() for name in names]

    def _of(self, topic: str, kind: str, *rest: str) -> bytes:
        return ":".join((self._prefix, f"{{{_quoted(topic)}}}", kind, *map(_quoted, rest))).encode()


def _suffix(partition: int | None) -> tuple[str, ...]:
    return () if partition is None else (str(partition),)


_QUOTED = str.maketrans({character: f"%{ord(character):02X}" for character in "%{}:"})


def _quoted(name: str) -> str:
    return name.translate(_QUOTED)
