"""The error of a test in which something failed, or did not finish in time."""

import os
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import diator
from diator._locations import SourceLocation
from diator.testing.entries import Entry, short_repr, tree
from diator.testing.recording import Recording

_MAX_LINES = 20
"""Lines that are worth reading before the tree."""


class UnsettledError(AssertionError):
    """A handler has failed permanently, or did not finish in time. Shows what happened, with its causes."""

    def __init__(self, seen: Recording, failed: Sequence[Entry], unfinished: Sequence[str], seconds: float) -> None:
        super().__init__(seen, failed, unfinished, seconds)
        self.seen = seen
        """The session."""
        self.failed = tuple(failed)
        """The dead letters."""
        self.unfinished = tuple(unfinished)
        """What did not finish in time, each as a short text."""
        self.seconds = seconds
        """How many seconds the test has waited."""
        self._text = "\n".join((*self._lines(), "what happened:", tree(seen.entries, _with_place)))

    def __str__(self) -> str:
        return self._text

    def _lines(self) -> Iterator[str]:
        yield from _cut([_failure(letter) for letter in self.failed])
        if self.unfinished:
            yield f"not done within {self.seconds:g} s:"
            yield from (f"  {line}" for line in _cut(self.unfinished))
        elif not self.failed:
            yield f"not done within {self.seconds:g} s"


UnsettledError.__module__ = "diator.testing"  # reports begin with the whole name, and are cut where it is long


def _failure(letter: Entry) -> str:
    assert letter.by is not None
    assert letter.failure is not None
    return f"{letter.by.name} has failed permanently on {short_repr(letter.message)}: {letter.failure.reason}"


def _cut(lines: Sequence[str]) -> Iterator[str]:
    yield from lines[:_MAX_LINES]
    if len(lines) > _MAX_LINES:
        yield f"... and {len(lines) - _MAX_LINES} more"


def _with_place(entry: Entry) -> str:
    location = _raised_at(entry.error) if entry.kind == "handled" and entry.error is not None else None
    return str(entry) if location is None else f"{entry} at {location}"


def _raised_at(error: BaseException) -> SourceLocation | None:
    """The line of the application that an error comes from, or else the very line that raised it."""
    frames = list(_frames(error.__traceback__ or (error.__cause__ and error.__cause__.__traceback__) or None))
    own = [frame for frame in frames if not frame.file.startswith(_LIBRARIES)]
    found = (own or frames)[-1:]
    return _short(found[0]) if found else None


def _frames(traceback: TracebackType | None) -> Iterator[SourceLocation]:
    while traceback is not None:
        yield SourceLocation(traceback.tb_frame.f_code.co_filename, traceback.tb_lineno)
        traceback = traceback.tb_next


def _short(location: SourceLocation) -> SourceLocation:
    """A place below the current folder as seen from there."""
    here = f"{Path.cwd()}{os.sep}"
    return location._replace(file=location.file.removeprefix(here))


_LIBRARIES = (
    *(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    str(Path(diator.__file__).parent) + os.sep,
)
