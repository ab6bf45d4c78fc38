"""``diator new``: a small project to start from."""

import keyword
import re
import sys
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from diator.cli.arguments import exit_usage_error
from diator.cli.project import BROKERS, CONTAINERS, BrokerName, ContainerName, render

T = TypeVar("T", bound=str)

_USED = {"mypy", "pyright", "pytest", "pytest_asyncio", "tests", *CONTAINERS, *BROKERS}

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="The name of the project, such as meeting-room.", show_default=False)
]
ContainerOption = Annotated[
    ContainerName | None,
    typer.Option(
        metavar="NAME", help=f"The container: {', '.join(['none', *CONTAINERS])}; none by default.", show_default=False
    ),
]
BrokerOption = Annotated[
    BrokerName | None,
    typer.Option(
        metavar="NAME", help=f"The message broker: {', '.join(BROKERS)}; memory by default.", show_default=False
    ),
]


def new(name: NameArgument, container: ContainerOption = None, broker: BrokerOption = None) -> None:
    """Write a small project to start from: an app, a command, an event and a test, in a new folder.

    On a terminal, it asks for the container and the broker that the options do not name.
    """
    package = _package_of(name)
    folder = Path(name)
    try:
        _ensure_empty(folder)
        chosen_container: ContainerName = container or _ask("Container", ("none", *CONTAINERS))
        chosen_broker: BrokerName = broker or _ask("Broker", tuple(BROKERS))
        files = render(name, package, chosen_container, chosen_broker)
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        exit_usage_error(f"{error.filename or name!r} can't be written: {error.strerror}")
    typer.echo("\n".join(f"{name}/{path}" for path in files))
    typer.echo(f"\nCreated {name}. Next:\n\n    cd {name}\n    uv run pytest\n\n{name}/README.md has more commands.")


def _ask(what: str, choices: tuple[T, ...]) -> T:
    """Return the choice of the person at the terminal, or the first if there is no terminal."""
    if not sys.stdin.isatty():
        return choices[0]

    def read(answer: str) -> T:
        for choice in choices:
            if choice == answer:
                return choice
        raise typer.BadParameter(f"{answer!r} is not one of {', '.join(choices)}")

    chosen: T = typer.prompt(f"{what} ({', '.join(choices)})", default=choices[0], value_proc=read)
    return chosen


def _package_of(name: str) -> str:
    """Return the name of the Python package, or end with exit code 2 if the name of the project allows none."""
    if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", name):
        close = re.sub(r"[^a-z0-9]+", "-", name.lower()).lstrip("-0123456789").rstrip("-")
        exit_usage_error(
            f"{name!r} can't name a project: expected lower-case letters, digits, and single hyphens or underscores "
            f"between them, beginning with a letter; write {close or 'meeting-room'}"
        )
    package = name.replace("-", "_")
    if reason := _taken(package):
        exit_usage_error(f"{name!r} can't name a project: {package} is {reason}; write {name}-app")
    return package


def _taken(package: str) -> str | None:
    if keyword.iskeyword(package):
        return "a keyword of Python"
    if package in sys.stdlib_module_names:
        return "a module of Python's standard library"
    if package in _USED or package.startswith("diator"):
        return "the name of a package that projects use"
    return None


def _ensure_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() or folder.is_symlink():
        kind = "folder that is not empty" if folder.is_dir() else "file"
        exit_usage_error(f"{folder.as_posix()!r} is a {kind}; choose another name, or move it away")
