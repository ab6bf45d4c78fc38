"""Hooks that create spans and record metrics."""

import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from importlib.metadata import version
from types import TracebackType
from typing import Literal

from opentelemetry import propagate
from opentelemetry.context import Context, attach, detach
from opentelemetry.metrics import Histogram, MeterProvider, get_meter
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    Span,
    SpanKind,
    Status,
    StatusCode,
    TracerProvider,
    get_current_span,
    get_tracer,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from diator import DomainEvent, Event, Hooks
from diator.hooks import Collected, Handling, Publishing, Sending
from diator.messages import contract_of
from diator.options import FLAG, one_of, require
from diator_opentelemetry import _names as names

_DISTRIBUTION = "diator-opentelemetry"
_trace_context = TraceContextTextMapPropagator()
_OPTIONS = {"traces": one_of("child", "link"), "requests": FLAG}


class OpenTelemetry(Hooks):
    """Spans and metrics of brokered events: ``Diator(..., hooks=[OpenTelemetry()])``.

    Each published event has a ``create`` span, whose trace context is sent with it, even through an outbox. Each batch
    sent to the broker has a ``send`` span with links to these. Each run of a handler has a ``process`` span, which is
    current while the handler runs. It is a child of the ``create`` span or, with ``traces="link"``, the root of a
    separate trace that links to it.

    With ``requests=True``, there are also spans for ``app.send``, ``app.stream``, ``app.publish`` and each handler of a
    domain event.

    The providers are the global ones by default. Without an SDK nothing is recorded, and the caller's trace context is
    still propagated. Raises `~diator.ConfigurationError` for an invalid option.
    """

    needs_context = False

    def __init__(
        self,
        *,
        traces: Literal["child", "link"] = "child",
        requests: bool = False,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        require("OpenTelemetry", _OPTIONS, {"traces": traces, "requests": requests})
        self._links_only = traces == "link"
        self._requests = requests
        release = version(_DISTRIBUTION)
        self._tracer = get_tracer(_DISTRIBUTION, release, tracer_provider)
        meter = get_meter(_DISTRIBUTION, release, meter_provider)
        self._operation = meter.create_histogram(
            names.OPERATION_DURATION,
            "s",
            "Duration of passing messages to the broker.",
            explicit_bucket_boundaries_advisory=names.SECONDS,
        )
        self._process = meter.create_histogram(
            names.PROCESS_DURATION,
            "s",
            "Duration of handling a message.",
            explicit_bucket_boundaries_advisory=names.SECONDS,
        )
        self._sent = meter.create_counter(names.SENT, "{message}", "Messages passed to the broker.")
        self._consumed = meter.create_counter(names.CONSUMED, "{message}", "Messages that handlers were given.")

    def sending(self, details: Sending, /) -> AbstractContextManager[None] | None:
        """Create the span of a call in the process, with ``requests=True``."""
        if not self._requests:
            return None
        return _Active(self._tracer.start_span(f"{details.verb} {type(details.messages[0]).__name__}"))

    def propagate(self, details: Collected, /) -> Mapping[str, str] | None:
        """Create the span of a new message, whose context is sent with it."""
        if details.broker is None or (details.headers and "traceparent" in details.headers):
            return None
        contract = contract_of(type(details.event))
        topic = contract.topic or contract.name
        attributes = names.of_operation("create", details.broker, topic)
        attributes[names.EVENT_TYPE] = contract.name
        if details.message_id is not None:
            attributes[names.MESSAGE_ID] = details.message_id
        span = self._tracer.start_span(f"create {topic}", kind=SpanKind.PRODUCER, attributes=attributes)
        headers: dict[str, str] = {}
        # Without an SDK, older APIs make a span without a context; then that of the caller travels on.
        propagate.inject(headers, set_span_in_context(span) if span.get_span_context().is_valid else None)
        span.end()
        return headers

    def publishing(self, details: Publishing, /) -> AbstractContextManager[None]:
        """Create the span of one attempt to send messages to the broker."""
        topics = {message.topic for message in details.messages}
        topic = topics.pop() if len(topics) == 1 else None
        attributes = names.of_operation("send", details.broker, topic)
        of_span = dict(attributes)
        if len(details.messages) == 1:
            of_span[names.MESSAGE_ID] = details.messages[0].id
        else:
            of_span[names.MESSAGE_COUNT] = len(details.messages)
        span = self._tracer.start_span(
            "send" if topic is None else f"send {topic}",
            kind=SpanKind.CLIENT,
            attributes=of_span,
            links=_links(message.envelope.traceparent for message in details.messages),
        )
        self._sent.add(len(details.messages), attributes)
        return _Active(span, self._operation, attributes)

    def handling(self, details: Handling, /) -> AbstractContextManager[None] | None:
        """Create the span of one run of a handler."""
        event = details.message
        if details.broker is None or details.delivery is None or not isinstance(event, Event):
            return self._handling_in_process(details) if self._requests else None
        context = details.context
        attributes = names.of_operation("process", details.broker, details.delivery.topic)
        attributes[names.CONSUMER_GROUP] = context.subscription or details.handler.name
        self._consumed.add(1, attributes)
        of_span = {
            **attributes,
            names.MESSAGE_ID: context.message_id,
            names.CONVERSATION_ID: context.correlation_id,
            names.EVENT_TYPE: contract_of(type(event)).name,
            names.ATTEMPT: context.attempt,
        }
        created = propagate.extract(context.headers)
        parent = set_span_in_context(INVALID_SPAN, created) if self._links_only else created
        span = self._tracer.start_span(
            f"process {details.delivery.topic}",
            parent,
            SpanKind.CONSUMER,
            of_span,
            _links([context.headers.get("traceparent")]) if self._links_only else None,
        )
        return _Active(span, self._process, attributes, parent)

    def _handling_in_process(self, details: Handling) -> AbstractContextManager[None] | None:
        """Make the span of a handler of a domain event; that of a request is the span of its sending."""
        if not isinstance(details.message, DomainEvent):
            return None
        return _Active(self._tracer.start_span(f"handle {type(details.message).__name__} by {details.handler.name}"))


class _Active:
    """A span that is current while something runs, and a histogram of how long that takes."""

    __slots__ = ("_attributes", "_began", "_context", "_histogram", "_span", "_token")

    def __init__(
        self,
        span: Span,
        histogram: Histogram | None = None,
        attributes: names.Attributes | None = None,
        context: Context | None = None,
    ) -> None:
        self._span = span
        self._histogram = histogram
        self._attributes = attributes or {}
        self._context = context

    def __enter__(self) -> None:
        self._token = attach(set_span_in_context(self._span, self._context))
        self._began = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        seconds = time.perf_counter() - self._began
        detach(self._token)
        attributes = self._attributes
        if error is not None:
            attributes = {**attributes, names.ERROR_TYPE: names.error_type(error)}
            if self._span.is_recording():
                self._span.set_attribute(names.ERROR_TYPE, names.error_type(error))
                self._span.record_exception(error)
                self._span.set_status(Status(StatusCode.ERROR, str(error)))
        if self._histogram is not None:
            self._histogram.record(seconds, attributes)
        self._span.end()


def _links(traceparents: Iterable[str | None]) -> list[Link]:
    """Links to the spans that these trace contexts name."""
    spans = [_trace_context.extract({"traceparent": text}) for text in traceparents if text]
    contexts = [get_current_span(context).get_span_context() for context in spans]
    return [Link(context) for context in contexts if context.is_valid]
