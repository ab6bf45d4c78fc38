"""A prompt in a folder: runs the command line there, in this process or as its users do."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from diator.cli.program import program


@dataclass(frozen=True)
class Outcome:
    code: int
    stdout: str
    stderr: str


def write(folder: Path, source: str, name: str = "meetings") -> None:
    """Write a module; every one begins with the same import, so that its first own line is line 4."""
    header = "from dataclasses import dataclass\nfrom typing import *\nfrom diator import *\n"
    (folder / f"{name}.py").write_text(header + textwrap.dedent(source).lstrip("\n"), encoding="utf-8")


def run(folder: Path, *arguments: str, text: str | None = None) -> Outcome:
    """Run a command in this process; ``text`` is what is typed."""
    with _inside(folder):
        result = CliRunner().invoke(program, arguments, input=text, catch_exceptions=False)
    return Outcome(result.exit_code, result.stdout, result.stderr)


def run_script(folder: Path, *command: str, **environment: str) -> Outcome:
    """Run a command in a process of its own, its output in pipes."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **environment},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@contextmanager
def _inside(folder: Path) -> Generator[None]:
    """Be in a folder, and forget afterwards what was imported there."""
    here, path, modules = Path.cwd(), list(sys.path), set(sys.modules)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(here)
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
                del sys.modules[name]
