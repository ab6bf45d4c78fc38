"""``diator run --reload``: a worker that is started again when its code changes, for development."""

import shlex
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import typer

from diator.cli.arguments import exit_usage_error, short_path


def run_reloading(arguments: Sequence[str], grace: float) -> NoReturn:
    """Run this command without ``--reload`` in a process of its own, again after each change, until a signal ends it.

    What runs when a file changes may finish within ``grace`` seconds; at the end, watchfiles waits for 5 seconds.
    """
    try:
        from watchfiles import PythonFilter, run_process  # noqa: PLC0415 - an extra
    except ImportError:
        exit_usage_error('--reload needs watchfiles; install it: uv add "diator[reload]"')
    command = [sys.executable, "-m", "diator", *(one for one in arguments if one != "--reload")]
    with suppress(KeyboardInterrupt):  # which it raises for a signal that comes while it stops the process
        run_process(
            Path.cwd(),
            target=shlex.join(command),
            target_type="command",
            watch_filter=PythonFilter(),
            callback=lambda changes: typer.echo(f"{_names(path for _, path in changes)}: starting again", err=True),
            sigint_timeout=int(grace) + 5,
        )
    raise typer.Exit(0)


def _names(paths: Iterable[str]) -> str:
    return ", ".join(sorted(map(short_path, paths)))
