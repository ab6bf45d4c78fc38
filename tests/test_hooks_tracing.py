"""What a tracing package writes on hooks, with public names only: its spans nest across the broker."""

import itertools
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from diator import Command, Diator, DomainEvent, Hooks, NotificationEvent, Publish, contract
from diator.hooks import Collected, Handling, Publishing, Sending
from tests.brokered import Flaky, Watch
from tests.virtual_time import in_virtual_time

_numbers = itertools.count(1)


@dataclass
class Span:
    name: str
    trace: str
    parent: str | None
    links: list[str] = field(default_factory=list[str])
    attributes: Mapping[str, object] = field(default_factory=dict[str, object])
    id: str = field(default_factory=lambda: f"{next(_numbers):016x}")
    error: str | None = None

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace}-{self.id}-01"


current_span: ContextVar[Span | None] = ContextVar("current_span", default=None)


class Tracing(Hooks):
    """The shape of ``diator-opentelemetry``: a span for each send, each run of a handler and each publish."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def sending(self, details: Sending, /) -> AbstractContextManager[None]:
        return self._span(f"{details.verb} {type(details.messages[0]).__name__}")

    def handling(self, details: Handling, /) -> AbstractContextManager[None]:
        if details.delivery is None:
            return self._span(f"handle {type(details.message).__name__} by {details.handler.name}")
        attributes = {
            "messaging.system": details.broker and details.broker.system,
            "messaging.operation.type": "process",
            "messaging.destination.name": details.delivery.topic,
            "messaging.consumer.group.name": details.context.subscription,
            "messaging.message.id": details.context.message_id,
            "messaging.message.conversation_id": details.context.correlation_id,
        }
        parent = details.context.headers.get("traceparent")
        return self._span(f"process {details.delivery.topic} by {details.handler.name}", parent, attributes)

    def publishing(self, details: Publishing, /) -> AbstractContextManager[None]:
        attributes = {
            "messaging.system": details.broker.system,
            "messaging.operation.type": "send",
            "messaging.destination.name": details.messages[0].topic,
            "messaging.batch.message_count": len(details.messages),
        }
        created = [message.envelope.traceparent for message in details.messages]
        span = self._span(f"publish {details.messages[0].topic}", None, attributes)
        self.spans[-1].links = [one for one in created if one]
        return span

    def propagate(self, details: Collected, /) -> Mapping[str, str] | None:
        span = current_span.get()
        return {"traceparent": span.traceparent} if span else None

    def _span(
        self, name: str, remote: str | None = None, attributes: Mapping[str, object] | None = None
    ) -> AbstractContextManager[None]:
        local = current_span.get()
        if remote is not None:
            _, trace, parent, _ = remote.split("-")
            span = Span(name, trace, parent)
        elif local is not None:
            span = Span(name, local.trace, local.id)
        else:
            span = Span(name, f"{next(_numbers):032x}", None)
        span.attributes = attributes or {}
        self.spans.append(span)
        return _open(span)

    def lines(self) -> list[str]:
        """Each span below its parent."""
        return list(self._below(None, ""))

    def _below(self, parent: str | None, indent: str) -> Generator[str]:
        for span in self.spans:
            if span.parent == parent:
                yield f"{indent}{span.name}{f' ! {span.error}' if span.error else ''}"
                yield from self._below(span.id, indent + "  ")


@contextmanager
def _open(span: Span) -> Generator[None]:
    token = current_span.set(span)
    try:
        yield
    except BaseException as error:
        span.error = type(error).__name__
        raise
    finally:
        current_span.reset(token)


@dataclass(frozen=True)
class Join(Command[None]):
    pass


@dataclass(frozen=True)
class Joined(DomainEvent):
    pass


@contract("tracing.announced")
@dataclass(frozen=True)
class Announced(NotificationEvent):
    pass


@contract("tracing.mailed")
@dataclass(frozen=True)
class Mailed(NotificationEvent):
    pass


def an_app(name: str, *hooks: Hooks, broker: Flaky) -> Diator:
    return Diator(name, broker=broker, hooks=hooks)


@in_virtual_time
async def test_spans_nest_from_send_to_the_handler_in_a_worker_and_its_follow_ups() -> None:
    broker, tracing, watch = Flaky(), Tracing(), Watch()
    web, billing = an_app("web", tracing, broker=broker), an_app("billing", tracing, watch, broker=broker)

    @web.command
    async def join(command: Join, publish: Publish[Joined]) -> None:
        publish(Joined())

    @web.on_event
    async def seat(event: Joined, publish: Publish[Announced]) -> None:
        publish(Announced())

    @billing.on_event
    async def bill(event: Announced, publish: Publish[Mailed]) -> None:
        publish(Mailed())
        if len([span for span in tracing.spans if span.error]) == 0:
            raise ConnectionError("no route")

    @billing.on_event
    async def note(event: Mailed) -> None: ...

    async with web, billing, billing.worker():
        await web.send(Join())
        await watch.settle(3)
    assert tracing.lines() == [
        "send Join",
        "  handle Join by join",
        "  handle Joined by seat",
        "    process tracing.announced by bill ! ConnectionError",
        "    process tracing.announced by bill",
        "      publish tracing.mailed",
        "      process tracing.mailed by note",
        "  publish tracing.announced",
    ]
    assert len({span.trace for span in tracing.spans}) == 1
    of = {span.name: span for span in tracing.spans}
    assert of["publish tracing.announced"].links == [of["handle Joined by seat"].traceparent]
    assert of["publish tracing.mailed"].links == [of["process tracing.announced by bill"].traceparent]
    attributes = of["process tracing.mailed by note"].attributes
    assert attributes["messaging.destination.name"] == "tracing.mailed"
    assert attributes["messaging.consumer.group.name"] == "billing.note"


@in_virtual_time
async def test_what_the_app_publishes_itself_descends_from_its_own_span() -> None:
    broker, tracing, watch = Flaky(), Tracing(), Watch()
    app = an_app("billing", tracing, watch, broker=broker)

    @app.on_event
    async def bill(event: Announced) -> None: ...

    async with app, app.worker():
        await app.publish(Announced())
        await watch.settle(1)
    assert tracing.lines() == [
        "publish Announced",
        "  publish tracing.announced",
        "  process tracing.announced by bill",
    ]
