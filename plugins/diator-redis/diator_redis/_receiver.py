"""One worker's access to a subscription."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence

from diator.brokers import shielded
from diator.brokers.port import RELEASE, Delivery, Settlement
from diator.errors import BrokerError
from diator_redis._queues import Queues
from diator_redis._streams import Streams

logger = logging.getLogger("diator.redis")

MAX_WAIT = 5.0
"""Seconds that one call waits in Redis before it is repeated."""


class StreamReceiver:
    """The receiver of one subscription. ``restore`` creates groups that were deleted at the server."""

    def __init__(
        self,
        source: Queues | Streams,
        restore: Callable[[], Awaitable[None]],
        closed: Callable[["StreamReceiver"], None],
    ) -> None:
        self._source, self._restore, self._closed = source, restore, closed
        self._claiming = asyncio.Lock()
        self._waiting: asyncio.Task[None] | None = None
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def receive(self, limit: int, /) -> Sequence[Delivery]:
        """Wait for messages, and return at most ``limit`` of them. Raises `~diator.BrokerError`."""
        found: list[Delivery] = []
        while not self._end.done():
            try:
                has_more = await shielded(self._claim(limit, found))
            except asyncio.CancelledError:
                with contextlib.suppress(BrokerError):  # then they are redelivered when their leases expire
                    await shielded(self._source.settle([(delivery, RELEASE) for delivery in found]))
                raise
            if found:
                return () if self._end.done() else found
            if not has_more:
                await self._wait()
        return ()

    async def _claim(self, limit: int, found: list[Delivery]) -> bool:
        async with self._claiming:
            if self._end.done():
                return False
            try:
                return await self._source.claim(limit, found)
            except BrokerError as error:
                if "NOGROUP" not in str(error):
                    raise
            await self._restore()
            return True

    async def _wait(self) -> None:
        """Wait in a task: cancelling `receive` does not cut its connection, and the next call continues."""
        waiting = self._waiting = self._waiting or asyncio.ensure_future(self._source.wait(MAX_WAIT))
        await asyncio.wait({waiting, self._end}, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done() and not self._end.done():
            self._waiting = None
            waiting.result()

    async def settle(self, settlements: Sequence[Settlement], /) -> Collection[Delivery]:
        """Settle deliveries; return those whose lease was lost. Raises `~diator.BrokerError`."""
        return await self._source.settle(settlements)

    async def renew(self, deliveries: Sequence[Delivery], /) -> Collection[Delivery]:
        """Renew leases; return the deliveries whose lease was lost. Raises `~diator.BrokerError`."""
        return await self._source.settle([(delivery, None) for delivery in deliveries])

    async def aclose(self) -> None:
        """Release unsettled messages and close. Idempotent; does not raise if the broker is unavailable."""
        if self._end.done():
            return
        self._end.set_result(None)
        if self._waiting is not None:
            self._waiting.cancel()
            await asyncio.gather(self._waiting, return_exceptions=True)
        try:
            async with self._claiming:
                await self._source.release_all()
        except BrokerError as error:
            logger.warning(
                "unsettled messages could not be released and are redelivered when their leases expire: %s", error
            )
        self._closed(self)
