"""Upkeep in the background."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from diator.errors import BrokerUnavailableError

logger = logging.getLogger("diator.redis")


class Keeper:
    """A task that calls ``keep`` now and then, and after as many seconds as it returns."""

    def __init__(self, keep: Callable[[], Awaitable[float | None]], period: float) -> None:
        self._keep, self._period = keep, period
        self._loop = asyncio.get_running_loop()
        self._next = self._loop.time()
        self._earlier = asyncio.Event()
        self._ended = False
        self._reported = ""
        self._task = self._loop.create_task(self._run())

    def expect(self, delay: float) -> None:
        """Call ``keep`` after this many seconds at the latest."""
        if self._loop.time() + delay < self._next:
            self._next = self._loop.time() + delay
            self._earlier.set()

    async def aclose(self) -> None:
        """End, even in the middle of a call."""
        self._ended = True  # a cancel alone may be swallowed: by asyncio.wait_for before Python 3.12
        self._earlier.set()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while not self._ended:
            self._next = self._loop.time() + self._period
            try:
                due = await self._keep()
                self.expect(self._period if due is None else due)
                self._reported = ""
            except BrokerUnavailableError as error:  # receivers meet the same outage and raise it
                logger.debug("the upkeep of Redis failed: %s", error)
            except Exception as error:  # noqa: BLE001 - without upkeep messages would stay unnoticed
                self._report(error)
            await self._sleep()

    async def _sleep(self) -> None:
        while not self._ended and (left := self._next - self._loop.time()) > 0:
            self._earlier.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._earlier.wait(), left)

    def _report(self, error: Exception) -> None:
        """Log an error that is not an outage, once for as long as it stays the same."""
        if self._reported != repr(error):
            self._reported = repr(error)
            logger.error(
                "the upkeep of Redis failed, so scheduled messages are not delivered, nor streams trimmed; it is "
                "retried, and this is logged once: %s",
                error,
                exc_info=error,
            )
