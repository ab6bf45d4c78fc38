"""One worker's access to a subscription."""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Sequence

from diator.brokers import shielded
from diator.brokers.port import Delivery, Settlement, Subscription
from diator.errors import BrokerError, BrokerUnavailableError
from diator_nats._access import Access
from diator_nats._connection import Connection
from diator_nats._losses import Losses
from diator_nats._names import ALL, PARTITIONS, UNKEYED, decode, encode
from diator_nats._notes import Notes
from diator_nats._ownership import Lane, Ownership
from diator_nats._pulling import Held, Puller
from diator_nats._settling import Change, Settling, change_of, given_back
from diator_nats._subscriptions import ACK_WAIT, Subscriptions

logger = logging.getLogger("diator.nats")

_FRESH = 0.7
"""What is delivered has so large a part of its lease left, or it is renewed before."""
_BOOST = (32, 512)
_GRACE = ACK_WAIT - 1.0
_WAITS = (0.1, 1.0)
"""Seconds that a request waits at the server: at first, and at most if nothing comes. Closing waits for its end."""


class NatsReceiver:
    """The receiver of one subscription."""

    def __init__(
        self,
        access: Access,
        subscriptions: Subscriptions,
        subscription: Subscription,
        lease: float,
        closed: Callable[["NatsReceiver"], None],
    ) -> None:
        self._access, self._subscriptions, self._subscription = access, subscriptions, subscription
        self._lease, self._closed = lease, closed
        self._names, self._loop = access.names, asyncio.get_running_loop()
        self._notes = Notes(access.names, subscription.name)
        self._puller = Puller(
            access.names.events, encode(subscription.name), lease * ACK_WAIT, min(_WAITS[1], lease / 5), self._arrived
        )
        self._owner = Ownership(access, subscription, lease, self._notes, self._puller.wake)
        self._settling = Settling(access.names, subscription.name, self._owner, self._notes)
        self._losses = Losses(access, subscriptions, subscription, lease, self._owner)
        self._since: dict[str, int] = {}
        self._ready: list[Held] = []
        self._first_wait = min(_WAITS[0], lease / 5)
        self._longest_wait = min(_WAITS[1], lease / 5)
        self._expires = self._first_wait
        self._turn = 0
        self._boost: dict[str, int] = {}
        """How many to ask for in a partition where many wait for others of their key, so that they are soon passed."""
        self._admitting, self._lock = asyncio.Lock(), asyncio.Lock()
        self._is_closing, self._is_receiving = False, False
        self._strays: asyncio.TimerHandle | None = None
        self._returning: asyncio.Task[None] | None = None

    # Receiving.

    async def receive(self, limit: int, /) -> Sequence[Delivery]:
        """Wait for messages, and return at most ``limit`` of them. Raises `~diator.BrokerError`."""
        self._is_receiving = True
        try:
            while not self._is_closing:
                found = await self._next(limit)
                if found:
                    return found
        except BrokerUnavailableError:
            if self._puller.is_rejected:
                self._puller.is_rejected = False
                await self._subscriptions.check(self._subscription, must_exist=True)
            raise
        finally:
            self._is_receiving = False
            self._arrived()
        return ()

    async def _next(self, limit: int) -> list[Delivery]:
        connection = await shielded(self._prepare())
        if self._puller.came:
            await shielded(self._admit(connection))
        if not self._ready:
            for some in self._quick(limit):
                await self._ask(some, limit, 0.0)
                await self._puller.until_ended(some)
                if self._puller.came:
                    break
            else:
                await self._ask(self._parts(), limit, self._expires)
                came = await self._puller.until_arrival(self._expires, lambda: self._is_closing)
                self._expires = self._first_wait if came else min(2 * self._expires, self._longest_wait)
        await shielded(self._admit(connection))
        if self._are_ready_late():
            await shielded(self._extend(connection, self._ready))
        return self._hand_out(limit)

    async def _ask(self, parts: Sequence[str], limit: int, expires: float) -> None:
        if not self._is_closing:
            share = max(1, limit // len(parts))
            await shielded(self._puller.ask({part: max(share, self._boost.get(part, 0)) for part in parts}, expires))

    async def _prepare(self) -> Connection:
        connection = await self._access.connection()
        await self._puller.attach(connection)
        if self._subscription.ordered:
            await self._owner.tend(connection, self._busy())
            await self._losses.stall(self._puller)
        return connection

    def _busy(self) -> set[str]:
        """Return what can't be left yet. What expired a lease ago does not count: any owner has it redelivered."""
        before = self._loop.time() - self._lease
        return {
            *self._puller.open,
            *self._puller.doubtful,
            *(one.part for one in self._settling.held if one.until > before),
            *(one.part for some in (self._ready, self._puller.came) for one in some),
        }

    def _parts(self) -> list[str]:
        """Return what to ask, each time from another one on."""
        if not self._subscription.ordered:
            return [ALL]
        parts = [UNKEYED, *(part for part in self._owner.may_ask() if part not in self._puller.doubtful)]
        self._turn += 1
        first = self._turn % len(parts)
        return [*parts[first:], *parts[:first]]

    def _quick(self, limit: int) -> Iterator[list[str]]:
        """Return what to ask without waiting, where there is more than the limit allows to ask together."""
        parts = self._parts()
        if len(parts) > limit:
            parts = [part for part in parts if part not in self._puller.open]
            for at in range(0, len(parts), limit):
                yield parts[at : at + limit]

    def _hand_out(self, limit: int) -> list[Delivery]:
        if self._is_closing or self._are_ready_late() or self._are_ready_blocked():
            return []
        found, self._ready = self._ready[:limit], self._ready[limit:]
        self._settling.held.update(found)
        return [
            Delivery(decode(one.topic), one.body, failures=one.failures, deliveries=one.deliveries, receipt=one)
            for one in found
        ]

    def _are_ready_late(self) -> bool:
        """Return whether the lease of one has lasted for long."""
        before = self._loop.time() + self._lease * _FRESH
        return any(one.until < before for one in self._ready)

    def _are_ready_blocked(self) -> bool:
        """Return whether the lease of one is over, or an earlier one of its key is redelivered by now."""
        now = self._loop.time()
        return any(one.is_lost or one.until <= now or not self._is_next(one) for one in self._ready)

    def _is_next(self, one: Held) -> bool:
        lane = self._owner.lane_of(one)
        first = lane.first_away() if lane else None
        return first is None or first > one.sequence

    def _is_away(self, one: Held) -> bool:
        """Return whether it has a note, though a server that was killed may count its deliveries from one again."""
        lane = self._owner.lane_of(one)
        return lane is not None and one.sequence in lane.away

    async def _admit(self, connection: Connection) -> None:
        """Count what came, and send back what must wait for another of its key."""
        async with self._admitting:
            now, found = self._loop.time(), self._puller.take()
            for one in found:
                if now >= one.until and (owned := self._owner.own(one.part)):  # it is redelivered, before later ones
                    owned.lanes.setdefault(one.lane, Lane()).put_away(one.sequence, now + self._lease * _GRACE)
            found = [one for one in found if now < one.until]
            again = [one for one in found if one.number > 1 or self._is_away(one)]
            dead = await self._notes.read(connection, again) if again else []
            dead += [one for one in found if await self._is_older(one)]
            if dead:
                await connection.tell([(one.consumer, one.reply, b"+ACK") for one in dead])
                found = [one for one in found if one not in dead]
            await self._losses.forget_settled(found)
            blocked: list[Change] = []
            before = self._boost
            self._boost = {}
            for one in found:
                wait = self._order(one) if one.part in PARTITIONS else None
                if wait is None:
                    self._ready.append(one)
                    self._boost.pop(one.part, None)
                else:
                    blocked.append(given_back(one, wait))
                    self._boost[one.part] = min(max(_BOOST[0], 2 * before.get(one.part, 0)), _BOOST[1])
            if blocked:
                await self._settling.write(connection, blocked)
        if self._are_ready_blocked():
            await self._return_ready()  # all: the later ones of a key must not be delivered without

    async def _is_older(self, one: Held) -> bool:
        """Return whether it was published before its topic was added to the subscription."""
        if one.is_replay:
            return False
        if one.topic not in self._since:
            self._since = {one.topic: 0} | await self._subscriptions.since(self._subscription, one.part) | self._since
        return one.sequence <= self._since[one.topic]

    def _order(self, one: Held) -> float | None:
        """Return for how long one must wait for others of its key; else it is in its place."""
        owned = self._owner.own(one.part)
        if owned is None:
            return 0.0  # asked for before the partition was left
        lane = owned.lanes.setdefault(one.lane, Lane())
        now = self._loop.time()
        wait = lane.must_wait(one, now, self._owner.is_valid)
        if wait is not None:
            lane.put_away(one.sequence, now + wait)
            return wait
        for sequence, other in lane.held.items():
            other.is_lost |= sequence >= one.sequence
        lane.held = {sequence: other for sequence, other in lane.held.items() if not other.is_lost}
        lane.away.pop(one.sequence, None)
        lane.held[one.sequence] = one
        return None

    # What came while nobody receives.

    def _arrived(self) -> None:
        is_waiting = bool(self._puller.came or self._ready) and not self._is_receiving
        if is_waiting and self._strays is None and not self._is_closing:
            self._strays = self._loop.call_later(self._longest_wait, self._return_strays)

    def _return_strays(self) -> None:
        self._strays = None
        if not self._is_receiving and not self._is_closing:
            self._returning = asyncio.ensure_future(self._return_all())

    async def _return_all(self) -> None:
        try:
            await self._admit(await self._access.connection())
            await self._return_ready()
        except BrokerError as error:
            logger.info("%s: messages could not be released: %s", self._subscription.name, error)

    async def _return_ready(self) -> None:
        ready, self._ready = self._ready, []
        now = self._loop.time()
        changes = [given_back(one) for one in ready if self._owner.is_valid(one, now)]
        await self._settling.write(await self._access.connection(), changes)

    # Settling.

    async def settle(self, settlements: Sequence[Settlement], /) -> Collection[Delivery]:
        """Settle many; return those whose lease was lost. Raises `~diator.BrokerError`."""
        return await shielded(self._settle(settlements))

    async def _settle(self, settlements: Sequence[Settlement]) -> list[Delivery]:
        async with self._lock:
            now, lost, changes = self._loop.time(), list[Delivery](), list[Change]()
            deliveries: dict[Held, Delivery] = {}
            for delivery, outcome in settlements:
                one: Held = delivery.receipt
                if self._owner.is_valid(one, now):
                    deliveries[one] = delivery
                    changes.append(change_of(one, outcome))
                elif not one.is_settled:
                    self._settling.held.discard(one)
                    lost.append(delivery)
            late = await self._settling.write(await self._access.connection(), changes) if changes else ()
            return [*lost, *(deliveries[one] for one in late)]

    async def renew(self, deliveries: Sequence[Delivery], /) -> Collection[Delivery]:
        """Renew leases; return those that were lost already. Raises `~diator.BrokerError`."""
        return await shielded(self._renew(deliveries))

    async def _renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        renewed = await self._extend(await self._access.connection(), [one.receipt for one in deliveries])
        return [one for one in deliveries if one.receipt not in renewed and not one.receipt.is_settled]

    async def _extend(self, connection: Connection, held: Sequence[Held]) -> set[Held]:
        """Renew leases; return those that were not lost."""
        if self._subscription.ordered and held:
            await self._owner.tend(connection, self._busy(), force=True)
        now = self._loop.time()
        valid = {one for one in held if self._owner.is_valid(one, now)}
        unknown = await connection.tell([(one.consumer, one.reply, b"+WPI") for one in valid])
        for one in held:
            one.is_lost |= not one.is_settled and (one not in valid or one.consumer in unknown)
            one.until = now + self._lease * ACK_WAIT if one in valid else one.until
        return {one for one in valid if not one.is_lost}

    async def aclose(self) -> None:
        """Release what was not settled, and end. Idempotent; never raises for a broker that is away."""
        if not self._is_closing:
            self._is_closing = True
            self._puller.wake()
            await shielded(self._close())
            self._closed(self)

    async def _close(self) -> None:
        if self._strays is not None:
            self._strays.cancel()
        try:
            await self._puller.until_ended()
            if self._returning is not None:
                await asyncio.wait([self._returning])
            connection = await self._access.connection()
            await self._admit(connection)
            async with self._lock:
                self._ready += self._settling.held
                self._settling.held = set()
                self._ready.sort(key=lambda one: one.sequence)
                await self._return_ready()
            if self._subscription.ordered:
                await self._owner.leave(connection, self._puller.doubtful)
            await self._puller.detach()
        except BrokerError as error:
            logger.warning("unsettled messages could not be released and are redelivered after their lease: %s", error)
