"""Hints: evaluating one annotation, bringing it into one form, and reading what a message promises."""

import sys
import types
import typing
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar, Union, get_args, get_origin

from typing_extensions import TypeAliasType, get_type_hints

from diator._keys import Key
from diator.containers.keys import qualifier_in
from diator.context import Publish
from diator.messages import Request

if TYPE_CHECKING:
    from diator.containers.port import Container

# Hints are typed Any throughout: no type stands for "any typing form" before PEP 747 (TypeForm).

_ALIASES: tuple[type[Any], ...] = tuple({TypeAliasType, getattr(typing, "TypeAliasType", TypeAliasType)})
_UNIONS = (Union, types.UnionType)
_STANDARD = ("builtins", "collections")


def evaluate(annotation: Any, globalns: dict[str, Any], localns: Mapping[str, Any]) -> Any:
    """Evaluate one annotation, keeping its ``Annotated`` metadata. Raises what a name in it raises."""
    if type(annotation) is type:
        return annotation
    if isinstance(annotation, str):
        annotation = eval(annotation, globalns, localns)  # noqa: S307 - an annotation is code of the user's module
        if type(annotation) is type:
            return annotation
    # typing evaluates what is nested (strings, forward references) only for something that has annotations
    holder = types.SimpleNamespace(__annotations__={"hint": annotation})
    return unalias(get_type_hints(holder, globalns, localns, include_extras=True)["hint"])


def unalias(hint: Any) -> Any:
    """Unwrap ``type X = ...`` aliases, which do not compare equal to what they stand for, and ``typing.List``."""
    while True:
        origin = get_origin(hint)
        if isinstance(origin, _ALIASES):  # first: on 3.10 its subscript passes for an alias too
            hint = origin.__value__[get_args(hint)]
        elif isinstance(hint, _ALIASES):
            hint = hint.__value__
        elif isinstance(origin, type) and type(hint).__module__ == "typing" and origin.__module__ in _STANDARD:
            return types.GenericAlias(origin, get_args(hint))
        else:
            return hint


def split_annotated(hint: Any) -> tuple[Any, tuple[object, ...]]:
    """Split ``Annotated[T, *metadata]`` into ``T`` and its metadata."""
    if get_origin(hint) is Annotated:
        return unalias(hint.__origin__), hint.__metadata__
    return hint, ()


def union_members(hint: Any) -> tuple[Any, ...]:
    """The members of a union; a hint that is none is its own, only member."""
    return tuple(map(unalias, get_args(hint))) if get_origin(hint) in _UNIONS else (hint,)


def is_hint(value: object) -> bool:
    """Whether this can be the hint of a key: a class, a `NewType`, or any form with arguments."""
    plain, _ = split_annotated(value)
    return isinstance(plain, (type, *_ALIASES)) or get_origin(plain) is not None or hasattr(plain, "__supertype__")


def class_of(hint: Any) -> type | None:
    """The class that objects of this hint are instances of: ``Repo`` for ``Repo[User]``; none for other forms."""
    plain = split_annotated(unalias(hint))[0]
    origin = get_origin(plain) or plain
    return origin if isinstance(origin, type) else None


def classes_in(hint: Any) -> tuple[type, ...]:
    """The classes that the members of a union stand for, without those that stand for none."""
    found = (class_of(member) for member in union_members(split_annotated(hint)[0]))
    return tuple(cls for cls in found if cls is not None)


def format_hint(hint: Any) -> str:
    """A hint as a person would write it."""
    if isinstance(hint, type) and not get_args(hint):
        return "None" if hint is type(None) else hint.__qualname__.rpartition("<locals>.")[2]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in _UNIONS:
        return " | ".join(map(format_hint, arguments))
    if origin is None or not isinstance(origin, type):
        return str(hint).replace("typing.", "")
    inner = ", ".join("..." if argument is Ellipsis else format_hint(argument) for argument in arguments)
    return f"{format_hint(origin)}[{inner}]"


