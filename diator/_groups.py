"""Groups of errors: what stands in one, at any depth."""

from collections.abc import Iterable, Iterator
from typing import Any


def with_members(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, and all that stand in it where it is a group of errors, at any depth; each once."""
    left, seen = [error], set[int]()
    while left:
        one = left.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            left += reversed(members(one))


def members(error: BaseException) -> list[BaseException]:
    """List those of a group, told by its name: until Python 3.11 it is a class of the package ``exceptiongroup``."""
    if not any(cls.__name__ == "BaseExceptionGroup" for cls in type(error).__mro__):
        return []
    try:
        found: Iterable[Any] = getattr(error, "exceptions", ())  # Any: a class of that name may keep anything there
        return [member for member in found if issubclass(type(member), BaseException)]
    except Exception:  # noqa: BLE001 - classes of errors can do anything, and this must not call itself forever
        return []
