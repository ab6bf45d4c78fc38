"""Wake-ups between processes: they save the time until a relay looks for itself, and may get lost."""

import asyncio
import logging
from collections.abc import Callable, Collection

from diator.delivery.error_texts import described
from diator.delivery.outage import Backoff
from diator.errors import StoreError
from diator.stores.port import WakesRelays

logger = logging.getLogger("diator")

_PAUSE = 0.02
"""Seconds between two notifications: one for each commit would cost a sixth of its speed."""
_TIMEOUT = 1.0
"""Seconds that a call may take at the end."""


class Notifier:
    """Notifies the relays of all processes of rows that were written, the first time at once and then seldom."""

    def __init__(self, store: WakesRelays) -> None:
        self._store = store
        self._waiting: set[int] = set()
        self._task: asyncio.Task[None] | None = None
        self._reason = ""

    def notify(self, partitions: Collection[int]) -> None:
        """Notify them soon."""
        self._waiting.update(partitions)
        if self._task is None:
            self._task = asyncio.ensure_future(self._run())

    async def stop(self) -> None:
        """Notify them of what is left, within a second."""
        task = self._task
        if task is not None:
            await asyncio.wait([task], timeout=_TIMEOUT)
            task.cancel()
            await asyncio.wait([task], timeout=_TIMEOUT)
        self._waiting.clear()

    async def _run(self) -> None:
        try:
            while self._waiting:
                partitions, self._waiting = self._waiting, set()
                await self._send(partitions)
                await asyncio.sleep(_PAUSE)
        finally:
            self._task = None

    async def _send(self, partitions: Collection[int]) -> None:
        try:
            await self._store.notify(partitions)
            self._reason = ""
        except Exception as error:  # noqa: BLE001 - it must not reach the unit of work whose commit has succeeded
            self._reason = _log_once("notify", error, self._reason)


class Listener:
    """Hears the notifications of other processes, and goes on when the connection for it was lost."""

    def __init__(self, store: WakesRelays, heard: Callable[[Collection[int]], None], partitions: int) -> None:
        self._store = store
        self._heard = heard
        self._all = range(partitions)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to listen."""
        self._task = asyncio.ensure_future(self._run())

    async def stop(self) -> None:
        """End. A connection that takes longer than a second to close is left behind."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=_TIMEOUT)
            self._task = None

    async def _run(self) -> None:
        backoff, reason = Backoff(), ""
        while True:
            try:
                async with self._store.listen(self._heard):
                    backoff.reset()
                    reason = ""
                    self._heard(self._all)  # what was written before it listened
                    await asyncio.get_running_loop().create_future()
            except Exception as error:  # noqa: BLE001 - the relay looks for itself; the error is logged
                reason = _log_once("listen", error, reason)
            await backoff.wait()


def _log_once(what: str, error: Exception, before: str) -> str:
    """Log why a wake-up fails, unless that was logged before."""
    reason = described(error)
    if reason != before:
        text = "the store can't %s (%s); relays look for new rows each second until it can"
        logger.warning(text, what, reason, exc_info=None if isinstance(error, StoreError) else error)
    return reason
