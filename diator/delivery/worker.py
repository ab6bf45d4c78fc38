"""The worker: the consumers of an app, started, watched over and stopped together."""

import asyncio
from collections.abc import Collection, Sequence

from typing_extensions import Self

from diator._misuse import AsyncOnly
from diator._shielding import shielded
from diator.brokers.port import BrokerCapability
from diator.delivery.catalog import Catalog, ConsumerConfig
from diator.delivery.consumer import Consumer
from diator.delivery.operations import select
from diator.delivery.outage import OutageTracker
from diator.delivery.pause import Pause
from diator.delivery.publisher import Publisher
from diator.delivery.subscription_creation import ITSELF, Creation
from diator.delivery.watchdog import Watchdog
from diator.delivery.worker_state import Turn, WorkerState
from diator.engine.dispatch import Dispatch
from diator.errors import NotRunningError
from diator.options import COUNT, SECONDS, Rule, are_names, optional, require
from diator.readiness import ReadinessCheck


class Worker(AsyncOnly):
    """Handles the brokered events of an app: ``async with app.worker()``. Created by ``app.worker(...)``.

    Entering it creates missing subscriptions and starts to receive; if the broker is unavailable, it keeps retrying.
    Exiting stops receiving, lets handlers finish within the grace period, and releases all other messages.
    """

    _how = "async with app.worker()"

    def __init__(
        self,
        catalog: Catalog,
        publisher: Publisher,
        dispatch: Dispatch,
        *,
        subscriptions: Collection[str] | None,
        concurrency: int | None,
        grace: float,
        pausing: Sequence[ReadinessCheck],
    ) -> None:
        self._broker = publisher.broker
        self._catalog = catalog
        self._publisher = publisher
        self._dispatch = dispatch
        given = {"subscriptions": subscriptions, "concurrency": concurrency, "grace": grace}
        require("app.worker", _OPTIONS, given, "subscription-option")
        self._grace = grace
        self._pausing = pausing
        self._pause: Pause | None = None
        self.configs = _chosen(catalog.configs, subscriptions, concurrency)
        """What this worker consumes."""
        self.consumers: list[Consumer] = []
        self._stopping: asyncio.Event | None = None
        self._until: float | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._creation: Creation | None = None

    async def __aenter__(self) -> Self:
        """Start. Raises `BrokerError` if the broker rejects the subscriptions permanently."""
        if self._stopping is not None:
            raise NotRunningError("a worker can be entered once; call app.worker() again")
        self._stopping = asyncio.Event()
        at_most_once = BrokerCapability.ACKNOWLEDGED not in self._broker.capabilities
        self._outage = OutageTracker(at_most_once=at_most_once)
        creation = await self._create_subscriptions()
        state = WorkerState(self._broker, self._outage, self._publisher.hooks, at_most_once, Turn())
        self.consumers = [Consumer(config, self._dispatch, self._publisher, state) for config in self.configs]
        pause = self._pause = Pause(self._pausing, self._stopping)
        self._tasks = [
            asyncio.ensure_future(consumer.run(creation.ended, self._stopping, pause, self._grace_left))
            for consumer in self.consumers
        ]
        self._tasks.append(asyncio.ensure_future(pause.run()))
        self._tasks.append(asyncio.ensure_future(creation.run(self._stopping)))
        self._watchdog = Watchdog((one.name, one.registration.target) for one in self.configs)
        self._watchdog.start()
        if (outbox := self._publisher.outbox) is not None and outbox.relay is not None:
            outbox.relay.enter_worker()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop, and wait until every message is handled or released. Cancelling this call ends the grace period."""
        self.stop()
        try:
            await self.wait()
        except BaseException as error:
            self.cancel()
            await shielded(asyncio.gather(*self._tasks, return_exceptions=True), error)
            raise
        finally:
            self._watchdog.stop()
            if (outbox := self._publisher.outbox) is not None and outbox.relay is not None:
                outbox.relay.leave_worker()

    @property
    def is_ready(self) -> bool:
        """Whether every consumer is connected, and the broker is available."""
        created = self._creation is not None and self._creation.is_done
        receives = created and all(c.is_receiving for c in self.consumers) and not self._outage.is_active
        return bool(receives and not self._relay_failures)

    @property
    def not_ready_reasons(self) -> list[str]:
        """Why it is not ready, as texts."""
        why = "is paused" if self._pause is not None and self._pause.is_active else "receives no messages"
        idle = {consumer.name: [f"{consumer.name} {why}"] for consumer in self.consumers if not consumer.is_receiving}
        names = [ITSELF, *(consumer.name for consumer in self.consumers)]
        found = [text for name in names for text in self._outage.failures(name) or idle.get(name, [])]
        return [*found, *self._relay_failures]

    @property
    def _relay_failures(self) -> list[str]:
        relay = None if self._publisher.outbox is None else self._publisher.outbox.relay
        return [] if relay is None else relay.failures

    def stop(self) -> None:
        """Stop receiving; running handlers get the grace period to finish."""
        assert self._stopping is not None, "a worker is stopped after it was entered"
        if not self._stopping.is_set():
            self._until = asyncio.get_running_loop().time() + self._grace
            self._stopping.set()
            if self._pause is not None:
                self._pause.stop()
            if self._creation is not None:
                self._creation.give_up()

    def cancel(self) -> None:
        """Stop receiving and cancel running handlers; their messages are released."""
        self.stop()
        self._until = asyncio.get_running_loop().time()

    async def wait(self) -> None:
        """Wait until the worker has stopped. Cancelling this call does not affect the worker."""
        if self._tasks:
            await asyncio.wait(self._tasks)  # unlike `gather`, it would not cancel them
            await asyncio.gather(*self._tasks)

    def _grace_left(self) -> float:
        return 0.0 if self._until is None else self._until - asyncio.get_running_loop().time()

    async def _create_subscriptions(self) -> Creation:
        """Create what is missing; where the broker is unavailable, later. What this process publishes waits for it."""
        subscriptions = [one.subscription for one in self.configs]
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


_OPTIONS = {
    "subscriptions": optional(Rule(are_names, "names of subscriptions")),
    "concurrency": optional(COUNT),
    "grace": SECONDS,
}


def _chosen(
    configs: Sequence[ConsumerConfig], subscriptions: Collection[str] | None, concurrency: int | None
) -> tuple[ConsumerConfig, ...]:
    if subscriptions is None:
        chosen = configs
    else:
        names = (subscriptions,) if isinstance(subscriptions, str) else subscriptions
        chosen = select(configs, names) if names else ()
    return tuple(one if concurrency is None else one._replace(concurrency=concurrency) for one in chosen)
