"""The program: its commands, each in a module of its own."""

from importlib.metadata import version
from typing import Annotated

import typer

from diator.cli.asyncapi import asyncapi
from diator.cli.check import check
from diator.cli.dead_letters import dead_letters
from diator.cli.graph import graph
from diator.cli.new import new
from diator.cli.outbox import outbox
from diator.cli.relay import relay
from diator.cli.run import run
from diator.cli.show import show
from diator.cli.subscriptions import subscriptions

program = typer.Typer(
    help="Start a project, inspect a Diator app, run its workers, and manage its subscriptions and dead letters.",
    no_args_is_help=True,
    # Our tracebacks are for us; those of a user's code are printed by `arguments`.
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"diator {version('diator')}")
        raise typer.Exit


@program.callback()
def options(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Take the options of the program itself."""


program.command()(new)
program.command()(check)
program.command()(show)
program.command()(graph)
program.command()(asyncapi)
program.command()(run)
program.command()(relay)
program.add_typer(subscriptions, name="subscriptions")
program.add_typer(dead_letters, name="dead-letters")
program.add_typer(outbox, name="outbox")
