"""The names of what is stored. All that belongs to one topic carries the hash tag ``{topic}``.

So each script that moves a message stays within one slot of a Cluster. Only who leases which partition of a subscription
is tagged ``{subscription}``, since a partition covers all topics of one.
"""

from zlib import crc32


def partition_of(key: str, partitions: int) -> int:
    """Give the partition of a key: the same in each process and on each machine."""
    return crc32(key.encode("utf-8", "surrogatepass")) % partitions


class Keys:
    """The names, under one prefix."""

    def __init__(self, prefix: str) -> None:
        self._prefix = _quoted(prefix)

    def topic(self, topic: str) -> bytes:
        """A hash: in how many partitions the topic keeps its keyed messages."""
        return self._of(topic, "topic")

    def events(self, topic: str, partition: int | None = None) -> bytes:
        """A stream: the messages without a key, or those of one partition."""
        return self._of(topic, "events", *_suffix(partition))

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

    def fence(self, topic: str, subscription: str) -> bytes:
        """A hash: by which lease each partition may be read and settled."""
        return self._of(topic, "fence", subscription)

    def state(self, topic: str, subscription: str, partition: int) -> bytes:
        """A hash: failures, deliveries and due times of entries that wait in place in a partition."""
        return self._of(topic, "state", subscription, str(partition))

    def leases(self, subscription: str) -> bytes:
        """A hash: which worker has which partition, and until when."""
        return f"{self._prefix}:{{{_quoted(subscription)}}}:leases".encode()

    def workers(self, subscription: str) -> bytes:
        """A sorted set: the workers that share the partitions, by when they were last seen."""
        return f"{self._prefix}:{{{_quoted(subscription)}}}:workers".encode()

    def _of(self, topic: str, kind: str, *rest: str) -> bytes:
        return ":".join((self._prefix, f"{{{_quoted(topic)}}}", kind, *map(_quoted, rest))).encode()


def _suffix(partition: int | None) -> tuple[str, ...]:
    return () if partition is None else (str(partition),)


_QUOTED = str.maketrans({character: f"%{ord(character):02X}" for character in "%{}:"})


def _quoted(name: str) -> str:
    return name.translate(_QUOTED)
