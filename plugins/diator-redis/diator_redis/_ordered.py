"""The streams of an ordered subscription: what is read goes into a queue for each key, in Redis.

A worker leases keys, and with them the first entries of their queues; nobody else gets anything of a key meanwhile. All
that says so is in Redis, and each change of it is one script, so that a worker which dies leaves nothing behind but its
leases, and one that was stopped past its lease can do nothing when it wakes up. Waiting is done with XREAD, which takes
nothing.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

from diator.brokers.port import RELEASE, Ack, Delivery, Outcome, Release, RetryAfter, Settlement, Subscription
from diator_redis._entries import Receipt, Stream, delivery_from
from diator_redis._groups import group_of
from diator_redis._keys import Keys
from diator_redis._link import Argument, Links, Waiter, pack
from diator_redis._parked import reason_of
from diator_redis._scripts import KEEP, QUEUE_LEAVE, QUEUE_RENEW, QUEUE_SETTLE, QUEUE_TAKE, Script

LONGEST = 500
"""Entries that one script delivers at most, since a script blocks the server."""
MOST_UNANSWERED = 20
"""Lost replies that are asked about; entries of others are redelivered when their lease expires."""


class Hold(Receipt):
    """What identifies an ordered delivery: its entry, its key, and the lease under which it was delivered."""

    __slots__ = ("number", "queue", "token")

    def __init__(self, stream: Stream, number: int, id_: bytes, expires: float, queue: bytes, token: str) -> None:
        super().__init__(stream, id_, expires)
        self.number, self.queue, self.token = number, queue, token

    @property
    def known(self) -> tuple[Argument, Argument, Argument]:
        """How the script that renews knows it."""
        return self.queue, b"%b/%b" % (self.stream.name, self.id), self.token


class OrderedStreams:
    """One worker's access to an ordered subscription."""

    def __init__(
        self,
        links: Links,
        keys: Keys,
        subscription: Subscription,
        consumer: str,
        streams: Sequence[Stream],
        lease: float,
    ) -> None:
        self._links, self._keys, self._subscription = links, keys, subscription
        self._consumer, self._lease = consumer, lease
        self._names = keys.queues(subscription.name)
        self._waiter = Waiter(links)
        self._serial = 0
        self._unanswered: list[str] = []
        """Tokens whose reply was lost: entries may have been delivered under them."""
        self._taken: list[Delivery] = []
        self._positions: list[bytes] = []
        """After which ids something is new, in the bell and in the streams."""
        self._next_change: float | None = None
        self._wanted = False
        self._streams = streams
        self._stream_names = [stream.name for stream in streams]
        self._about_streams: list[Argument] = [
            about for one in streams for about in (keys.dead(one.topic, subscription.name), int(one.own))
        ]

    # What the receiver asks for.

    def enter(self) -> None:
        """Note that a call waits for messages now."""
        self._wanted = True

    def exit(self) -> None:
        """Note that no call waits any longer."""
        self._wanted = False

    def take(self, limit: int) -> list[Delivery]:
        """Return what was taken, except for entries that other workers may hold by now."""
        now = asyncio.get_running_loop().time()
        taken = [delivery for delivery in self._taken if delivery.receipt.expires > now]
        self._taken = taken[limit:]
        return taken[:limit]

    async def read(self, limit: int, wait: float) -> None:
        """Take what there is, or wait for at most ``wait`` seconds until there may be something, and take that."""
        if not await self._take(limit):
            await self._block(wait)
            await self._take(limit)

    async def unblock(self) -> None:
        """End a call that waits in Redis."""
        await self._waiter.unblock()

    # Reading.

    async def _take(self, limit: int) -> bool:
        """Take at most this many entries; return whether to call again immediately."""
        self._serial += 1
        token = f"{self._consumer}#{self._serial}"
        unanswered, self._unanswered = self._unanswered, [*self._unanswered[-MOST_UNANSWERED:], token]
        before = asyncio.get_running_loop().time()
        reply = await self._run(QUEUE_TAKE, [token, min(limit, LONGEST), *unanswered])
        self._unanswered = []
        wait, more, count = reply[:3]
        self._next_change = wait / 1000 if wait >= 0 else None
        self._positions = reply[3 : 3 + count]
        found = list(self._deliveries(reply, 3 + count, token, before + self._lease))
        self._taken += found
        return bool(found) or more

    def _deliveries(self, reply: list[Any], at: int, token: str, expires: float) -> Iterator[Delivery]:
        while at < len(reply):
            number, id_, failures, deliveries, queue, count = reply[at : at + 6]
            begin, at = at + 6, at + 6 + max(count, 0)
            hold = Hold(self._streams[int(number) - 1], number, id_, expires, queue, token)
            delivery = delivery_from(None if count < 0 else reply[begin:at], hold)
            delivery.failures, delivery.deliveries = failures, deliveries + 1
            yield delivery

    async def _block(self, wait: float) -> None:
        """Wait until there may be something to take, or the time is over."""
        ends = max(0.001, min(one for one in (wait, self._lease / 3, self._next_change) if one is not None))
        names = [self._names[-1], *self._stream_names]
        wait_ms = max(1, int(ends * 1000))
        command = pack(b"XREAD", b"COUNT", 1, b"BLOCK", wait_ms, b"STREAMS", *names, *self._positions)
        await self._waiter.call(command, ends)

    # Settling.

    async def settle(self, settlements: Sequence[Settlement]) -> list[Delivery]:
        """Settle, and return the deliveries whose lease was lost."""
        arguments = [*self._about_streams]
        for delivery, outcome in settlements:
            hold: Hold = delivery.receipt
            arguments += (hold.queue, hold.number, hold.id, hold.token, *_as_arguments(outcome))
        lost: Sequence[int] = await self._run(QUEUE_SETTLE, arguments) if settlements else ()
        return [settlements[number][0] for number in lost]

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Renew leases, and return the deliveries that were lost."""
        before = asyncio.get_running_loop().time()
        arguments = [argument for delivery in deliveries for argument in delivery.receipt.known]
        lost: set[int] = set(await self._run(QUEUE_RENEW, arguments)) if deliveries else set()
        for number, delivery in enumerate(deliveries):
            if number not in lost:
                delivery.receipt.expires = before + self._lease
        return [delivery for number, delivery in enumerate(deliveries) if number in lost]

    async def _run(self, script: Script, arguments: Sequence[Argument]) -> Any:
        names = [*self._names, *self._stream_names]
        head: list[Argument] = [group_of(self._subscription), self._consumer, int(self._lease * 1000)]
        return await self._links.run(script, names, [*head, *arguments])

    # Upkeep.

    async def keep(self) -> float | None:
        """Renew or release entries that were taken, and that no call asks for."""
        if self._taken and not self._wanted:
            spare, self._taken = self._taken, []
            await self.settle([(delivery, RELEASE) for delivery in spare])
        elif self._taken:
            await self.renew(tuple(self._taken))
        return await self._keep_unordered()

    async def _keep_unordered(self) -> float | None:
        """Requeue entries that wait for a retry since the subscription was unordered."""
        due: list[float] = []
        for topic in self._subscription.topics:
            name, group = topic.name, self._subscription.name
            keys = [self._keys.again(name, group), self._keys.later(name, group), self._keys.kept(name, group)]
            _, next_due = await self._links.run(KEEP, keys, [group_of(self._subscription), 0, 100, 0, 0])
            due += [next_due / 1000] if next_due >= 0 else []
        return min(due, default=None)

    async def leave(self) -> None:
        """Release everything as if it had not been delivered."""
        self._taken = []
        await self._run(QUEUE_LEAVE, [])

    async def aclose(self) -> None:
        """Close the connection that blocks."""
        await self._waiter.aclose()


def _as_arguments(outcome: Outcome) -> tuple[Argument, Argument]:
    """Return an outcome as the script expects it: its name and its argument."""
    if isinstance(outcome, Ack):
        return "ack", ""
    if isinstance(outcome, Release):
        return "release", ""
    if isinstance(outcome, RetryAfter):
        return "retry", max(0, int(outcome.delay * 1000))
    return "park", reason_of(outcome)
