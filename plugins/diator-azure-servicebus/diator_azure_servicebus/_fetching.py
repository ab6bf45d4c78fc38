"""Fetching: messages are received over the SDK while a `receive` waits for them, and not longer."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timezone
from typing import Any

from azure.servicebus import ServiceBusReceivedMessage

from diator.brokers import Delivery, Subscription
from diator_azure_servicebus._errors import quietly
from diator_azure_servicebus._messages import from_wire
from diator_azure_servicebus._sdk import Receiver


class LockedMessage:
    """A message that a receiver has. It is the receipt of a delivery."""

    __slots__ = ("copied", "failures", "link", "lost", "message", "settled")

    def __init__(self, message: ServiceBusReceivedMessage, link: object) -> None:
        self.message = message
        self.link = link
        """The link that it came by, over which alone it can be released without counting a delivery."""
        self.failures = 0
        self.settled = False
        self.lost = False
        self.copied = False
        """Whether the copy that is to be delivered again was sent."""

    @property
    def sequence(self) -> int:
        """Its place in the queue."""
        return self.message.sequence_number or 0

    @property
    def expired(self) -> bool:
        """Whether its lock has run out, by the clock of this machine. Messages of sessions have none."""
        until = self.message.locked_until_utc
        return until is not None and until <= datetime.now(timezone.utc)

    def delivery(self, subscription: Subscription, failures: int | None = None) -> Delivery:
        """Return its delivery. The message has the failure count, unless ``failures`` is passed."""
        content = from_wire(self.message, subscription)
        self.failures = content.failures if failures is None else failures
        return Delivery(
            content.topic,
            content.body,
            content.headers,
            key=content.headers.get("partitionkey"),
            failures=self.failures,
            deliveries=content.deliveries + (self.message.delivery_count or 0) + 1,
            read_error=content.read_error,
            receipt=self,
        )


class Fetcher:
    """A receiver of the SDK. ``wake`` is called when something has come, or has failed.

    ``returned`` is called for each message that is released without having been delivered.
    """

    def __init__(
        self,
        sdk: Receiver,
        wake: Callable[[], None],
        returned: Callable[[LockedMessage], object] | None = None,
    ) -> None:
        self.sdk = sdk
        self._returned = returned
        self.ready: deque[LockedMessage] = deque()
        """Received and not delivered."""
        self.error: BaseException | None = None
        """Why the last fetch has failed."""
        self.came_empty = False
        """Whether the last fetch found nothing."""
        self._wake = wake
        self._task: asyncio.Task[None] | None = None
        self._pausing: asyncio.Task[None] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a fetch runs."""
        return self._task is not None and not self._task.done()

    def start(self, limit: int, seconds: float) -> None:
        """Fetch, unless it is done already."""
        if not self.is_busy:
            self._task = asyncio.ensure_future(self._run(limit, seconds))
            self._task.add_done_callback(lambda _: self._wake())

    async def _run(self, limit: int, seconds: float) -> None:
        try:
            if self._pausing is not None:
                await asyncio.wait([self._pausing])
            messages = await self.sdk.fetch(limit, seconds)
            link = self.sdk.link
            self.ready.extend(LockedMessage(message, link) for message in messages)
            self.came_empty = not messages
        except Exception as error:  # noqa: BLE001 - raised by `receive`
            self.error = error

    def drop_expired(self) -> None:
        """Drop messages that waited longer than their lock: other receivers may have them."""
        while self.ready and self.ready[0].expired:
            self.ready.popleft()

    def take_error(self) -> BaseException | None:
        """Return the error of the last fetch, once."""
        error, self.error = self.error, None
        return error

    def pause(self) -> "asyncio.Task[None]":
        """Take no more messages, and release those that were not delivered."""
        task, self._task = self._task, None
        return self._then(self._pause(task))

    async def _pause(self, task: "asyncio.Task[None] | None") -> None:
        if task is not None:
            await stopped(task)
        await quietly(self.sdk.return_prefetched())
        ready, self.ready = self.ready, deque()
        await self.release_all(ready)

    def release_soon(self, several: Iterable[LockedMessage]) -> None:
        """Release messages before the next fetch."""
        self._then(self.release_all(list(several)))

    def _then(self, work: Awaitable[None]) -> "asyncio.Task[None]":
        """Do this after earlier work, and before the next fetch."""
        self._pausing = asyncio.ensure_future(_after(self._pausing, work))
        return self._pausing

    async def stop(self) -> None:
        """End the fetch that runs."""
        if self._task is not None:
            await stopped(self._task)

    async def release_all(self, several: Iterable[LockedMessage]) -> None:
        """Release messages if the connection allows it; others are redelivered when their lock expires."""
        several = list(several)
        if self._returned is not None:
            for held in several:
                self._returned(held)
        await asyncio.gather(*(quietly(self.sdk.release(held.message, held.link)) for held in several))

    async def aclose(self, held: Iterable[LockedMessage]) -> None:
        """Release these and all that were not delivered, and close."""
        await asyncio.wait([self.pause()])
        await self.release_all(held)
        await quietly(self.sdk.close())


async def _after(before: "asyncio.Task[None] | None", work: Awaitable[None]) -> None:
    if before is not None:
        await asyncio.wait([before])
    await work


async def stopped(task: "asyncio.Task[Any]", patience: float = 0.3) -> None:
    """Cancel a task of the SDK and wait for its end.

    It is cancelled again after each ``patience`` seconds: ``asyncio.wait_for`` of older Pythons may swallow a cancel.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=patience)
