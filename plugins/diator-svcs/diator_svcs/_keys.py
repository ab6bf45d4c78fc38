"""Keys of Diator and service types of svcs, which qualifies a type by registering the whole of ``Annotated``."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

from diator import containers
from diator.containers import Key, hint_of


@dataclass(frozen=True, slots=True, repr=False)
class Marks:
    """The qualifier of a service that is registered under ``Annotated`` with anything but `Named`."""

    metadata: tuple[Any, ...]

    def __repr__(self) -> str:
        return ", ".join(map(repr, self.metadata))


@lru_cache
def service_type(key: Key) -> Any:
    """Return what svcs knows a key by: its hint, or ``Annotated`` of it and what qualified it."""
    if not isinstance(key.qualifier, Marks):
        return hint_of(key)
    annotated: Any = Annotated
    parts = (key.hint, *key.qualifier.metadata)
    return annotated[parts]


def key_of(service: Any) -> Key:
    """Return the key by which Diator asks for a service type."""
    return containers.key_of(service, Marks)