def injection_target(hint: Any) -> tuple[Any, tuple[object, ...]]:
    """What a parameter asks for: ``T`` and the metadata of ``Annotated[T | None, *metadata]``; a union stays one."""
    plain, metadata = split_annotated(hint)
    alternatives = [member for member in union_members(plain) if member is not type(None)]
    if len(alternatives) != 1:
        return plain, metadata
    inner, more = split_annotated(alternatives[0])
    return unalias(inner), (*metadata, *more)


def is_publish(hint: Any) -> bool:
    """Whether a parameter with this hint gets `Publish`."""
    inner, _ = injection_target(hint)
    return inner is Publish or get_origin(inner) is Publish


def key_of(hint: Any, container: "Container | None") -> Key:
    """The key of a hint, with the qualifier that `Named` gives or, if there is none, the container's own marker."""
    plain, metadata = injection_target(hint)
    return Key(plain, qualifier_in(metadata, container.qualifier if container else lambda _: None))


def substitutions(cls: type) -> dict[Any, Any]:
    """What the bases of a class put in for type variables: ``{T: User}`` for ``class Users(Repo[User])``."""
    found: dict[Any, Any] = {}
    for base in cls.__mro__:
        for parent in vars(base).get("__orig_bases__", ()):
            origin = get_origin(parent)
            if origin in (None, Generic, typing.Protocol):
                continue
            for variable, argument in zip(getattr(origin, "__parameters__", ()), get_args(parent), strict=False):
                found.setdefault(variable, substitute(argument, found))
    return found


def substitute(hint: Any, values: Mapping[Any, Any]) -> Any:
    """Put in the values of type variables, wherever they stand in a hint."""
    if isinstance(hint, TypeVar):
        return values.get(hint, hint)
    variables = getattr(hint, "__parameters__", ())
    if isinstance(hint, type) or not any(variable in values for variable in variables):
        return hint
    return hint[tuple(values.get(variable, variable) for variable in variables)]


def result_of(message: Any) -> Any:
    """The ``R`` of a request such as ``JoinMeeting`` or ``GetById[Meeting]``; ``Any`` where it is not given.

    Raises `NameError` where ``R`` is a string whose names its module does not have.
    """
    found = next(iter(arguments_for(message, Request)), Any)
    return Any if isinstance(found, TypeVar) else unalias(found)


def arguments_for(message: Any, base: type) -> tuple[Any, ...]:
    """What a message such as ``GetById[Meeting]`` puts in for the type variables of one of its bases.

    Raises `NameError` where one is a string whose names its module does not have.
    """
    origin = generic_origin(message) or message
    arguments: Any = get_args(message) or getattr(message, "__pydantic_generic_metadata__", {}).get("args", ())
    return _arguments(origin, base, dict(zip(_parameters(origin), arguments, strict=False))) or ()


def generic_origin(message: Any) -> Any:
    """The generic class of ``G[X]``, also where pydantic has made that a class of its own; none for other classes."""
    made = getattr(message, "__pydantic_generic_metadata__", None)
    return get_origin(message) or (made and made["origin"])


def _parameters(cls: Any) -> tuple[Any, ...]:
    made = getattr(cls, "__pydantic_generic_metadata__", None)
    parameters: tuple[Any, ...] = made["parameters"] if made else getattr(cls, "__parameters__", ())
    return parameters


def _arguments(cls: type[Any], base: type, values: Mapping[Any, Any]) -> tuple[Any, ...] | None:
    if cls is base:
        return tuple(values.get(variable, variable) for variable in _parameters(cls))
    for parent, arguments in _bases(cls, values):
        if issubclass(parent, base):
            found = _arguments(parent, base, dict(zip(_parameters(parent), arguments, strict=False)))
            if found is not None:
                return found
    return None


def _bases(cls: type, values: Mapping[Any, Any]) -> Iterator[tuple[type[Any], tuple[Any, ...]]]:
    module = vars(sys.modules[cls.__module__]) if cls.__module__ in sys.modules else {}
    for base in vars(cls).get("__orig_bases__", cls.__bases__):
        origin = generic_origin(base) or base
        if isinstance(origin, type):
            made = getattr(base, "__pydantic_generic_metadata__", None)
            arguments = get_args(base) or (made["args"] if made else ())
            yield origin, tuple(substitute(evaluate(argument, module, {}), values) for argument in arguments)
