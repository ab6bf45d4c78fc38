"""``/metrics`` of ``diator run --health``: what the worker counts, and a look at the broker."""

import asyncio
import logging
import os
import time
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

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
    """Answers scrapes with the global registry of prometheus-client, the application's own metrics included.

    Of several workers each answers with the counters of all, from the files that they share.
    """

    def __init__(self, app: Diator) -> None:
        self._app = app
        self._looked = -_MAX_AGE
        hooks = hooks_of(app)
        counts = hooks.find(PrometheusMetrics)
        if counts is None:
            hooks.add(counts := PrometheusMetrics())
        messaging = messaging_of(app)
        for one in messaging.catalog.configs if messaging is not None and messaging.has_catalog else ():
            counts.start_at_zero(one.name, {event.contract.name for event in one.entries.values()})
        store: Any = (
            None if messaging is None or messaging.outbox is None else messaging.outbox.store
        )  # Any: both protocols
        self._store = store if isinstance(store, OperatesStore) else None
        self._broker: Sequence[Metric] = ()
        self._outbox: Sequence[Metric] = ()
        self._registry = _registry()
        self._registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """What the last look at broker and database has found; called by the registry."""
        return (*self._broker, *self._outbox)

    async def answer(self) -> Answer:
        """Answer one scrape."""
        if time.monotonic() - self._looked >= _MAX_AGE:
            self._looked = time.monotonic()
            self._broker = await self._look()
            if self._store is not None:
                self._outbox = await self._look_at_outbox(self._store)
        return Answer(HTTPStatus.OK, generate_latest(self._registry), CONTENT_TYPE_LATEST)

    async def _look_at_outbox(self, store: OperatesStore) -> Sequence[Metric]:
        """Ask the database how the outbox stands. While it is unavailable, the values of the last look stay."""
        up = GaugeMetricFamily("diator_outbox_up", "Whether the database of the outbox answered the last query.")
        try:
            status = await asyncio.wait_for(store.status(), _TIMEOUT)
        except (StoreError, asyncio.TimeoutError) as error:
            logger.debug("could not query the outbox for /metrics: %s", error)
            up.add_metric((), 0)
            return (up, *self._outbox[1:])
        up.add_metric((), 1)
        waiting = GaugeMetricFamily("diator_outbox_waiting", "Events in the outbox that are not published.")
        oldest = GaugeMetricFamily("diator_outbox_oldest_seconds", "Age of the oldest event that is not published.")
        dead_letters = GaugeMetricFamily("diator_outbox_dead_letters", "Events that the broker has rejected.")
        waiting.add_metric((), sum(one.waiting for one in status.partitions))
        oldest.add_metric((), status.oldest or 0.0)
        dead_letters.add_metric((), status.dead_letters)
        return up, waiting, oldest, dead_letters

    async def _look(self) -> Sequence[Metric]:
        """Ask the broker how the subscriptions stand. What it does not know is left out."""
        up = GaugeMetricFamily("diator_broker_up", "Whether the broker answered the last query.")
        try:
            async with self._app.operations() as operations:
                found = await asyncio.wait_for(operations.status(), _TIMEOUT)
        except (BrokerError, asyncio.TimeoutError) as error:
            logger.debug("could not query the broker for /metrics: %s", error)
            up.add_metric((), 0)
            return (up,)
        up.add_metric((), 1)
        labels = ("subscription",)
        waiting = GaugeMetricFamily("diator_waiting", "Messages that are not settled.", labels=labels)
        dead_letters = GaugeMetricFamily("diator_dead_letters_waiting", "Dead letters.", labels=labels)
        oldest = GaugeMetricFamily(
            "diator_oldest_unhandled_seconds", "Age of the oldest message that is not settled.", labels=labels
        )
        for _, status in found:
            age = 0.0 if status.backlog == 0 else status.oldest
            for metric, value in ((waiting, status.backlog), (dead_letters, status.dead_letters), (oldest, age)):
                if value is not None:
                    metric.add_metric((status.name,), value)
        return up, waiting, dead_letters, oldest


def _registry() -> CollectorRegistry:
    """Return the global registry; in one of several workers, one of what all have counted."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # the library leaves it untyped
    return registry
