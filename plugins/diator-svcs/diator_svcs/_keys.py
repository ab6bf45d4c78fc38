"""Keys of Diator and service types of svcs, which qualifies a type by registering the whole of ``Annotated``."""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, get_args, get_origin

from diator import Named
from diator.containers import Key


@dataclass(frozen=True, slots=True, repr=False)
class Marks:
    """The qualifier of a service that is registered under ``Annotated`` with anything but `Named`."""

    metadata: tuple[Hashable, ...]

    def __repr__(self) -> str:
        return ", ".join(map(repr, self.metadata))


@lru_cache
def service_type(key: Key) -> Any:
    """Tell what svcs knows a key by: its hint, or ``Annotated`` of it and what qualified it."""
    if key.qualifier is None:
        return key.hint
    metadata = key.qualifier.metadata if isinstance(key.qualifier, Marks) else (Named(key.qualifier),)
    parts = (key.hint, *metadata)
    qualified: Any = Annotated
    return qualified[parts]


def key_of(service: Any) -> Key:
    """Tell by which key Diator asks for a service type."""
    if get_origin(service) is not Annotated:
        return Key(service)
    hint, *metadata = get_args(service)
    named = [one.name for one in metadata if isinstance(one, Named)]
    return Key(hint, named[0] if named else Marks(tuple(metadata)))
