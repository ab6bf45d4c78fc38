"""Message classes without instances: annotations without ``@dataclass``, and abstract requests."""

from abc import ABCMeta
from collections.abc import Iterable, Iterator
from typing import Any

from typing_extensions import Format, get_annotations

from diator._locations import location_of_class
from diator.engine.hints import format_hint
from diator.errors import Problem
from diator.messages import Message, Request

_MARKS = ("__dataclass_fields__", "__attrs_attrs__")


def message_problems(classes: Iterable[type[Message]]) -> Iterator[Problem]:
    """Find message classes whose annotations are not fields, and abstract requests."""
    for cls in dict.fromkeys(classes):
        names = _no_fields(cls)
        if names:
            text = (
                f"{format_hint(cls)} (of {cls.__module__}) annotates {', '.join(names)}, but has no constructor "
                f"that takes it"
            )
            fix = f"put @dataclass(frozen=True) above class {cls.__name__}, or annotate constants as ClassVar"
            yield Problem("message-fields", text, fix, location_of_class(cls))
        elif (abstract := getattr(cls, "__abstractmethods__", ())) and Request in cls.__mro__:
            missing = ", ".join(sorted(abstract))
            text = f"{format_hint(cls)} (of {cls.__module__}) is abstract ({missing}), so no instance of it can be sent"
            fix = "register the handler for a concrete subclass"
            yield Problem("message-fields", text, fix, location_of_class(cls))


def _no_fields(cls: type[Any]) -> list[str]:
    """The annotations of a class and its bases that its constructor does not take."""
    if type(cls) not in (type, ABCMeta):
        return []  # its metaclass makes fields of them, as those of pydantic and msgspec do
    constructor = next((base for base in cls.__mro__ if _constructs(base)), object)
    below = cls.__mro__[: cls.__mro__.index(constructor)]
    if constructor is not object and not any(mark in vars(constructor) for mark in _MARKS):
        return []  # it is the author's own, and may do anything with them
    return [
        name
        for base in reversed(below)
        for name, hint in get_annotations(base, format=Format.FORWARDREF).items()
        if "ClassVar" not in str(hint) and not name.startswith("_")
    ]


def _constructs(base: type[Any]) -> bool:
    own = vars(base)
    return "__init__" in own or ("__new__" in own and base is not object) or any(mark in own for mark in _MARKS)
