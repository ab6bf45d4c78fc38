"""Names at the server: streams, consumers and subjects, into which any name of a topic or subscription is encoded."""

import re
from functools import lru_cache
from hashlib import sha256

from diator.brokers.port import Subscription

PARTITIONS = "0123456789abcdef"
"""The partitions of keyed events: the first digit of the hash of the key."""
UNKEYED = "u"
"""The part of events without a key."""
ALL = "all"
"""The one consumer of a subscription without order."""
MAX_NAME = 200
"""Characters of an encoded name, for consumers of the server take 255."""


@lru_cache(maxsize=10_000)
def encode(name: str) -> str:
    """Return a name as one token of a subject: different names give different tokens."""
    return re.sub(r"[^A-Za-z0-9_-]", lambda found: "".join(f"={byte:02x}" for byte in _as_bytes(found[0])), name)


def decode(token: str) -> str:
    """Return the name that a token stands for."""
    return re.sub(
        r"(=[0-9a-f]{2})+", lambda found: bytes.fromhex(found[0].replace("=", "")).decode("utf-8", "replace"), token
    )


def lane_of(key: str | None) -> str:
    """Return the last two tokens of an event's subject: the partition, and what stands for the key."""
    if key is None:
        return f"{UNKEYED}.0"
    digest = sha256(_as_bytes(key)).hexdigest()[:16]
    return f"{digest[0]}.{digest}"


def _as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def parts_of(ordered: bool) -> tuple[str, ...]:
    """Return the parts of a subscription, each of which is a consumer at the server."""
    return (UNKEYED, *PARTITIONS) if ordered else (ALL,)


class Names:
    """The names of all brokers with one prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.events, self.state = f"{prefix}_events", f"{prefix}_state"

    def event(self, topic: str, lane: str) -> str:
        """Return the subject of an event."""
        return f"{self.prefix}.ev.{encode(topic)}.{lane}"

    def later(self, topic: str, lane: str) -> str:
        """Return the subject of an event that is not due."""
        return f"{self.prefix}.la.{encode(topic)}.{lane}"

    def replayed(self, subscription: str, topic: str, lane: str) -> str:
        """Return the subject of a dead letter that is delivered again."""
        return f"{self.prefix}.rp.{encode(subscription)}.{encode(topic)}.{lane}"

    def note(self, subscription: str, part: str, number: object) -> str:
        """Return the subject of what is known of a message that is redelivered."""
        return f"{self.prefix}.st.note.{encode(subscription)}.{part}.{number}"

    def dead(self, subscription: str, number: object) -> str:
        """Return the subject of a dead letter."""
        return f"{self.prefix}.st.dead.{encode(subscription)}.{number}"

    def owner(self, subscription: str, part: str) -> str:
        """Return the subject of the record that says which receiver has a partition."""
        return f"{self.prefix}.st.own.{encode(subscription)}.{part}"

    def presence(self, subscription: str) -> str:
        """Return the subject on which receivers tell each other that they are there."""
        return f"{self.prefix}.here.{encode(subscription)}"

    def filters(self, subscription: Subscription, part: str) -> dict[str, str]:
        """Return the subjects that a consumer reads, and for each the token of its topic; that of replays is empty."""
        lane = ">" if part == ALL else f"{part}.*"
        replays = f"{self.prefix}.rp.{encode(subscription.name)}.*.{lane}"
        topics = {encode(topic.name) for topic in subscription.topics}
        return {replays: "", **{f"{self.prefix}.ev.{topic}.{lane}": topic for topic in sorted(topics)}}

    def stored(self) -> list[str]:
        """Return the subjects of the stream of events; what has a partition that does not exist is not accepted."""
        parts = (UNKEYED, *PARTITIONS)
        events = [f"{self.prefix}.{kind}.*.{part}.*" for kind in ("ev", "la") for part in parts]
        return [*events, f"{self.prefix}.rp.>"]
