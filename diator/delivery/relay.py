"""The relay: reads the rows of the outbox, publishes them in order by key, and deletes what the broker has taken.

Any number of relays share the partitions of the outbox by leases. A relay publishes only what it holds, for at most a
third of a lease, and deletes with the token of the partition. So a relay that was frozen may publish again what its
successor has published, but never before it, and it deletes nothing of its successor's.

Rows that the broker rejects for what they are become dead letters of the outbox. Any other failure is an outage: the
rows wait, with those behind them of the same key, and other keys go on.
"""

import asyncio
import enum
import logging
import os
import socket
from collections.abc import Collection, Sequence
from contextlib import suppress

from diator._hooks import HookDispatcher
from diator._shielding import shielded
from diator.context import new_id
from diator.delivery.error_texts import described
from diator.delivery.outage import Backoff
from diator.delivery.relay_failures import Trouble
from diator.delivery.relay_rows import Held, Publish, RowPublisher, answer_of
from diator.delivery.relay_wakeups import Listener, Notifier
from diator.errors import StoreUnavailableError
from diator.stores.port import Store, StoredMessage, WakesRelays

logger = logging.getLogger("diator")

LEASE = 15.0
"""Seconds. It is renewed after a third; the rows of a killed relay wait until it ends."""
_THIRD = LEASE / 3
_POLL = 1.0
"""Seconds between two looks at the outbox, for rows of other processes, whose wake-ups may get lost."""
_LINGER = 0.02
"""Seconds after a round in which rows gather: a round for each commit would cost the process half of its speed."""
_SHORTEST = 0.001
"""Seconds of a rest at least, so that no moment that has come makes the relay spin."""
_BATCH = 500
_DRAIN = 5.0
"""Seconds in which a relay that stops goes on publishing what is there."""
_EXPIRE_EVERY, _EXPIRE_BATCH = 60.0, 1000
"""How often, in seconds, the inbox is looked at for old rows, and how many are deleted in one transaction."""


