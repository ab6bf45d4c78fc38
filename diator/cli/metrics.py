"""``/metrics`` of ``diator run --health``: what the worker counts, and a look at the broker."""

import asyncio
import logging
import time
from http import HTTPStatus
from typing import Any

from prometheus_client import REGISTRY, Gauge
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from diator._inspection import hooks_of, messaging_of
from diator.app import Diator
from diator.cli.health import Answer
from diator.errors import BrokerError, StoreError
from diator.prometheus import PrometheusMetrics
from diator.stores.port import OperatesStore

logger = logging.getLogger("diator")

_MAX_AGE = 15.0
"""Seconds for which one look at the broker serves all scrapes."""
_TIMEOUT = 3.0
"""Seconds that a look may take; a scrape is answered in any case."""


class MetricsEndpoint:
    """Answers scrapes with the global registry of prometheus-client, the application's own metrics included."""

    def __init__(self, app: Diator) -> None:
        self._app = app
        self._looked = -_MAX_AGE
        hooks = hooks_of(app)
        counts = hooks.find(PrometheusMetrics)
        if counts is None:
            hooks.add(counts := PrometheusMetrics())
        labels = ("subscription",)
        self._up = Gauge("diator_broker_up", "Whether the broker answered the last look at it.")
        self._waiting = Gauge("diator_waiting", "Messages that are not settled.", labels)
        self._dead_letters = Gauge("diator_dead_letters_waiting", "Dead letters that are kept.", labels)
        self._oldest = Gauge(
            "diator_oldest_unhandled_seconds", "Age of the oldest message that is not settled.", labels
        )

        messaging = messaging_of(app)
        for one in messaging.catalog.configs if messaging is not None and messaging.has_catalog else ():
            counts.start_at_zero(one.name, {event.contract.name for event in one.entries.values()})
        store: Any = (
            None if messaging is None or messaging.outbox is None else messaging.outbox.store
        )  # Any: both protocols
        self._store = store if isinstance(store, OperatesStore) else None
        if self._store is not None:
            self._outbox_up = Gauge("diator_outbox_up", "Whether the database of the outbox answered the last look.")
            self._outbox_waiting = Gauge("diator_outbox_waiting", "Events in the outbox that are not published.")
            self._outbox_oldest = Gauge(
                "diator_outbox_oldest_seconds", "Age of the oldest event that is not published."
            )
            self._outbox_dead_letters = Gauge("diator_outbox_dead_letters", "Events that the broker has rejected.")

    async def answer(self) -> Answer:
        """Answer one scrape."""
        if time.monotonic() - self._looked >= _MAX_AGE:
            self._looked = time.monotonic()
            await self._look()
            if self._store is not None:
                await self._look_at_outbox(self._store)
        return Answer(HTTPStatus.OK, generate_latest(REGISTRY), CONTENT_TYPE_LATEST)

    async def _look_at_outbox(self, store: OperatesStore) -> None:
        """Ask the database how the outbox stands. While it is unavailable, the values of the last look stay."""
        try:
            status = await asyncio.wait_for(store.status(), _TIMEOUT)
        except (StoreError, asyncio.TimeoutError) as error:
            self._outbox_up.set(0)
            logger.debug("no look at the outbox for /metrics: %s", error)
            return
        self._outbox_up.set(1)
        self._outbox_waiting.set(sum(one.waiting for one in status.partitions))
        self._outbox_oldest.set(status.oldest or 0.0)
        self._outbox_dead_letters.set(status.dead_letters)

    async def _look(self) -> None:
        """Ask the broker how the subscriptions stand. What it does not know is left out."""
        for gauge in (self._waiting, self._dead_letters, self._oldest):
            gauge.clear()
        try:
            async with self._app.operations() as operations:
                found = await asyncio.wait_for(operations.status(), _TIMEOUT)
        except (BrokerError, asyncio.TimeoutError) as error:
            self._up.set(0)
            logger.debug("no look at the broker for /metrics: %s", error)
            return
        self._up.set(1)
        for _, status in found:
            known: dict[Gauge, float | None] = {self._waiting: status.backlog, self._dead_letters: status.dead_letters}
            if status.backlog == 0 or status.oldest is not None:
                known[self._oldest] = status.oldest or 0.0
            for gauge, value in known.items():
                if value is not None:
                    gauge.labels(status.name).set(value)
