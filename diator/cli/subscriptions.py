"""``diator subscriptions``: what an app has at its broker, what is missing there, and what no handler uses."""

import json
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import typer

from diator.brokers.port import SubscriptionStatus
from diator.cli.app_broker import AppBroker, exit_error
from diator.cli.arguments import AppArgument, JsonOption, YesOption, count, ensure_can_ask, printable
from diator.cli.tables import new_table, print_tables
from diator.delivery.catalog import ConsumerConfig
from diator.delivery.operations import Operations
from diator.delivery.subscription_creation import group_created
from diator.engine.registrations import name_of
from diator.errors import BrokerError

subscriptions = typer.Typer(
    help="List, create and remove the subscriptions of an app. The app is not started.", no_args_is_help=True
)

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="The subscription, as `list` shows it.", show_default=False)
]
ListAllOption = Annotated[bool, typer.Option("--all", help="Also list the subscriptions of other apps.")]
RemoveAnyOption = Annotated[
    bool, typer.Option("--all", help="Accept a name that does not begin with the name of the app.")
]


VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Print the names of the broker's entities of each too.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Delete its messages and dead letters too.")]


class Found(NamedTuple):
    """What a broker has."""

    used: Sequence[tuple[ConsumerConfig, SubscriptionStatus]]
    others: Sequence[SubscriptionStatus] = ()
    """Those that no handler of the app uses."""
    failure: BrokerError | None = None
    """Why the others can't be listed."""


