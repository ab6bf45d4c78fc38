"""``diator show``: what an app consists of, message by message."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict

import typer
from rich.table import Table

from diator.cli.arguments import AppArgument, JsonOption, count, open_app, retry_text
from diator.cli.describe import describe
from diator.cli.description import Dependency, Description, EventFlow, Handler, Middleware, Request, Subscription, Wire
from diator.cli.names import Names
from diator.cli.tables import new_table, print_tables

Row = tuple[str, str, str, str]
"""A step, who takes it, what they need, and where they stand."""


def show(target: AppArgument, as_json: JsonOption = False) -> None:
    """Show every command, query and event with its pipeline: middlewares, handlers, what they need and publish."""
    description = describe(open_app(target))
    if as_json:
        typer.echo(json.dumps(_document(target, description), indent=2))
    else:
        _print(description)
    if description.problems:
        typer.echo(f"{count(len(description.problems), 'problem')}; see: diator check {target}", err=True)


def _document(target: str, description: Description) -> dict[str, object]:
    fields = asdict(description)
    errors = sum(problem.severity == "error" for problem in description.problems)
    fields["problems"] = {"errors": errors, "warnings": len(description.problems) - errors}
    del fields["names"]  # serves the tables
    return {"app": target, **fields}


def _print(description: Description) -> None:
    names = description.names
    tables = (
        _table("Commands", ((_title(r, names), _pipeline(r, description)) for r in description.commands)),
        _table("Queries", ((_title(r, names), _pipeline(r, description)) for r in description.queries)),
        _table("Events", ((names.short(e.event), _flow(e, description)) for e in description.events)),
        _table("Handlers of unknown messages", (("?", [_handler(h, names)]) for h in description.unplaced)),
    )
    print_tables(*tables, otherwise="The app has no handlers.")


def _table(title: str, groups: Iterable[tuple[str, Iterable[Row]]]) -> Table:
    """One table; the first row of each message carries its name."""
    table = new_table(title, "Step", "Who", "Needs", "Place")
    for name, steps in groups:
        rows = list(steps)
        for number, row in enumerate(rows, 1):
            table.add_row(name if number == 1 else "", *row, end_section=number == len(rows))
    return table


def _title(request: Request, names: Names) -> str:
    arrow = "yields" if request.streams else "->"
    return f"{names.short(request.message)} {arrow} {request.result}"


def _pipeline(request: Request, description: Description) -> Iterator[Row]:
    """The steps of a command or query, from the outside in."""
    names = description.names
    if request.needs_from_sender:
        yield "sender", "app.using", f"brings {', '.join(request.needs_from_sender)}", ""
    yield from _around(request, request.middlewares, description, request.handler.timeout)
    yield _handler(request.handler, names)
    for event in description.events:
        if event.event in request.handler.publishes:
            yield "event", names.short(event.event), _receivers(event, names), ""


def _around(
    unit: Request | Subscription, layers: Sequence[Middleware], description: Description, timeout: float | None
) -> Iterator[Row]:
    """The steps before a handler that has a unit of work of its own."""
    names = description.names
    inside = [layer for layer in layers if layer.position == "inside"]
    yield from (_middleware(layer, names) for layer in layers if layer.position == "outside")
    if timeout is not None:
        yield "timeout", f"{timeout:g} s", "", ""
    if unit.scope or inside:
        yield "unit of work", f"scope of {description.container}" if unit.scope else "without a scope", "", ""
    yield from (_middleware(layer, names) for layer in inside)


_KINDS = {"domain": "domain event", "notification": "notification event", "ecst": "ECST event", "event": "event"}


def _flow(event: EventFlow, description: Description) -> Iterator[Row]:
    """The steps of an event: who publishes it, and what runs for it."""
    names = description.names
    publishers = [*map(names.short, event.published_by), *(["app.publish"] if event.declared else [])]
    yield "published", _KINDS[event.kind], f"by {', '.join(publishers)}" if publishers else "by nobody here", ""
    if event.wire:
        yield "wire name", event.wire.name, _terms(event.wire), ""
        yield "topic", event.wire.topic, "", ""
    if event.subscriptions:
        for subscription, handler in zip(event.subscriptions, event.handlers, strict=True):
            yield "subscription", subscription.name, _consuming(subscription), ""
            yield from _around(subscription, event.middlewares, description, subscription.timeout)
            yield _handler(handler, names)
    else:
        layers = () if event.wire and not event.handlers else event.middlewares
        yield from (_middleware(layer, names) for layer in layers)
        yield from (_handler(handler, names) for handler in event.handlers)
    if event.may_be:
        yield "may be", ", ".join(map(names.short, event.may_be)), "", ""
    if not event.handled:
        yield "handler", "none here" if event.wire else "none", "", ""


def _terms(wire: Wire) -> str:
    key = [f"key {wire.key}"] if wire.key else []
    aliases = [f"formerly {', '.join(wire.aliases)}"] if wire.aliases else []
    return ", ".join([f"version {wire.version}", *key, *aliases])


def _consuming(subscription: Subscription) -> str:
    order = ", in order by key" if subscription.ordered else ""
    retry = retry_text(subscription.retry) if subscription.delivery == "at-least-once" else "at most once"
    return f"{retry}\n{subscription.concurrency} at a time{order}"


def _receivers(event: EventFlow, names: Names) -> str:
    receivers = [names.short(handler.name) for handler in event.handlers]
    receivers += [f"those of {names.short(other)}" for other in event.may_be]
    over = f"over {event.wire.topic}" if event.wire else ""
    to = f"for {', '.join(receivers)}" if receivers else "" if over else "no handler"
    return " ".join(filter(None, (over, to)))


def _middleware(layer: Middleware, names: Names) -> Row:
    return "middleware", names.short(layer.name), _needs(layer.dependencies), f"{layer.file}:{layer.line}"


def _handler(handler: Handler, names: Names) -> Row:
    how = "" if handler.runs == "async" else f" ({handler.runs})"
    needs = ["itself (container)"] if handler.from_container else []
    text = "\n".join(filter(None, [*needs, _needs(handler.dependencies)]))
    return "handler", names.short(handler.name) + how, text, f"{handler.file}:{handler.line}"


def _needs(dependencies: Iterable[Dependency]) -> str:
    return "\n".join(map(_need, dependencies))


def _need(dependency: Dependency) -> str:
    origin = ", ".join(filter(None, (dependency.source, dependency.lifetime)))
    named = f" named {dependency.qualifier}" if dependency.qualifier else ""
    return f"{dependency.parameter}: {dependency.type}{named} ({origin})"
