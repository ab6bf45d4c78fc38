"""What must exist at the server: for each subscription a consumer group on each of its streams."""

import logging
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Any

from diator.brokers.port import Subscription, SubscriptionStatus, Topic
from diator_redis._client import Client, as_mapping, checked
from diator_redis._keys import KeyNames, Stream
from diator_redis._scripts import BACKLOG

logger = logging.getLogger("diator.redis")

SCANNED = 1_000
"""KeyNames that the server looks at in one call, since it serves no other client during a call."""


class Subscriptions:
    """Creates, inspects and removes subscriptions at the server."""

    def __init__(self, client: Client, keys: KeyNames) -> None:
        self._client, self._keys = client, keys

    async def create(self, subscription: Subscription, position: bytes = b"$") -> list[str]:
        """Create missing groups, which read entries after ``position``, and return their names."""
        group = group_of(subscription)
        # A server whose memory is full rejects XGROUP CREATE even for existing groups, but workers must start.
        missing = await self._streams_without(group, self._keys.streams(subscription))
        commands = [
            (b"XGROUP", b"CREATE", stream.name, group, b"0" if stream.topic is None else position, b"MKSTREAM")
            for stream in missing
        ]
        created: list[str] = []
        for stream, reply in zip(missing, await self._client.send(*commands) if commands else (), strict=True):
            if not str(reply).startswith("BUSYGROUP"):
                checked(reply)
                created.append(_describe(subscription, stream))
        return created

    async def _streams_without(self, group: bytes, streams: list[Stream]) -> list[Stream]:
        groups = await self._groups(stream.name for stream in streams)
        return [stream for stream, names in zip(streams, groups, strict=True) if group not in names]

    async def _groups(self, streams: Iterable[bytes]) -> list[set[bytes]]:
        """Return the names of the groups that each stream has."""
        commands = [(b"XINFO", b"GROUPS", stream) for stream in streams]
        replies: list[Any] = await self._client.send(*commands) if commands else []
        groups = [() if "no such key" in str(reply) else checked(reply) for reply in replies]
        return [{as_mapping(group)[b"name"] for group in some} for some in groups]

    async def unsubscribed(self, topics: Iterable[str]) -> list[str]:
        """Return those topics that no group reads."""
        names = list(topics)
        groups = await self._groups(map(self._keys.events, names))
        return [name for name, some in zip(names, groups, strict=True) if not some]

    async def restore(self, subscription: Subscription) -> None:
        """Create deleted groups again, and log it; the entries that are in the streams now are delivered."""
        created = await self.create(subscription, b"0")
        if created:
            logger.warning(
                "subscription %r was missing in Redis (a flush, or a failover that lost writes) and was created again: "
                "unhandled messages of that time are lost, present ones are delivered, some perhaps again: %s",
                subscription.name,
                "; ".join(created),
            )

    async def status(self, subscription: Subscription) -> SubscriptionStatus:
        """Return the status of a subscription, without changing anything.

        A retry counts as a new message from when it is due: Redis does not know how old it is.
        """
        streams = self._keys.streams(subscription)
        backlogs = [await self._backlog(stream.name, group_of(subscription)) for stream in streams]
        missing = [_describe(subscription, one) for one, found in zip(streams, backlogs, strict=True) if found is None]
        dead = await self._client.call(b"XLEN", self._keys.dead_letters(subscription.name))
        exists = len(missing) < len(streams)
        delayed = await self._client.call(b"ZCARD", self._keys.retries(subscription.name)[1])
        waiting = delayed + sum(found[0] for found in backlogs if found) if exists else None
        oldest = max((found[1] / 1000 for found in backlogs if found and found[1] >= 0), default=None)
        return SubscriptionStatus(subscription.name, exists, waiting, dead, tuple(missing), oldest)

    async def others(self, used: Iterable[Subscription]) -> list[SubscriptionStatus]:
        """Return the status of every subscription under the prefix except these."""
        names = {*await self._names("redelivery")} - {one.name for one in used}
        topics = await self._topics() if names else {}
        # Only its own keys make it a subscription: other programs may have groups on the streams of topics.
        found = [Subscription(name, tuple(map(_topic, topics.get(name, ())))) for name in sorted(names)]
        return [(await self.status(one))._replace(exists=True, missing=()) for one in found]

    async def remove(self, name: str) -> bool:
        """Delete a subscription with its messages and dead letters; return false if it does not exist."""
        if name not in await self._names("redelivery"):
            return False
        one = Subscription(name, tuple(map(_topic, (await self._topics()).get(name, ()))))
        # Its own keys last and together: until then `others` still finds it.
        for topic in one.topics:
            await self._client.call(b"XGROUP", b"DESTROY", self._keys.events(topic.name), group_of(one))
        async for keys in self._scan(self._keys.key_queues(name)):
            await self._client.call(b"UNLINK", *keys)
        return bool(await self._client.call(b"UNLINK", *self._keys.subscription(name)))

    async def _topics(self) -> dict[str, list[str]]:
        """Return the topics that each group reads."""
        names = await self._names("events")
        found: dict[str, list[str]] = {}
        for topic, groups in zip(names, await self._groups(map(self._keys.events, names)), strict=True):
            for group in groups:
                found.setdefault(group.decode("utf-8", "replace"), []).append(topic)
        return found

    async def _names(self, kind: str) -> list[str]:
        """Return the topics or subscriptions that have a key of this kind."""
        found: dict[str, None] = {}
        async for keys in self._scan(self._keys.all_of(kind)):
            owners = [self._keys.owner(key, kind) for key in keys]
            found.update((name, None) for name in owners if name is not None)
        return list(found)

    async def _scan(self, pattern: bytes) -> AsyncGenerator[Sequence[bytes], None]:
        """Return the keys that match, some at a time and some of them more than once."""
        cursor: Any = 0
        while cursor is not None:
            cursor, keys = await self._client.call(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", SCANNED)
            cursor = int(cursor) or None
            if keys:
                yield keys

    async def _backlog(self, stream: bytes, group: bytes) -> tuple[int, int] | None:
        """Count what is pending and unread, and return the age of the oldest in milliseconds (-1: there is none).

        ``None``: no such group. In steps, since a script blocks the server.
        """
        count, position, oldest = 0, b"", -1
        while True:
            reply: Any = await self._client.run(BACKLOG, [stream], [group, position])
            if reply is None:
                return None
            count, position, oldest = count + int(reply[0]), bytes(reply[1]), max(oldest, int(reply[2]))
            if not position:
                return count, oldest


def _topic(name: str) -> Topic:
    return Topic(name, ())


def group_of(subscription: Subscription) -> bytes:
    """Return the name of a subscription's groups."""
    return subscription.name.encode("utf-8", "surrogatepass")


def _describe(subscription: Subscription, stream: Stream) -> str:
    return f"group {subscription.name} on {stream.name.decode(errors='backslashreplace')}"
