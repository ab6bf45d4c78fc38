"""What became of an event on its way: a trial at the start with values made up, and the comparison of two events."""

import dataclasses
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from diator.delivery.samples import samples


class Trial(NamedTuple):
    """How the trial of a class ended."""

    changed: tuple[str, ...]
    """What does not arrive as it was published, with field and values."""
    tried: bool
    """Whether any value could be made up that the class takes."""


def trial(name: str, schema: Mapping[str, Any] | None, codec: Any) -> Trial:
    """Send made-up events of a class there and back. Validators and ``__post_init__`` of the class run."""
    # Any: an event is whatever the class makes, and a schema is JSON.
    changed: dict[str, str] = {}
    tried = False
    for sample in samples(schema) if schema is not None else ():
        try:
            before = codec.decode(msgspec.json.encode(sample))
        except Exception:  # noqa: BLE001, S112 - the validators of the class refuse it, with whatever they raise
            continue
        tried = True
        try:
            after = codec.decode(codec.encode(before))
        except Exception as error:  # noqa: BLE001 - raised by validators and serialisers of the class
            text = str(error).replace("\n", " ")
            changed.setdefault(name, f"{name} can't be read as it is written: {text}")
            continue
        for path, text in differences(before, after, name):
            changed.setdefault(path, text)
    return Trial(tuple(changed.values()), tried)


def differences(before: Any, after: Any, path: str) -> Iterator[tuple[str, str]]:
    """Where two values differ, types included. ``Any``: what events consist of."""
    cls: Any = before.__class__
    fields = None if cls is not after.__class__ else fields_of(cls)
    if fields is not None:
        for name in fields:
            yield from differences(getattr(before, name, _NONE), getattr(after, name, _NONE), f"{path}.{name}")
    elif cls is after.__class__ and issubclass(cls, (dict, list, tuple, deque)) and len(before) == len(after):
        yield from _inside(before, after, path)
    elif cls is not after.__class__ or not _same(before, after):
        what = "does not arrive" if after is _NONE else f"arrives as {_short(after)}"
        yield path, f"{path} is {_short(before)}, and {what}"


def _inside(before: Any, after: Any, path: str) -> Iterator[tuple[str, str]]:
    """Where two collections of one length differ. ``Any``: what events consist of."""
    if not is_a(before, dict):
        for at, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from differences(one, other, f"{path}[{at}]")
        return
    entries: dict[Any, tuple[Any, Any]] = {key: (key, value) for key, value in after.items()}
    for key, value in before.items():
        other_key, other = entries.get(key, (_NONE, _NONE))
        yield from differences(key, other_key, f"a key of {path}")
        if other_key is not _NONE:
            yield from differences(value, other, f"{path}[{key!r}]")


_NONE = object()
"""In the place of a field that an object does not have."""


def fields_of(cls: type[Any]) -> list[str] | None:
    """The names of the fields of a class, whatever made it; none where it has no such thing."""
    if hasattr(cls, "__pydantic_fields__") and hasattr(cls, "model_fields"):
        return [*cls.model_fields, "__pydantic_extra__", *cls.__private_attributes__]
    if hasattr(cls, "__dataclass_fields__"):
        return [field.name for field in dataclasses.fields(cls)]
    if hasattr(cls, "__attrs_attrs__"):
        return [field.name for field in cls.__attrs_attrs__]
    found: tuple[str, ...] | None = getattr(cls, "__struct_fields__", None)
    return None if found is None else list(found)


def is_a(value: Any, kind: type) -> bool:
    """``isinstance`` that narrows nothing: of a list of anything, type checkers know less than of anything."""
    return isinstance(value, kind)


def _same(before: Any, after: Any) -> bool:
    """Whether two values of one class are equal. ``Any``: what events consist of."""
    cls: Any = before.__class__
    if cls is float:
        return repr(before) == repr(after)  # NaN is not equal to itself
    if issubclass(cls, (set, frozenset)):
        return bool(before == after) and _kinds(before) == _kinds(after)
    if cls.__eq__ is object.__eq__:  # it has no equality of its own
        return getattr(before, "__dict__", None) == getattr(after, "__dict__", None)
    return bool(before == after)


def _kinds(several: Any) -> list[str]:
    """The classes in a set, since 1 equals True. ``Any``: what events consist of."""
    return sorted(str(one.__class__) for one in several)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
