"""The program: its commands, each in a module of its own."""

import typer

from diator.cli.check import check
from diator.cli.dead_letters import dead_letters
from diator.cli.graph import graph
from diator.cli.outbox import outbox
from diator.cli.relay import relay
from diator.cli.run import run
from diator.cli.show import show
from diator.cli.subscriptions import subscriptions

program = typer.Typer(
    help="Look at a Diator app, run its workers, and tend its subscriptions and dead letters.",
    no_args_is_help=True,
    add_completion=False,
    # Our tracebacks are for us; those of a user's code are printed by `arguments`.
    pretty_exceptions_enable=False,
)
program.command()(check)
program.command()(show)
program.command()(graph)
program.command()(run)
program.command()(relay)
program.add_typer(subscriptions, name="subscriptions")
program.add_typer(dead_letters, name="dead-letters")
program.add_typer(outbox, name="outbox")
