"""What became of a value on its way: the comparison of two objects, types included."""

import dataclasses
import datetime as dt
from collections import deque
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

from diator.delivery.error_texts import text_of

# Any throughout: events consist of anything.

_ATOMS = frozenset({str, int, bool, type(None), bytes, dt.date, dt.time, dt.timedelta, UUID})
_BY_TEXT = frozenset({float, complex, Decimal, dt.datetime})
"""Not always equal to themselves: NaN, and times that clocks show twice."""
_NONE = object()
"""In the place of what an object does not have."""

Differences = list[tuple[str, str]]
"""Each with the path to it, and what is there."""


def differences(before: Any, after: Any) -> Differences:
    """Where two values differ. An int is good enough for a float, as it is for type checkers."""
    cls: Any = before.__class__
    if cls is not after.__class__:
        return [] if cls is int and after.__class__ is float and before == after else _tell(before, after)
    if cls in _ATOMS:
        return [] if before == after else _tell(before, after)
    names = fields_of(cls)
    if names is not None:
        return _below(((name, getattr(before, name, _NONE), getattr(after, name, _NONE)) for name in names), ".{}")
    if issubclass(cls, (list, tuple, deque)) and len(before) == len(after):
        return _below(((at, one, after[at]) for at, one in enumerate(before)), "[{}]")
    if issubclass(cls, (set, frozenset)):
        return _entries(dict.fromkeys(before), dict.fromkeys(after))
    if issubclass(cls, dict):
        return _entries(before, after)
    return [] if _same(cls, before, after) else _tell(before, after)


def _below(parts: Iterator[tuple[Any, Any, Any]], where: str) -> Differences:
    found: Differences = []
    for at, one, other in parts:
        if one is not other and (wrong := differences(one, other)):
            found += [(where.format(at) + path, text) for path, text in wrong]
    return found


def _entries(before: dict[Any, Any], after: dict[Any, Any]) -> Differences:
    if len(before) != len(after):
        return _tell(before, after)
    entries = {key: (key, value) for key, value in after.items()}
    found: Differences = []
    for key, value in before.items():
        other_key, other = entries.get(key, (_NONE, _NONE))
        wrong = [("", f"{text}, as a key or member") for _, text in differences(key, other_key)[:1]]
        found += [(f"[{key!r}]{path}", text) for path, text in wrong or differences(value, other)]
    return found


_fields = WeakKeyDictionary[type, "list[str] | None"]()


def fields_of(cls: type[Any]) -> list[str] | None:
    """The names of the fields of a class of any library; none if it has none."""
    try:
        return _fields[cls]
    except KeyError:
        return _fields.setdefault(cls, _found_in(cls))


def _found_in(cls: type[Any]) -> list[str] | None:
    if hasattr(cls, "__pydantic_fields__") and hasattr(cls, "model_fields"):
        return [*cls.model_fields, "__pydantic_extra__", *cls.__private_attributes__]
    if hasattr(cls, "__dataclass_fields__"):
        return [field.name for field in dataclasses.fields(cls)]
    if hasattr(cls, "__attrs_attrs__"):
        return [field.name for field in cls.__attrs_attrs__]
    found: tuple[str, ...] | None = getattr(cls, "__struct_fields__", None)
    return None if found is None else list(found)


def _same(cls: Any, before: Any, after: Any) -> bool:
    if cls.__eq__ is object.__eq__:  # it has no equality of its own
        return before is after or (hasattr(before, "__dict__") and not differences(vars(before), vars(after)))
    return bool(before == after) or (cls in _BY_TEXT and str(before) == str(after))


def _tell(before: Any, after: Any) -> Differences:
    if after is _NONE:
        return [("", f"is {short(before)}, and does not arrive")]
    looks = "another that looks the same" if repr(before) == repr(after) else short(after)
    return [("", f"is {short(before)}, and arrives as {looks}")]


def reason_of(error: Any) -> str:
    """What an error says, on one line. Pydantic's own text has a line for each field, and an address for each."""
    if hasattr(error, "errors") and hasattr(error, "error_count"):
        several = error.errors(include_url=False, include_context=False, include_input=False)
        return ", ".join(": ".join([*map(str, one["loc"]), one["msg"]]) for one in several[:3])
    message = getattr(error, "message", None)
    return " ".join((message if isinstance(message, str) else text_of(error)).split())


def short(value: Any) -> str:
    """The `repr` of a value, cut."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def is_a(value: Any, kind: type) -> bool:
    """``isinstance`` that narrows nothing: of a list of anything, type checkers know less than of anything."""
    return isinstance(value, kind)