class Relay:
    """One relay, which runs from `start` to `stop`."""

    def __init__(self, store: Store, publish: Publish, hooks: HookDispatcher, publish_timeout: float) -> None:
        self._store = store
        self._publish = publish
        self._hooks = hooks
        self._timeout = min(publish_timeout, _THIRD)
        self._notifier = Notifier(store) if isinstance(store, WakesRelays) else None
        self._listener = Listener(store, self._hear, store.partitions) if isinstance(store, WakesRelays) else None
        self._workers = 0
        self._task: asyncio.Task[None] | None = None

    # Life

    async def start(self) -> None:
        """Start. The database need not be there yet."""
        self.name = f"{socket.gethostname()}:{os.getpid()}:{new_id()[-12:]}"
        self._loop = asyncio.get_running_loop()
        self._wake, self._stopping = asyncio.Event(), asyncio.Event()
        self._drains_until = 0.0
        self.held: Held = {}
        """The tokens of the partitions that it holds."""
        self._lease_ends = self._renew_at = self._promote_at = 0.0
        self._expire_at = self._loop.time() + _EXPIRE_EVERY
        self._rows = RowPublisher(self._store, self._publish, self._hooks, self._timeout)
        self._database = Trouble("the relay can't use the outbox", "events wait in it", StoreUnavailableError)
        self._task = asyncio.ensure_future(self._run())
        if self._listener is not None:
            self._listener.start()

    async def stop(self) -> None:
        """Publish what is there, for some seconds at most, and release the partitions. Idempotent."""
        task, self._task = self._task, None
        if task is None:
            return
        self._drains_until = self._loop.time() + _DRAIN
        self._stopping.set()
        self._wake.set()
        await shielded(self._end(task))

    async def _end(self, task: "asyncio.Task[None]") -> None:
        await asyncio.wait([task])
        for part in (self._listener, self._notifier):
            if part is not None:
                await part.stop()
        task.result()

    @property
    def failures(self) -> list[str]:
        """What the relay can't do now, as sentences."""
        return [] if self._task is None else [*self._database.reasons, *self._rows.failing.trouble.reasons]

    def enter_worker(self) -> None:
        """Note that a worker runs in this process: such processes share the partitions, others only stand in."""
        self._workers += 1
        self._renew_soon()

    def leave_worker(self) -> None:
        """Note that a worker has ended."""
        self._workers -= 1
        self._renew_soon()

    def _renew_soon(self) -> None:
        if self._task is not None:
            self._renew_at = 0.0
            self._wake.set()

    # Wake-ups

    def notify(self, partitions: Collection[int]) -> None:
        """Publish what is new in these partitions, or have the relays of other processes do it."""
        if self._task is not None:
            self._hear(partitions)
            others = set(partitions).difference(self.held)
            if others and self._notifier is not None:
                self._notifier.notify(others)

    def _hear(self, partitions: Collection[int]) -> None:
        if not self.held.keys().isdisjoint(partitions):
            self._wake.set()

    # The loop

    async def _run(self) -> None:
        backoff = Backoff()
        while not self._stopping.is_set() or self._loop.time() < self._drains_until:
            try:
                found = await self._round()
            except Exception as error:  # noqa: BLE001 - it is logged as what it is, which may be a fault of the store
                self._database.begin(error)
                if self._stopping.is_set():
                    break
                await backoff.wait(self._stopping)
            else:
                self._database.end()
                backoff.reset()
                if self._stopping.is_set() and found is _Found.NOTHING:
                    break
                await self._rest(found)
        await self._release()

    async def _round(self) -> "_Found":
        """Publish one batch."""
        if self._loop.time() >= self._renew_at:
            await self._renew()
        if not self.held:
            self._wake.clear()
            return _Found.NOTHING
        await self._rows.delete(self.held)
        if self._loop.time() >= self._promote_at:
            await self._promote()
        await self._expire()
        self._wake.clear()  # before reading, or what is written meanwhile would wait for the next look
        failing = self._rows.failing
        left_out = failing.to_leave_out()
        rows = () if failing.are_too_many else await answer_of(self._store.read(self.held, _BATCH, without=left_out))
        if rows:
            return await self._pass_on(rows)
        failing.recover()
        return _Found.NOTHING

    async def _pass_on(self, rows: Sequence[StoredMessage]) -> "_Found":
        if self._lease_ends - self._loop.time() < self._timeout + _POLL:
            self._renew_at = 0.0  # so little is left that another relay might come before the end
            return _Found.MORE
        are_done = await self._rows.pass_on(self.held, rows)
        if len(rows) == _BATCH:
            return _Found.MORE
        if are_done:
            self._rows.failing.recover()
        return _Found.SOME

    async def _rest(self, found: "_Found") -> None:
        """Wait until rows may have been written, or those that are there may be published."""
        if found is _Found.MORE or self._stopping.is_set():
            return
        if found is _Found.SOME:
            await _sleep(self._stopping, _LINGER)
        now = self._loop.time()
        moments = (now + _POLL, self._promote_at, self._rows.failing.retry_at) if self.held else ()
        await _sleep(self._wake, min(self._renew_at, *moments, now + _THIRD) - now)

    async def _renew(self) -> None:
        began, rank = self._loop.time(), 0 if self._workers else 1
        held = await answer_of(self._store.lease(self.name, seconds=LEASE, rank=rank))
        self._lease_ends, self._renew_at = began + LEASE, began + _THIRD
        if held != self.held:
            self._promote_at = 0.0
            self._rows.forget(held, self.held)
            logger.debug("the relay holds the partitions %s of the outbox", ", ".join(map(str, sorted(held))) or "-")
        self.held = held

    async def _promote(self) -> None:
        """Make due rows ready; look again when the next is due, and with each poll for those that others write."""
        began = self._loop.time()
        seconds = await answer_of(self._store.promote(self.held))
        self._promote_at = began + (_POLL if seconds is None else min(seconds, _POLL))

    async def _expire(self) -> None:
        """Delete old rows of the inbox; the relay of the first partition does it, also under load that never ends."""
        now = self._loop.time()
        if now >= self._expire_at and 0 in self.held and not self._stopping.is_set():
            self._expire_at = now + _EXPIRE_EVERY  # also if it fails: it must not keep rows from being published
            if await answer_of(self._store.expire(_EXPIRE_BATCH)) == _EXPIRE_BATCH:
                self._expire_at = now + _POLL

    async def _release(self, *, again: bool = True) -> None:
        """Release the partitions; a second time if another transaction was in the way, or the disk was slow."""
        try:
            await answer_of(self._store.release(self.name))
        except Exception as error:  # noqa: BLE001 - as above
            if again:
                return await self._release(again=False)
            text = (
                "the relay could not release its partitions of the outbox (%s): their rows wait %g s for another relay"
            )
            logger.warning(text, described(error), LEASE)


class _Found(enum.Enum):
    NOTHING = enum.auto()
    SOME = enum.auto()
    MORE = enum.auto()
    """There may be more that can be published at once."""


async def _sleep(event: asyncio.Event, seconds: float) -> None:
    """Sleep, but not longer than until an event is set."""
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(event.wait(), max(_SHORTEST, seconds))
