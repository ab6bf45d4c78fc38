"""Keys and annotations: convert a key to one hint. For plugins of libraries whose keys can be any hint."""

import functools
from collections.abc import Callable, Hashable
from typing import Annotated, Any, get_args, get_origin

from diator._keys import Key, Named

# Any: a hint is any typing form, which no type can name before PEP 747 (TypeForm).


@functools.lru_cache
def hint_of(key: Key) -> Any:
    """Return the hint as a handler writes it, such as ``Annotated[Repository, Named("replica")]``."""
    return key.hint if key.qualifier is None else Annotated[key.hint, Named(key.qualifier)]


def key_of(hint: Any, qualifier: Callable[[tuple[object, ...]], Hashable | None] = lambda _: None) -> Key:
    """Return the key of a hint: the reverse of `hint_of`, with the library's own ``qualifier`` if there is no `Named`.

    An ``Annotated`` hint with neither is unchanged.
    """
    if get_origin(hint) is not Annotated:
        return Key(hint)
    plain, *metadata = get_args(hint)
    found = qualifier_in(tuple(metadata), qualifier)
    return Key(hint) if found is None else Key(plain, found)


def qualifier_in(
    metadata: tuple[object, ...], qualifier: Callable[[tuple[object, ...]], Hashable | None]
) -> Hashable | None:
    """Return the qualifier from `Named` or, if there is none, the one that the library reads."""
    named = next((mark.name for mark in metadata if isinstance(mark, Named)), None)
    return named if named is not None or not metadata else qualifier(metadata)
