"""Upkeep in the background."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from diator.errors import BrokerUnavailableError
from diator_redis._errors import translate

logger = logging.getLogger("diator.redis")


class Keeper:
    """A task that calls ``keep`` now and then, or when it said that something is due."""

    def __init__(self, keep: Callable[[], Awaitable[float | None]], lease: float) -> None:
        self._call, self._period = keep, min(max(lease / 10, 0.05), 3.0)
        self._loop = asyncio.get_running_loop()
        self._next = self._loop.time()
        self._poked = asyncio.Event()
        self._ended = False
        self._reported = ""
        self._task = self._loop.create_task(self._run())

    def expect(self, delay: float) -> None:
        """Call ``keep`` after this many seconds at the latest."""
        due = self._loop.time() + delay
        if due < self._next:
            self._next = due
            self._poked.set()

    async def aclose(self) -> None:
        """End, even in the middle of a call."""
        self._ended = True  # a cancel alone may be swallowed: by asyncio.wait_for before Python 3.12
        self._poked.set()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while not self._ended:
            self._next = self._loop.time() + self._period
            try:
                due = await self._call()
            except BrokerUnavailableError as error:
                # `receive` meets the same outage and raises it; here it is only tried again.
                logger.debug("the upkeep of Redis failed: %s", error)
            except Exception as error:  # noqa: BLE001 - without upkeep retries would stop unnoticed
                self._report(error)
            else:
                self._reported = ""
                if due is not None:
                    self.expect(due)
            await self._sleep()

    def _report(self, error: Exception) -> None:
        """Log an error that is not an outage, once for as long as it stays the same."""
        text = repr(error)
        if text != self._reported:
            self._reported = text
            logger.error(
                "the upkeep of Redis failed, so retries, scheduled messages and messages of dead workers are not "
                "delivered; it is retried, and this is logged once: %s",
                translate(error),
                exc_info=error,
            )

    async def _sleep(self) -> None:
        while not self._ended and (left := self._next - self._loop.time()) > 0:
            self._poked.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._poked.wait(), left)
