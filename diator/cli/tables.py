"""Tables, as all commands print them."""

import sys

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

_UNFOLDED = 1000
"""Columns for output that goes into a file or another program, where a folded line is a nuisance."""


def new_table(*columns: str) -> Table:
    """Make a table without rows."""
    return Table(*columns, box=SIMPLE, pad_edge=False)


def print_tables(*tables: Table, otherwise: str) -> None:
    """Print the tables that have rows; where none has, say something else."""
    shown = [table for table in tables if table.row_count]
    width = None if sys.stdout.isatty() else _UNFOLDED
    console = Console(file=sys.stdout, width=width, markup=False, emoji=False, highlight=False)
    with console.capture() as captured:
        console.print(*shown)
    lines = captured.get().splitlines() if shown else [otherwise]
    typer.echo("\n".join(line.rstrip() for line in lines))
