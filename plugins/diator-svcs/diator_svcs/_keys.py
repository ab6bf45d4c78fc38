"""Keys of Diator and service types of svcs, which qualifies a type by registering the whole of ``Annotated``."""

from functools import lru_cache
from typing import Annotated, Any, get_args, get_origin

from diator import Named
from diator.containers import Key


@lru_cache
def service_type(key: Key) -> Any:
    """Tell what svcs knows a key by: its hint, or ``Annotated`` of it and what qualified it."""
    if key.qualifier is None:
        return key.hint
    read: Any = key.qualifier  # the name out of `Named`, or what the plugin read
    parts = (key.hint, Named(read)) if isinstance(read, str) else (key.hint, *read)
    qualified: Any = Annotated
    return qualified[parts]


def key_of(service: Any) -> Key:
    """Tell by which key Diator asks for a service type."""
    if get_origin(service) is not Annotated:
        return Key(service)
    hint, *metadata = get_args(service)
    named = next((one.name for one in metadata if isinstance(one, Named)), None)
    return Key(hint, tuple(metadata) if named is None else named)
