"""Dead letters as people and as tools read them."""

import base64
import json
from collections.abc import Iterable, Iterator, Sequence

import msgspec
import typer
from rich.table import Table

from diator.cli.arguments import printable
from diator.cli.tables import new_table
from diator.delivery.operations import OpenedDeadLetter

_MAX_ERROR = 100
"""Letters of an error in a table; `show` has all of it."""


def table_of(letters: Iterable[OpenedDeadLetter]) -> Table:
    """A table with one line for each."""
    table = new_table("Id", "Subscription", "Event", "Message id", "Reason", "Error", "Attempts", "Dead-lettered at")
    for letter in letters:
        why = letter.dead.failure
        cells = (
            letter.dead.id,
            letter.config.name,
            letter.envelope.type if letter.envelope else "?",
            letter.envelope.id if letter.envelope else "?",
            first_line(why.reason),
            first_line(why.error or ""),
            str(why.attempts),
            letter.dead.dead_lettered_at.isoformat(" ", "seconds"),
        )
        table.add_row(*map(printable, cells))
    return table


def first_line(text: str) -> str:
    """The first line of an error, as tables have it."""
    first = text.strip().partition("\n")[0]
    return first if len(first) <= _MAX_ERROR else f"{first[:_MAX_ERROR]}..."


def summary_of(letter: OpenedDeadLetter) -> dict[str, object]:
    """What the table has, for tools."""
    envelope, dead = letter.envelope, letter.dead
    return {
        "id": dead.id,
        "subscription": letter.config.name,
        "event": envelope.type if envelope else None,
        "message_id": envelope.id if envelope else None,
        "reason": dead.failure.reason,
        "error": dead.failure.error,
        "attempts": dead.failure.attempts,
        "dead_lettered_at": dead.dead_lettered_at.isoformat(),
    }


def document_of(letter: OpenedDeadLetter) -> dict[str, object]:
    """Everything, for tools."""
    dead = letter.dead
    return {
        **summary_of(letter),
        "topic": dead.topic,
        "deliveries": dead.deliveries,
        "traceback": dead.failure.traceback,
        "headers": dict(dead.headers),
        **body_text(dead.body),
    }


def page_of(letter: OpenedDeadLetter) -> str:
    """Everything, for people."""
    return printable("\n".join(_page(letter)))


def _page(letter: OpenedDeadLetter) -> Iterator[str]:
    dead, why = letter.dead, letter.dead.failure
    summary = summary_of(letter)
    yield f"dead letter {summary.pop('id')} of {summary.pop('subscription')}"
    facts = {**summary, "topic": dead.topic, "deliveries": dead.deliveries}
    yield from (
        f"    {name.replace('_', ' ') + ':':<12} {'?' if fact is None else fact}" for name, fact in facts.items()
    )
    yield from _section("traceback", (why.traceback or "").rstrip().splitlines())
    yield from _section("headers", [f"{name}: {value}" for name, value in dead.headers.items()])
    yield from _section("body", body_lines(dead.body))


def _section(title: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield f"    {title}:"
        yield from (f"        {line}" for line in lines)


def body_lines(body: bytes) -> Sequence[str]:
    """JSON spread over lines, and anything else as the bytes that it is."""
    try:
        json.loads(body)
        return msgspec.json.format(body, indent=2).decode().splitlines()
    except (ValueError, RecursionError, msgspec.DecodeError):
        return [repr(body)]


def body_text(body: bytes) -> dict[str, object]:
    """A body, for tools, and how to read it."""
    try:
        return {"encoding": "utf-8", "body": body.decode()}
    except UnicodeDecodeError:
        return {"encoding": "base64", "body": base64.b64encode(body).decode()}


def print_pages(letters: Sequence[OpenedDeadLetter], *, as_json: bool, target: str) -> None:
    """Print everything of some."""
    if as_json:
        typer.echo(json.dumps({"app": target, "dead_letters": [document_of(letter) for letter in letters]}, indent=2))
    else:
        typer.echo("\n\n".join(map(page_of, letters)))
