"""Messaging: everything of an app that has to do with its broker, and nothing of it in an app without one."""

import asyncio
import logging
from collections.abc import Collection

from diator._hooks import HookDispatcher
from diator.brokers.find import find_broker
from diator.brokers.port import Broker
from diator.delivery.catalog import Catalog, Defaults, build_catalog
from diator.delivery.connection import connection_of
from diator.delivery.error_texts import described
from diator.delivery.operations import Operations
from diator.delivery.publisher import Publisher
from diator.delivery.worker import Worker
from diator.engine.check import CheckResult
from diator.engine.dispatch import Dispatch
from diator.errors import BrokerUnavailableError
from diator.retry import Retry

logger = logging.getLogger("diator")


class Messaging:
    """The broker of one app, what goes over it, and what the app says of its handlers."""

    def __init__(
        self,
        broker: object,
        *,
        retry: Retry,
        concurrency: int,
        timeout: float,
        max_deliveries: int,
        publish_timeout: float,
        hooks: HookDispatcher,
    ) -> None:
        self.broker: Broker = find_broker(broker)
        self._connection = connection_of(self.broker)
        self.defaults = Defaults(retry, concurrency, timeout, max_deliveries, publish_timeout)
        self.hooks = hooks
        self._catalog: Catalog | None = None
        self._publisher: Publisher | None = None

    @property
    def catalog(self) -> Catalog:
        """What the app publishes and handles; after `open`."""
        assert self._catalog is not None, "opened at the start of the app"
        return self._catalog

    def add_broker_problems(self, checked: CheckResult, name: str | None) -> CheckResult:
        """Add what is wrong with brokered events."""
        self._catalog = build_catalog(checked, name, self.broker, self.defaults)
        return checked._replace(problems=(*checked.problems, *self._catalog.problems))

    publisher: type[Publisher] = Publisher
    """What publishes."""

    def create_publisher(self, name: str | None) -> Publisher:
        """Give what publishes, for an app that was checked."""
        make, timeout = self.publisher, self.defaults.publish_timeout
        self._publisher = make(self._connection, name or "diator", self.catalog, timeout, self.hooks)
        return self._publisher

    @property
    def has_catalog(self) -> bool:
        """Whether the catalog was drawn up."""
        return self._catalog is not None

    def operations(self) -> Operations:
        """Give what a person does at the subscriptions and dead letters."""
        catalog, timeout = self.catalog, self.defaults.publish_timeout
        return Operations(self._connection, catalog.configs, catalog.topics, timeout=timeout)

    async def connect(self) -> None:
        """Connect. If the broker is unavailable the app starts all the same: it may recover before it is needed."""
        if self._publisher is not None:
            self._publisher.loop = asyncio.get_running_loop()
        try:
            await self._connection.open(self.defaults.publish_timeout)
        except BrokerUnavailableError as error:
            text = "the broker can't be reached (%s); the app starts without it, and publishing fails until it recovers"
            logger.warning(text, described(error))

    async def close(self) -> None:
        """Close the connection. A broker that takes too long is left behind: the program is about to end."""
        seconds = self.defaults.publish_timeout
        try:
            await asyncio.wait_for(self._connection.close(), seconds)
        except asyncio.TimeoutError:
            logger.warning("the broker has not closed its connection within %g s, and is left as it is", seconds)

    def worker(
        self, dispatch: Dispatch, *, subscriptions: Collection[str] | None, concurrency: int | None, grace: float
    ) -> Worker:
        """Make a worker."""
        assert self._publisher is not None
        return Worker(
            self.broker,
            self.catalog,
            self._publisher,
            dispatch,
            subscriptions=subscriptions,
            concurrency=concurrency,
            grace=grace,
        )
