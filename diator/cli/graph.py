"""``diator graph``: the flow of messages, as a Mermaid flowchart."""

import re
from collections.abc import Iterable, Iterator
from typing import TypeVar

import typer

from diator.cli.arguments import AppArgument, open_app
from diator.cli.describe import describe
from diator.cli.description import Description, EventDescription, HandlerDescription
from diator.messages import Event

T = TypeVar("T")

_SPECIAL = re.compile(r"[^\w .,|()\[\]-]", re.ASCII)
"""What may mean something to Mermaid, or to HTML, in a quoted label, or may not survive the encoding of a pipe."""

_ANY = f"{Event.__module__}.{Event.__qualname__}"
"""What a handler publishes whose `events` do not say which."""


def graph(target: AppArgument) -> None:
    """Draw commands, queries, their handlers and the events that they publish, as Mermaid text.

    The flow is read from the type hints. No handler runs.
    """
    typer.echo("\n".join(flowchart(describe(open_app(target)))))


def flowchart(description: Description) -> Iterator[str]:
    """The lines of a flowchart. The same app gives the same lines."""
    chart = _Chart(description)
    yield "flowchart LR"
    yield from chart.nodes()
    yield from chart.edges()
    yield "    classDef unhandled stroke-dasharray: 4 4"


class _Chart:
    """Numbers what is drawn: names of Python may be words of Mermaid, such as ``end``."""

    def __init__(self, description: Description) -> None:
        self._names = description.names
        self._commands = _numbered("c", description.commands)
        self._queries = _numbered("q", description.queries)
        self._events = description.events
        self._event_ids = {event.event: node for node, event in _numbered("e", description.events)}
        self._topics = {topic: node for node, topic in _numbered("t", _topics(description.events))}
        handlers = (
            *(request.handler for request in (*description.commands, *description.queries)),
            *(handler for event in description.events for handler in event.handlers),
        )
        self._handlers: dict[HandlerDescription, str] = {h: f"h{n}" for n, h in enumerate(dict.fromkeys(handlers), 1)}

    def nodes(self) -> Iterator[str]:
        for node, command in self._commands:
            yield f'    {node}["{self._label(command.message)}"]'
        for node, query in self._queries:
            yield f'    {node}[/"{self._label(query.message)}"/]'
        for handler, node in self._handlers.items():
            yield f'    {node}("{self._label(handler.name)}")'
        for event in self._events:
            yield f"    {self._event_ids[event.event]}{self._event(event)}"
        for topic, node in self._topics.items():
            yield f'    {node}[("{escape(topic)}")]'
        if any(event.declared for event in self._events):
            yield '    app(["app.publish"])'

    def edges(self) -> Iterator[str]:
        for node, request in (*self._commands, *self._queries):
            yield f"    {node} --> {self._handlers[request.handler]}"
        for handler, node in self._handlers.items():
            yield from (f"    {node} --> {self._event_ids[event]}" for event in handler.publishes)
        for event in self._events:
            yield from self._edges_of(event, self._event_ids[event.event])
        yield from self._deliveries()

    def _edges_of(self, event: EventDescription, node: str) -> Iterator[str]:
        if event.declared:
            yield f"    app --> {node}"
        hub = node
        if event.contract:
            hub = self._topics[event.contract.topic]
            yield f"    {node} --> {hub}"
        if not event.subscriptions:
            yield from (f"    {hub} --> {self._handlers[handler]}" for handler in event.handlers)
        yield from (f"    {node} -.-> {self._event_ids[other]}" for other in event.subclasses)

    def _deliveries(self) -> Iterator[str]:
        """From each topic to the handlers of what is on it, each once, with the name of the subscription."""
        edges = {
            (topic, handler, subscription.name): None
            for event in self._events
            for subscription, handler in zip(event.subscriptions, event.handlers, strict=False)
            for topic in subscription.topics
        }
        for topic, handler, name in edges:
            label = escape(name).replace("|", "#124;")
            yield f'    {self._topics[topic]} -->|"{label}"| {self._handlers[handler]}'

    def _event(self, event: EventDescription) -> str:
        label = "any event" if event.event == _ANY else self._label(event.event)
        return (
            f'{{{{"{label}"}}}}' if event.handled or event.contract else f'{{{{"{label}<br/>no handler"}}}}:::unhandled'
        )

    def _label(self, name: str) -> str:
        return escape(self._names.short(name))


def _topics(events: Iterable[EventDescription]) -> Iterable[str]:
    published = (event.contract.topic for event in events if event.contract)
    consumed = (topic for event in events for subscription in event.subscriptions for topic in subscription.topics)
    return dict.fromkeys((*published, *consumed))


def _numbered(letter: str, items: Iterable[T]) -> list[tuple[str, T]]:
    return [(f"{letter}{number}", item) for number, item in enumerate(items, 1)]


def escape(text: str) -> str:
    """Write what may have a meaning in a label by its number, ``#60;`` for ``<``, which Mermaid turns back."""
    return _SPECIAL.sub(lambda found: f"#{ord(found[0])};", text)
