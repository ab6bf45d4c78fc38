"""The streams of a subscription that all its workers read at the same time: those without order.

What comes again, for whichever reason, is appended to a stream of the subscription's own (`again`), which its workers
read together with those of its topics. So all there is to wait for is new entries, and a blocked worker sees each of
them at once.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from diator.brokers.port import RELEASE, Ack, Delivery, Outcome, Release, RetryAfter, Settlement
from diator_redis._entries import Receipt, Stream, delivery_of, entries_of
from diator_redis._keys import Keys
from diator_redis._link import Argument, Links, Waiter, checked, pack
from diator_redis._parked import reason_of
from diator_redis._scripts import KEEP, LEAVE, READ, RENEW, SETTLE

BATCH = 100
FORGET = 3_600_000
"""After so many milliseconds a consumer that holds nothing and does nothing is forgotten."""
FRESH = 0.7
"""For so large a part of a lease nobody else can have the entry, whatever the clocks say."""


class SharedStreams:
    """One worker's access to the streams that it shares."""

    def __init__(
        self, links: Links, keys: Keys, subscription: str, consumer: str, streams: Sequence[Stream], lease: float
    ) -> None:
        self._links = links
        self._keys = keys
        self._group = subscription.encode("utf-8", "surrogatepass")
        self._consumer = consumer.encode()
        self._lease = lease
        self._waiter = Waiter(links)
        self._hot: list[Stream] = []
        self._turn = 0
        self._taken: list[Delivery] = []
        self._wanted = False
        self._streams = tuple(streams)
        self._by_name = {stream.name: stream for stream in streams}
        self._by_topic: dict[str, list[Stream]] = {}
        for stream in sorted(streams, key=lambda stream: stream.own):
            self._by_topic.setdefault(stream.topic, []).append(stream)

    # Reading.

    def enter(self) -> None:
        """Note that a call waits for messages now."""
        self._wanted = True

    def exit(self) -> None:
        """Note that no call waits any longer."""
        self._wanted = False

    def take(self, limit: int) -> list[Delivery]:
        """Hand out what was read."""
        taken = self._taken
        if len(taken) <= limit:
            self._taken = []
            return taken
        self._taken = taken[limit:]
        return taken[:limit]

    async def unblock(self) -> None:
        """End a call that waits in Redis, so that nothing can be given to it any more."""
        await self._waiter.unblock()

    async def read(self, limit: int, wait: float) -> None:
        """Take what there is, or wait for at most ``wait`` seconds until there is something.

        The count of XREADGROUP is one for each stream. So where much is to be read, it is read from those streams that
        had something the last time, and now and then from all; and where less is asked for than there are streams, by
        a script.
        """
        self._turn += 1
        streams = self._streams
        if not self._hot:
            await self._read_from(streams, max(1, limit // len(streams)), wait)
        elif limit < len(streams) > 1:
            await self._read_exactly(limit)
        elif self._turn % 4 and len(self._hot) < len(streams):
            await self._read_from(self._hot, limit // len(self._hot), None)
        else:
            await self._read_from(streams, max(1, limit // len(streams)), None)

    async def _read_exactly(self, limit: int) -> None:
        names: list[bytes] = [stream.name for stream in self._streams]
        arguments: list[Argument] = [self._group, self._consumer, limit, self._turn % len(names)]
        before = asyncio.get_running_loop().time()
        self._accept(await self._links.run(READ, names, arguments), before, 1)

    async def _read_from(self, streams: Sequence[Stream], size: int, wait: float | None) -> None:
        names = [stream.name for stream in streams]
        block: list[Argument] = [] if wait is None else [b"BLOCK", max(1, int(wait * 1000))]
        head: list[Argument] = [b"XREADGROUP", b"GROUP", self._group, self._consumer, b"COUNT", size]
        before = asyncio.get_running_loop().time()
        command = pack(*head, *block, b"STREAMS", *names, *[b">"] * len(names))
        self._accept(await self._waiter.call(command, wait or 0.0), before, size)

    def _accept(self, reply: Any, before: float, size: int) -> None:
        expires = before + self._lease * FRESH
        hot: list[Stream] = []
        for name, entries in entries_of(reply):
            stream = self._by_name[name]
            self._taken += [delivery_of(stream, entry, expires) for entry in entries]
            if len(entries) >= size:
                hot.append(stream)
        self._hot = hot

    # Settling.

    async def settle(self, settlements: Sequence[Settlement]) -> list[Delivery]:
        """Settle, and return the deliveries whose lease was lost."""
        now = asyncio.get_running_loop().time()
        acks: dict[Stream, list[bytes]] = {}
        others: list[Settlement] = []
        for settlement in settlements:
            receipt: Receipt = settlement[0].receipt
            if isinstance(settlement[1], Ack) and now < receipt.expires:
                acks.setdefault(receipt.stream, []).append(receipt.id)
            else:
                others.append(settlement)
        if acks:
            await self._acknowledge(acks)
        lost: list[Delivery] = []
        for topic, some in _by_topic(others).items():
            lost += await self._settle(topic, some)
        return lost

    async def _acknowledge(self, acks: dict[Stream, list[bytes]]) -> None:
        commands: list[bytes] = []
        for stream, ids in acks.items():
            commands.append(pack(b"XACK", stream.name, self._group, *ids))
            if stream.own:
                commands.append(pack(b"XDEL", stream.name, *ids))
        for reply in await self._links.send(*commands):
            checked(reply)

    async def _settle(self, topic: str, settlements: Sequence[Settlement]) -> list[Delivery]:
        streams = {stream: number for number, stream in enumerate(self._by_topic[topic], 1)}
        arguments: list[Argument] = [self._group, self._consumer, sum(not stream.own for stream in streams)]
        for delivery, outcome in settlements:
            receipt: Receipt = delivery.receipt
            arguments += (streams[receipt.stream], receipt.id, *as_arguments(delivery, outcome))
        keys = [*self._own_keys(topic), self._keys.dead(topic, self._name), *(stream.name for stream in streams)]
        numbers = await self._links.run(SETTLE, keys, arguments)
        return [settlements[number][0] for number in numbers]

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Renew leases, and return the deliveries that were lost."""
        lost: list[Delivery] = []
        streams = {stream: number for number, stream in enumerate(self._streams, 1)}
        before = asyncio.get_running_loop().time()
        arguments: list[Argument] = [self._group, self._consumer]
        for delivery in deliveries:
            arguments += (streams[delivery.receipt.stream], delivery.receipt.id)
        numbers = set(await self._links.run(RENEW, [stream.name for stream in streams], arguments))
        for number, delivery in enumerate(deliveries):
            if number in numbers:
                lost.append(delivery)
            else:
                delivery.receipt.expires = before + self._lease * FRESH
        return lost

    # Upkeep.

    async def keep(self) -> float | None:
        """Bring back what is due and what dead workers had; give the seconds until the next is due."""
        if self._taken and not self._wanted:
            # A worker that has enough to do asks for no more; others may be idle.
            spare, self._taken = self._taken, []
            await self.settle([(delivery, RELEASE) for delivery in spare])
        elif self._taken:
            lost = {id(delivery) for delivery in await self.renew(tuple(self._taken))}
            self._taken = [delivery for delivery in self._taken if id(delivery) not in lost]
        due: list[float] = []
        for topic, streams in self._by_topic.items():
            shared = sum(not stream.own for stream in streams)
            arguments: list[Argument] = [self._group, int(self._lease * 1000), BATCH, shared, FORGET]
            keys = [*self._own_keys(topic), *(stream.name for stream in streams)]
            moved, next_due = BATCH, -1
            while moved >= BATCH:
                moved, next_due = await self._links.run(KEEP, keys, arguments)
            if next_due >= 0:
                due.append(next_due / 1000)
        return min(due, default=None)

    async def leave(self) -> None:
        """Give back all that was read and not settled, and remove the consumer."""
        for topic, streams in self._by_topic.items():
            shared = sum(not stream.own for stream in streams)
            keys = [self._keys.again(topic, self._name), *(stream.name for stream in streams)]
            while await self._links.run(LEAVE, keys, [self._group, self._consumer, BATCH, shared]) >= BATCH:
                pass

    def _own_keys(self, topic: str) -> list[bytes]:
        name = self._name
        return [self._keys.again(topic, name), self._keys.later(topic, name), self._keys.kept(topic, name)]

    @property
    def _name(self) -> str:
        return self._group.decode("utf-8", "surrogatepass")

    async def aclose(self) -> None:
        """Close the connection that blocks."""
        await self._waiter.aclose()


def as_arguments(delivery: Delivery, outcome: Outcome) -> tuple[Argument, ...]:
    """Give an outcome as the scripts take it: its name, its argument, failures and deliveries."""
    failures, deliveries = delivery.failures, delivery.deliveries
    if isinstance(outcome, Ack):
        return ("ack", "", failures, deliveries)
    if isinstance(outcome, Release):
        return ("release", "", failures, deliveries - 1)
    if isinstance(outcome, RetryAfter):
        return ("retry", max(0, int(outcome.delay * 1000)), failures + 1, deliveries)
    return ("park", reason_of(outcome), failures, deliveries)


def _by_topic(settlements: Sequence[Settlement]) -> dict[str, list[Settlement]]:
    topics: dict[str, list[Settlement]] = {}
    for settlement in settlements:
        topics.setdefault(settlement[0].topic, []).append(settlement)
    return topics
