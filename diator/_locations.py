"""Locations in files: where something was registered or defined."""

import functools
import sys
from traceback import walk_tb
from types import CodeType, FrameType
from typing import Any, NamedTuple

MAX_DECORATORS = 100
"""Some objects answer to every name, so that unwrapping them would never end."""


class SourceLocation(NamedTuple):
    """A line in a file; prints as ``file:line``."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def caller() -> FrameType:
    """The frame outside Diator and its plugins that is being executed.

    Not to be kept: it holds every local of its function.
    """
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]  # inspect's own way reads source files
    while frame.f_back and _is_ours(frame):
        frame = frame.f_back
    return frame


def _is_ours(frame: FrameType) -> bool:
    """Whether a frame runs code of Diator or of a plugin, whose packages are named ``diator_redis`` and the like."""
    package = str(frame.f_globals.get("__name__")).partition(".")[0]
    return package == "diator" or package.startswith("diator_")


def location_in_frame(frame: FrameType) -> SourceLocation:
    """The line that a frame is executing."""
    return SourceLocation(frame.f_code.co_filename, frame.f_lineno)


def location_in_traceback(error: BaseException) -> SourceLocation | None:
    """The last line outside Diator and its plugins that an error was raised through."""
    lines = [(frame, line) for frame, line in walk_tb(error.__traceback__) if not _is_ours(frame)]
    return SourceLocation(lines[-1][0].f_code.co_filename, lines[-1][1]) if lines else None


def location_of(target: object) -> SourceLocation | None:
    """The line where a function or method is defined; none for classes and objects, whose line is not kept."""
    code = attribute(written(target), "__code__")
    return SourceLocation(code.co_filename, code.co_firstlineno) if isinstance(code, CodeType) else None


def location_of_class(cls: type) -> SourceLocation | None:
    """The line where a class is defined, read from its source; ``None`` if there is no source."""
    import inspect  # noqa: PLC0415 - for errors only

    try:
        file = inspect.getsourcefile(cls)
        line = inspect.getsourcelines(cls)[1]
    except (OSError, TypeError):
        return None
    return None if file is None else SourceLocation(file, line)


def written(target: Any) -> Any:
    """What the user wrote: the function below decorators and `functools.partial`."""
    for _ in range(MAX_DECORATORS):
        is_partial = issubclass(type(target), functools.partial)  # isinstance would run code of the object
        inner = target.func if is_partial else attribute(target, "__wrapped__")
        if inner is None or issubclass(type(target), type):
            break
        target = inner
    return target


def attribute(thing: Any, name: str) -> Any:
    """An attribute of any object; ``None`` if it has none, or if reading it raises an error."""
    try:
        return getattr(thing, name, None)
    except Exception:  # noqa: BLE001 - code of the user's: anything may come out
        return None
