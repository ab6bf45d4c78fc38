"""Receiving in order by key: a receiver owns partitions, each with all of its keys, and holds their retries."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from aiormq.abc import AbstractChannel

from diator.errors import BrokerError
from diator_rabbitmq._link import Link, all_ended, open_channel
from diator_rabbitmq._messages import Taken
from diator_rabbitmq._names import PARTITIONS
from diator_rabbitmq._partition import Partition
from diator_rabbitmq._receiver import Change, RabbitReceiver

LOOK = 0.5
"""Seconds between two looks at how many receivers there are."""


class OrderedReceiver(RabbitReceiver):
    """Takes messages of the partitions that it owns. Each has one owner; a second receiver gets half of them."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        names, one = self._topology.names, self._subscription
        self._partitions = [
            Partition(names.queue(one, number), names.notes(one, number), self._topics, self._bell)
            for number in range(PARTITIONS)
        ]
        self._first = 0
        """The partition whose turn it is to be looked at first."""
        self._of: dict[Taken, Partition] = {}
        """What is delivered, with its partition."""
        self._timer: asyncio.TimerHandle | None = None
        self._sharing: asyncio.Future[None] | None = None
        self._presence: tuple[Link, AbstractChannel] | None = None
        """Counts for the other receivers as long as it is open."""
        self._is_new = True

    async def _prepare(self, limit: int) -> None:  # noqa: ARG002 - each partition has a limit of its own
        async with self._settling:
            link, is_new = await self._opened()
            if self._is_closed:
                return
            if is_new or self._is_new or any(one.failure or one.is_broken for one in self._partitions):
                await self._open(link, is_new=is_new)
            else:
                for one in self._partitions:
                    await one.grow()
        if self._sharing is None or self._sharing.done():
            self._sharing = asyncio.ensure_future(self._share())

    async def _open(self, link: Link, *, is_new: bool) -> None:
        """Wait in line for all partitions; what was taken before on another channel is lost."""
        self._is_new = True
        self._of.clear()
        failures = [one.failure for one in self._partitions if one.failure]
        await self._leave_all()
        if failures and not is_new:  # else they are those of the connection before
            raise failures[0]
        await all_ended(one.join(link) for one in self._partitions)
        presence = await open_channel(link, self._bell)
        self._presence = (link, presence)
        await link.call(presence.basic_consume(self._topology.names.members(self._subscription), _ignore))
        self._is_new = False

    async def _leave_all(self) -> None:
        """Leave all partitions to others, and be counted no more. Raises `~diator.BrokerError`."""
        presence, self._presence = self._presence, None
        if presence is not None:
            await presence[0].close_channel(presence[1])
        await all_ended(one.leave() for one in self._partitions)

    def _take(self, limit: int) -> list[Taken]:
        found: list[Taken] = []
        now = time.time()
        soon = float("inf")
        self._first += 1
        for at in range(PARTITIONS):
            partition = self._partitions[(self._first + at) % PARTITIONS]
            taken, due = partition.take(limit - len(found), now)
            soon = min(soon, due)
            found += taken
            self._of.update(dict.fromkeys(taken, partition))
        if not found and soon < float("inf"):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(max(0.001, soon - now), self._bell.set)
        return found

    def _put_back(self, found: Sequence[Taken]) -> None:
        for one in found:
            partition = self._of.pop(one, None)
            if partition is not None:
                partition.put_back(one)

    async def _note_handed_out(self, found: Sequence[Taken]) -> None:
        notes = [note for one in found for note in self._of[one].notes_for_handing_out([one])]
        if notes and self._link is not None:
            await self._link.store(notes)

    def _holds(self, taken: Taken) -> bool:
        return taken in self._of and super()._holds(taken)

    async def _write(self, link: Link, changes: Sequence[Change]) -> None:
        retries = [one for one in changes if one.after is not None and one.failures != one.taken.failures]
        notes = [self._of[one.taken].note_retry(*one[:3], one.after or 0.0) for one in retries]
        await link.store([*notes, *self._letters(changes)])
        done = [one.taken for one in changes if one.after is None]
        await self._acknowledge(link, done)
        for one in changes:
            partition = self._of.pop(one.taken)
            if one.after is None:
                await partition.remove(one.taken)
            else:
                partition.again(*one[:3], one.after)
        self._bell.set()

    # Sharing.

    async def _share(self) -> None:
        """Look now and then how many receivers there are, and leave to others what is more than a fair share."""
        while not self._is_closed:
            await asyncio.sleep(LOOK)
            async with self._settling:
                if self._presence is None or self._is_new or self._is_closed:
                    continue
                try:
                    await self._look(*self._presence)
                except BrokerError:
                    self._is_new = True  # a partition may be left in part; the next call opens all of them again
                    self._bell.set()

    async def _look(self, link: Link, presence: AbstractChannel) -> None:
        members = self._topology.names.members(self._subscription)
        receivers = (await link.call(presence.queue_declare(members, passive=True))).consumer_count
        owned = [one for one in self._partitions if one.is_owned]
        fair = -(-PARTITIONS // max(1, receivers or 1))
        more = len(owned) - fair
        for one in sorted(owned, key=lambda one: (not one.is_leaving, one.out))[: max(0, more)]:
            one.is_leaving = True
        for one in owned:
            await one.drop_stale_notes()
            if one.is_leaving and not one.out:
                await one.leave()
                await one.join(link)

    async def _close(self, link: Link) -> None:  # noqa: ARG002 - each partition knows its own
        if self._timer is not None:
            self._timer.cancel()
        await self._leave_all()

    async def _end(self) -> None:
        await super()._end()
        if self._sharing is not None:
            self._sharing.cancel()
            await asyncio.wait([self._sharing])


async def _ignore(_: object) -> None:
    """Take what no one sends."""
