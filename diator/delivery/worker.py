"""The worker: the consumers of an app, started, watched over and stopped together."""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from types import TracebackType

from typing_extensions import Self

from diator._misuse import AsyncOnly
from diator._shielding import shielded
from diator.brokers.port import Broker, Capability
from diator.delivery.alone import Call
from diator.delivery.catalog import Catalog, Consumed
from diator.delivery.consumer import Consumer
from diator.delivery.follow_up import FollowUps
from diator.delivery.operations import named
from diator.delivery.outage import OUT_OF_NOWHERE, Backoff, Outage
from diator.delivery.publisher import Publisher
from diator.delivery.shared import Shared
from diator.delivery.subscription_creation import ITSELF, Creation
from diator.delivery.watchdog import Watchdog
from diator.errors import BrokerError, BrokerUnavailableError, NotRunningError
from diator.options import COUNT, SECONDS, Rule, are_names, optional, require

logger = logging.getLogger("diator")

Calls = Callable[[Consumed, FollowUps], Mapping[type, Call]]
"""Compiles what a consumer calls for each class of events."""


class Worker(AsyncOnly):
    """Handles the brokered events of an app: ``async with app.worker()``. Made by ``app.worker(...)``.

    Entering creates the subscriptions that are missing and starts to receive; where the broker is away it goes on
    trying. Leaving stops receiving, lets handlers finish within the grace time, and gives back the rest.
    """

    _how = "async with app.worker()"

    def __init__(
        self,
        broker: Broker,
        catalog: Catalog,
        publisher: Publisher,
        calls: Calls,
        *,
        only: Collection[str] | None,
        concurrency: int | None,
        grace: float,
    ) -> None:
        self._broker = broker
        self._catalog = catalog
        self._publisher = publisher
        self._calls = calls
        given = {"only": only, "concurrency": concurrency, "grace": grace}
        require("app.worker", _OPTIONS, given, "consuming")
        self._grace = grace
        self.consumed = _chosen(catalog.consumed, only, concurrency)
        """What this worker consumes."""
        self.consumers: list[Consumer] = []
        self._stopping: asyncio.Event | None = None
        self._until: float | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._creation: Creation | None = None

    async def __aenter__(self) -> Self:
        """Start. Raises `BrokerError` where the broker refuses the subscriptions for good."""
        if self._stopping is not None:
            raise NotRunningError("a worker can be entered once; call app.worker() again")
        self._stopping = asyncio.Event()
        self._outage = Outage(lossy=Capability.ACKNOWLEDGED not in self._broker.capabilities)
        creation = await self._create_subscriptions()
        shared = Shared(self._broker, self._outage, self._publisher.telling, asyncio.Lock())
        self.consumers = [self._consumer(consumed, shared) for consumed in self.consumed]
        self._tasks = [asyncio.ensure_future(self._keep(consumer, creation)) for consumer in self.consumers]
        self._tasks.append(asyncio.ensure_future(creation.run(self._stopping)))
        self._watchdog = Watchdog((one.name, one.registration.target) for one in self.consumed)
        self._watchdog.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop, and wait until everything has ended or was given back; a cancel meanwhile ends the grace time."""
        self.stop()
        try:
            await self.wait()
        except BaseException as error:
            self.stop_at_once()
            await shielded(asyncio.gather(*self._tasks, return_exceptions=True), error)
            raise
        finally:
            self._watchdog.stop()

    @property
    def is_ready(self) -> bool:
        """Whether every consumer is connected, and the broker is there."""
        created = self._creation is not None and self._creation.is_done
        return bool(created and all(c.is_receiving for c in self.consumers) and not self._outage.is_on)

    @property
    def hindrances(self) -> list[str]:
        """What keeps it from being ready, in words."""
        idle = {
            consumer.name: [f"{consumer.name} receives nothing"]
            for consumer in self.consumers
            if not consumer.is_receiving
        }
        names = [ITSELF, *(consumer.name for consumer in self.consumers)]
        return [text for name in names for text in self._outage.troubles(name) or idle.get(name, [])]

    def stop(self) -> None:
        """Take no more messages; what runs may finish within the grace time."""
        assert self._stopping is not None, "a worker is stopped after it was entered"
        if not self._stopping.is_set():
            self._until = asyncio.get_running_loop().time() + self._grace
            self._stopping.set()
            if self._creation is not None:
                self._creation.give_up()

    def stop_at_once(self) -> None:
        """Take no more messages, and cancel what runs: it is given back."""
        self.stop()
        self._until = asyncio.get_running_loop().time()

    async def wait(self) -> None:
        """Wait until the worker has stopped. A cancel ends the waiting, and leaves the worker alone."""
        if self._tasks:
            await asyncio.wait(self._tasks)  # unlike `gather`, it would not cancel them
            await asyncio.gather(*self._tasks)

    def _left(self) -> float:
        return 0.0 if self._until is None else self._until - asyncio.get_running_loop().time()

    def _consumer(self, consumed: Consumed, shared: Shared) -> Consumer:
        follow_ups = FollowUps(self._publisher, consumed.name, shared.outage)
        consumer = Consumer(consumed, self._calls(consumed, follow_ups), shared)
        follow_ups.guard = consumer
        return consumer

    async def _create_subscriptions(self) -> Creation:
        """Create what is missing; where the broker is unavailable, later. What this process publishes waits for it."""
        subscriptions = [one.subscription for one in self.consumed]
        publisher = self._publisher
        creation = self._creation = Creation(
            self._broker, publisher.creations, subscriptions, self._catalog.topics, publisher.timeout, self._outage
        )
        try:
            await creation.attempt()
        except BaseException:
            creation.give_up()
            raise
        return creation

    async def _keep(self, consumer: Consumer, creation: Creation) -> None:
        """Run a consumer until the worker stops, whatever happens."""
        assert self._stopping is not None
        await asyncio.wait({creation.ended})
        backoff = Backoff()
        while not self._stopping.is_set():
            try:
                await self._run(consumer)
            except BrokerError as error:
                self._outage.down("be used", consumer.name, error)
                await backoff.wait(self._stopping)
            except Exception:
                logger.exception("the consumer of %s has failed; it starts again", consumer.name)
                await backoff.wait(self._stopping)

    async def _run(self, consumer: Consumer) -> None:
        """Run a consumer once; in a task of its own, so that a cancel from a driver is told from one that is meant."""
        assert self._stopping is not None
        running = asyncio.ensure_future(consumer.run(self._stopping, self._left))
        await asyncio.wait({running})
        if not running.cancelled() and (error := running.exception()) is not None:
            raise error
        if not self._stopping.is_set():
            raise BrokerUnavailableError(OUT_OF_NOWHERE)


_OPTIONS = {
    "only": optional(Rule(are_names, "names of subscriptions")),
    "concurrency": optional(COUNT),
    "grace": SECONDS,
}


def _chosen(
    consumed: Sequence[Consumed], only: Collection[str] | None, concurrency: int | None
) -> tuple[Consumed, ...]:
    if only is None:
        chosen = consumed
    else:
        names = (only,) if isinstance(only, str) else only
        chosen = named(consumed, names) if names else ()
    return tuple(one if concurrency is None else one._replace(concurrency=concurrency) for one in chosen)
