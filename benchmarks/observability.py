"""Measures what watching costs: `python -m benchmarks.observability`. Figures are ratios of processor time.

An event is published in memory until it is handled, with spans, metrics or log lines, against the same app without any.
Over a server the rest takes longer, and so the ratios are smaller: these are the largest that there are.
"""

import argparse
import asyncio
import io
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

from diator_opentelemetry import OpenTelemetry
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from prometheus_client import CollectorRegistry

from benchmarks.events import EVENT, Counter, UserJoined
from benchmarks.measure import FULL, QUICK, Effort, Work, compare
from benchmarks.report import Row, costs
from diator import Diator, Hooks
from diator.cli.logs import JsonLines
from diator.logs import ContextFilter
from diator.prometheus import PrometheusMetrics

TEXT = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
log = logging.getLogger("diator.handled")


class Nowhere(SpanExporter):
    """Takes spans as the exporter of a collector does, and drops them."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002 - nothing is done with them
        return SpanExportResult.SUCCESS


class Sink(io.StringIO):
    """Forgets what is written."""

    def write(self, text: str, /) -> int:
        return len(text)


def logs_to(formatter: logging.Formatter) -> logging.Handler:
    """Log as `diator run` does, but to no file."""
    handler = logging.StreamHandler(Sink())
    handler.setFormatter(formatter)
    handler.addFilter(ContextFilter())
    return handler


def spans(stack: AsyncExitStack, *, sampled: bool) -> OpenTelemetry:
    provider = TracerProvider(shutdown_on_exit=False) if sampled else TracerProvider(ALWAYS_OFF, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    stack.callback(provider.shutdown)
    return OpenTelemetry(tracer_provider=provider)


def metrics(stack: AsyncExitStack) -> OpenTelemetry:
    provider = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    stack.callback(provider.shutdown)
    return OpenTelemetry(meter_provider=provider)


def prometheus() -> PrometheusMetrics:
    return PrometheusMetrics(CollectorRegistry())


async def watched(stack: AsyncExitStack, *hooks: Hooks, logs: logging.Handler | None = None) -> Work:
    """Handle one message at a time, in an app with these hooks."""
    counter = Counter()
    app = Diator("bench", broker="memory://", concurrency=1, hooks=hooks)
    app.add_event_handler(counter.handle)
    app.publishes(UserJoined)
    await stack.enter_async_context(app)
    await stack.enter_async_context(app.worker())

    async def loop(times: int) -> None:
        log.handlers = [] if logs is None else [logs]
        log.setLevel(logging.WARNING if logs is None else logging.INFO)
        counter.expect(times)
        for _ in range(times):
            await app.publish(EVENT)
        await counter.done.wait()

    return Work(loop, {Counter.handle: 1})


async def rows(effort: Effort) -> AsyncIterator[Row]:
    """Measure each kind of watching alone, and what a worker has that is watched in all ways."""
    async with AsyncExitStack() as stack:
        bare = await watched(stack)
        everything = spans(stack, sampled=True), prometheus()
        subjects = {
            "a log line for each message": await watched(stack, logs=logs_to(TEXT)),
            "the same, as JSON": await watched(stack, logs=logs_to(JsonLines())),
            "metrics for Prometheus": await watched(stack, prometheus()),
            "OpenTelemetry, without an SDK": await watched(stack, OpenTelemetry()),
            "metrics of OpenTelemetry": await watched(stack, metrics(stack)),
            "spans that are not sampled": await watched(stack, spans(stack, sampled=False)),
            "spans": await watched(stack, spans(stack, sampled=True)),
            "spans, metrics for Prometheus, JSON logs": await watched(stack, *everything, logs=logs_to(JsonLines())),
        }
        for what, subject in subjects.items():
            yield Row(what, "none of it", await compare(subject, bare, effort))


async def run(effort: Effort) -> None:
    """Measure, and print the figures."""
    log.propagate = False
    longer = Effort(max(5, effort.rounds // 10), effort.seconds * 40)  # as for events in memory
    print(costs([row async for row in rows(longer)]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.observability", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="run everything briefly")
    asyncio.run(run(QUICK if parser.parse_args().quick else FULL))
