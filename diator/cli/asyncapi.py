"""``diator asyncapi``: what an app sends and receives over its broker, as an AsyncAPI document."""

import json
from pathlib import Path
from typing import Annotated, cast

import typer
import yaml

from diator._inspection import inspect_app, messaging_of
from diator.cli.app_broker import end_with_problems, exit_error
from diator.cli.arguments import AppArgument, exit_usage_error, open_app
from diator.cli.asyncapi_changes import incompatible_changes
from diator.cli.asyncapi_document import Document, document

CheckOption = Annotated[
    Path | None,
    typer.Option(
        "--check",
        metavar="OLD",
        help="Print only the incompatible changes since this document, and exit with 1 if there are any.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of YAML.")]
VersionOption = Annotated[str, typer.Option("--api-version", metavar="VERSION", help="The version of the document.")]


def asyncapi(
    target: AppArgument, check: CheckOption = None, as_json: JsonOption = False, api_version: VersionOption = "0.0.0"
) -> None:
    """Describe what an app sends and receives over its broker, as an AsyncAPI 3.1 document.

    Messages have the JSON schemas of the events on the wire. What the app sends is read from the type hints of its
    handlers and from app.publishes, what it receives from its subscriptions. No handler runs.
    """
    app = open_app(target)
    if problems := inspect_app(app).errors:
        end_with_problems(problems)
    messaging = messaging_of(app)
    if messaging is None:
        exit_error(f'{app!r} has no message broker, so it has no channels; pass one, such as broker="memory://"')
    described = document(app.name or "diator", api_version, messaging.broker, messaging.catalog)
    if check is None:
        typer.echo(_written(described, as_json=as_json), nl=False)
        return
    changes = list(incompatible_changes(_read(check), described))
    if as_json:
        typer.echo(json.dumps(changes, indent=2, ensure_ascii=False))
    else:
        typer.echo("\n".join(changes or ["no incompatible changes"]))
    if changes:
        raise typer.Exit(1)


def _written(described: Document, *, as_json: bool) -> str:
    if as_json:
        return json.dumps(described, indent=2, ensure_ascii=False) + "\n"
    # Its stubs are incomplete.
    return str(yaml.safe_dump(described, sort_keys=False, allow_unicode=True, width=120))  # pyright: ignore[reportUnknownMemberType]


def _read(path: Path) -> Document:
    """Read a document; JSON is YAML, too. Ends with exit code 2 for what is none."""
    try:
        found: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        exit_usage_error(f"--check: {path} can't be read: {error}")
    if not isinstance(found, dict) or "asyncapi" not in found:
        exit_usage_error(f"--check: {path} is not an AsyncAPI document")
    return cast("Document", found)
