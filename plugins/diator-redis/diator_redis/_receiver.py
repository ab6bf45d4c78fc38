"""One worker's access to a subscription: it hands out what its streams have, and looks after them in the background."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Protocol

from diator.brokers.port import Delivery, RetryAfter, Settlement
from diator.errors import BrokerError
from diator_redis._errors import is_missing_group
from diator_redis._keeper import Keeper

logger = logging.getLogger("diator.redis")

BLOCK = 5.0
"""For how many seconds one call waits in Redis before it is made anew."""


class Source(Protocol):
    """Streams that are read in one way; see `SharedStreams` and `OrderedStreams`."""

    def enter(self) -> None: ...
    def exit(self) -> None: ...
    def take(self, limit: int) -> list[Delivery]: ...
    async def read(self, limit: int, wait: float) -> None: ...
    async def unblock(self) -> None: ...
    async def settle(self, settlements: Sequence[Settlement]) -> Collection[Delivery]: ...
    async def renew(self, deliveries: Sequence[Delivery]) -> Collection[Delivery]: ...
    async def keep(self) -> float | None: ...
    async def leave(self) -> None: ...
    async def aclose(self) -> None: ...


class StreamReceiver:
    """The receiver of one subscription."""

    def __init__(
        self,
        source: Source,
        *,
        lease: float,
        restore: Callable[[], Awaitable[None]],
        trim: Callable[[], Awaitable[None]],
        closed: Callable[["StreamReceiver"], None],
    ) -> None:
        self._source = source
        self._read: asyncio.Task[None] | None = None
        self._restore, self._trim, self._closed = restore, trim, closed
        self._wake: asyncio.Future[None] | None = None
        self._ended = False
        self._keeper = Keeper(self._keep, lease)

    # The port.

    async def receive(self, limit: int, /) -> Sequence[Delivery]:
        """Wait for messages, and give at most ``limit`` of them. Raises `~diator.BrokerError`."""
        self._source.enter()
        try:
            while not self._ended:
                if found := self._source.take(limit):
                    return found
                await self._wait(limit)
            return ()
        finally:
            self._source.exit()

    async def settle(self, settlements: Sequence[Settlement], /) -> Collection[Delivery]:
        """Settle many; give those whose lease was lost. Raises `~diator.BrokerError`."""
        try:
            lost = await self._source.settle(settlements)
        except BrokerError as error:
            if not is_missing_group(error):
                raise
            # A flush took the entries: nothing is left that could be settled.
            lost = [delivery for delivery, _ in settlements]
        delays = [outcome.delay for _, outcome in settlements if isinstance(outcome, RetryAfter)]
        if delays:
            self._keeper.expect(min(delays))
        return lost

    async def renew(self, deliveries: Sequence[Delivery], /) -> Collection[Delivery]:
        """Renew leases; give those that were lost already. Raises `~diator.BrokerError`."""
        try:
            return await self._source.renew(deliveries)
        except BrokerError as error:
            if not is_missing_group(error):
                raise
            return deliveries

    async def aclose(self) -> None:
        """Give back what was not settled, and end. Idempotent; never raises for a broker that is away."""
        if self._ended:
            return
        self._ended = True
        self.wake()
        await self._keeper.aclose()
        with contextlib.suppress(BrokerError):
            await self._source.unblock()
        await self._end_read()
        try:
            await self._source.leave()
        except BrokerError as error:
            logger.warning("unsettled messages could not be released and are redelivered after their lease: %s", error)
        await self._source.aclose()
        self._closed(self)

    # Reading.

    def wake(self) -> None:
        """Let a waiting `receive` look again."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _wait(self, limit: int) -> None:
        """Read in a separate task: a cancel of `receive` does not stop it, and the next call returns its result."""
        loop = asyncio.get_running_loop()
        read = self._read = self._read or loop.create_task(self._source.read(limit, BLOCK))
        self._wake = loop.create_future()
        await asyncio.wait({self._wake, read}, return_when=asyncio.FIRST_COMPLETED)
        if self._read is read and read.done():
            self._read = None
            await self._look_at(read.exception())

    async def _look_at(self, error: BaseException | None) -> None:
        if error is None:
            return
        if not (isinstance(error, BrokerError) and is_missing_group(error)):
            raise error
        await self._restore()

    async def _end_read(self) -> None:
        read, self._read = self._read, None
        if read is not None:
            await asyncio.wait({read}, timeout=1.0)
            read.cancel()
            await asyncio.gather(read, return_exceptions=True)

    # Upkeep.

    async def _keep(self) -> float | None:
        try:
            due = await self._source.keep()
            await self._trim()
        except BrokerError as error:
            if is_missing_group(error):
                await self._restore()
                return 0.05
            raise
        return due
