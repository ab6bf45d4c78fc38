"""Type arguments of messages: ``Paid[Money]``, of which an object knows no more than that it is a ``Paid``.

Pydantic makes a class of its own of ``Paid[Money]``. Of all other generic classes, only a subclass that names its
arguments says them: ``class MoneyPaid(Paid[Money])``.
"""

from typing import Any, TypeVar, get_args, get_origin

from diator.engine.hints import arguments_for, class_of, format_hint, split_annotated, unalias, union_members

# Any throughout: a hint is any typing form, which no type can name before PEP 747 (TypeForm).

UNSAID = "objects do not know their type arguments, so all of them would match"


def say(hint: Any) -> str:
    """What to write in the place of ``Changed[int]``."""
    origin = format_hint(get_origin(hint))
    name = "".join(part for part in format_hint(get_args(hint)[0]).title() if part.isalnum())
    return f"use {origin}, or define a class with them: class {name}{origin}({format_hint(hint)})"


def spelled_out(hint: Any) -> dict[type, Any]:
    """The members of a hint that give arguments to a generic class, each by that class; pydantic's are classes."""
    found: dict[type, Any] = {}
    for member in union_members(split_annotated(hint)[0]):
        cls = class_of(member)
        if cls is not None and get_origin(member) is not None and not all(map(_is_open, get_args(member))):
            found.setdefault(cls, member)
    return found


def with_defaults(cls: Any) -> Any:
    """A generic class with the defaults of all its type variables, where all have one (PEP 696)."""
    variables: tuple[Any, ...] = () if get_args(cls) else getattr(cls, "__parameters__", ())
    has_default = all(getattr(variable, "has_default", bool)() for variable in variables)
    return cls[tuple(variable.__default__ for variable in variables)] if variables and has_default else cls


def fits(message: Any, hint: Any) -> bool:
    """Whether a message, as a class or with arguments, is one of a hint. What it leaves open fits everything."""
    wanted = class_of(hint)
    cls = class_of(message)
    if wanted is None or cls is None or not issubclass(cls, wanted):
        return False
    arguments = get_args(hint)
    if not arguments or get_origin(hint) is None:
        return True
    try:
        given = arguments_for(message, wanted)
    except Exception:  # noqa: BLE001 - a string among them is code of the user's: anything may come out
        return True
    return len(given) != len(arguments) or all(map(_is_one, given, arguments))


def _is_one(given: Any, wanted: Any) -> bool:
    """Whether one argument stands for another; as results do, a subclass stands for its base."""
    given, wanted = split_annotated(unalias(given))[0], split_annotated(unalias(wanted))[0]
    if _is_open(given) or _is_open(wanted) or given == wanted:
        return True
    if len(union_members(given)) > 1 or len(union_members(wanted)) > 1:
        return all(any(_is_one(one, other) for other in union_members(wanted)) for one in union_members(given))
    return isinstance(given, type) and isinstance(wanted, type) and not get_args(wanted) and issubclass(given, wanted)


def _is_open(argument: Any) -> bool:
    return argument is Any or isinstance(argument, TypeVar)