@subscriptions.command("list")
def list_(
    target: AppArgument,
    everything: ListAllOption = False,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the subscriptions of an app and their status at the broker.

    Subscriptions of the app that no handler uses are included if the broker can list them.
    The exit code is 1 if the broker does not answer or the app has no broker. Missing subscriptions do not change it.
    """
    broker = AppBroker(target, changing=False)
    found = broker.operate(lambda operations: _find(operations, everything=everything))
    others = [one for one in found.others if everything or _is_named_after(broker.app_name, one.name)]
    if as_json:
        used, unused = [_document(*one) for one in found.used], [_counts(one) for one in others]
        typer.echo(json.dumps({"app": target, "subscriptions": used, "others": unused}, indent=2))
    else:
        _print(found.used, others, verbose=verbose)
    if any(status.missing for _, status in found.used):
        typer.echo(
            f"some subscriptions do not exist yet; create them with: diator subscriptions apply {target}", err=True
        )
    if others:
        foreign = any(not _is_named_after(broker.app_name, one.name) for one in others)
        typer.echo(_how_to_remove(others, target, foreign=foreign), err=True)
    if found.failure is not None:
        typer.echo(f"subscriptions that no handler uses are not shown: {found.failure}", err=True)


@subscriptions.command("apply")
def apply(target: AppArgument, verbose: VerboseOption = False) -> None:
    """Create the missing subscriptions, and print them. Existing ones are not changed."""
    broker = AppBroker(target, changing=True)
    created = group_created(broker.operate(Operations.apply), broker.subscription_names)
    for name, parts in created.items():
        typer.echo(f"created {name}")
        for part in parts if verbose else ():
            typer.echo(f"    {part}")
    if not created:
        typer.echo("Nothing was missing.")


@subscriptions.command("remove")
def remove(
    target: AppArgument,
    name: NameArgument,
    everything: RemoveAnyOption = False,
    force: ForceOption = False,
    yes: YesOption = False,
) -> None:
    """Remove a subscription that no handler uses. With messages or dead letters in it, this needs --force.

    First stop workers that still use it: one that starts creates it again.
    The exit code is 1 if a handler uses it, if it holds messages, or if it does not exist.
    """
    ensure_can_ask("remove", yes=yes)
    broker = AppBroker(target, changing=True)
    if not (everything or _is_named_after(broker.app_name, name) or name in broker.subscription_names):
        text = f"{name!r} is not named after the app, so a handler of another app may use it; if none does, add --all"
        exit_error(printable(text))
    if name not in broker.subscription_names:  # what a handler uses is refused below, with its line
        _ensure_may_go(_status_of(broker, target, name), force=force, yes=yes)
    if not broker.operate(lambda operations: operations.remove_subscription(name)):
        exit_error(printable(_no_such(target, name)))
    typer.echo(printable(f"Removed {name}."))


def _status_of(broker: AppBroker, target: str, name: str) -> SubscriptionStatus:
    found = {status.name: status for status in broker.operate(Operations.other_subscriptions)}
    if name not in found:
        exit_error(printable(_no_such(target, name)))
    return found[name]


def _no_such(target: str, name: str) -> str:
    return f"the broker has no subscription {name!r}; see: diator subscriptions list {target}"


def _ensure_may_go(status: SubscriptionStatus, *, force: bool, yes: bool) -> None:
    """End with exit code 1 if something would be lost that was not asked for, or the answer is no."""
    waiting = ((status.backlog, "message"), (status.dead_letters, "dead letter"))
    lost = " and ".join(count(number, noun) for number, noun in waiting if number)
    if lost and not force:
        exit_error(printable(f"{status.name} has {lost}; to delete them too, add --force"))
    if not yes:
        messages, letters = _waiting(status)
        text = f"Remove {status.name} with its messages ({messages}) and dead letters ({letters})?"
        typer.confirm(printable(text), abort=True)


async def _find(operations: Operations, *, everything: bool) -> Found:
    used = await operations.status()
    if not (everything or operations.can_list):
        return Found(used)
    try:
        return Found(used, await operations.other_subscriptions())
    except BrokerError as error:
        if everything:
            raise
        return Found(used, failure=error)  # also an outage: the status of those that are used is worth having


def _is_named_after(app: str | None, subscription: str) -> bool:
    """Whether this is ``app.handler``. What has more dots may belong to an app whose name has one."""
    return app is not None and subscription.rpartition(".")[0] == app


def _how_to_remove(others: Sequence[SubscriptionStatus], target: str, *, foreign: bool) -> str:
    text = f"no handler of the app uses {count(len(others), 'subscription')}; if no other app does, remove"
    name = others[0].name if len(others) == 1 else "NAME"
    command = f"diator subscriptions remove {target} {name}"
    if not foreign:
        return printable(f"{text} {'it' if len(others) == 1 else 'each'} with: {command}")
    if len(others) == 1:
        return printable(f"{text} it with: {command} --all")
    return printable(f"{text} each with: {command}, and --all where NAME does not begin with the name of this app")


def _print(
    used: Sequence[tuple[ConsumerConfig, SubscriptionStatus]], others: Sequence[SubscriptionStatus], *, verbose: bool
) -> None:
    more = ("Missing",) if verbose else ()
    table = new_table("Subscription", "Handler", "Topics", "Exists", "Backlog", "Dead letters", *more)
    for one, status in used:
        exists = "no" if not status.exists else "in part" if status.missing else "yes"
        topics = ", ".join(topic.name for topic in one.subscription.topics)
        missing = ["\n".join(status.missing)] if verbose else ()
        table.add_row(one.name, name_of(one.registration.target), topics, exists, *_waiting(status), *missing)
    for status in others:
        table.add_row(printable(status.name), "(none)", "", "yes", *_waiting(status))
    print_tables(table, otherwise="The app has no subscriptions.")


def _waiting(status: SubscriptionStatus) -> tuple[str, str]:
    return _number(status.backlog), _number(status.dead_letters)


def _number(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


def _document(one: ConsumerConfig, status: SubscriptionStatus) -> dict[str, object]:
    return {
        "subscription": one.name,
        "handler": name_of(one.registration.target),
        "topics": [topic.name for topic in one.subscription.topics],
        "exists": status.exists,
        "backlog": status.backlog,
        "dead_letters": status.dead_letters,
        "missing": list(status.missing),
    }


def _counts(status: SubscriptionStatus) -> dict[str, object]:
    return {"subscription": status.name, "backlog": status.backlog, "dead_letters": status.dead_letters}
