"""The program: its commands, each in a module of its own."""

import typer

from diator.cli.check import check
from diator.cli.graph import graph
from diator.cli.show import show

program = typer.Typer(
    help="Look at a Diator app without running it: no handler and no factory is called.",
    no_args_is_help=True,
    add_completion=False,
    # A traceback of ours is read by whoever mends it, and a user's own is printed by `arguments`.
    pretty_exceptions_enable=False,
)
program.command()(check)
program.command()(show)
program.command()(graph)
