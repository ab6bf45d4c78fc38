"""Loading: from ``module:app`` to the app."""

import importlib
import inspect
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from diator._locations import location_in_traceback
from diator.app import Diator
from diator.errors import ConfigurationError, Problem
from diator.router import Router


class LoadError(Exception):
    """``module:app`` leads to no app. Its text is meant for the person who typed it."""


def load(target: str) -> Diator:
    """Import the module, from the current directory too, and give its app; a function without parameters makes it.

    What the module prints goes to stderr, so that only the command's own output is on stdout.

    Raises `LoadError` for a mistake in the target and for what the user's code raises, and `ConfigurationError`
    where it raises just that.
    """
    module_name, path = _split(target)
    directory = str(Path.cwd())
    if directory not in sys.path:
        sys.path.insert(0, directory)
    with redirect_stdout(sys.stderr):
        found = _run(lambda: _find(_import(module_name), path, target), f"{target!r} could not be loaded")
        return found if isinstance(found, Diator) else _made_by(found, target)


def _split(target: str) -> tuple[str, list[str]]:
    module, path = target.rsplit(":", 1) if ":" in target else (target, "")
    file = Path(module)
    if file.suffix == ".py" or len(file.parts) > 1:
        dotted = ".".join(file.with_suffix("").parts)
        raise LoadError(f"{target!r} names a file; expected a module; write {dotted}:{path or 'app'}")
    if ":" not in target:
        head, _, last = target.rpartition(".")
        is_dotted = bool(head) and Path(*head.split(".")).with_suffix(".py").is_file()  # shop.app for shop:app
        example = f"{head}:{last}" if is_dotted else f"{target or 'meetings'}:app"
        raise LoadError(f"{target!r} does not say which app; write MODULE:APP, for example {example}")
    names = path.split(".")
    if not all(module.split(".")) or not all(names):
        raise LoadError(f"{target!r} is not of the form MODULE:APP; write it like meetings.application:app")
    return module, names


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing != name and not name.startswith(f"{missing}."):
            raise  # the module is there; something that it imports is not
        parent, _, last = missing.rpartition(".")
        siblings = [module.name for module in pkgutil.iter_modules(_search_path(parent))]
        close = [f"{parent}.{sibling}" if parent else sibling for sibling in get_close_matches(last, siblings)]
        text = f"no module named {missing!r}, neither in {Path.cwd()} nor installed"
        raise LoadError(_with_close(text, close, "run the command in the folder that holds it")) from None


def _search_path(package: str) -> list[str]:
    """The folders that a module is looked for in; at the top, the current one is where typing errors are made."""
    path: Iterable[str] = getattr(sys.modules.get(package), "__path__", ()) if package else [str(Path.cwd())]
    return list(path)


def _find(module: ModuleType, path: Iterable[str], target: str) -> object:
    found: object = module
    for name in path:
        try:
            found = getattr(found, name)
        except AttributeError:
            apps = [other for other, value in vars(module).items() if isinstance(value, Diator)]
            close = apps or get_close_matches(name, dir(found))
            what = f"module {module.__name__!r}" if found is module else repr(found)
            advice = "name the variable that holds the app"
            file = f" ({module.__name__} is {module.__file__})" if found is module and module.__file__ else ""
            text = _with_close(f"{target!r}: {what} has no {name!r}", close, advice)
            raise LoadError(text + file) from None
    return found


def _made_by(found: object, target: str) -> Diator:
    """Call the function that makes the app."""
    if isinstance(found, Router):
        raise LoadError(f"{target!r} is a router; name the app that includes it")
    if isinstance(found, type) or not callable(found):
        raise LoadError(f"{target!r} is {found!r}, which is not a Diator; name an app, or a function that makes one")
    if inspect.iscoroutinefunction(found):
        raise LoadError(f"{target!r} is an async function; name an app, or a plain function that makes one")
    try:
        inspect.signature(found).bind()
    except (TypeError, ValueError) as error:
        raise LoadError(f"{target!r} can't be called without arguments ({error}); name an app") from None
    made = _run(found, f"{target!r} raised")
    if not isinstance(made, Diator):
        raise LoadError(f"{target!r} gave {made!r}, which is not a Diator; return the app from it")
    return made


def _run(code: Callable[[], Any], what: str) -> Any:
    """Run code of the user's; ``Any``: what it gives is looked at by the caller."""
    try:
        return code()
    except LoadError:
        raise
    except ConfigurationError as error:
        raise ConfigurationError(_located(error)) from None
    except SystemExit as error:
        raise LoadError(
            f"{what}: it ended the program (SystemExit: {error}); guard that with `if __name__ == '__main__':`"
        ) from None
    except Exception as error:  # noqa: BLE001 - code of the user's: anything may come out of it
        lines = traceback.format_exception(type(error), error, _own_frames(error.__traceback__))
        raise LoadError(f"{what}:\n\n{''.join(lines).rstrip()}") from None


def _located(error: ConfigurationError) -> list[Problem]:
    """The problems of an error; one without a location has that of the call that raised it."""
    call = location_in_traceback(error)
    return [problem if problem.location else replace(problem, location=call) for problem in error.problems]


def _own_frames(frames: TracebackType | None) -> TracebackType | None:
    """The traceback without what leads from here to the user's code."""
    while frames and frames.tb_frame.f_globals.get("__name__", "").partition(".")[0] in ("diator", "importlib"):
        frames = frames.tb_next
    return frames


def _with_close(text: str, close: list[str], otherwise: str) -> str:
    return f"{text}; did you mean {' or '.join(map(repr, close))}?" if close else f"{text}; {otherwise}"
