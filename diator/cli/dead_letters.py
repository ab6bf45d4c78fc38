"""``diator dead-letters``: read what could not be handled, have it delivered again, or delete it."""

import json
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, NamedTuple

import typer

from diator.cli.arguments import AppArgument, JsonOption, count, printable, refuse
from diator.cli.choosing import (
    ErrorOption,
    IdOption,
    LimitOption,
    MessageIdOption,
    NewerOption,
    OlderOption,
    SubscriptionOption,
    choose,
    refuse_ambiguous,
    tell_absent,
    tell_missing,
)
from diator.cli.letters import print_pages, summary_of, table_of
from diator.cli.operating import Target, fail
from diator.cli.tables import print_tables
from diator.delivery.operations import ALL, Letter, Operations, Wanted
from diator.errors import BrokerUnavailableError

dead_letters = typer.Typer(
    help="Read, replay and purge the dead letters of an app. The app is not started.", no_args_is_help=True
)

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only list what would be touched.")]

_MOST_LISTED = 100
_MOST_SHOWN = 10
_MOST_ASKED = 20
_PATIENCE = 3
"""So many in a row may fail because the broker is away, then it is of no use to try more."""


@dead_letters.command("list")
def list_(
    target: AppArgument,
    subscription: SubscriptionOption = None,
    ids: IdOption = None,
    message_id: MessageIdOption = None,
    older_than: OlderOption = None,
    newer_than: NewerOption = None,
    error: ErrorOption = None,
    limit: LimitOption = _MOST_LISTED,
    as_json: JsonOption = False,
) -> None:
    """List dead letters, subscription by subscription, the oldest first.

    The exit code is 1 where an --id or --message-id is not there.
    """
    wanted = Wanted(ids or (), message_id or (), older_than, newer_than, error)
    chosen = choose(Target(target, changing=False), subscription, wanted, limit)
    if as_json:
        document = {"app": target, "dead_letters": [summary_of(letter) for letter in chosen.letters]}
        typer.echo(json.dumps(document, indent=2))
    else:
        otherwise = "No dead letters." if wanted == ALL else "No dead letter fits."
        print_tables(table_of(chosen.letters), otherwise=otherwise)
    if chosen.more:
        typer.echo(f"there are more than {limit}; see them with a higher --limit", err=True)
    tell_absent(chosen, target)
    tell_missing(chosen)


@dead_letters.command("show")
def show(
    target: AppArgument,
    subscription: SubscriptionOption = None,
    ids: IdOption = None,
    message_id: MessageIdOption = None,
    older_than: OlderOption = None,
    newer_than: NewerOption = None,
    error: ErrorOption = None,
    limit: LimitOption = _MOST_SHOWN,
    as_json: JsonOption = False,
) -> None:
    """Show everything of dead letters: error and traceback, headers and body.

    The exit code is 1 where none fits.
    """
    wanted = Wanted(ids or (), message_id or (), older_than, newer_than, error)
    chosen = choose(Target(target, changing=False), subscription, wanted, limit)
    if chosen.letters:
        print_pages(chosen.letters, as_json=as_json, target=target)
    if chosen.more:
        typer.echo(f"there are more than {limit}; see them with a higher --limit", err=True)
    if not chosen.letters:
        tell_absent(chosen, target)
    tell_missing(chosen)
    if not chosen.letters:
        fail("no dead letter fits")


