"""Maintenance in the background."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from diator.errors import BrokerUnavailableError

logger = logging.getLogger("diator.redis")


class PeriodicTask:
    """A task that calls ``action`` periodically, and earlier if ``action`` returns in how many seconds."""

    def __init__(self, action: Callable[[], Awaitable[float | None]], period: float) -> None:
        self._action, self._period = action, period
        self._loop = asyncio.get_running_loop()
        self._next = self._loop.time()
        self._woken = asyncio.Event()
        self._is_closed = False
        self._reported = ""
        self._task = self._loop.create_task(self._run())

    def expect(self, delay: float) -> None:
        """Call ``action`` after this many seconds at the latest."""
        if self._loop.time() + delay < self._next:
            self._next = self._loop.time() + delay
            self._woken.set()

    async def aclose(self) -> None:
        """Stop, even in the middle of a call."""
        self._is_closed = True  # a cancel alone may be lost: asyncio.wait_for swallows it before Python 3.12
        self._woken.set()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while not self._is_closed:
            self._next = self._loop.time() + self._period
            try:
                due = await self._action()
                self.expect(self._period if due is None else due)
                self._reported = ""
            except BrokerUnavailableError as error:  # receivers meet the same outage and raise it
                logger.debug("the maintenance of Redis failed: %s", error)
            except Exception as error:  # noqa: BLE001 - without it messages would not be delivered
                self._report(error)
            await self._sleep()

    async def _sleep(self) -> None:
        while not self._is_closed and (remaining := self._next - self._loop.time()) > 0:
            self._woken.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._woken.wait(), remaining)

    def _report(self, error: Exception) -> None:
        """Log an error that is not an outage, once for as long as it stays the same."""
        if self._reported != repr(error):
            self._reported = repr(error)
            logger.error(
                "the maintenance of Redis failed, so scheduled messages are not delivered, nor streams trimmed; it is "
                "retried, and this is logged once: %s",
                error,
                exc_info=error,
            )
