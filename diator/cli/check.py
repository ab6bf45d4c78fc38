"""``diator check``: everything that is wrong with an app."""

import json
from collections.abc import Iterator, Sequence
from typing import Annotated

import typer

from diator._inspection import inspect_app, messaging_of
from diator.app import Diator
from diator.cli.arguments import AppArgument, JsonOption, codes_text, count, load_or_exit, problem_text, short_path
from diator.cli.routers import never_included
from diator.engine.check import CheckResult
from diator.engine.registrations import HandlerKind
from diator.errors import ConfigurationError, Problem

Counts = dict[str, int]
"""How many of each were checked."""

StrictOption = Annotated[bool, typer.Option("--strict", help="Fail on warnings too.")]


def check(target: AppArgument, as_json: JsonOption = False, strict: StrictOption = False) -> None:
    """Check an app as startup does, and print every problem with its location and its fix.

    The exit code is 0 if the app can start, 1 if it can't, 2 if it could not be loaded.
    """
    found: Counts | None = None
    without_inbox: list[str] = []
    try:
        app = load_or_exit(target)
        checked = inspect_app(app)
        found, without_inbox = _counts(app, checked), _without_inbox(app)
        problems: Sequence[Problem] = [*checked.problems, *_nothing_to_do(found), *never_included(target)]
    except ConfigurationError as error:  # raised by the line that registers: the rest has not been looked at
        problems = error.problems
    errors = sum(problem.severity == "error" for problem in problems)
    warnings = len(problems) - errors
    if as_json:
        typer.echo(json.dumps(_document(target, problems, found, without_inbox), indent=2))
    else:
        for problem in problems:
            typer.echo(problem_text(problem))
        if problems:
            typer.echo(codes_text())
        if found is not None:
            typer.echo(f"checked {', '.join(count(number, noun[:-1]) for noun, number in found.items())}")
        if without_inbox:
            typer.echo(f"without an inbox: {', '.join(without_inbox)}\n    -> {_INBOX}")
        typer.echo(_summary(target, errors, warnings, complete=found is not None))
    raise typer.Exit(1 if errors or (strict and warnings) else 0)


def _counts(app: Diator, checked: CheckResult) -> Counts:
    registry, brokerage = checked.registry, messaging_of(app)
    handled = [
        cls for record, classes in checked.classes.items() if record.kind is HandlerKind.EVENT for cls in classes
    ]
    published = [cls for wired in checked.handlers.values() for cls in wired.publishes]
    return {
        "requests": len(registry.requests),
        "events": len({*handled, *published, *registry.declared_events}),
        "handlers": len(registry.handlers),
        "subscriptions": len(brokerage.catalog.configs) if brokerage and brokerage.has_catalog else 0,
        "middlewares": len(registry.middlewares),
    }


_INBOX = "they don't use the session of the store: once=True gives them an inbox, once=False says that they need none"


def _without_inbox(app: Diator) -> list[str]:
    """The subscriptions of an app with a store whose handlers have no inbox, and do not say that they need none."""
    messaging = messaging_of(app)
    if messaging is None or messaging.outbox is None or not messaging.has_catalog:
        return []
    return [one.name for one in messaging.catalog.configs if not one.once and one.registration.options.once is None]


def _nothing_to_do(found: Counts) -> Iterator[Problem]:
    if not found["handlers"]:
        fix = "import the modules that register them, and include their routers"
        yield Problem("no-handlers", "the app has no handlers", fix, severity="warning")


def _summary(target: str, errors: int, warnings: int, *, complete: bool) -> str:
    if not complete:
        return f"{target}: {count(errors, 'error')}; correct this first, the rest of the app has not been checked yet"
    return f"{target}: {count(errors, 'error')}, {count(warnings, 'warning')}"


def _document(
    target: str, problems: Sequence[Problem], found: Counts | None, without_inbox: Sequence[str]
) -> dict[str, object]:
    return {
        "app": target,
        "complete": found is not None,
        "checked": found,
        "problems": [
            {
                "severity": problem.severity,
                "code": problem.code,
                "url": problem.url,
                "text": problem.text,
                "fix": problem.fix,
                "file": short_path(problem.location.file) if problem.location else None,
                "line": problem.location.line if problem.location else None,
            }
            for problem in problems
        ],
        "without_inbox": without_inbox,
    }