@dead_letters.command("replay")
def replay(
    target: AppArgument,
    subscription: SubscriptionOption = None,
    ids: IdOption = None,
    message_id: MessageIdOption = None,
    older_than: OlderOption = None,
    newer_than: NewerOption = None,
    error: ErrorOption = None,
    limit: LimitOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Have dead letters delivered again, each to its own subscription only, as new.

    The exit code is 1 where one could not be replayed; the others are all the same.
    """
    wanted = Wanted(ids or (), message_id or (), older_than, newer_than, error)
    _touch(_REPLAY, target, subscription, wanted, limit, yes=yes, dry_run=dry_run)


@dead_letters.command("purge")
def purge(
    target: AppArgument,
    subscription: SubscriptionOption = None,
    ids: IdOption = None,
    message_id: MessageIdOption = None,
    older_than: OlderOption = None,
    newer_than: NewerOption = None,
    error: ErrorOption = None,
    limit: LimitOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Delete dead letters for good.

    The exit code is 1 where one could not be deleted; the others are all the same.
    """
    wanted = Wanted(ids or (), message_id or (), older_than, newer_than, error)
    _touch(_PURGE, target, subscription, wanted, limit, yes=yes, dry_run=dry_run)


class _Verb(NamedTuple):
    """What is done to each."""

    present: str
    past: str
    call: Callable[[Operations, Letter], Awaitable[bool]]


_REPLAY = _Verb("replay", "replayed", Operations.replay)
_PURGE = _Verb("purge", "purged", Operations.purge)


def _touch(
    verb: _Verb,
    name: str,
    subscriptions: Sequence[str] | None,
    wanted: Wanted,
    limit: int | None,
    *,
    yes: bool,
    dry_run: bool,
) -> None:
    if not (yes or dry_run or sys.stdin.isatty()):
        refuse(f"there is no terminal to ask whether to {verb.present}; add --yes, or look first with --dry-run")
    target = Target(name, changing=True)
    chosen = choose(target, subscriptions, wanted, limit)
    refuse_ambiguous(wanted, chosen.letters)
    if not chosen.letters:
        typer.echo("No dead letter fits.")
        tell_absent(chosen, name)
    elif dry_run:
        print_tables(table_of(chosen.letters), otherwise="")
        typer.echo(f"Would {verb.present} {_counted(chosen.letters)}.")
    else:
        if not yes:
            _confirm(verb, chosen.letters)
        _report(verb, target.operate(lambda operations: _each(verb, operations, chosen.letters)))
    tell_missing(chosen)


def _confirm(verb: _Verb, letters: Sequence[Letter]) -> None:
    print_tables(table_of(letters[:_MOST_ASKED]), otherwise="")
    if len(letters) > _MOST_ASKED:
        typer.echo(f"and {len(letters) - _MOST_ASKED:,} more")
    typer.confirm(f"{verb.present.capitalize()} {_counted(letters)}?", abort=True)


def _counted(letters: Sequence[Letter]) -> str:
    of = Counter(letter.consumed.name for letter in letters)
    names = ", ".join(f"{name} ({number:,})" if len(of) > 1 else name for name, number in of.items())
    return f"{count(len(letters), 'dead letter')} of {names}"


class _Outcome(NamedTuple):
    """What became of many."""

    done: Sequence[Letter]
    gone: Sequence[Letter]
    failed: Sequence[tuple[Letter, Exception]]
    untried: Sequence[Letter]


async def _each(verb: _Verb, operations: Operations, letters: Sequence[Letter]) -> _Outcome:
    done: list[Letter] = []
    gone: list[Letter] = []
    failed: list[tuple[Letter, Exception]] = []
    away = 0
    for number, letter in enumerate(letters):
        if away == _PATIENCE:
            return _Outcome(done, gone, failed, letters[number:])
        try:
            (done if await verb.call(operations, letter) else gone).append(letter)
            away = 0
        except Exception as error:  # noqa: BLE001 - one that fails, whyever, must not keep the others
            failed.append((letter, error))
            away = away + 1 if isinstance(error, BrokerUnavailableError) else 0
    return _Outcome(done, gone, failed, ())


def _report(verb: _Verb, outcome: _Outcome) -> None:
    """Say what happened to which; end with exit code 1 where one is left."""
    if outcome.done:
        typer.echo(f"{verb.past.capitalize()} {_counted(outcome.done)}.")
    for letter in outcome.gone:
        typer.echo(f"{letter.consumed.name}: {letter.dead.id} was gone already", err=True)
    for letter, error in outcome.failed:
        said = f"{type(error).__name__}: {error}".removesuffix(": ")
        typer.echo(printable(f"{letter.consumed.name}: {letter.dead.id} was not {verb.past}: {said}"), err=True)
    if outcome.untried:
        typer.echo(f"The broker is away, so {_counted(outcome.untried)} were not tried.", err=True)
    if outcome.failed or outcome.untried:
        raise typer.Exit(1)
