"""``diator outbox``: how the outbox of an app stands, and what to do with events that its broker rejects."""

import json
from collections.abc import Collection, Sequence
from typing import Annotated

import typer
from rich.table import Table

from diator.cli.app_broker import exit_error
from diator.cli.app_store import AppStore
from diator.cli.arguments import (
    AppArgument,
    JsonOption,
    YesOption,
    count,
    ensure_can_ask,
    exit_usage_error,
    printable,
)
from diator.cli.dead_letter_views import body_text, first_line
from diator.cli.tables import new_table, print_tables
from diator.stores.port import OperatesStore, OutboxDeadLetter, StoreStatus

outbox = typer.Typer(help="Manage the outbox of an app with a store. The app is not started.", no_args_is_help=True)

LimitOption = Annotated[
    int, typer.Option("--limit", min=1, metavar="N", help="The maximum number of dead letters, the oldest first.")
]
IdOption = Annotated[
    list[str] | None, typer.Option("--id", help="The id of a dead letter, as `dead-letters` shows it. Repeatable.")
]
AllOption = Annotated[bool, typer.Option("--all", help="All dead letters of the outbox.")]

_PAGE = 100


@outbox.command("create")
def create(target: AppArgument) -> None:
    """Create or upgrade the tables of the store. Existing rows are not changed."""
    created = AppStore(target).create()
    for name in created:
        typer.echo(f"created {name}")
    if not created:
        typer.echo("Nothing was missing.")


@outbox.command("status")
def status(target: AppArgument, as_json: JsonOption = False) -> None:
    """Show the backlog of the outbox, the relays that hold its partitions, and the age of the oldest event."""
    found = AppStore(target).operate(lambda store: store.status())
    if as_json:
        typer.echo(json.dumps({"app": target, **_document(found)}, indent=2))
        return
    table = new_table("Partition", "Relay", "Waiting")
    for one in found.partitions:
        table.add_row(str(one.partition), printable(one.holder or "(none)"), f"{one.waiting:,}")
    print_tables(table, otherwise="")
    oldest = "" if found.oldest is None else f", the oldest for {found.oldest:.1f} s"
    typer.echo(f"{count(sum(one.waiting for one in found.partitions), 'event')} waiting{oldest}")
    typer.echo(f"{count(found.delayed, 'event')} delayed")
    typer.echo(f"{count(found.dead_letters, 'dead letter')} of the outbox")
    typer.echo(f"{count(found.handled, 'message')} in the inbox")


@outbox.command("dead-letters")
def dead_letters(
    target: AppArgument, ids: IdOption = None, limit: LimitOption = _PAGE, as_json: JsonOption = False
) -> None:
    """List the events that the broker rejected permanently, with the reason.

    With --json, their bodies too. The exit code is 1 if an --id was not found.
    """
    found = AppStore(target).operate(lambda store: _read(store, ids, limit=len(set(ids)) if ids else limit + 1))
    if as_json:
        letters = [_letter_document(one) for one in found[:limit]]
        typer.echo(json.dumps({"app": target, "dead_letters": letters}, indent=2))
    else:
        print_tables(_table(found[:limit]), otherwise="No dead letters.")
    if len(found) > limit:
        typer.echo(f"there are more than {limit}; see them with a higher --limit", err=True)
    _report_missing(ids or (), {one.id for one in found})


@outbox.command("replay")
def replay(target: AppArgument, ids: IdOption = None, everything: AllOption = False, yes: YesOption = False) -> None:
    """Put dead letters back into the outbox, behind its backlog; a relay publishes them.

    The exit code is 1 if one was not found; the others are put back regardless.
    """
    _touch("replay", "Replayed", target, ids, everything=everything, yes=yes)


@outbox.command("purge")
def purge(target: AppArgument, ids: IdOption = None, everything: AllOption = False, yes: YesOption = False) -> None:
    """Delete dead letters of the outbox: these events are never published.

    The exit code is 1 if one was not found; the others are deleted regardless.
    """
    _touch("purge", "Purged", target, ids, everything=everything, yes=yes)


def _touch(verb: str, past: str, target: str, ids: Sequence[str] | None, *, everything: bool, yes: bool) -> None:
    if bool(ids) == everything:
        exit_usage_error(f"select what to {verb}: --id ID (repeatable), or --all")
    ensure_can_ask(verb, yes=yes)
    store = AppStore(target)
    found = store.operate(lambda operating: _read(operating, ids, limit=len(set(ids)) if ids else None, bodies=False))
    if found and not yes:
        print_tables(_table(found), otherwise="")
        typer.confirm(f"{verb.capitalize()} {count(len(found), 'dead letter')} of the outbox?", abort=True)
    done = store.operate(lambda operating: _apply(operating, verb, [one.id for one in found])) if found else ()
    if done or not ids:
        typer.echo(f"{past} {count(len(done), 'dead letter')}.")
    _report_missing(ids or [one.id for one in found], done)


async def _read(
    store: OperatesStore, ids: Sequence[str] | None, *, limit: int | None, bodies: bool = True
) -> list[OutboxDeadLetter]:
    """Read the dead letters with these ids, or all, up to a limit. Many bodies would need much memory."""
    found: dict[str, OutboxDeadLetter] = {}  # the pages begin again if the last one of a page is replayed meanwhile
    after: str | None = None
    while (limit is None or len(found) < limit) and (page := await store.dead_letters(after=after, limit=_PAGE)):
        found.update((one.id, one if bodies else one._replace(body=b"")) for one in page if not ids or one.id in ids)
        after = page[-1].id
    return list(found.values())[:limit]


async def _apply(store: OperatesStore, verb: str, ids: Sequence[str]) -> Collection[str]:
    call = store.replay if verb == "replay" else store.purge
    done: set[str] = set()
    for start in range(0, len(ids), _PAGE):  # those of one call are one transaction
        done.update(await call(ids[start : start + _PAGE]))
    return done


def _report_missing(asked: Sequence[str], found: Collection[str]) -> None:
    """End with exit code 1 if something was asked for by its id, and is not there."""
    missing = [repr(one) for one in asked if one not in found]
    if missing:
        exit_error(printable(f"no dead letter of the outbox has the id {', nor the id '.join(missing)}"))


def _table(letters: Sequence[OutboxDeadLetter]) -> Table:
    table = new_table("Message id", "Topic", "Key", "Error", "Dead-lettered at")
    for one in letters:
        at = one.dead_lettered_at.isoformat(" ", "seconds")
        table.add_row(*map(printable, (one.id, one.topic, one.key or "", first_line(one.error), at)))
    return table


def _letter_document(one: OutboxDeadLetter) -> dict[str, object]:
    return {
        "message_id": one.id,
        "topic": one.topic,
        "key": one.key,
        "error": one.error,
        "dead_lettered_at": one.dead_lettered_at.isoformat(),
        **body_text(one.body),
    }


def _document(found: StoreStatus) -> dict[str, object]:
    return {
        "partitions": [
            {"partition": one.partition, "relay": one.holder, "waiting": one.waiting} for one in found.partitions
        ],
        "waiting": sum(one.waiting for one in found.partitions),
        "oldest_seconds": found.oldest,
        "delayed": found.delayed,
        "dead_letters": found.dead_letters,
        "handled": found.handled,
    }
