"""Which partitions of an ordered subscription are a receiver's own.

For each partition there is a record in the stream of state, which its owner writes again and again, each time on the
condition that it was the last to write it. A record that has not been written for so long that all messages of its
owner have expired is free. Receivers hear of each other by messages that are not stored, and each takes its share.
"""

import asyncio
import math
import secrets
from collections.abc import Callable, Collection, Mapping
from heapq import heappop, heappush
from typing import Any

from nats.aio.msg import Msg

from diator.brokers.port import Subscription
from diator_nats._access import Access
from diator_nats._connection import Connection
from diator_nats._names import PARTITIONS
from diator_nats._notes import Notes
from diator_nats._pulling import Held

OWN = 2.2
"""How many leases a partition is its owner's own. More than its messages are (1.2), and than it asks for more (0.7)."""
_ASKS = 0.7
_BEAT = 0.4
"""Seconds between two signs of life. After three it counts as gone."""


class Lane:
    """What a receiver knows of the messages of a key: which it has, and which are redelivered, from when."""

    __slots__ = ("_order", "away", "held")

    def __init__(self) -> None:
        self.held: dict[int, Held] = {}
        self.away: dict[int, float] = {}
        self._order: list[int] = []

    def put_away(self, sequence: int, due: float) -> None:
        """Note that a message is redelivered."""
        if sequence not in self.away:
            heappush(self._order, sequence)
        self.away[sequence] = due

    def first_away(self) -> int | None:
        """Return the first of those that are redelivered."""
        while self._order and self._order[0] not in self.away:
            heappop(self._order)
        return self._order[0] if self._order else None

    def is_overdue(self, before: float) -> bool:
        """Return whether a message should have been redelivered before this time, and was not."""
        first = self.first_away()
        overdue = first is not None and self.away[first] < before
        return overdue or any(other.until < before for other in self.held.values())

    def forget(self, floor: int) -> None:
        """Forget what the server has as settled, up to this number; its answer was lost."""
        self.held = {sequence: other for sequence, other in self.held.items() if sequence > floor}
        self.away = {sequence: due for sequence, due in self.away.items() if sequence > floor}

    def forget_overdue(self, before: float) -> list[int]:
        """Forget what should have been redelivered before this time, and was not; return the numbers."""
        gone = [sequence for sequence, due in self.away.items() if due < before]
        self.away = {sequence: due for sequence, due in self.away.items() if due >= before}
        self.held = {sequence: other for sequence, other in self.held.items() if other.until >= before}
        return gone

    def must_wait(self, one: Held, now: float, is_valid: Callable[[Held, float], bool]) -> float | None:
        """Return for how long one must wait for others of its key; ``None``: it may be delivered."""
        first = self.first_away()
        if first is not None and first < one.sequence:
            return max(0.01, self.away[first] - now)
        for sequence, other in self.held.items():
            if sequence != one.sequence and is_valid(other, now) == (sequence > one.sequence):
                return 0.01
        return None


class Partition:
    """A partition that is this receiver's own, until a time on its clock."""

    __slots__ = ("is_leaving", "lanes", "record", "stalled_until", "until")

    def __init__(self, record: int, until: float) -> None:
        self.record, self.until, self.is_leaving = record, until, False
        self.stalled_until = 0.0
        """Until when nothing is asked for, as messages were lost on their way, which later ones must not overtake."""
        self.lanes: dict[str, Lane] = {}


