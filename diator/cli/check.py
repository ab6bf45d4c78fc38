"""``diator check``: everything that is wrong with an app."""

import json
from collections.abc import Sequence
from typing import Annotated

import typer

from diator.cli.arguments import AppArgument, JsonOption, count, load_or_refuse, problem_text, short_path
from diator.errors import ConfigurationError, Problem

StrictOption = Annotated[bool, typer.Option("--strict", help="Let warnings fail the check too.")]


def check(target: AppArgument, as_json: JsonOption = False, strict: StrictOption = False) -> None:
    """Check an app as its start does, and print every problem with its place and its remedy.

    The exit code is 0 where the app can start, 1 where it can't, 2 where it could not be loaded.
    """
    try:
        problems: Sequence[Problem] = load_or_refuse(target).check()
        complete = True
    except ConfigurationError as error:  # raised by the line that registers: the rest has not been looked at
        problems, complete = error.problems, False
    errors = sum(problem.severity == "error" for problem in problems)
    warnings = len(problems) - errors
    if as_json:
        typer.echo(json.dumps(_document(target, problems, complete), indent=2))
    else:
        for problem in problems:
            typer.echo(problem_text(problem))
        typer.echo(_summary(target, errors, warnings, complete))
    raise typer.Exit(1 if errors or (strict and warnings) else 0)


def _summary(target: str, errors: int, warnings: int, complete: bool) -> str:
    if not complete:
        return f"{target}: {count(errors, 'error')}; correct this first, the rest of the app has not been checked yet"
    return f"{target}: {count(errors, 'error')}, {count(warnings, 'warning')}"


def _document(target: str, problems: Sequence[Problem], complete: bool) -> dict[str, object]:
    return {
        "app": target,
        "complete": complete,
        "problems": [
            {
                "severity": problem.severity,
                "code": problem.code,
                "text": problem.text,
                "remedy": problem.remedy,
                "file": short_path(problem.place.file) if problem.place else None,
                "line": problem.place.line if problem.place else None,
            }
            for problem in problems
        ],
    }
