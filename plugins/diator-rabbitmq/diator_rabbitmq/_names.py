"""Names of exchanges and queues, and the partition that a key belongs to.

The client takes letters, digits and a few marks in names, and no exchange whose name has more than 127 characters. So
other characters are encoded, and of a long name a digest is what counts. No two names become one.
"""

import re
import zlib
from hashlib import blake2b
from typing import NamedTuple

from diator.brokers.port import Subscription

PARTITIONS = 8
"""Into how many queues an ordered subscription is divided. Fixed: another number would change the order."""
_LONGEST = 127
_PREFIX = re.compile(r"[A-Za-z0-9._-]{1,40}")
_UNSAFE = re.compile(rb"[^A-Za-z0-9._-]")


def is_prefix(given: object) -> bool:
    """Return whether a text can be a prefix: without a colon it can't end within another's names."""
    return isinstance(given, str) and _PREFIX.fullmatch(given) is not None


def partition_of(key: str) -> int:
    """Return the partition of a key, which is the routing key of its messages. Documented, for other programs."""
    return zlib.crc32(key.encode("utf-8", "surrogatepass")) % PARTITIONS


class Names(NamedTuple):
    """How all of a broker is called."""

    prefix: str

    def of(self, kind: str, *names: str) -> str:
        """Return the name of an exchange or a queue."""
        start = f"{self.prefix}:{kind}:"
        name = ":".join(map(_encoded, names))
        if len(start) + len(name) <= _LONGEST:
            return start + name
        digest = blake2b(name.encode(), digest_size=12).hexdigest()
        return f"{start}{name[: _LONGEST - len(start) - len(digest) - 2]}@@{digest}"

    def topic(self, topic: str) -> str:
        """Return the name of the exchange of a topic."""
        return self.of("topic", topic)

    def queue(self, subscription: Subscription, partition: int | None = None) -> str:
        """Return the name of the queue of a subscription, or of one of its partitions."""
        return self.of("queue" if partition is None else f"part{partition}", subscription.name)

    def queues(self, subscription: Subscription) -> dict[str, str]:
        """Return the queues that get messages of topics, with the routing keys that each is bound by."""
        if not subscription.ordered:
            return {self.queue(subscription): "#"}
        return {self.queue(subscription, number): str(number) for number in range(PARTITIONS)}

    def notes(self, subscription: Subscription, partition: int) -> str:
        """Return the name of the queue in which the owner of a partition keeps notes."""
        return self.of(f"notes{partition}", subscription.name)

    def members(self, subscription: Subscription) -> str:
        """Return the name of the queue whose consumers are the receivers of an ordered subscription."""
        return self.of("members", subscription.name)

    def dead(self, subscription: Subscription) -> str:
        """Return the name of the queue of dead letters."""
        return self.of("dead", subscription.name)

    def waiting(self, subscription: Subscription, step: int) -> str:
        """Return the name of the queue in which messages wait for so many milliseconds to be retried."""
        return self.of(f"wait{step}", subscription.name)

    def binding(self, subscription: Subscription, topic: str) -> str:
        """Return the name of the exchange which says that a subscription is bound to a topic, and in the register."""
        return self.of("listed", subscription.name, topic)

    @property
    def register(self) -> str:
        """The name of the queue that has a record of each subscription."""
        return self.of("register", "subscriptions")


def _encoded(name: str) -> str:
    found = _UNSAFE.sub(lambda one: b"@%02X" % one.group()[0], name.encode("utf-8", "surrogatepass"))
    return found.decode("ascii")
