"""What must exist: for each subscription a consumer group on each of its streams."""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from diator.brokers.port import Status, Subscription
from diator_redis._entries import Stream, as_mapping
from diator_redis._keys import Keys
from diator_redis._link import Links, checked, pack
from diator_redis._scripts import BACKLOG

logger = logging.getLogger("diator.redis")


class Groups:
    """Creates and counts what subscriptions have at the server."""

    def __init__(self, links: Links, keys: Keys) -> None:
        self._links, self._keys = links, keys

    def streams(self, subscription: Subscription) -> list[Stream]:
        """Give the streams that a subscription reads."""
        streams: list[Stream] = []
        for topic in subscription.topics:
            streams.append(Stream(self._keys.events(topic.name), topic.name))
            streams.append(Stream(self._keys.again(topic.name, subscription.name), topic.name, own=True))
        return streams

    async def create(self, subscription: Subscription, position: bytes = b"$") -> list[str]:
        """Create the groups that are missing, to read what comes after ``position``, and name them."""
        group = group_of(subscription)
        missing = await self._without(group, self.streams(subscription))
        commands = [
            pack(b"XGROUP", b"CREATE", stream.name, group, b"0" if stream.own else position, b"MKSTREAM")
            for stream in missing
        ]
        created: list[str] = []
        for stream, reply in zip(missing, await self._links.send(*commands) if commands else (), strict=True):
            if isinstance(reply, Exception) and str(reply).startswith("BUSYGROUP"):
                continue
            checked(reply)
            created.append(f"group {subscription.name} on {stream.name.decode(errors='backslashreplace')}")
        return created

    async def _without(self, group: bytes, streams: Sequence[Stream]) -> Sequence[Stream]:
        """Give the streams that lack a group.

        A server without memory refuses to create even what is there, and its workers must start to make room.
        """
        if not streams:
            return streams
        replies = await self._links.send(*(pack(b"XINFO", b"GROUPS", stream.name) for stream in streams))
        return [stream for stream, reply in zip(streams, replies, strict=True) if group not in _names_in(reply)]

    async def unsubscribed(self, topics: Iterable[str]) -> list[str]:
        """Give those topics that no group reads."""
        names = list(topics)
        replies = await self._links.send(*(pack(b"XINFO", b"GROUPS", self._keys.events(name)) for name in names))
        found: list[str] = []
        for name, reply in zip(names, replies, strict=True):
            if (isinstance(reply, Exception) and "no such key" in str(reply)) or not checked(reply):
                found.append(name)
        return found

    async def restore(self, subscription: Subscription) -> None:
        """Create again what somebody deleted, and tell of it; whatever is in the streams now is delivered."""
        created = await self.create(subscription, b"0")
        if created:
            logger.warning(
                "subscription %r was gone from Redis (a flush, or a failover that lost writes) and was created again: "
                "what had not been handled then is lost, what is there now is delivered, maybe once more: %s",
                subscription.name,
                "; ".join(created),
            )

    async def status(self, subscription: Subscription) -> Status:
        """Tell how a subscription stands, without changing anything."""
        streams = self.streams(subscription)
        waiting, missing = 0, list[str]()
        for stream in streams:
            count = await self._backlog(stream.name, group_of(subscription))
            if count is None:
                missing.append(f"group {subscription.name} on {stream.name.decode(errors='backslashreplace')}")
            waiting += count or 0
        dead = 0
        for topic in subscription.topics:
            waiting += await self._links.call(b"ZCARD", self._keys.later(topic.name, subscription.name))
            dead += await self._links.call(b"XLEN", self._keys.dead(topic.name, subscription.name))
        exists = len(missing) < len(streams)
        return Status(subscription.name, exists, waiting if exists else None, dead, tuple(missing))

    async def _backlog(self, stream: bytes, group: bytes) -> int | None:
        """Count what is pending and unread; ``None``: no such group. In steps, as a script holds up all others."""
        count, position = 0, b""
        while True:
            reply: Any = await self._links.run(BACKLOG, [stream], [group, position])
            if reply is None:
                return None
            count, position = count + int(reply[0]), bytes(reply[1])
            if not position:
                return count


def _names_in(groups: Any) -> set[bytes]:
    """Give the names in a reply to XINFO GROUPS, of RESP2 or RESP3; none where there is no such stream."""
    if isinstance(groups, Exception):
        return set()
    return {(group if hasattr(group, "items") else as_mapping(group))[b"name"] for group in groups}


def group_of(subscription: Subscription) -> bytes:
    """Give the name of a subscription's groups."""
    return subscription.name.encode("utf-8", "surrogatepass")


def names(streams: Sequence[Stream]) -> list[bytes]:
    """Give the names of streams."""
    return [stream.name for stream in streams]
