"""Events that are surely carried: their class has nothing but types that msgspec writes and reads without a loss.

Most events are such. Looking at the types of their values costs a tenth of reading each event again.
"""

import datetime as dt
import enum
import math
from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

from msgspec import inspect

# Any throughout: a description is one of the thirty classes of msgspec.inspect, a value one of anything.

Check = Callable[[Any], bool]
"""Whether a value is of the very type that it is described to be. False means: only reading it again can tell."""


def exact_check(info: Any) -> Check | None:
    """Compile the check of a type; none if the type alone can't tell, with its code, its limits or its choices."""
    try:
        return _check(info, ())
    except _UnsureError:
        return None


class _UnsureError(Exception):
    """Whether such values are carried can't be told from their types."""


def _check(info: Any, outer: tuple[type, ...]) -> Check:
    for description, check in _ATOMS:
        if info == description:
            return check
    match info:
        case inspect.EnumType(cls=cls) if not issubclass(cls, enum.Flag):
            return _is_exactly(cls)
        case inspect.ListType(item_type=item, min_length=None, max_length=None):
            return _items(list, _check(item, outer))
        case inspect.VarTupleType(item_type=item, min_length=None, max_length=None):
            return _items(tuple, _check(item, outer))
        case inspect.DictType(key_type=key, value_type=value, min_length=None, max_length=None):
            if key == inspect.StrType():
                return _entries(_check(value, outer))
        case inspect.UnionType(types=(*types,)) if len(types) == 2 and inspect.NoneType() in types:
            other = _check(next(one for one in types if one != inspect.NoneType()), outer)
            return lambda value: value is None or other(value)
        case inspect.DataclassType() | inspect.StructType():
            return _object(info, outer)
        case _:
            pass
    raise _UnsureError


def _is_exactly(cls: type) -> Check:
    return lambda value: type(value) is cls


def _is_plain_time(value: Any) -> bool:
    """Not in a zone of its own, and not one of two times that a clock shows twice."""
    return type(value) is dt.datetime and value.tzinfo in (None, dt.timezone.utc) and not value.fold


_ATOMS: tuple[tuple[Any, Check], ...] = (
    (inspect.IntType(), _is_exactly(int)),
    (inspect.StrType(), _is_exactly(str)),
    (inspect.BoolType(), _is_exactly(bool)),
    (inspect.NoneType(), _is_exactly(type(None))),
    (inspect.FloatType(), lambda value: type(value) is float and math.isfinite(value)),
    (inspect.UUIDType(), _is_exactly(UUID)),
    (inspect.DateType(), _is_exactly(dt.date)),
    (inspect.DateTimeType(), _is_plain_time),
)


def _items(cls: type[Any], item: Check) -> Check:
    def check(value: Any) -> bool:
        return type(value) is cls and all(item(one) for one in value)

    return check


def _entries(item: Check) -> Check:
    def check(value: dict[Any, Any]) -> bool:
        return type(value) is dict and all(type(key) is str and item(one) for key, one in value.items())

    return check


def _object(info: Any, outer: tuple[type, ...]) -> Check:
    cls = info.cls
    is_plain = hasattr(cls, "__dataclass_fields__") or hasattr(cls, "__struct_fields__")
    if cls in outer or not is_plain or hasattr(cls, "__post_init__"):
        raise _UnsureError
    fields = [(field.name, _check(field.type, (*outer, cls))) for field in info.fields]
    return lambda value: type(value) is cls and _all_fit(value, fields)


def _all_fit(value: Any, fields: Iterable[tuple[str, Check]]) -> bool:
    for name, check in fields:  # noqa: SIM110 - for each event, and a generator costs
        if not check(getattr(value, name, _NONE)):
            return False
    return True


_NONE = object()
"""In the place of an attribute that was never set."""
