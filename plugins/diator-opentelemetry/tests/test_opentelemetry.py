"""The spans and metrics of an app, as the real SDK records them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from diator_opentelemetry import OpenTelemetry
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from diator import Command, ConfigurationError, Diator, DomainEvent, NotificationEvent, Publish, Query, Retry, contract
from diator.hooks import Publishing


@dataclass(frozen=True)
class Join(Command[None]):
    user_id: int = 7


@dataclass(frozen=True)
class Seated(DomainEvent):
    user_id: int


@contract("meetings.joined")
@dataclass(frozen=True)
class Joined(NotificationEvent):
    user_id: int


@contract("meetings.mailed", topic="mail")
@dataclass(frozen=True)
class Mailed(NotificationEvent):
    user_id: int


class Telemetry:
    """What an SDK in memory has recorded."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self._metrics = InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self.meters = MeterProvider([self._metrics])
        self.tracer = self.tracers.get_tracer("the application")

    def hook(self, **options: Any) -> OpenTelemetry:
        return OpenTelemetry(tracer_provider=self.tracers, meter_provider=self.meters, **options)

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._spans.get_finished_spans())

    def one(self, name: str) -> ReadableSpan:
        (span,) = (span for span in self.spans if span.name == name)
        return span

    def tree(self) -> list[str]:
        """The names of all spans, each indented below its parent, in the order in which they began."""
        spans = sorted(self.spans, key=lambda span: span.start_time or 0)

        def below(parent: int | None, depth: int) -> Iterator[str]:
            for span in spans:
                if (span.parent.span_id if span.parent else None) == parent:
                    yield "  " * depth + span.name
                    yield from below(id_of(span), depth + 1)

        return list(below(None, 0))

    def points(self, metric: str) -> list[tuple[Mapping[str, Any], Any]]:
        data = self._metrics.get_metrics_data()
        assert data is not None
        found = [
            one
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for one in scope.metrics
            if one.name == metric
        ]
        return [(dict(point.attributes or {}), point) for one in found for point in one.data.data_points]


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    found: int = span.context.span_id  # the SDK does not say what it is
    return found


def trace_of(span: ReadableSpan) -> int:
    assert span.context is not None
    found: int = span.context.trace_id  # the same
    return found


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    telemetry = Telemetry()
    yield telemetry
    telemetry.tracers.shutdown()
    telemetry.meters.shutdown()


def meetings(*hooks: OpenTelemetry, fails: int = 0, tracer: trace.Tracer | None = None) -> Diator:
    app = Diator("meetings", broker="memory://", hooks=hooks, retry=Retry(attempts=3, delay=0.01))

    @app.command
    async def join(command: Join, publish: Publish[Joined | Seated]) -> None:
        publish(Seated(command.user_id))
        publish(Joined(command.user_id))

    @app.on_event
    async def seat(event: Seated) -> None: ...

    left = fails

    @app.on_event
    async def mail(event: Joined, publish: Publish[Mailed]) -> None:
        nonlocal left
        if left:
            left -= 1
            raise ConnectionError("no mail server")
        if tracer is not None:
            with tracer.start_as_current_span("SMTP"):
                pass
        publish(Mailed(event.user_id))

    @app.on_event
    async def count(event: Mailed) -> None: ...

    return app


async def test_one_trace_shows_all_that_a_request_has_caused(telemetry: Telemetry) -> None:
    app = meetings(telemetry.hook(), tracer=telemetry.tracer)
    async with app.testing() as session:
        with telemetry.tracer.start_as_current_span("POST /join"):
            await session.send(Join())
        await session.settled()
    assert telemetry.tree() == [
        "POST /join",
        "  create meetings.joined",
        "    process meetings.joined",
        "      SMTP",
        "      create mail",
        "        process mail",
        "      send mail",
        "  send meetings.joined",
    ]
    assert len({trace_of(span) for span in telemetry.spans}) == 1


async def test_spans_have_the_attributes_of_the_conventions(telemetry: Telemetry) -> None:
    app = meetings(telemetry.hook())
    async with app.testing() as session:
        await session.using(correlation_id="c-1").send(Join())
        await session.settled()
    create, send = telemetry.one("create meetings.joined"), telemetry.one("send meetings.joined")
    process = telemetry.one("process meetings.joined")
    shared = {"messaging.system": "memory", "messaging.destination.name": "meetings.joined"}
    message_id = (create.attributes or {})["messaging.message.id"]
    assert (create.kind, create.attributes) == (
        SpanKind.PRODUCER,
        {
            **shared,
            "messaging.operation.name": "create",
            "messaging.operation.type": "create",
            "messaging.message.id": message_id,
            "cloudevents.event_type": "meetings.joined",
        },
    )
    assert (send.kind, send.attributes) == (
        SpanKind.CLIENT,
        {
            **shared,
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "messaging.message.id": message_id,
        },
    )
    assert [link.context.span_id for link in send.links] == [id_of(create)]
    assert (process.kind, process.attributes) == (
        SpanKind.CONSUMER,
        {
            **shared,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.consumer.group.name": "meetings.mail",
            "messaging.message.id": message_id,
            "messaging.message.conversation_id": "c-1",
            "cloudevents.event_type": "meetings.joined",
            "diator.attempt": 1,
        },
    )


