"""``diator subscriptions``: what the handlers of an app have at its broker, and what they lack there."""

import json
from collections.abc import Sequence

import typer

from diator.brokers.port import SubscriptionStatus
from diator.cli.app_broker import AppBroker
from diator.cli.arguments import AppArgument, JsonOption
from diator.cli.tables import new_table, print_tables
from diator.delivery.catalog import ConsumerConfig
from diator.delivery.operations import Operations
from diator.engine.registrations import name_of

subscriptions = typer.Typer(
    help="List and create the subscriptions of an app. The app is not started.", no_args_is_help=True
)

Standing = Sequence[tuple[ConsumerConfig, SubscriptionStatus]]


@subscriptions.command("list")
def list_(target: AppArgument, as_json: JsonOption = False) -> None:
    """List the subscriptions of an app, and how each stands at the broker.

    The exit code is 0 also where some are missing, 1 where the broker does not answer or the app has none.
    """
    standing: Standing = AppBroker(target, changing=False).operate(Operations.status)
    if as_json:
        document = {"app": target, "subscriptions": [_document(*one) for one in standing]}
        typer.echo(json.dumps(document, indent=2))
    else:
        _print(standing)
    if any(status.missing for _, status in standing):
        typer.echo(f"some of it does not exist yet; create it with: diator subscriptions apply {target}", err=True)


@subscriptions.command("apply")
def apply(target: AppArgument) -> None:
    """Create the subscriptions that are missing, and print what was created. What is there is not changed."""
    created = AppBroker(target, changing=True).operate(Operations.apply)
    for name in created:
        typer.echo(f"created {name}")
    if not created:
        typer.echo("Nothing was missing.")


def _print(standing: Standing) -> None:
    table = new_table("Subscription", "Handler", "Topics", "Exists", "Backlog", "Dead letters", "Missing")
    for one, status in standing:
        table.add_row(
            one.name,
            name_of(one.registration.target),
            "\n".join(topic.name for topic in one.subscription.topics),
            "yes" if status.exists else "no",
            _number(status.backlog),
            _number(status.dead_letters),
            "\n".join(status.missing),
        )
    print_tables(table, otherwise="The app has no subscriptions.")


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
