"""What a subscription is at the server: one consumer, or one for each partition if it is ordered."""

import asyncio
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import msgspec
from nats.aio.msg import Msg

from diator.brokers.port import Subscription, SubscriptionStatus
from diator.errors import BrokerError
from diator_nats._access import Access, create_consumer, nanoseconds
from diator_nats._errors import NO_CONSUMER, NO_STREAM
from diator_nats._names import ALL, UNKEYED, decode, encode, parts_of

ACK_WAIT = 1.2
"""How much longer than a lease the server waits, for a receiver counts from when it has asked."""
_SINCE = "diator-since-"
"""Metadata of a consumer: up to which number it ignores the events of a topic, which was added then."""


class Subscriptions:
    """Creates, counts and removes subscriptions."""

    def __init__(self, access: Access, lease: float) -> None:
        self._access, self._names, self._lease = access, access.names, lease

    async def create(self, subscription: Subscription) -> list[str]:
        """Create what is missing, and name it. Raises `~diator.BrokerError` if it has another lease or order."""
        await self.check(subscription)
        created = await asyncio.gather(*(self._create(subscription, part) for part in parts_of(subscription.ordered)))
        return _in_words(subscription, created)

    async def check(self, subscription: Subscription, *, must_exist: bool = False) -> None:
        """Ensure that a subscription has this order and lease, if it exists. Raises `~diator.BrokerError`."""
        mine, other = (UNKEYED, ALL) if subscription.ordered else (ALL, UNKEYED)
        name = subscription.name
        if await self.info(subscription, other) is not None:
            kind = ("without order", "with order") if subscription.ordered else ("ordered by key", "without order")
            text = f"subscription {name!r} was created {kind[0]}, and is wanted {kind[1]}"
            fix = f"handle what it holds, then remove it: diator subscriptions remove APP {name}"
            raise BrokerError(f"{text}; {fix}")
        found = await self.info(subscription, mine)
        if found is None:
            if must_exist:
                raise BrokerError(f"subscription {name!r} does not exist; create it: diator subscriptions apply APP")
            return
        lease = found["config"]["ack_wait"] / 1e9 / ACK_WAIT
        if abs(lease - self._lease) > 0.001:
            text = f"subscription {name!r} was created with lease={lease:g}, and this broker has lease={self._lease:g}"
            fix = f"set the same lease, or stop its workers and remove it: diator subscriptions remove APP {name}"
            raise BrokerError(f"{text}; {fix}")

    async def info(self, subscription: Subscription, part: str) -> dict[str, Any] | None:
        """Return what the server says of a consumer, if there is one."""
        connection = await self._access.connection()
        request = f"CONSUMER.INFO.{self._names.events}.{_consumer(subscription, part)}"
        return await connection.find(request, NO_CONSUMER, NO_STREAM)

    async def _create(self, subscription: Subscription, part: str) -> list[str]:
        wanted, name = self._names.filters(subscription, part), _consumer(subscription, part)
        found = await self.info(subscription, part)
        config: dict[str, Any] = (
            found["config"] if found else {"deliver_policy": "new", "ack_wait": nanoseconds(self._lease * ACK_WAIT)}
        )
        bound: list[str] = config.get("filter_subjects", []) if found else []
        missing = {subject: topic for subject, topic in wanted.items() if subject not in bound}
        if not missing:
            return []
        connection, since = await self._access.connection(), 0
        if found:  # what others still have of a topic is older than its place here
            since = (await connection.api(f"STREAM.INFO.{self._names.events}"))["state"]["last_seq"]
        notes = {f"{_SINCE}{topic}": str(since) for topic in missing.values()}
        config["filter_subjects"] = [*bound, *missing]
        config["metadata"] = {**config.get("metadata", {}), **notes}
        await create_consumer(connection, self._names.events, name, config, "update" if found else "create")
        return list(missing.values())

    async def since(self, subscription: Subscription, part: str) -> dict[str, int]:
        """Return up to which number the events of each topic are ignored."""
        found = await self.info(subscription, part)
        if found is None:
            raise BrokerError(f"subscription {subscription.name!r} is gone from the server")
        notes: Mapping[str, str] = found["config"].get("metadata", {})
        return {name[len(_SINCE) :]: int(text) for name, text in notes.items() if name.startswith(_SINCE)}

    # Status.

    async def status(self, subscription: Subscription) -> SubscriptionStatus:
        """Return how a subscription stands, without changing anything."""
        parts = parts_of(subscription.ordered)
        found = await asyncio.gather(*(self.info(subscription, part) for part in parts))
        lacking: list[list[str]] = []
        for part, info in zip(parts, found, strict=True):
            bound: list[str] = info["config"].get("filter_subjects", []) if info else []
            wanted = self._names.filters(subscription, part).items()
            lacking.append([topic for subject, topic in wanted if subject not in bound])
        missing = tuple(_in_words(subscription, lacking))
        dead = await self._count(self._names.dead(subscription.name, "*"))
        there = [info for info in found if info]
        if not there:
            return SubscriptionStatus(subscription.name, False, None, dead, missing)
        backlog = sum(info["num_pending"] + info["num_ack_pending"] for info in there)
        oldest = await self._oldest(there) if backlog else None
        return SubscriptionStatus(subscription.name, True, backlog, dead, missing, oldest)

    async def _count(self, subject: str) -> int:
        connection = await self._access.connection()
        found = await connection.api(f"STREAM.INFO.{self._names.state}", subjects_filter=subject)
        return len(found["state"].get("subjects") or ())

    async def _oldest(self, consumers: Sequence[Mapping[str, Any]]) -> float | None:
        """Return the age of the oldest event that is not settled."""
        connection = await self._access.connection()
        reads = [
            connection.read(self._names.events, seq=info["ack_floor"]["stream_seq"] + 1, batch=1, next_by_subj=subject)
            for info in consumers
            for subject in info["config"]["filter_subjects"]
            if info["num_pending"] + info["num_ack_pending"]
        ]
        stored = [time_of(msg) for some in await asyncio.gather(*reads) for msg in some]
        return max(0.0, (datetime.now(timezone.utc) - min(stored)).total_seconds()) if stored else None

    # Removing.

    async def others(self, used: Collection[Subscription]) -> list[SubscriptionStatus]:
        """Return the status of every subscription under the prefix except these."""
        names, found = {one.name for one in used}, dict[str, bool]()
        async for consumer in self._consumers():
            token, _, part = consumer.rpartition("-")
            if part in (ALL, UNKEYED) and decode(token) not in names:
                found[decode(token)] = part == UNKEYED
        statuses = [await self.status(Subscription(name, (), ordered)) for name, ordered in found.items()]
        return [one._replace(exists=True, missing=()) for one in statuses]

    async def remove(self, name: str) -> bool:
        """Delete a subscription with all that it holds; return false if it does not exist."""
        token, connection = encode(name), await self._access.connection()
        consumers = [one async for one in self._consumers() if one.rpartition("-")[0] == token]
        if not consumers:
            return False
        for kind in ("note", "dead", "own"):
            subject = f"{self._names.prefix}.st.{kind}.{token}.>"
            await connection.api(f"STREAM.PURGE.{self._names.state}", filter=subject)
        for one in sorted(consumers, key=lambda one: one.endswith(f"-{UNKEYED}")):  # by the last one it is found
            await connection.find(f"CONSUMER.DELETE.{self._names.events}.{one}", NO_CONSUMER)
        return True

    async def unsubscribed(self, topics: Collection[str]) -> list[str]:
        """Return those topics that no subscription reads."""
        read: set[str] = set()
        async for page in self._pages("CONSUMER.LIST"):
            read.update(*(one["config"].get("filter_subjects", ()) for one in page))
        heads = {subject.rpartition(".ev.")[2].partition(".")[0] for subject in read if ".ev." in subject}
        return [topic for topic in topics if encode(topic) not in heads]

    async def _consumers(self) -> AsyncGenerator[str, None]:
        async for page in self._pages("CONSUMER.NAMES"):
            for name in page:
                if name.rpartition("-")[2] in (*parts_of(True), ALL):
                    yield name

    async def _pages(self, request: str) -> AsyncGenerator[list[Any], None]:
        offset, connection = 0, await self._access.connection()
        while True:
            found = await connection.api(f"{request}.{self._names.events}", offset=offset)
            page: list[Any] = found["consumers"] or []
            if not page:
                return
            yield page
            offset += len(page)


def time_of(msg: Msg) -> datetime:
    """Return when a message was stored."""
    return msgspec.convert((msg.headers or {})["Nats-Time-Stamp"], datetime)


def _consumer(subscription: Subscription, part: str) -> str:
    return f"{encode(subscription.name)}-{part}"


def _in_words(subscription: Subscription, topics: Iterable[Iterable[str]]) -> list[str]:
    names = dict.fromkeys(decode(topic) for some in topics for topic in some if topic)
    return [f"topic {name} of subscription {subscription.name}" for name in names]
