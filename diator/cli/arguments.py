"""What all commands share: the argument that names the app, the option for tools, and how text is written."""

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from diator.app import Diator
from diator.cli.description import RetryPolicy
from diator.cli.load import LoadError, load
from diator.errors import PROBLEMS_PAGE, BrokerError, ConfigurationError, Problem, StoreError
from diator.retry import Retry

AppArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODULE:APP",
        help="The app, such as meetings.app:app, or a function that returns it. "
        "Modules in the current directory are found too.",
        show_default=False,
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for tools.")]


def open_app(target: str) -> Diator:
    """Load the app, or end with exit code 2 and the reason on stderr."""
    try:
        return load_or_exit(target)
    except ConfigurationError as error:
        exit_usage_error(f"{target!r} could not be loaded: {error}")


def load_or_exit(target: str) -> Diator:
    """Load the app, or end with exit code 2; what is wrong with its registrations is raised for the caller to tell."""
    try:
        return load(target)
    except LoadError as error:
        exit_usage_error(str(error))


def ensure_can_ask(verb: str, *, yes: bool, otherwise: str = "") -> None:
    """End with exit code 2 if a command would ask, and there is no terminal to ask at."""
    if not (yes or sys.stdin.isatty()):
        exit_usage_error(f"there is no terminal to ask whether to {verb}; add --yes{otherwise}")


def exit_usage_error(text: str) -> NoReturn:
    """End with exit code 2."""
    typer.echo(f"Error: {text}", err=True)
    raise typer.Exit(2)


def short_path(file: str) -> str:
    """A path as a person at this prompt would write it: relative to the current directory where it lies below."""
    try:
        return Path(file).relative_to(Path.cwd()).as_posix()
    except ValueError:
        return file


def problem_text(problem: Problem) -> str:
    """A problem with its place and its fix."""
    where = f"{short_path(problem.location.file)}:{problem.location.line}: " if problem.location else ""
    return f"{where}{problem.severity}: {problem.text} [{problem.code}]\n    -> {problem.fix}"


def codes_text() -> str:
    """Where to read what the codes of problems mean; the last line of a list of problems."""
    return f"what each [code] means: {PROBLEMS_PAGE}"


def plugin_text(error: BrokerError | StoreError, target: str) -> str:
    """What a broker or a store says. It does not know what the app is called here, and writes ``module:app``."""
    return f"{type(error).__name__}: {error}".removesuffix(": ").replace("module:app", target)


def retry_text(retry: Retry | RetryPolicy) -> str:
    """How often, and after what delays: ``5 attempts, after 1 s, then x2, up to 300 s``."""
    if retry.attempts == 1:
        return "1 attempt"
    growing = f", then x{retry.factor:g}, up to {retry.max_delay:g} s" if retry.attempts > 2 else ""
    return f"{retry.attempts} attempts, after {min(retry.delay, retry.max_delay):g} s{growing}"


def printable(text: str) -> str:
    """A text from elsewhere, with what a terminal would take as a command written out."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else _escaped(letter) for letter in text)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def count(number: int, noun: str) -> str:
    """Count in words: ``1 error``, ``2 errors``, ``no errors``."""
    return f"{format(number, ',') if number else 'no'} {noun if number == 1 else _plural(noun)}"


def _plural(noun: str) -> str:
    return f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
