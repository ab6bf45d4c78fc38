"""What a case asks the author of a plugin to register, each in the way of their library."""

import enum
import inspect
from dataclasses import dataclass
from typing import Any

from diator.containers import Key
from diator.containers.port import Capability, Lifetime


class CannotExpressError(Exception):
    """Raised by ``ContainerSuite.container``: the library has no way to write this registration. Give the reason."""


class RefusedByLibraryError(Exception):
    """Raised by ``ContainerSuite.container``, ``from`` an error of the library, which refuses this by itself."""


class Kind(enum.Enum):
    """What the source of a registration is."""

    CLASS = "class"
    """Its constructor is called with what its hints ask for."""
    FUNCTION = "function"
    COROUTINE = "coroutine function"
    GENERATOR = "generator function"
    """Gives one object, and closes it when it goes on."""
    ASYNC_GENERATOR = "async generator function"
    VALUE = "value"
    """The object itself."""


@dataclass(frozen=True, slots=True)
class Registration:
    """One thing to register: a source that gives the object of a key, shared as long as its lifetime says."""

    key: Key
    # Any: a source is a class, a factory of any signature, or any value (see `kind`).
    source: Any
    kind: Kind
    lifetime: Lifetime

    @property
    def needs(self) -> Capability:
        """The capabilities without which no container can honour this."""
        needs = _OF_KIND.get(self.kind, Capability(0))
        if self.key.qualifier is not None:
            needs |= Capability.QUALIFIERS
        if self.kind is Kind.VALUE:
            return needs
        if self.lifetime is Lifetime.SCOPED:
            needs |= Capability.SCOPED
        if self.lifetime is Lifetime.SINGLETON:
            needs |= Capability.SINGLETON
            if self.kind in (Kind.GENERATOR, Kind.ASYNC_GENERATOR):
                needs |= Capability.SINGLETON_TEARDOWN
        return needs


_OF_KIND = {
    Kind.COROUTINE: Capability.ASYNC_FACTORY,
    Kind.GENERATOR: Capability.TEARDOWN,
    Kind.ASYNC_GENERATOR: Capability.ASYNC_TEARDOWN,
}


def kind_of(source: object) -> Kind:
    """Tell what a class or a factory is."""
    if isinstance(source, type):
        return Kind.CLASS
    if inspect.isasyncgenfunction(source):
        return Kind.ASYNC_GENERATOR
    if inspect.isgeneratorfunction(source):
        return Kind.GENERATOR
    return Kind.COROUTINE if inspect.iscoroutinefunction(source) else Kind.FUNCTION
