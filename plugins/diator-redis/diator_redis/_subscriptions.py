"""What must exist at the server: for each subscription a consumer group on each of its streams."""

import logging
from collections.abc import AsyncGenerator, Collection, Iterable, Sequence
from typing import Any

from diator.brokers.port import Subscription, SubscriptionStatus, Topic
from diator_redis._client import as_mapping, checked
from diator_redis._keys import KeyNames, StreamSource
from diator_redis._scripts import BACKLOG
from diator_redis._server import ServerBroker

logger = logging.getLogger("diator.redis")

SCANNED = 1_000
"""Keys that the server looks at in one call, since it serves no other client until then."""


class StreamSubscriptions(ServerBroker):
    """The part of a broker that creates, inspects and removes subscriptions."""

    _keys: KeyNames

    async def _create(self, subscription: Subscription, position: bytes = b"$") -> list[str]:
        """Create the groups that are missing, to read what comes after ``position``, and return their names."""
        group = group_of(subscription)
        # A server without memory rejects even the creation of a group that exists, and its workers must make room.
        streams = self._keys.streams(subscription)
        groups = await self._groups(stream.name for stream in streams)
        missing = [stream for stream, names in zip(streams, groups, strict=True) if group not in names]
        commands = [
            (b"XGROUP", b"CREATE", stream.name, group, b"0" if stream.topic is None else position, b"MKSTREAM")
            for stream in missing
        ]
        created: list[str] = []
        for stream, reply in zip(missing, await self._opened().send(*commands), strict=True):
            if not str(reply).startswith("BUSYGROUP"):
                checked(reply)
                created.append(_describe(subscription, stream))
        return created

    async def _groups(self, streams: Iterable[bytes]) -> list[set[bytes]]:
        """Return the names of the groups that each stream has."""
        replies = await self._opened().send(*((b"XINFO", b"GROUPS", stream) for stream in streams))
        groups = [() if "no such key" in str(reply) else checked(reply) for reply in replies]
        return [{as_mapping(group)[b"name"] for group in some} for some in groups]

    async def unsubscribed(self, topics: Collection[str], /) -> Collection[str]:
        """Return the topics among these without a subscription. Raises `~diator.BrokerError`."""
        names = list(topics)
        groups = await self._groups(map(self._keys.events, names))
        return [name for name, some in zip(names, groups, strict=True) if not some]

    async def _restore(self, subscription: Subscription) -> None:
        """Create again what was deleted, and report it; what is in the streams now is delivered."""
        created = await self._create(subscription, b"0")
        if created:
            logger.warning(
                "Created subscription %r again, which was gone from Redis (a flush, or a failover that lost writes): "
                "messages not handled by then are lost, those in its streams now are delivered, maybe again: %s",
                subscription.name,
                "; ".join(created),
            )

    async def status(self, subscriptions: Sequence[Subscription], /) -> Sequence[SubscriptionStatus]:
        """Return the status of subscriptions. Raises `~diator.BrokerError`."""
        return [await self._status(subscription) for subscription in subscriptions]

    async def _status(self, subscription: Subscription) -> SubscriptionStatus:
        streams, group = self._keys.streams(subscription), group_of(subscription)
        backlogs = [await self._backlog(stream.name, group) for stream in streams]
        missing = [_describe(subscription, one) for one, found in zip(streams, backlogs, strict=True) if not found]
        dead = await self._opened().call(b"XLEN", self._keys.dead(subscription.name))
        found = [backlog for backlog in backlogs if backlog]
        count = sum(number for number, _ in found) if found else None
        oldest = max((age / 1000 for _, age in found if age >= 0), default=None)
        return SubscriptionStatus(subscription.name, bool(found), count, dead, tuple(missing), oldest)

    async def other_subscriptions(self, used: Sequence[Subscription], /) -> Sequence[SubscriptionStatus]:
        """Return the status of every subscription under the prefix except these. Raises `~diator.BrokerError`."""
        names = {*await self._names("replayed")} - {one.name for one in used}
        topics = await self._groups_by_name() if names else {}
        # Its keys are what makes it a subscription: other programs may have groups on the streams of topics.
        found = [Subscription(name, tuple(map(_topic, topics.get(name, ())))) for name in sorted(names)]
        return [(await self._status(one))._replace(exists=True, missing=()) for one in found]

    async def remove_subscription(self, name: str, /) -> bool:
        """Delete a subscription with its messages and dead letters; return false if there is none of this name.

        Raises `~diator.BrokerError`.
        """
        if name not in await self._names("replayed"):
            return False
        one = Subscription(name, tuple(map(_topic, (await self._groups_by_name()).get(name, ()))))
        # These keys last and together: while something is left of it, it is found.
        for topic in one.topics:
            await self._opened().call(b"XGROUP", b"DESTROY", self._keys.events(topic.name), group_of(one))
        async for keys in self._scan(self._keys.key_queues(name)):
            await self._opened().call(b"UNLINK", *keys)
        return bool(await self._opened().call(b"UNLINK", *self._keys.subscription(name)))

    async def _groups_by_name(self) -> dict[str, list[str]]:
        """Return the topics that each group reads."""
        names = await self._names("events")
        found: dict[str, list[str]] = {}
        for topic, groups in zip(names, await self._groups(map(self._keys.events, names)), strict=True):
            for group in groups:
                found.setdefault(group.decode("utf-8", "replace"), []).append(topic)
        return found

    async def _names(self, kind: str) -> list[str]:
        """Return the topics or subscriptions that have a key of this kind."""
        found = [self._keys.owner(key, kind) async for keys in self._scan(self._keys.all_of(kind)) for key in keys]
        return [name for name in dict.fromkeys(found) if name is not None]

    async def _scan(self, pattern: bytes) -> AsyncGenerator[Sequence[bytes], None]:
        """Return the keys that match, some at a time and some of them more than once."""
        cursor: Any = 0
        while cursor is not None:
            cursor, keys = await self._opened().call(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", SCANNED)
            cursor = int(cursor) or None
            if keys:
                yield keys

    async def _backlog(self, stream: bytes, group: bytes) -> tuple[int, int] | None:
        """Count what is pending and unread, and return the age of the oldest in milliseconds (-1: nothing is).

        ``None``: no such group. In steps, as a script holds up all others.
        """
        count, position, oldest = 0, b"", -1
        while reply := await self._opened().run(BACKLOG, [stream], [group, position]):
            number, position, age = reply
            count, oldest = count + number, max(oldest, age)
            if not position:
                return count, oldest
        return None


def _topic(name: str) -> Topic:
    return Topic(name, keyed=False, types=())


def group_of(subscription: Subscription) -> bytes:
    """Return the name of a subscription's groups."""
    return subscription.name.encode("utf-8", "surrogatepass")


def _describe(subscription: Subscription, stream: StreamSource) -> str:
    return f"group {subscription.name} on {stream.name.decode(errors='backslashreplace')}"
