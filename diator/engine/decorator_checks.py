"""Wrong arguments of decorators: reported at their line, with what to write instead."""

import inspect
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, NoReturn, cast

from diator._locations import caller, location_in_frame
from diator.engine.hints import class_of, format_hint
from diator.errors import ConfigurationError, Problem
from diator.messages import Message

ADD = {
    "command": "add_command",
    "query": "add_query",
    "on_event": "add_event_handler",
    "middleware": "add_middleware",
}
"""The method that each decorator calls."""


def ensure_decorator(
    owner: Any, base: type, verb: str, target: Any, more: tuple[Any, ...], options: Mapping[str, object]
) -> None:
    """Raise `ConfigurationError` for several messages, an unknown option, or a decorator that is called on the class.

    ``Any``: callers may be unchecked.
    """
    if not isinstance(owner, base):
        _reject(f"@{verb} was called on the class itself", f"make an app first: app = Diator(), then @app.{verb}")
    if more:
        given = (target, *more)
        names = " | ".join(map(_name, given))
        one = f"name one class, or a union: @app.{verb}({names})" if verb == "on_event" else "write a handler for each"
        _reject(f"@app.{verb} got {', '.join(map(_name, given))}; expected one class", one)
    kind = cast("type[object]", type(target))  # isinstance would run code of the object, if its class says so
    if issubclass(kind, (list, tuple, set, frozenset, str)):
        named: Iterable[Any] = () if isinstance(target, str) else target
        names = " | ".join(map(_name, named)) or "MyMessage"
        _reject(f"@app.{verb} got {target!r}; expected a class", f"pass the class: @app.{verb}({names})")
    if issubclass(kind, Message):
        name = format_hint(type(target))
        _reject(f"@app.{verb} got {target!r}; expected a class", f"pass the class: @app.{verb}({name})")
    ensure_known_options(owner, verb, options)


def ensure_known_options(owner: Any, verb: str, options: Mapping[str, object]) -> None:
    """Raise `ConfigurationError` for an option that ``@app.<verb>`` does not have. ``Any``: any app or router."""
    if not options:
        return
    parameters = inspect.signature(getattr(owner, ADD[verb])).parameters.values()
    known = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    for name in options:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            how = f"did you mean {close[0]}?" if close else f"options are: {', '.join(known)}"
            _reject(f"@app.{verb} got {name}={options[name]!r}, which is not an option", how)


def _name(given: Any) -> str:
    return format_hint(given) if class_of(given) is not None else repr(given)


def _reject(text: str, fix: str) -> NoReturn:
    raise ConfigurationError([Problem("invalid-handler", text, fix, location_in_frame(caller()))])
