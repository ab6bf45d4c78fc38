"""Rules for options: a call with a wrong option is rejected, with the name and the value of the option.

Plugins use the same rules for their own options.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import timedelta
from typing import Any, NamedTuple, cast

from diator._locations import SourceLocation, caller, location_in_frame
from diator.errors import ConfigurationError, Problem

MAX_SECONDS = 1e9
"""Seconds that an option may have, about 30 years: clocks and brokers count in milliseconds and smaller."""

_UNREADABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters and lone surrogates: what a broker, a log or a terminal can't carry."""


_MAX_ID = 1_000
_MAX_SHOWN = 200
"""Characters of a value that an error shows."""


class Rule(NamedTuple):
    """The values that an option accepts."""

    fits: Callable[[Any], bool]  # Any: callers may be unchecked
    expected: str
    """What was expected, as in "a whole number from 1 up"."""


# Any: callers may be unchecked.
def is_whole(value: Any) -> bool:
    """Return whether something is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_count(value: Any) -> bool:
    """Return whether something is a whole number from 1 up."""
    return is_whole(value) and bool(value >= 1)


def is_number(value: Any) -> bool:
    """Return whether something is a finite number from 0 up."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf")


def is_share(value: Any) -> bool:
    """Return whether something is a number from 0 to 1."""
    return is_number(value) and bool(value <= 1)


def is_readable(value: Any) -> bool:
    """Return whether something is a text without control characters and lone surrogates, which may be empty."""
    return isinstance(value, str) and _UNREADABLE.search(value) is None


def is_name(value: Any) -> bool:
    """Return whether something is a text without white space."""
    return is_readable(value) and value != "" and not any(letter.isspace() for letter in value)


def is_a(*classes: type) -> Callable[[Any], bool]:
    """Return a test for instances of these classes."""

    def fits(value: Any) -> bool:
        return isinstance(value, classes)

    return fits


def _is_seconds(value: Any) -> bool:
    return is_number(value) and bool(value <= MAX_SECONDS)


def _is_positive(value: Any) -> bool:
    return _is_seconds(value) and bool(value > 0)


def _is_delay(value: Any) -> bool:
    return value is None or _is_seconds(value.total_seconds() if isinstance(value, timedelta) else value)


def _is_id(value: Any) -> bool:
    return is_readable(value) and 1 <= len(value) <= _MAX_ID


COUNT = Rule(is_count, "a whole number from 1 up")
SECONDS = Rule(_is_seconds, f"a number of seconds from 0 to {MAX_SECONDS:,.0f}")
DELAY = Rule(_is_delay, f"a timedelta, or {SECONDS.expected}")
POSITIVE = Rule(_is_positive, f"a number of seconds greater than 0 and at most {MAX_SECONDS:,.0f}")
ID = Rule(_is_id, f"a text of 1 to {_MAX_ID:,} characters without control characters and lone surrogates")
FLAG = Rule(is_a(bool), "True or False")
TEXT = Rule(is_readable, "a text without control characters and lone surrogates")
NAME = Rule(is_name, "a name without white space and control characters")


def optional(rule: Rule) -> Rule:
    """Return the same rule for an option that may also be ``None``."""

    def fits(value: Any) -> bool:
        return value is None or rule.fits(value)

    return Rule(fits, f"{rule.expected}, or None")


def one_of(*allowed: str) -> Rule:
    """Return the rule for an option that is one of a few texts."""

    def fits(value: Any) -> bool:
        return isinstance(value, str) and value in allowed

    return Rule(fits, f"one of {', '.join(map(repr, allowed))}")


def option_problems(
    who: str,
    rules: Mapping[str, Rule],
    given: Mapping[str, object],
    code: str = "option",
    location: SourceLocation | None = None,
) -> list[Problem]:
    """Return a problem for each option that breaks its rule. ``who`` got them, as in "app.worker"."""
    return [
        Problem(
            code,
            f"{who} got {name}={_shown(given[name])}; expected {rule.expected}",
            f"set {name} to {rule.expected}",
            location,
        )
        for name, rule in rules.items()
        if not rule.fits(given[name])
    ]


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 - it is wrong anyway, and the error says so
        text = f"a {type(value).__qualname__}, whose repr raised {type(error).__qualname__}"
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def require(who: str, rules: Mapping[str, Rule], given: Mapping[str, object], code: str = "option") -> None:
    """Raise `ConfigurationError` with a problem for each option that breaks its rule."""
    if not all(rule.fits(given[name]) for name, rule in rules.items()):
        raise ConfigurationError(option_problems(who, rules, given, code, location_in_frame(caller())))


def are_names(value: Any) -> bool:
    """Return whether something is a text, or a collection of texts. ``Any``: callers may be unchecked."""
    if not isinstance(value, Collection):
        return False
    names = cast("Collection[object]", value)
    return all(isinstance(name, str) for name in names)


def are_errors(value: Any) -> bool:
    """Return whether something is a tuple of classes of errors. ``Any``: callers may be unchecked."""
    if not isinstance(value, tuple):
        return False
    classes = cast("tuple[object, ...]", value)
    return all(isinstance(cls, type) and issubclass(cls, BaseException) for cls in classes)


def is_iterable(value: Any) -> bool:
    """Return whether something is iterable. ``Any``: callers may be unchecked."""
    return isinstance(value, Iterable)
