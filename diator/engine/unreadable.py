"""Errors that hints, classes and factories of the user raise where they are only looked at: each is a problem."""

from collections.abc import Callable, Iterable, Iterator

from diator._locations import location_in_traceback
from diator.engine.registrations import Record
from diator.errors import Problem


def guarded(problems: Iterable[Problem], describe: Callable[[Exception], Problem]) -> Iterator[Problem]:
    """Yield problems; where looking for them raises an error, that is one too."""
    try:
        yield from problems
    except Exception as error:  # noqa: BLE001 - code of the user's: anything may come out
        yield describe(error)


def unreadable(record: Record, error: Exception) -> Problem:
    """The problem of a handler or middleware that raises an error where it is looked at."""
    text = f"{record.name} can't be inspected ({in_words(error)})"
    fix = "correct its parameters, type hints and message, so that inspecting them raises no error"
    return record.problem("unreadable", text, fix)


def unfinished(what: str, error: Exception) -> Problem:
    """The problem of something that could not be looked at to its end."""
    text = f"the check of {what} could not finish ({in_words(error)})"
    return Problem("unreadable", text, "fix the code that raises this", location_in_traceback(error))


def in_words(error: Exception) -> str:
    """The class and the text of an error, also of one whose text raises another."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - code of the user's: anything may come out
        return type(error).__name__
