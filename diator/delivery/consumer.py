"""The consumer: one subscription in one worker, for as long as that lives."""

import asyncio
import logging
from collections.abc import Callable, Mapping

from diator.brokers.port import Receiver
from diator.context import Context
from diator.delivery.alone import Call
from diator.delivery.catalog import Consumed
from diator.delivery.outage import Backoff, unless_stopped
from diator.delivery.serving import Serving
from diator.delivery.shared import Shared
from diator.errors import BrokerError

logger = logging.getLogger("diator")


class Consumer:
    """Handles the messages of one subscription, ``concurrency`` at a time."""

    def __init__(self, consumed: Consumed, calls: Mapping[type, Call], shared: Shared) -> None:
        self.consumed = consumed
        self.name = consumed.name
        self._calls = calls
        self._shared = shared
        self._serving: Serving | None = None
        self._ignored = 0

    @property
    def is_receiving(self) -> bool:
        """Whether it is connected and takes messages."""
        return self._serving is not None and self._serving.is_receiving

    @property
    def ignored(self) -> int:
        """How many messages were acknowledged because nobody here handles their types."""
        return self._ignored + (0 if self._serving is None else self._serving.handling.ignored)

    async def run(self, stopping: asyncio.Event, grace: Callable[[], float]) -> None:
        """Handle messages until ``stopping`` is set; what runs then may finish within ``grace()`` seconds."""
        receiver = await self._subscribed(stopping)
        if receiver is None:
            return
        serving = self._serving = Serving(self.consumed, self._calls, self._shared, receiver)
        try:
            await serving.run(stopping, grace)
        finally:
            self._ignored, self._serving = self.ignored, None

    async def _subscribed(self, stopping: asyncio.Event) -> Receiver | None:
        backoff, broker, outage = Backoff(), self._shared.broker, self._shared.outage
        while not stopping.is_set():
            try:
                receiver = await unless_stopped(broker.subscribe(self.consumed.subscription), stopping)
            except BrokerError as error:
                outage.down("subscribe", self.name, error)
                await backoff.wait(stopping)
            else:
                if receiver is not None:
                    outage.up("be used", self.name)
                    outage.up("subscribe", self.name)
                    logger.info("consuming %s", self.name)
                return receiver
        return None

    def holds(self, context: Context) -> bool:
        """Whether the message of a context is still this consumer's own."""
        serving = self._serving
        return serving is not None and serving.leases.holds_all(serving.handling.running, context)

    def spare(self, context: Context) -> None:
        """Let a message take as long as it needs: its handler has succeeded, and the broker is away."""
        if self._serving is not None:
            self._serving.handling.spare(context)
