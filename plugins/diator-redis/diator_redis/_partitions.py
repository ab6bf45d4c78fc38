"""The partitions of an ordered subscription: a worker leases some, and nobody else reads and settles them meanwhile.

Each read and each settlement is a script that looks first whether the lease is in force (its token is the fence), so
that a worker that was stopped past its lease can do nothing when it wakes up. Waiting is done with XREAD, which takes
nothing.
A worker keeps a partition as long as something of it is out, and while it waits for messages itself.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from diator.brokers.port import Delivery, RetryAfter, Settlement, Subscription
from diator.errors import BrokerError
from diator_redis._entries import Stream, entries_of
from diator_redis._groups import Groups, group_of
from diator_redis._keys import Keys
from diator_redis._lanes import Hold, Partition, Where
from diator_redis._link import Argument, Links, Waiter, pack
from diator_redis._operations import Operation, comes_back, operation_of, sorted_out
from diator_redis._scripts import PARTITION, TAKE
from diator_redis._taken import Taken, listed, taken

AHEAD = 1_000
"""So many entries of a partition wait in memory at most, as those behind a retry do; then it is read no further."""
CHUNK = 64
"""So many entries are read at a time, also where fewer are asked for: no other worker can have them meanwhile."""
LINGER = 0.05
"""After so many seconds without a call of the receiver the partitions of which nothing is out go to others."""


class Partitions:
    """One worker's access to the partitions of a subscription."""

    def __init__(
        self,
        links: Links,
        keys: Keys,
        groups: Groups,
        subscription: Subscription,
        consumer: str,
        partitions: int,
        lease: float,
    ) -> None:
        self._links, self._keys, self._groups = links, keys, groups
        self._subscription = subscription
        self._group = group_of(subscription)
        self._consumer, self._lease = consumer, lease
        self._count = partitions
        self._waiter = Waiter(links)
        self._owned: dict[int, Partition] = {}
        self._streams: dict[int, list[Stream]] = {}
        self._free: list[int] = []
        self._positions: dict[bytes, tuple[int, int]] = {}
        self._now = 0
        self._next_end: float | None = None
        self._serial = 0
        self._turn = 0
        self._lock = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._wanted = False
        self._left = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False
        self.wake: Callable[[], None] = lambda: None
        """Called when something can be handed out that nobody reads from Redis."""

    # What the receiver asks for.

    def has(self, delivery: Delivery) -> bool:
        """Whether a delivery came from here."""
        return isinstance(delivery.receipt, Hold)

    def enter(self) -> None:
        """Somebody waits for messages now."""
        self._wanted = True

    def exit(self) -> None:
        """Nobody waits any more."""
        self._wanted = False
        self._left = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(LINGER, self._look_whether_idle)

    def take(self, limit: int) -> list[Delivery]:
        """Hand out what may be; a partition that gave something comes last the next time."""
        now = self._loop.time()
        found: list[Delivery] = []
        for number, partition in list(self._owned.items()):
            if len(found) >= limit:
                break
            if now - partition.renewed < self._lease / 5:
                came = partition.take(limit - len(found), now, now + self._lease)
                if came:
                    self._owned[number] = self._owned.pop(number)
                    found += came
        return found

    async def prepare(self, limit: int) -> None:
        """Note in Redis what is about to be handed out once more, and begin leases anew that are too old for it."""
        now = self._loop.time()
        operations: list[Operation] = []
        old: list[Partition] = []
        left = limit
        for partition in self._owned.values():
            # Only what is handed out with this: it counts as delivered if this worker dies now.
            ready = partition.ready(now, left)
            left = max(0, left - len(ready) - partition.fresh)
            operations += [
                (partition, item, "count", "", 0, item.deliveries + 1) for item in ready if not item.is_prepared
            ]
            if (
                now - partition.renewed >= self._lease / 5
                and partition.has_ready(now)
                and not self._is_overdue(partition)
            ):
                old.append(partition)
        if operations or old:
            await self._run(operations, renew=old)
            for _, item, *_ in operations:
                item.stored = item.deliveries + 1

    async def read(self, limit: int, wait: float) -> None:
        """Take what there is, or wait for at most ``wait`` seconds until there may be something, and take that."""
        size = min(max(limit, CHUNK), AHEAD)
        if await self._has_taken(size):
            return
        if await self._block(wait):
            await self._has_taken(size)

    async def _has_taken(self, size: int) -> bool:
        async with self._lock:
            await self._take(size)
        now = self._loop.time()
        return any(partition.has_ready(now) or self._reads_on(partition) for partition in self._owned.values())

    async def unblock(self) -> None:
        """End a call that waits in Redis."""
        await self._waiter.unblock()

    # Reading.

    async def _take(self, limit: int) -> None:
        if self._closed:
            return
        before = self._loop.time()
        self._turn += 1
        self._serial += 1
        token = f"{self._consumer}#{self._serial}"
        arguments: list[Argument] = [self._group, self._consumer, token, int(self._lease * 1000), self._count]
        arguments += [limit, self._turn % self._count, int(max(self._lease, 1.0) * 1000)]
        asked: list[Partition] = []
        owned = list(self._owned.values())
        turn = self._turn % len(owned) if owned else 0
        for partition in (*owned[turn:], *owned[:turn]):
            if not self._is_overdue(partition):
                arguments += (partition.number, partition.token, self._what(partition))
                asked.append(partition)
        try:
            reply = await self._links.run(TAKE, self._keys_of(dead=False), arguments)
        except BrokerError:
            self._unknown()
            raise
        for partition in asked:
            partition.renewed = before
        came = taken(reply, self._streams_of, self._loop.time())
        self._accept(came, before)
        await self._shed(came.share)

    def _what(self, partition: Partition) -> str:
        if partition.is_stale:
            return "sync"
        if self._reads_on(partition):
            return "more"
        return "read" if partition.stock() < CHUNK and not partition.is_draining and partition.size < AHEAD else "keep"

    def _reads_on(self, partition: Partition) -> bool:
        return partition.has_more and not partition.is_draining and (partition.size < AHEAD or partition.is_blocked)

    def _unknown(self) -> None:
        """After a lost reply: what nothing is out of is leased again, what else may be pending is asked for."""
        for number, partition in list(self._owned.items()):
            if partition.holds:
                partition.is_stale = True
            else:
                del self._owned[number]

    def _accept(self, reply: Taken, before: float) -> None:
        self._now, self._free, self._next_end = reply.now, reply.free, reply.next_end
        for number in reply.lost:
            self._owned.pop(number, None)
        now = self._loop.time()
        for number, token, reads in reply.found:
            partition = self._owned.get(number)
            if partition is not None and partition.is_stale:
                # A call whose reply was lost may still be on its way: it is fenced off.
                partition.token = token
            if partition is None or partition.token != token:
                partition = self._owned[number] = Partition(number, token, before)
            partition.add(reads)
            for read in reads.values():
                if read.new:
                    self._advance(read.new[-1].stream.name, read.new[-1].id)
            if (due := partition.next_due(now)) is not None:
                self._loop.call_at(due, self._wake)

    async def _shed(self, share: int) -> None:
        """Give up what is over this worker's share: at once what nothing is out of, the rest when it is all back."""
        surplus = len(self._owned) - share
        if surplus <= 0:
            for partition in self._owned.values():
                partition.is_draining = False
            return
        by_load = sorted(self._owned.values(), key=lambda one: (len(one.holds), one.size))
        for partition in by_load[:surplus]:
            partition.is_draining = True
        await self._give_up([partition for partition in by_load[:surplus] if not partition.holds])

    async def _block(self, wait: float) -> bool:
        """Wait until there may be something to read; false where the time is over."""
        ends = self._now_and([wait, self._lease / 3, self._next_end])
        positions = {self._bell: self._positions.get(self._bell, (self._now - 1, 0))}
        for number in (*self._owned, *self._free):
            for stream in self._streams_of(number):
                positions[stream.name] = max(self._positions.get(stream.name, (0, 0)), (self._now - 1, 0))
        ids = [f"{first}-{second}" for first, second in positions.values()]
        wait_ms = max(1, int(ends * 1000))
        command = pack(b"XREAD", b"COUNT", 1, b"BLOCK", wait_ms, b"STREAMS", *positions, *ids)
        woken = False
        for name, entries in entries_of(await self._waiter.call(command, ends)):
            self._advance(name, entries[-1][0])
            woken = True
        return woken

    def _now_and(self, waits: Iterable[float | None]) -> float:
        now = self._loop.time()
        dues = [due - now for one in self._owned.values() if (due := one.next_due(now)) is not None]
        return max(0.001, min([wait for wait in (*waits, *dues) if wait is not None]))

    def _advance(self, name: bytes, id_: bytes) -> None:
        first, _, second = id_.partition(b"-")
        self._positions[name] = max(self._positions.get(name, (0, 0)), (int(first), int(second or 0)))

    # Settling.

    async def settle(self, settlements: Sequence[Settlement]) -> list[Delivery]:
        """Settle, and give those whose lease was lost."""
        lost: list[Delivery] = []
        operations: list[Operation] = []
        deliveries: list[Settlement] = []
        for settlement in settlements:
            delivery, outcome = settlement
            hold: Hold = delivery.receipt
            if not self._is_mine(hold):
                lost.append(delivery)
                continue
            operations.append(operation_of(hold, outcome))
            deliveries.append(settlement)
        back = [op for op, (_, outcome) in zip(operations, deliveries, strict=True) if comes_back(outcome)]
        for partition, item, *_ in back:
            partition.mark([item], Where.SETTLING)
        try:
            refused = set(await self._run(operations)) if operations else set[int]()
        except BaseException:
            for partition, item, *_ in back:
                partition.mark([item], Where.OUT)
            raise
        for at, (delivery, outcome) in enumerate(deliveries):
            if at in refused:
                lost.append(delivery)
            else:
                self._settled(delivery.receipt, outcome)
        self._wake()
        if not self._wanted:
            self.exit()
        return lost

    def _settled(self, hold: Hold, outcome: Any) -> None:
        item, partition = hold.item, hold.partition
        if not comes_back(outcome):
            partition.forget(item)
        elif isinstance(outcome, RetryAfter):
            item.failures += 1
            item.deliveries += 1
            item.stored = item.deliveries
            due = self._loop.time() + outcome.delay
            partition.put_back(item, due)
            self._loop.call_at(due, self._wake)
        else:
            item.stored = item.deliveries
            partition.put_back(item)

    def _is_mine(self, hold: Hold) -> bool:
        partition = hold.partition
        return self._owned.get(partition.number) is partition and partition.is_out(hold)

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Begin leases anew, and give those that were lost."""
        now = self._loop.time()
        mine = [delivery.receipt for delivery in deliveries if self._is_mine(delivery.receipt)]
        before = [hold.expires for hold in mine]
        for hold in mine:
            hold.expires = now + self._lease
        partitions = {hold.partition.number: hold.partition for hold in mine}
        try:
            await self._run([], renew=[one for one in partitions.values() if not self._is_overdue(one)])
        except BaseException:
            for hold, expires in zip(mine, before, strict=True):
                hold.expires = expires
            raise
        return [delivery for delivery in deliveries if not self._is_mine(delivery.receipt)]

    def _is_overdue(self, partition: Partition) -> bool:
        now = self._loop.time()
        return any(hold.expires < now for hold in partition.holds.values())

    async def _run(
        self,
        operations: Sequence[Operation],
        renew: Sequence[Partition] = (),
        leave: Sequence[Partition] = (),
        *,
        away: bool = False,
    ) -> list[int]:
        """Run the script that settles; give the numbers of operations that were refused."""
        before = self._loop.time()
        groups, places, others = sorted_out(operations)
        arguments: list[Argument] = [self._group, self._consumer, int(self._lease * 1000), len(groups), len(others)]
        for (partition, number, outcome, value), ids in groups.items():
            arguments += (partition.number, partition.token, number, outcome, value, len(ids), *ids)
        for at in others:
            partition, item, outcome, argument, failures, deliveries = operations[at]
            arguments += (partition.number, partition.token, item.number, item.id)
            arguments += (outcome, argument, failures, deliveries)
        for what, partitions in (("renew", renew), ("leave", leave)):
            for partition in partitions:
                arguments += (partition.number, partition.token, what)
        if away:
            arguments.append("away")
        reply = iter(await self._links.run(PARTITION, self._keys_of(dead=True), arguments))
        lists: list[list[int]] = [listed(reply) for _ in range(3)]
        gone_groups, gone_others, lost = lists
        refused: list[int] = [at for number in gone_groups for at in places[number]]
        refused += [others[number] for number in gone_others]
        gone: set[int] = {*lost, *(operations[at][0].number for at in refused)}
        for partition in (*renew, *(operation[0] for operation in operations)):
            if partition.number not in gone and partition in renew:
                partition.renewed = before
            elif partition.number in gone and self._owned.get(partition.number) is partition:
                del self._owned[partition.number]
        return refused

    # Giving up.

    async def keep(self) -> float | None:
        """Give up what was not renewed, and follow a change of the number of partitions."""
        overdue = [partition for partition in self._owned.values() if self._is_overdue(partition)]
        if overdue:
            async with self._lock:
                await self._give_up(overdue)
            self._wake()
        partitions = await self._groups.partitions(self._subscription)
        if partitions != self._count:
            await self._groups.create(self._subscription, b"0")
            self._count = partitions
            await self.unblock()
        return None

    async def leave(self) -> None:
        """Give all back as if it had not been handed out."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)
        async with self._lock:
            for partition in self._owned.values():
                for item in list(partition.holds):
                    partition.put_back(item)
            await self._give_up(list(self._owned.values()), away=True)

    async def _give_up(self, partitions: Sequence[Partition], *, away: bool = False) -> None:
        """Let others lease partitions; what was handed out and is not back counts as delivered."""
        operations: list[Operation] = [
            (partition, item, "count", "", 0, item.deliveries)
            for partition in partitions
            for item in partition.items()
            if item.where is Where.WAITING and item.stored != item.deliveries
        ]
        if partitions or away:
            for partition in partitions:
                self._owned.pop(partition.number, None)
            await self._run(operations, leave=partitions, away=away)

    def _look_whether_idle(self) -> None:
        self._timer = None
        if self._wanted or self._closed:
            return
        left = self._left + LINGER - self._loop.time()
        if left > 0.001:
            self._timer = self._loop.call_later(left, self._look_whether_idle)
            return
        task = self._loop.create_task(self._become_idle())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _become_idle(self) -> None:
        async with self._lock:
            if self._wanted or self._closed:
                return
            try:
                await self._give_up([one for one in self._owned.values() if not one.holds], away=True)
            except BrokerError:
                self.exit()  # tried again, until it can be reached

    async def aclose(self) -> None:
        """Close the connection that blocks."""
        self._closed = True
        await self._waiter.aclose()

    # Names.

    def _wake(self) -> None:
        self.wake()

    @property
    def _bell(self) -> bytes:
        return self._keys.bell(self._subscription.name)

    def _streams_of(self, partition: int) -> list[Stream]:
        found = self._streams.get(partition)
        if found is None:
            found = self._streams[partition] = self._groups.partitioned(self._subscription, partition)
        return found

    def _keys_of(self, *, dead: bool) -> list[bytes]:
        name, keys = self._subscription.name, self._keys
        found = [keys.workers(name), keys.bell(name)]
        for topic in self._subscription.topics:
            found += [keys.leases(topic.name, name), keys.events(topic.name), keys.again(topic.name, name)]
            found.append(keys.state(topic.name, name))
            if dead:
                found.append(keys.dead(topic.name, name))
        return found
