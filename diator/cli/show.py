"""``diator show``: what an app consists of, message by message."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict

import typer
from rich.table import Table

from diator.cli.arguments import AppArgument, JsonOption, count, open_app, retry_text
from diator.cli.describe import describe
from diator.cli.description import (
    ContractDescription,
    DependencyDescription,
    Description,
    EventDescription,
    HandlerDescription,
    MiddlewareDescription,
    RequestDescription,
    SubscriptionDescription,
)
from diator.cli.names import Names
from diator.cli.tables import new_table, print_tables

Row = tuple[str, str, str, str]
"""A step, who takes it, what they need, and where they stand."""


def show(target: AppArgument, as_json: JsonOption = False) -> None:
    """Show the pipeline of each command, query and event: middlewares, handlers, their dependencies and events."""
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
        _table("Handlers of unknown messages", (("?", [_handler(h, names)]) for h in description.unresolved_handlers)),
    )
    print_tables(*tables, otherwise="The app has no handlers.")


def _table(title: str, groups: Iterable[tuple[str, Iterable[Row]]]) -> Table:
    """One table; the first row of each message carries its name."""
    table = new_table(title, "Step", "Component", "Dependencies", "Location")
    for name, steps in groups:
        rows = list(steps)
        for number, row in enumerate(rows, 1):
            table.add_row(name if number == 1 else "", *row, end_section=number == len(rows))
    return table


def _title(request: RequestDescription, names: Names) -> str:
    arrow = "yields" if request.streams else "->"
    return f"{names.short(request.message)} {arrow} {request.result}"


def _pipeline(request: RequestDescription, description: Description) -> Iterator[Row]:
    """The steps of a command or query, from the outside in."""
    names = description.names
    if request.required_values:
        yield "sender", "app.using", f"brings {', '.join(request.required_values)}", ""
    yield from _around(request, request.middlewares, description, request.handler.timeout)
    yield _handler(request.handler, names)
    for event in description.events:
        if event.event in request.handler.publishes:
            yield "event", names.short(event.event), _receivers(event, names), ""


def _around(
    unit: RequestDescription | SubscriptionDescription,
    middlewares: Sequence[MiddlewareDescription],
    description: Description,
    timeout: float | None,
) -> Iterator[Row]:
    """The steps before a handler that has a unit of work of its own."""
    names = description.names
    inside = [middleware for middleware in middlewares if middleware.position == "inside"]
    yield from (_middleware(middleware, names) for middleware in middlewares if middleware.position == "outside")
    if timeout is not None:
        yield "timeout", f"{timeout:g} s", "", ""
    if unit.scope or inside:
        yield "unit of work", f"scope of {description.container}" if unit.scope else "without a scope", "", ""
    yield from (_middleware(middleware, names) for middleware in inside)


_KINDS = {"domain": "domain event", "notification": "notification event", "ecst": "ECST event", "event": "event"}


def _flow(event: EventDescription, description: Description) -> Iterator[Row]:
    """The steps of an event: who publishes it, and what runs for it."""
    names = description.names
    publishers = [*map(names.short, event.published_by), *(["app.publish"] if event.declared else [])]
    yield "published", _KINDS[event.kind], f"by {', '.join(publishers)}" if publishers else "not by this app", ""
    if event.contract:
        yield "wire name", event.contract.name, _terms(event.contract), ""
        yield "topic", event.contract.topic, "", ""
    if event.subscriptions:
        for subscription, handler in zip(event.subscriptions, event.handlers, strict=True):
            yield "subscription", subscription.name, _consuming(subscription), ""
            yield from _around(subscription, event.middlewares, description, subscription.timeout)
            yield _handler(handler, names)
    else:
        middlewares = () if event.contract and not event.handlers else event.middlewares
        yield from (_middleware(middleware, names) for middleware in middlewares)
        yield from (_handler(handler, names) for handler in event.handlers)
    if event.subclasses:
        yield "may be", ", ".join(map(names.short, event.subclasses)), "", ""
    if not event.handled:
        yield "handler", "none here" if event.contract else "none", "", ""


def _terms(wire: ContractDescription) -> str:
    key = [f"key {wire.key}"] if wire.key else []
    aliases = [f"formerly {', '.join(wire.aliases)}"] if wire.aliases else []
    return ", ".join([f"version {wire.version}", *key, *aliases])


def _consuming(subscription: SubscriptionDescription) -> str:
    order = ", in order by key" if subscription.ordered else ""
    retry = retry_text(subscription.retry) if subscription.delivery == "at-least-once" else "at most once"
    once = "\nonce: the inbox knows what was handled" if subscription.once else ""
    return f"{retry}\n{subscription.concurrency} at a time{order}{once}"


def _receivers(event: EventDescription, names: Names) -> str:
    receivers = [names.short(handler.name) for handler in event.handlers]
    receivers += [f"those of {names.short(other)}" for other in event.subclasses]
    over = f"over {event.contract.topic}" if event.contract else ""
    to = f"for {', '.join(receivers)}" if receivers else "" if over else "no handler"
    return " ".join(filter(None, (over, to)))


def _middleware(middleware: MiddlewareDescription, names: Names) -> Row:
    return (
        "middleware",
        names.short(middleware.name),
        _needs(middleware.dependencies),
        f"{middleware.file}:{middleware.line}",
    )


def _handler(handler: HandlerDescription, names: Names) -> Row:
    how = "" if handler.call_kind == "async" else f" ({handler.call_kind})"
    needs = ["itself (container)"] if handler.from_container else []
    text = "\n".join(filter(None, [*needs, _needs(handler.dependencies)]))
    return "handler", names.short(handler.name) + how, text, f"{handler.file}:{handler.line}"


def _needs(dependencies: Iterable[DependencyDescription]) -> str:
    return "\n".join(map(_need, dependencies))


def _need(dependency: DependencyDescription) -> str:
    origin = ", ".join(filter(None, (dependency.source, dependency.lifetime)))
    named = f" named {dependency.qualifier}" if dependency.qualifier else ""
    return f"{dependency.parameter}: {dependency.type}{named} ({origin})"
