"""Keys: what Diator requests from a container."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class Named:
    """Distinguishes two providers of one type: ``Annotated[Repository, Named("readonly")]``."""

    name: Hashable


class Key(NamedTuple):
    """What a parameter requests: its type hint without ``Annotated``, and the qualifier from it."""

    # Any: a hint is any typing form, which no type can name before PEP 747 (TypeForm).
    hint: Any
    qualifier: Hashable | None = None

    def __str__(self) -> str:
        plain = isinstance(self.hint, type) and not hasattr(self.hint, "__args__")
        name: str = self.hint.__qualname__ if plain else str(self.hint)
        if self.qualifier is None:
            return name
        mark = f"Named({self.qualifier!r})" if isinstance(self.qualifier, str) else repr(self.qualifier)
        return f"Annotated[{name}, {mark}]"
