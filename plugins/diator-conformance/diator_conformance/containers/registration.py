"""What a case asks the author of a plugin to register, each in the way of their library."""

import enum
import inspect
from dataclasses import dataclass
from typing import Any

from diator.containers import Key
from diator.containers.port import Lifetime


class CannotExpressError(Exception):
    """Raised by ``ContainerSuite.container``: the library has no way to write this registration. Give the reason."""


class RefusedByLibraryError(Exception):
    """Raised by ``ContainerSuite.container``, ``from`` an error of the library, which refuses this by itself."""


class Feature(enum.Flag):
    """What a library can do, as far as cases depend on it."""

    SCOPED = enum.auto()
    """One object for each scope; declared by the plugin."""
    TEARDOWN = enum.auto()
    """Resources from synchronous generators are closed with their scope."""
    ASYNC_FACTORY = enum.auto()
    """Coroutine functions as factories."""
    ASYNC_TEARDOWN = enum.auto()
    """Resources from asynchronous generators are closed with their scope."""
    TEARDOWN_SEES_ERROR = enum.auto()
    """The code that closes a resource learns which exception ended the scope."""
    SINGLETON = enum.auto()
    """One object that outlives the scopes."""
    SINGLETON_TEARDOWN = enum.auto()
    """Singleton resources are closed by ``aclose``."""
    PROVIDED_VALUES = enum.auto()
    """Values given to ``scope`` reach the container's own factories; declared by the plugin."""
    QUALIFIERS = enum.auto()
    """Two providers of one type, distinguished by a qualifier."""
    DEEP_VALIDATION = enum.auto()
    """``validate`` finds what is missing below the keys that it is asked for; declared by the plugin."""
    REUSABLE = enum.auto()
    """Usable again after ``aclose``; declared by the plugin."""


NOTHING = Feature(0)


class SourceKind(enum.Enum):
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
    kind: SourceKind
    lifetime: Lifetime

    @property
    def needs(self) -> Feature:
        """The features without which no container can honor this."""
        needs = _OF_KIND.get(self.kind, NOTHING)
        if self.key.qualifier is not None:
            needs |= Feature.QUALIFIERS
        if self.kind is SourceKind.VALUE:
            return needs
        if self.lifetime is Lifetime.SCOPED:
            needs |= Feature.SCOPED
        if self.lifetime is Lifetime.SINGLETON:
            needs |= Feature.SINGLETON
            if self.kind in (SourceKind.GENERATOR, SourceKind.ASYNC_GENERATOR):
                needs |= Feature.SINGLETON_TEARDOWN
        return needs


_OF_KIND = {
    SourceKind.COROUTINE: Feature.ASYNC_FACTORY,
    SourceKind.GENERATOR: Feature.TEARDOWN,
    SourceKind.ASYNC_GENERATOR: Feature.ASYNC_TEARDOWN,
}


def kind_of(source: object) -> SourceKind:
    """Tell what a class or a factory is."""
    if isinstance(source, type):
        return SourceKind.CLASS
    if inspect.isasyncgenfunction(source):
        return SourceKind.ASYNC_GENERATOR
    if inspect.isgeneratorfunction(source):
        return SourceKind.GENERATOR
    return SourceKind.COROUTINE if inspect.iscoroutinefunction(source) else SourceKind.FUNCTION
