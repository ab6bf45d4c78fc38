"""Fields that may hold objects of more than one class, so that what arrives may be of another one."""

import collections.abc
from typing import Any, get_args, get_origin

from typing_extensions import get_type_hints

from diator.engine.hints import substitutions, unalias


def is_abstract(cls: Any) -> bool:
    """Whether a field is hinted with an abstract collection: a tuple in a ``Sequence`` arrives as a list."""
    # Any: `Paid[Money]` is no class, and a hint is any typing form, which no type can name before PEP 747 (TypeForm).
    return any(map(_abstract, (*_hints(cls), *get_args(cls))))


def has_subclasses(cls: Any) -> bool:
    """Whether a field that is hinted with a class may hold one of a subclass, which arrives as that class."""
    return bool(cls.__subclasses__())


def _hints(cls: Any) -> list[Any]:
    """The hints of fields, and what the bases of a class put in for type variables."""
    made: Any = getattr(cls, "__pydantic_fields__", None)
    if made is not None:
        return [field.annotation for field in made.values()]  # a generic model has put in its arguments there
    origin = get_origin(cls) or cls
    try:
        return [*get_type_hints(origin).values(), *substitutions(origin).values()]
    except Exception:  # noqa: BLE001 - evaluated by the library that reads the class, which tells what is wrong
        return []


def _abstract(hint: Any) -> bool:
    plain = unalias(hint)
    origin = get_origin(plain) or plain
    if isinstance(origin, type) and origin.__module__ == collections.abc.__name__:
        return True
    return any(map(_abstract, get_args(plain)))
