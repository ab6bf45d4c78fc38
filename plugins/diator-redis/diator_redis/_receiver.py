"""One worker's access to a subscription: it hands out what its streams have, and looks after them in the background."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Protocol

from diator.brokers.port import Delivery, RetryAfter, Settlement
from diator.errors import BrokerError, BrokerUnavailableError
from diator_redis._errors import in_words, is_missing_group

logger = logging.getLogger("diator.redis")

BLOCK = 5.0
"""For how many seconds one call waits in Redis before it is made anew."""


class Source(Protocol):
    """Streams that are read in one way; see `SharedStreams` and `Partitions`."""

    wake: Callable[[], None]

    def enter(self) -> None: ...
    def exit(self) -> None: ...
    async def prepare(self, limit: int) -> None: ...
    def take(self, limit: int) -> list[Delivery]: ...
    async def read(self, limit: int, wait: float) -> None: ...
    async def unblock(self) -> None: ...
    async def settle(self, settlements: Sequence[Settlement]) -> Collection[Delivery]: ...
    async def renew(self, deliveries: Sequence[Delivery]) -> Collection[Delivery]: ...
    async def keep(self) -> float | None: ...
    async def leave(self) -> None: ...
    async def aclose(self) -> None: ...
    def has(self, delivery: Delivery) -> bool: ...


class StreamReceiver:
    """The receiver of one subscription."""

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        lease: float,
        restore: Callable[[], Awaitable[None]],
        trim: Callable[[], Awaitable[None]],
        closed: Callable[["StreamReceiver"], None],
    ) -> None:
        self._sources = list(sources)
        for source in sources:
            source.wake = self.wake
        self._reads: dict[Source, asyncio.Task[None]] = {}
        self._restore, self._trim, self._closed = restore, trim, closed
        self._wake: asyncio.Future[None] | None = None
        self._ended = False
        self._keeper = Keeper(self._keep, period=min(max(lease / 10, 0.05), 3.0))

    # The port.

    async def receive(self, limit: int, /) -> Sequence[Delivery]:
        """Wait for messages, and give at most ``limit`` of them. Raises `~diator.BrokerError`."""
        for source in self._sources:
            source.enter()
        try:
            while not self._ended:
                for source in self._sources:
                    await source.prepare(limit)
                if found := self._take(limit):
                    return found
                await self._wait(limit)
            return ()
        finally:
            for source in self._sources:
                source.exit()

    async def settle(self, settlements: Sequence[Settlement], /) -> Collection[Delivery]:
        """Settle many; give those whose lease was lost. Raises `~diator.BrokerError`."""
        lost: list[Delivery] = []
        for source, some in self._parted(settlements):
            try:
                lost += await source.settle(some)
            except BrokerError as error:
                if not is_missing_group(error):
                    raise
                # A flush took the entries: nothing is left that could be settled.
                lost += [delivery for delivery, _ in some]
        delays = [outcome.delay for _, outcome in settlements if isinstance(outcome, RetryAfter)]
        if delays:
            self._keeper.expect(min(delays))
        return lost

    async def renew(self, deliveries: Sequence[Delivery], /) -> Collection[Delivery]:
        """Renew leases; give those that were lost already. Raises `~diator.BrokerError`."""
        lost: list[Delivery] = []
        for source in self._sources:
            some = [delivery for delivery in deliveries if source.has(delivery)]
            try:
                lost += await source.renew(some) if some else ()
            except BrokerError as error:
                if not is_missing_group(error):
                    raise
                lost += some
        return lost

    async def aclose(self) -> None:
        """Give back what was not settled, and end. Idempotent; never raises for a broker that is away."""
        if self._ended:
            return
        self._ended = True
        self.wake()
        await self._keeper.aclose()
        for source in self._sources:
            with contextlib.suppress(BrokerError):
                await source.unblock()
        await self._end_reads()
        for source in self._sources:
            try:
                await source.leave()
            except BrokerError as error:
                logger.warning(
                    "what was not settled could not be given back and comes again after its lease: %s", error
                )
            await source.aclose()
        self._closed(self)

    # Reading.

    def wake(self) -> None:
        """Let a waiting `receive` look again."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _take(self, limit: int) -> list[Delivery]:
        found: list[Delivery] = []
        for source in self._sources:
            found += source.take(limit - len(found))
            if len(found) >= limit:
                break
        if len(self._sources) > 1:
            self._sources.append(self._sources.pop(0))
        return found

    async def _wait(self, limit: int) -> None:
        """Read in tasks of their own: a cancel of `receive` leaves them be, and their fruits go to the next call."""
        loop = asyncio.get_running_loop()
        for source in self._sources:
            if source not in self._reads:
                self._reads[source] = loop.create_task(source.read(limit, BLOCK))
        self._wake = loop.create_future()
        await asyncio.wait({self._wake, *self._reads.values()}, return_when=asyncio.FIRST_COMPLETED)
        for source, task in list(self._reads.items()):
            if task.done():
                del self._reads[source]
                await self._look_at(task.exception())

    async def _look_at(self, error: BaseException | None) -> None:
        if error is None:
            return
        if not (isinstance(error, BrokerError) and is_missing_group(error)):
            raise error
        await self._restore()

    async def _end_reads(self) -> None:
        reads, self._reads = list(self._reads.values()), {}
        if reads:
            _, hanging = await asyncio.wait(reads, timeout=1.0)
            for task in hanging:
                task.cancel()
            await asyncio.gather(*reads, return_exceptions=True)

    # Upkeep.

    async def _keep(self) -> float | None:
        try:
            due = [await source.keep() for source in self._sources]
            await self._trim()
        except BrokerError as error:
            if is_missing_group(error):
                await self._restore()
                return 0.05
            raise
        return min((seconds for seconds in due if seconds is not None), default=None)

    def _parted(self, settlements: Sequence[Settlement]) -> list[tuple[Source, Sequence[Settlement]]]:
        if len(self._sources) == 1:
            return [(self._sources[0], settlements)] if settlements else []
        parts = [(source, [some for some in settlements if source.has(some[0])]) for source in self._sources]
        return [(source, some) for source, some in parts if some]


class Keeper:
    """A task that calls ``keep`` again and again: after a period, or when it said that something is due."""

    def __init__(self, keep: Callable[[], Awaitable[float | None]], period: float) -> None:
        self._call, self._period = keep, period
        self._loop = asyncio.get_running_loop()
        self._next = self._loop.time()
        self._poked = asyncio.Event()
        self._ended = False
        self._reported = ""
        self._task = self._loop.create_task(self._run())

    def expect(self, delay: float) -> None:
        """Call ``keep`` in so many seconds at the latest."""
        due = self._loop.time() + delay
        if due < self._next:
            self._next = due
            self._poked.set()

    async def aclose(self) -> None:
        """End, in the middle of a call if need be."""
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
                logger.debug("the upkeep of a subscription failed: %s", error)
            except Exception as error:  # noqa: BLE001 - without upkeep retries would stay away, and nobody would know
                self._report(error)
            else:
                self._reported = ""
                if due is not None:
                    self.expect(due)
            await self._sleep()

    def _report(self, error: Exception) -> None:
        """Log what is no outage, once for as long as it is the same."""
        text = repr(error)
        if text != self._reported:
            self._reported = text
            logger.error(
                "the upkeep of a subscription failed, so retries and messages of dead workers do not come back; it is "
                "tried again, and this is logged once: %s",
                in_words(error),
                exc_info=error,
            )

    async def _sleep(self) -> None:
        while not self._ended and (left := self._next - self._loop.time()) > 0:
            self._poked.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._poked.wait(), left)
