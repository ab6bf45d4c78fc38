"""Whether what a handler returns fits what its message promises: the check that a bare decorator can't leave to mypy.

It flags what is surely wrong and lets through what it does not know.
"""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Coroutine
from typing import Any, Literal, NewType, get_args, get_origin

from typing_extensions import is_protocol, is_typeddict

from diator.engine.hints import generic_origin, split_annotated, unalias, union_members

_PROMOTED: dict[type, tuple[type, ...]] = {float: (int,), complex: (int, float), bytes: (bytearray, memoryview)}
_AWAITED = (Awaitable, Coroutine)
_ROWS = (AsyncIterator, AsyncIterable, AsyncGenerator)


def awaited_type(hint: Any) -> Any:
    """The result that a caller awaits: ``X`` for ``Awaitable[X]`` and for ``Coroutine[Any, Any, X]``."""
    arguments = get_args(hint)
    return unalias(arguments[-1]) if get_origin(hint) in _AWAITED and arguments else hint


def row_of(hint: Any) -> Any:
    """The type of a row of ``AsyncIterator[R]`` and its like; none for other hints."""
    plain = split_annotated(hint)[0]
    if plain in _ROWS:
        return Any
    return unalias(get_args(plain)[0]) if get_origin(plain) in _ROWS else None


def is_never_awaitable(hint: Any) -> bool:
    """Whether a hint names classes only, none of which can be awaited or stands for others that can."""
    return all(
        _is_class(one) and one is not object and not hasattr(one, "__await__") and not is_protocol(one)
        for one in (get_origin(member) or member for member in union_members(_plain(hint)))
    )


def is_assignable(hint: Any, expected: Any) -> bool:
    """Whether something of type ``hint`` can stand where ``expected`` is promised, as far as can be told."""
    alternatives = union_members(_plain(expected))
    return all(any(_fits(_plain(one), _plain(other)) for other in alternatives) for one in union_members(_plain(hint)))


def _plain(hint: Any) -> Any:
    hint = split_annotated(unalias(hint))[0]
    while isinstance(hint, NewType):
        hint = hint.__supertype__
    return type(None) if hint is None else hint


def _fits(hint: Any, expected: Any) -> bool:
    if hint == expected or Any in (hint, expected) or expected is object:
        return True
    if get_origin(hint) is Literal:
        return get_origin(expected) is Literal or all(_fits(type(value), expected) for value in get_args(hint))
    given, wanted = get_origin(hint) or hint, get_origin(expected) or expected
    if not (_is_class(given) and _is_class(wanted)) or generic_origin(wanted) is given:
        return True
    if is_protocol(wanted):
        return True
    if is_typeddict(wanted):  # refuses issubclass; a plain dict may have its keys
        return issubclass(given, dict)
    if not issubclass(given, (wanted, *_PROMOTED.get(wanted, ()))):
        return False
    return given is not wanted or _arguments_fit(get_args(hint), get_args(expected))


def _is_class(hint: Any) -> bool:
    # list[int] passes for a type on 3.10, and Any is a class on 3.11 and newer.
    return isinstance(hint, type) and get_origin(hint) is None and hint is not Any


def _arguments_fit(given: tuple[Any, ...], wanted: tuple[Any, ...]) -> bool:
    if len(given) != len(wanted):
        return True
    return all(
        one is Ellipsis or other is Ellipsis or is_assignable(one, other)
        for one, other in zip(given, wanted, strict=True)
    )