async def test_a_batch_over_several_topics_counts_its_messages_and_links_to_each(telemetry: Telemetry) -> None:
    app = meetings(telemetry.hook())
    async with app.testing() as session:
        await session.publish(Joined(1), Mailed(1))
        await session.settled()
    send = telemetry.one("send")
    assert send.attributes is not None
    assert send.attributes["messaging.batch.message_count"] == 2
    assert "messaging.destination.name" not in send.attributes
    created = [id_of(span) for span in telemetry.spans if span.name.startswith("create ")]
    assert [link.context.span_id for link in send.links] == created[:2]


async def test_links_begin_a_new_trace_for_each_delivery(telemetry: Telemetry) -> None:
    app = meetings(telemetry.hook(traces="link"))
    async with app.testing() as session:
        await session.send(Join())
        await session.settled()
    create, process = telemetry.one("create meetings.joined"), telemetry.one("process meetings.joined")
    assert process.parent is None
    assert trace_of(process) != trace_of(create)
    assert [link.context.span_id for link in process.links] == [id_of(create)]


async def test_each_try_is_a_span_and_a_failed_one_has_its_error(telemetry: Telemetry) -> None:
    app = meetings(telemetry.hook(), fails=1)
    async with app.testing() as session:
        await session.publish(Joined(1))
        await session.settled()
    first, second = [span for span in telemetry.spans if span.name == "process meetings.joined"]
    assert first.status.status_code is StatusCode.ERROR
    assert first.status.description == "no mail server"
    assert first.attributes is not None
    assert first.attributes["error.type"] == "ConnectionError"
    assert [event.name for event in first.events] == ["exception"]
    assert second.status.status_code is StatusCode.UNSET
    assert second.attributes is not None
    assert second.attributes["diator.attempt"] == 2


async def test_what_stays_in_the_process_has_spans_if_that_is_asked_for(telemetry: Telemetry) -> None:
    app = meetings(telemetry.hook(requests=True))

    @dataclass(frozen=True)
    class Count(Query[int]): ...

    @app.query
    async def number(query: Count) -> int:
        return 1

    async with app.testing() as session:
        await session.send(Join())
        await session.send(Count())
        await session.settled()
    tree = telemetry.tree()
    assert [line for line in tree if not line.startswith("    ")] == [
        "send Join",
        "  create meetings.joined",
        "  handle Seated by seat",
        "  send meetings.joined",
        "send Count",
    ]


async def test_a_traceparent_of_the_events_own_is_kept(telemetry: Telemetry) -> None:
    own = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    app = Diator("meetings", broker="memory://", hooks=[telemetry.hook()])

    @app.command
    async def join(command: Join, publish: Publish[Joined]) -> None:
        publish(Joined(command.user_id), headers={"traceparent": own})

    @app.on_event
    async def mail(event: Joined) -> None: ...

    async with app.testing() as session:
        await session.send(Join())
        await session.settled()
    process = telemetry.one("process meetings.joined")
    assert process.parent is not None
    assert f"{process.parent.span_id:016x}" == "b7ad6b7169203331"
    assert not [span for span in telemetry.spans if span.name.startswith("create")]


async def test_metrics_count_and_measure_without_ids(telemetry: Telemetry) -> None:
    app = meetings(telemetry.hook(), fails=1)
    async with app.testing() as session:
        await session.publish(Joined(1))
        await session.settled()
    mail = {
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.system": "memory",
        "messaging.destination.name": "meetings.joined",
        "messaging.consumer.group.name": "meetings.mail",
    }
    assert (mail, 2) in [
        (labels, point.value) for labels, point in telemetry.points("messaging.client.consumed.messages")
    ]
    counts = [(labels, point.count) for labels, point in telemetry.points("messaging.process.duration")]
    assert (mail, 1) in counts
    assert ({**mail, "error.type": "ConnectionError"}, 1) in counts
    sent = {
        labels["messaging.destination.name"]: point.value
        for labels, point in telemetry.points("messaging.client.sent.messages")
    }
    assert sent == {"meetings.joined": 1, "mail": 1}
    durations = telemetry.points("messaging.client.operation.duration")
    assert {labels["messaging.operation.name"] for labels, _ in durations} == {"send"}
    assert durations[0][1].explicit_bounds[0] == 0.005


async def test_without_an_sdk_the_trace_of_the_caller_travels_on() -> None:
    published: list[str | None] = []

    class Seen(OpenTelemetry):
        def publishing(self, details: Publishing, /) -> Any:
            published.extend(message.envelope.traceparent for message in details.messages)
            return super().publishing(details)

    app = meetings(Seen(tracer_provider=trace.NoOpTracerProvider()))
    remote = trace.SpanContext(1, 2, is_remote=True, trace_flags=trace.TraceFlags(1))
    async with app.testing() as session:
        with trace.use_span(trace.NonRecordingSpan(remote)):
            await session.send(Join())
        await session.settled()
    assert published == [f"00-{1:032x}-{2:016x}-01"] * 2


def test_an_unknown_form_of_traces_is_rejected_where_it_is_given() -> None:
    text = r"OpenTelemetry got traces='both'; expected one of 'child', 'link'(.|\n)*test_opentelemetry\.py"
    with pytest.raises(ConfigurationError, match=text):
        OpenTelemetry(traces="both")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # wrong on purpose
