"""Messaging: everything of an app that has to do with its broker, and nothing of it in an app without one."""

import asyncio
import logging
from collections.abc import Collection, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from diator._hooks import HookDispatcher
from diator._keys import Key
from diator.brokers.find import find_broker
from diator.brokers.port import Broker
from diator.containers.port import Container
from diator.delivery.catalog import Catalog, Defaults
from diator.delivery.catalog_builder import CatalogBuilder
from diator.delivery.connection import connection_of
from diator.delivery.error_texts import described
from diator.delivery.operations import Operations
from diator.delivery.publisher import Publisher
from diator.delivery.worker import Worker
from diator.engine.check import CheckResult
from diator.engine.dispatch import Dispatch
from diator.engine.events import needs_store
from diator.engine.outbound import EventPublisher
from diator.errors import BrokerUnavailableError, ConfigurationError
from diator.readiness import ReadinessCheck

if TYPE_CHECKING:
    from diator.delivery.outbox import Outbox

logger = logging.getLogger("diator")

UNNAMED = "diator"
"""The source of events, and the owner of tables, of an app without a name."""


class Messaging:
    """The broker of one app, what goes over it, and what the app says of its handlers."""

    def __init__(
        self,
        broker: object,
        defaults: Defaults,
        hooks: HookDispatcher,
        store: object | None = None,
        *,
        relays: bool = True,
    ) -> None:
        self.broker: Broker = find_broker(broker)
        self._connection = connection_of(self.broker)
        self.defaults = defaults
        self.hooks = hooks
        self._catalog: Catalog | None = None
        self._publisher: Publisher | None = None
        self.outbox: Outbox | None = None
        if store is not None:
            from diator.delivery import outbox  # noqa: PLC0415 - apps without a store need none of it

            self.outbox = outbox.Outbox(store, hooks, relays=relays)

    @property
    def catalog(self) -> Catalog:
        """What the app publishes and handles; after `open`."""
        assert self._catalog is not None, "opened when the app starts"
        return self._catalog

    def add_broker_problems(self, checked: CheckResult, name: str | None) -> CheckResult:
        """Add what is wrong with brokered events."""
        session = self.session_in(checked.container)
        self._catalog = CatalogBuilder(checked, name, self.broker, self.defaults, session).catalog()
        problems = [*checked.problems, *self._catalog.problems]
        if self.outbox is not None:
            problems += self.outbox.problems(checked, name)
        return checked._replace(problems=tuple(problems))

    def session_in(self, container: Container | None) -> Key | None:
        """Return the key of the session that the store writes through; none without a store."""
        return None if self.outbox is None else self.outbox.session_in(container)

    publisher: type[Publisher] = Publisher
    """What publishes."""

    def create_sender(self, name: str | None) -> EventPublisher:
        """Return the sender of an app that was checked."""
        make, timeout = self.publisher, self.defaults.publish_timeout
        publisher = self._publisher = make(self._connection, name or UNNAMED, self.catalog, timeout, self.hooks)
        publisher.outbox = self.outbox
        return publisher if self.outbox is None else self.outbox.create_sender(publisher)

    @property
    def has_catalog(self) -> bool:
        """Whether the catalog was drawn up."""
        return self._catalog is not None

    def operations(self) -> Operations:
        """Give what a person does at the subscriptions and dead letters."""
        catalog, timeout = self.catalog, self.defaults.publish_timeout
        return Operations(self._connection, catalog.configs, catalog.topics, timeout=timeout)

    async def connect(self, name: str | None, container: Container | None) -> None:
        """Connect. If broker or database is unavailable the app starts all the same: both may recover in time.

        Raises `BrokerError` and `StoreError` for what is permanent.
        """
        if self._publisher is not None:
            self._publisher.loop = asyncio.get_running_loop()
        if self.outbox is None:
            await self._connect()
            return
        assert container is not None, "an app with a store has a container"
        await self.outbox.open(name or UNNAMED, container, self.defaults.publish_timeout)
        try:
            await self._connect()
        except BaseException:
            await self.outbox.close()
            raise
        assert self._publisher is not None, "an app is compiled before it connects"
        await self.outbox.start_relay(self._publisher)

    async def _connect(self) -> None:
        try:
            await self._connection.open(self.defaults.publish_timeout)
        except BrokerUnavailableError as error:
            meanwhile = "publishing fails" if self.outbox is None else "events wait in the outbox"
            text = "the broker can't be reached (%s); the app starts without it, and %s until it recovers"
            logger.warning(text, described(error), meanwhile)

    async def cancel(self, message_id: str) -> bool:
        """Cancel a delayed event; see ``app.cancel``."""
        if self.outbox is None:
            raise ConfigurationError([needs_store("app.cancel was called")])
        return await self.outbox.cancel(message_id)

    async def drain(self) -> None:
        """Let the relay publish what is stored, when no unit of work runs any more, and release its partitions."""
        if self.outbox is not None:
            await self.outbox.stop_relay()

    async def close(self) -> None:
        """Close the connections. What takes too long is left behind: the program is about to end."""
        try:
            if self.outbox is not None:
                await self._in_time("store", self.outbox.close())
        finally:
            await self._in_time("broker", self._connection.close())

    async def _in_time(self, what: str, closing: Coroutine[Any, Any, None]) -> None:
        seconds = self.defaults.publish_timeout
        try:
            await asyncio.wait_for(closing, seconds)
        except asyncio.TimeoutError:
            logger.warning("the %s did not close its connection within %g s; continuing without it", what, seconds)

    def worker(
        self,
        dispatch: Dispatch,
        *,
        subscriptions: Collection[str] | None,
        concurrency: int | None,
        grace: float,
        pausing: Sequence[ReadinessCheck],
    ) -> Worker:
        """Make a worker."""
        assert self._publisher is not None
        return Worker(
            self.catalog,
            self._publisher,
            dispatch,
            subscriptions=subscriptions,
            concurrency=concurrency,
            grace=grace,
            pausing=pausing,
        )
