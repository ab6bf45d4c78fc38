"""Errors that hints, classes and factories of the user raise where they are only looked at: each is a problem."""

from collections.abc import Callable, Iterable, Iterator
from traceback import walk_tb
from types import FrameType

from diator._locations import SourceLocation
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
    frames = [frame for frame in walk_tb(error.__traceback__) if not _is_ours(frame[0])]
    location = SourceLocation(frames[-1][0].f_code.co_filename, frames[-1][1]) if frames else None
    return Problem("unreadable", text, "fix the code that raises this", location)


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] == "diator"


def in_words(error: Exception) -> str:
    """The class and the text of an error, also of one whose text raises another."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - code of the user's: anything may come out
        return type(error).__name__