class Ownership:
    """The partitions of one receiver."""

    def __init__(
        self, access: Access, subscription: Subscription, lease: float, notes: Notes, wake: Callable[[], None]
    ) -> None:
        self._access, self._name, self._lease, self._notes, self._wake = access, subscription.name, lease, notes, wake
        self._loop = asyncio.get_running_loop()
        self._id = secrets.token_hex(8)
        self._connection: Connection | None = None
        self._lock, self._has_left = asyncio.Lock(), False
        self._heard: dict[str, float] = {}
        self._watched: dict[str, tuple[int, float]] = {}
        self._renew_at = self._balance_at = 0.0
        self._beat = min(_BEAT, lease / 4)
        self.mine: dict[str, Partition] = {}

    def own(self, part: str) -> Partition | None:
        """Return a partition, if it is this receiver's now."""
        found = self.mine.get(part)
        return found if found is not None and self._loop.time() < found.until else None

    def now(self) -> float:
        """Return the time on the clock of this process, which counts for leases."""
        return self._loop.time()

    def lane_of(self, one: Held) -> Lane | None:
        """Return what is known of the key of a message, if its partition is this receiver's now."""
        owned = self.own(one.part)
        return owned.lanes.get(one.lane) if owned else None

    def is_valid(self, one: Held, now: float) -> bool:
        """Return whether a delivery is this receiver's; one that follows an expired one of its key is not."""
        if one.is_settled or one.is_lost or now >= one.until:
            return False
        if one.part not in PARTITIONS:
            return True
        lane = self.lane_of(one)
        if lane is None or lane.held.get(one.sequence) is not one:
            return False
        one.is_lost = any(now >= other.until for other in lane.held.values() if other.sequence < one.sequence)
        return not one.is_lost

    def may_ask(self) -> list[str]:
        """Return the partitions of which messages may be asked for, so that they expire before the partition does."""
        now, rest = self._loop.time(), self._lease * (OWN - _ASKS)
        return [
            part
            for part, one in self.mine.items()
            if not one.is_leaving and one.until - now > rest and now >= one.stalled_until
        ]

    async def tend(self, connection: Connection, busy: Collection[str], *, force: bool = False) -> None:
        """Keep what is this receiver's own, and take or leave what makes its share. Raises `~diator.BrokerError`."""
        async with self._lock:
            if not self._has_left:
                await self._tend(connection, busy, force)

    async def _tend(self, connection: Connection, busy: Collection[str], force: bool) -> None:
        now = self._loop.time()
        if self._connection is not connection:
            subject = self._access.names.presence(self._name)
            await connection.hear(subject, self._hear)
            self._connection, self._balance_at = connection, 0.0
        for part in [part for part, one in self.mine.items() if now >= one.until]:
            del self.mine[part]
        if force or now >= self._renew_at:
            await self._renew(connection)
        if now >= self._balance_at and not force:
            await self._balance(connection)
        leaving = [
            part for part, one in self.mine.items() if one.is_leaving and part not in busy and self._is_sound(one)
        ]
        if leaving:
            await self._free(connection, leaving)

    async def _renew(self, connection: Connection) -> None:
        began, parts = self._loop.time(), list(self.mine)
        self._renew_at = began + self._lease / 8
        is_unsure = False
        for part, outcome in zip(parts, await self._write(connection, parts, self._id), strict=True):
            if isinstance(outcome, int):
                self.mine[part].record, self.mine[part].until = outcome, began + self._lease * OWN
            is_unsure |= not isinstance(outcome, int)
        if is_unsure:
            for part, (record, owner) in (await self._look(connection)).items():
                if part in self.mine and owner == self._id:
                    self.mine[part].record = record  # its answer was lost
                elif part in self.mine:
                    del self.mine[part]

    async def _write(
        self, connection: Connection, parts: Collection[str], owner: str, records: Mapping[str, int] | None = None
    ) -> list[Any]:
        known = {part: self.mine[part].record for part in parts} if records is None else records
        return await connection.put(
            [
                (
                    self._access.names.owner(self._name, part),
                    owner.encode(),
                    {"Nats-Expected-Last-Subject-Sequence": str(known[part])},
                )
                for part in parts
            ]
        )

    async def _look(self, connection: Connection) -> dict[str, tuple[int, str]]:
        """Return the number and the owner of each record."""
        names = self._access.names
        found = await connection.read(names.state, multi_last=[names.owner(self._name, "*")])
        records: dict[str, tuple[int, str]] = dict.fromkeys(PARTITIONS, (0, ""))
        for msg in found:
            headers = msg.headers or {}
            records[headers["Nats-Subject"].rpartition(".")[2]] = int(headers["Nats-Sequence"]), msg.data.decode()
        return records

    async def _balance(self, connection: Connection) -> None:
        now = self._loop.time()
        self._balance_at = now + self._beat
        await self._say(connection, "+")
        self._heard = {one: at for one, at in self._heard.items() if now - at < 3 * _BEAT}
        share = math.ceil(len(PARTITIONS) / (1 + len(self._heard)))
        for at, one in enumerate(self.mine.values()):
            one.is_leaving = at >= share
        if len(self.mine) < share:
            await self._claim(connection, share - len(self.mine))

    async def _claim(self, connection: Connection, count: int) -> None:
        records = await self._look(connection)
        now = self._loop.time()  # later than all that was read
        for part, (record, _owner) in records.items():
            if self._watched.get(part, (-1, 0.0))[0] != record:
                self._watched[part] = record, now
        free = [
            part
            for part, (_record, owner) in records.items()
            if part not in self.mine and (not owner or now - self._watched[part][1] > self._lease * OWN)
        ]
        # From another one on than others, who look at the same time.
        first = int(self._id, 16) % (len(free) or 1)
        parts = [*free[first:], *free[:first]][:count]
        began = self._loop.time()
        numbers = {part: records[part][0] for part in parts}
        outcomes = await self._write(connection, parts, self._id, numbers)
        claimed = {
            part: Partition(outcome, began + self._lease * OWN)
            for part, outcome in zip(parts, outcomes, strict=True)
            if isinstance(outcome, int)
        }
        if claimed:
            async for note in self._notes.all(connection):
                if note.part in claimed:
                    claimed[note.part].lanes.setdefault(note.lane, Lane()).put_away(note.sequence, note.due)
            self.mine |= claimed

    async def _free(self, connection: Connection, parts: Collection[str]) -> None:
        left = {part: self.mine.pop(part) for part in parts}
        numbers = {part: one.record for part, one in left.items() if self._loop.time() < one.until}
        await self._write(connection, numbers, "", numbers)
        await self._say(connection, "!")

    def _is_sound(self, one: Partition) -> bool:
        return self._loop.time() >= one.stalled_until

    async def leave(self, connection: Connection, busy: Collection[str]) -> None:
        """Free all but the busy ones, as this receiver closes."""
        async with self._lock:
            self._has_left = True
            parts = [part for part, one in self.mine.items() if part not in busy and self._is_sound(one)]
            await self._free(connection, parts)
            await self._say(connection, "-")

    async def _say(self, connection: Connection, sign: str) -> None:
        await connection.say(self._access.names.presence(self._name), f"{sign}{self._id}".encode())

    async def _hear(self, msg: Msg) -> None:
        sign, who = chr(msg.data[0]) if msg.data else "", msg.data[1:].decode(errors="replace")
        if who == self._id or not sign:
            return
        if sign == "-":
            self._heard.pop(who, None)
        if sign != "+" or who not in self._heard:
            self._balance_at = 0.0
            self._wake()
        if sign != "-":
            self._heard[who] = self._loop.time()
