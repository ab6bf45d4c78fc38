"""Metrics of brokered events for Prometheus. Install with ``uv add "diator[prometheus]"``.

``diator run --health`` records them and serves them at ``/metrics``. In a process with its own worker, such as a web
application, pass ``Diator(..., hooks=[PrometheusMetrics()])``, and serve the registry with ``prometheus_client``.
"""

from collections.abc import Generator, Iterable
from contextlib import AbstractContextManager, contextmanager
from typing import Generic, TypeVar

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
except ModuleNotFoundError as error:
    error.msg = f'{error.msg}: diator.prometheus needs it; install it with: uv add "diator[prometheus]"'
    raise

from diator._hooks import Hooks
from diator.hooks import DeadLettered, Handled, Handling, Publishing, Retried, Settled

__all__ = ["PrometheusMetrics"]

_UNKNOWN = "unknown"
"""The label of a message that can't be read, or whose type no handler takes: what comes over the wire is unbounded."""
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60)


_Metric = TypeVar("_Metric", Counter, Gauge, Histogram)


class _ByLabels(dict[tuple[str | None, ...], _Metric], Generic[_Metric]):
    """The children of a metric by their labels, as many as it has: ``labels()`` takes longer than counting."""

    def __init__(self, metric: _Metric) -> None:
        super().__init__()
        self._metric: _Metric = metric

    def __missing__(self, labels: tuple[str | None, ...]) -> _Metric:
        child = self[labels] = self._metric.labels(*labels)
        return child


class PrometheusMetrics(Hooks):
    """Counts and measures brokered events, in ``registry`` (the global one by default).

    The labels are subscription, type (the wire name of the event) and topic. Their number depends only on the app,
    because ids are never labels.
    """

    needs_context = False

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        labels = ("subscription", "type")
        self._handled = _ByLabels(
            Counter("diator_handled", "Runs of handlers that succeeded.", labels, registry=registry)
        )
        self._failed = _ByLabels(Counter("diator_failed", "Runs of handlers that failed.", labels, registry=registry))
        self._retried = _ByLabels(Counter("diator_retried", "Messages that were retried.", labels, registry=registry))
        self._dead_lettered = _ByLabels(
            Counter("diator_dead_lettered", "Messages that became dead letters.", labels, registry=registry)
        )
        self._seconds = _ByLabels(
            Histogram(
                "diator_handler_duration_seconds",
                "Seconds that runs of handlers took.",
                labels,
                registry=registry,
                buckets=_SECONDS,
            )
        )
        self._in_flight = _ByLabels(
            Gauge(
                "diator_in_flight",
                "Handlers that run.",
                ("subscription",),
                registry=registry,
                multiprocess_mode="livesum",
            )
        )
        self._lease_losses = _ByLabels(
            Counter(
                "diator_lease_losses",
                "Outcomes that were discarded: the lease was lost.",
                ("subscription",),
                registry=registry,
            )
        )
        self._published = _ByLabels(
            Counter("diator_published", "Messages passed to the broker.", ("topic",), registry=registry)
        )
        self._publish_errors = Counter("diator_publish_errors", "Attempts to publish that failed.", registry=registry)

    def start_at_zero(self, subscription: str, types: Iterable[str]) -> None:
        """Export the counters of a subscription as 0, so that its first dead letter is an increase.

        ``types`` are the wire names of its events. ``diator run`` does this automatically.
        """
        self._in_flight[subscription,]  # to look up a child is to show it
        self._lease_losses[subscription,]
        self._dead_lettered[subscription, _UNKNOWN]
        for name in types:
            for metric in (self._handled, self._failed, self._retried, self._dead_lettered, self._seconds):
                metric[subscription, name]

    @contextmanager
    def publishing(self, details: Publishing, /) -> Generator[None]:
        """Count published events."""
        for message in details.messages:
            self._published[message.topic,].inc()
        with self._publish_errors.count_exceptions(BaseException):
            yield

    def handling(self, details: Handling, /) -> AbstractContextManager[object] | None:
        """Count running handlers."""
        if details.delivery is None:
            return None
        return self._in_flight[details.context.subscription,].track_inprogress()

    def handled(self, details: Handled, /) -> None:
        """Count and measure a run of a handler."""
        labels = (details.subscription, details.message_type)
        (self._handled if details.error is None else self._failed)[labels].inc()
        self._seconds[labels].observe(details.seconds)

    def retried(self, details: Retried, /) -> None:
        """Count a retry."""
        self._retried[details.subscription, details.message_type or _UNKNOWN].inc()

    def dead_lettered(self, details: DeadLettered, /) -> None:
        """Count a dead letter."""
        self._dead_lettered[details.subscription, details.message_type or _UNKNOWN].inc()

    def settled(self, details: Settled, /) -> None:
        """Count a lost lease."""
        if details.lease_lost:
            self._lease_losses[details.subscription,].inc()
