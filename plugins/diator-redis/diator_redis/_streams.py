"""The streams of a subscription without order: its workers read them directly, each as a consumer of the group.

The messages of a worker are pending for it in the streams. A script that redelivers one appends it to the
subscription's own stream under a new id, so a worker that was stopped past its lease can no longer settle it.
Workers wait with XREAD, which delivers nothing.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from diator.brokers.port import Ack, Delivery, Outcome, RetryAfter, Subscription
from diator.errors import BrokerError
from diator_redis._client import Client, as_mapping, checked
from diator_redis._entries import as_count, body_of, find_read_error
from diator_redis._keys import KeyNames
from diator_redis._queues import as_arguments
from diator_redis._scripts import REDELIVER, SETTLE_STREAMS, Argument, Command, Script

BATCH = 100
"""Entries of a stream that one script redelivers at most, since a script blocks the server."""
IDLE_CONSUMER_MS = 3_600_000
"""Milliseconds after which an idle consumer without pending entries is deleted."""
MIN_LEASE_SHARE = 0.7
"""The share of its lease for which a worker certainly holds an entry, even if clocks differ."""


class Receipt:
    """What identifies a delivery: its stream and its id; and until when its worker certainly holds it."""

    __slots__ = ("expires", "id", "number")

    def __init__(self, number: int, id_: bytes, expires: float) -> None:
        self.number, self.id, self.expires = number, id_, expires


class Streams:
    """One worker's access to the streams of a subscription. ``expect`` gets the seconds until a retry is due."""

    def __init__(
        self,
        client: Client,
        keys: KeyNames,
        subscription: Subscription,
        consumer: str,
        lease: float,
        expect: Callable[[float], None],
    ) -> None:
        self._client, self._subscription, self._expect = client, subscription, expect
        self._consumer, self._lease = consumer, lease
        self._group = subscription.name.encode("utf-8", "surrogatepass")
        self._streams = keys.streams(subscription)
        self._names = [stream.name for stream in self._streams]
        self._own = [
            *keys.retries(subscription.name),
            keys.dead_letters(subscription.name),
            keys.meta(subscription.name),
        ]
        self._topics: list[Argument] = [topic.name.encode() for topic in subscription.topics]
        self._loop = asyncio.get_running_loop()
        self._period = min(max(lease / 10, 0.05), 3.0)
        self._redeliver_at = self._loop.time()
        """When to look for expired leases next."""
        self._last = [b"0"] * len(self._names)
        """The last entry of each stream that arrived. Later ones pending for this worker were in a lost reply."""
        self._positions = list(self._last)
        """How far the workers have read, as last observed."""
        self._is_behind = True
        """Whether other workers may have read further."""
        self._is_unanswered = False
        """Whether a reply was lost that may have contained entries."""
        self._full: list[int] = []
        """Streams that had as many entries as were requested."""
        self._turn = 0
        self._is_released = False

    # Reading.

    async def claim(self, limit: int, found: list[Delivery]) -> bool:
        """Append at most this many deliveries; return whether to call again immediately."""
        if self._loop.time() >= self._redeliver_at:
            self._redeliver_at, self._is_behind = self._loop.time() + self._period, True
            await self._redeliver("")
        if self._is_unanswered:
            for some in self._in_turn(limit):
                await self._read(some, limit, found, [self._last[at] for at in some])
                if found:
                    return True
            self._is_unanswered = False
        for some in [*self._first(limit), *self._in_turn(limit)]:
            await self._read(some, limit, found, [b">"] * len(some))
            if found:
                break
        return False

    def _first(self, limit: int) -> list[list[int]]:
        """Return the streams to read first: mostly those with many entries, since all streams share the limit."""
        self._turn += 1
        return [self._full[:limit]] if self._full and self._turn % 4 else []

    def _in_turn(self, limit: int) -> Iterator[list[int]]:
        """Return all streams, as many together as the limit allows, each time starting with another one."""
        first = self._turn // 4 % len(self._names)
        order = [*range(first, len(self._names)), *range(first)]
        for at in range(0, len(order), limit):
            yield order[at : at + limit]

    async def _read(self, some: Sequence[int], limit: int, found: list[Delivery], after: Sequence[bytes]) -> None:
        size = limit // len(some)
        head = (b"XREADGROUP", b"GROUP", self._group, self._consumer, b"COUNT", size, b"STREAMS")
        expires = self._loop.time() + self._lease * MIN_LEASE_SHARE
        is_unanswered, self._is_unanswered = self._is_unanswered, True
        reply: Any = await self._client.call(*head, *(self._names[at] for at in some), *after)
        self._is_unanswered = is_unanswered
        self._full = []
        for name, entries in reply.items() if hasattr(reply, "items") else reply or ():
            if entries:
                at = self._names.index(name)
                found += [self._delivery(at, id_, fields, expires) for id_, fields in entries]
                self._last[at] = self._positions[at] = entries[-1][0]
                self._is_behind = False
                self._full += [at] if len(entries) >= size else []

    def _delivery(self, at: int, id_: bytes, fields: Any, expires: float) -> Delivery:
        topic, receipt = self._streams[at].topic, Receipt(at + 1, id_, expires)
        if topic is not None and fields and len(fields) == 2 and fields[0] == b"e":  # the usual case
            return Delivery(topic, fields[1], receipt=receipt)
        values = as_mapping(fields or ())
        name, failures, deliveries = (values.pop(one, b"") if topic is None else b"" for one in (b"t", b"f", b"d"))
        key = values.get(b"k")
        return Delivery(
            topic or name.decode(errors="backslashreplace") or self._subscription.topics[0].name,
            body_of(values),
            key=None if key is None else key.decode(errors="surrogateescape"),
            failures=as_count(failures),
            deliveries=as_count(deliveries) + 1,
            read_error=find_read_error(values, topic is None),
            receipt=receipt,
        )

    async def wait(self, max_wait: float) -> None:
        """Wait until there may be new messages, at most this many seconds."""
        if self._is_behind and not await self._catch_up():
            return  # a group was deleted, which `claim` reports
        seconds = max(0.001, min(max_wait, self._redeliver_at - self._loop.time()))
        head = (b"XREAD", b"COUNT", 1, b"BLOCK", max(1, int(seconds * 1000)), b"STREAMS")
        reply = await self._client.call(*head, *self._names, *self._positions, wait=seconds)
        self._is_behind = reply is not None  # unless this worker gets the new entries itself

    async def _catch_up(self) -> bool:
        """Record how far the workers have read; return whether all groups exist."""
        positions: list[bytes] = []
        for reply in await self._client.send(*((b"XINFO", b"GROUPS", name) for name in self._names)):
            groups = [] if "no such key" in str(reply) else [as_mapping(group) for group in checked(reply)]
            positions += [group[b"last-delivered-id"] for group in groups if group[b"name"] == self._group]
        if len(positions) == len(self._names):
            self._positions = positions
        return len(positions) == len(self._names)

    # Settling.

    async def settle(self, settlements: Sequence[tuple[Delivery, Outcome | None]]) -> list[Delivery]:
        """Settle, or renew the leases of those without an outcome; return the deliveries whose lease was lost."""
        deliveries = [delivery for delivery, _ in settlements]
        if self._is_released or not settlements:
            return deliveries
        before = self._loop.time()
        # If this worker certainly holds an entry that is not pending, it has settled it before, and the reply was lost.
        if all(isinstance(outcome, Ack) and before < one.receipt.expires for one, outcome in settlements):
            await self._acknowledge(deliveries)
            return []
        arguments: list[Argument] = []
        for delivery, outcome in settlements:
            arguments += (delivery.receipt.number, delivery.receipt.id, *as_arguments(outcome))
        try:
            lost = {*await self._run(SETTLE_STREAMS, self._consumer, arguments)}
        except BrokerError as error:
            if "NOGROUP" not in str(error):
                raise
            return deliveries  # a flush deleted them
        for number, (delivery, outcome) in enumerate(settlements):
            if outcome is None and number not in lost:
                delivery.receipt.expires = before + self._lease * MIN_LEASE_SHARE
            elif outcome is not None and before < delivery.receipt.expires:
                lost.discard(number)
            if isinstance(outcome, RetryAfter):
                self._expect(outcome.delay)
        return [deliveries[number] for number in sorted(lost)]

    async def _acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        ids: dict[int, list[bytes]] = {}
        for delivery in deliveries:
            ids.setdefault(delivery.receipt.number, []).append(delivery.receipt.id)
        commands: list[Command] = [
            (b"XACK", self._names[number - 1], self._group, *some) for number, some in ids.items()
        ]
        if own := ids.get(len(self._names)):
            commands.append((b"XDEL", self._names[-1], *own))
        for reply in await self._client.send(*commands):
            checked(reply)

    async def release_all(self) -> None:
        """Release all entries of this worker; their delivery does not count."""
        self._is_released = True
        try:
            await self._redeliver(self._consumer)
        except BrokerError as error:
            if "NOGROUP" not in str(error):
                raise

    async def _redeliver(self, consumer: str) -> None:
        while await self._run(REDELIVER, consumer, [int(self._lease * 1000), BATCH, IDLE_CONSUMER_MS]) >= BATCH:
            pass

    async def _run(self, script: Script, consumer: str, arguments: Sequence[Argument]) -> Any:
        keys = [*self._own, *self._names]
        return await self._client.run(script, keys, [self._group, consumer, *self._topics, *arguments])
