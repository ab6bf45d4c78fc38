"""``diator dead-letters``: read what could not be handled, have it delivered again, or delete it."""

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, NamedTuple

import typer

from diator.cli.app_broker import AppBroker, exit_error
from diator.cli.arguments import AppArgument, JsonOption, YesOption, count, ensure_can_ask, printable
from diator.cli.dead_letter_views import print_pages, summary_of, table_of
from diator.cli.selection import (
    ErrorOption,
    IdOption,
    LimitOption,
    MessageIdOption,
    NewerOption,
    OlderOption,
    SubscriptionOption,
    reject_ambiguous,
    report_missing_ids,
    report_missing_subscriptions,
    select,
)
from diator.cli.tables import print_tables
from diator.delivery.operations import ALL, DeadLetterFilter, OpenedDeadLetter, Operations
from diator.errors import BrokerUnavailableError

dead_letters = typer.Typer(
    help="Read, replay and purge the dead letters of an app. The app is not started.", no_args_is_help=True
)

DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="List the dead letters that would be affected, and change nothing.")
]

_MAX_LISTED = 100
_MAX_SHOWN = 10
_MAX_ASKED = 20
_MAX_OUTAGES = 3
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
    limit: LimitOption = _MAX_LISTED,
    as_json: JsonOption = False,
) -> None:
    """List dead letters, subscription by subscription, the oldest first.

    The exit code is 1 if an --id or --message-id was not found.
    """
    wanted = DeadLetterFilter(ids or (), message_id or (), older_than, newer_than, error)
    chosen = select(AppBroker(target, changing=False), subscription, wanted, limit)
    if as_json:
        document = {"app": target, "dead_letters": [summary_of(letter) for letter in chosen.letters]}
        typer.echo(json.dumps(document, indent=2))
    else:
        otherwise = "No dead letters." if wanted == ALL else "No dead letter matches."
        print_tables(table_of(chosen.letters), otherwise=otherwise)
    if chosen.more:
        typer.echo(f"there are more than {limit}; see them with a higher --limit", err=True)
    report_missing_subscriptions(chosen, target)
    report_missing_ids(chosen)


@dead_letters.command("show")
def show(
    target: AppArgument,
    subscription: SubscriptionOption = None,
    ids: IdOption = None,
    message_id: MessageIdOption = None,
    older_than: OlderOption = None,
    newer_than: NewerOption = None,
    error: ErrorOption = None,
    limit: LimitOption = _MAX_SHOWN,
    as_json: JsonOption = False,
) -> None:
    """Show dead letters in full: error and traceback, headers and body.

    The exit code is 1 if no dead letter matches.
    """
    wanted = DeadLetterFilter(ids or (), message_id or (), older_than, newer_than, error)
    chosen = select(AppBroker(target, changing=False), subscription, wanted, limit)
    if chosen.letters:
        print_pages(chosen.letters, as_json=as_json, target=target)
    if chosen.more:
        typer.echo(f"there are more than {limit}; see them with a higher --limit", err=True)
    if not chosen.letters:
        report_missing_subscriptions(chosen, target)
    report_missing_ids(chosen)
    if not chosen.letters:
        exit_error("no dead letter matches")


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
    """Redeliver dead letters, each to its own subscription only, as new messages.

    The exit code is 1 if one could not be replayed; the others are replayed regardless.
    """
    wanted = DeadLetterFilter(ids or (), message_id or (), older_than, newer_than, error)
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
    """Delete dead letters permanently.

    The exit code is 1 if one could not be deleted; the others are deleted regardless.
    """
    wanted = DeadLetterFilter(ids or (), message_id or (), older_than, newer_than, error)
    _touch(_PURGE, target, subscription, wanted, limit, yes=yes, dry_run=dry_run)


class _Verb(NamedTuple):
    """What is done to each."""

    present: str
    past: str
    call: Callable[[Operations, OpenedDeadLetter], Awaitable[bool]]


_REPLAY = _Verb("replay", "replayed", Operations.replay)
_PURGE = _Verb("purge", "purged", Operations.purge)


def _touch(
    verb: _Verb,
    name: str,
    subscriptions: Sequence[str] | None,
    wanted: DeadLetterFilter,
    limit: int | None,
    *,
    yes: bool,
    dry_run: bool,
) -> None:
    ensure_can_ask(verb.present, yes=yes or dry_run, otherwise=", or look first with --dry-run")
    target = AppBroker(name, changing=True)
    chosen = select(target, subscriptions, wanted, limit)
    reject_ambiguous(wanted, chosen.letters)
    if not chosen.letters:
        typer.echo("No dead letter matches.")
        report_missing_subscriptions(chosen, name)
    elif dry_run:
        print_tables(table_of(chosen.letters), otherwise="")
        typer.echo(f"Would {verb.present} {_counted(chosen.letters)}.")
    else:
        if not yes:
            _confirm(verb, chosen.letters)
        _report(verb, target.operate(lambda operations: _each(verb, operations, chosen.letters)))
    report_missing_ids(chosen)


def _confirm(verb: _Verb, letters: Sequence[OpenedDeadLetter]) -> None:
    print_tables(table_of(letters[:_MAX_ASKED]), otherwise="")
    if len(letters) > _MAX_ASKED:
        typer.echo(f"and {len(letters) - _MAX_ASKED:,} more")
    typer.confirm(f"{verb.present.capitalize()} {_counted(letters)}?", abort=True)


def _counted(letters: Sequence[OpenedDeadLetter]) -> str:
    of = Counter(letter.config.name for letter in letters)
    names = ", ".join(f"{name} ({number:,})" if len(of) > 1 else name for name, number in of.items())
    return f"{count(len(letters), 'dead letter')} of {names}"


class _Outcome(NamedTuple):
    """What became of many."""

    done: Sequence[OpenedDeadLetter]
    gone: Sequence[OpenedDeadLetter]
    failed: Sequence[tuple[OpenedDeadLetter, Exception]]
    untried: Sequence[OpenedDeadLetter]


async def _each(verb: _Verb, operations: Operations, letters: Sequence[OpenedDeadLetter]) -> _Outcome:
    done: list[OpenedDeadLetter] = []
    gone: list[OpenedDeadLetter] = []
    failed: list[tuple[OpenedDeadLetter, Exception]] = []
    away = 0
    for number, letter in enumerate(letters):
        if away == _MAX_OUTAGES:
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
        typer.echo(f"{letter.config.name}: {letter.dead.id} had been removed already", err=True)
    for letter, error in outcome.failed:
        said = f"{type(error).__name__}: {error}".removesuffix(": ")
        typer.echo(printable(f"{letter.config.name}: {letter.dead.id} was not {verb.past}: {said}"), err=True)
    if outcome.untried:
        typer.echo(f"The broker is unavailable, so {_counted(outcome.untried)} were not tried.", err=True)
    if outcome.failed or outcome.untried:
        raise typer.Exit(1)
