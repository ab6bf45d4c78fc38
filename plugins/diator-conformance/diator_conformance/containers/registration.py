"""The registrations that a case needs, for the plugin's author to write with the library's API."""

import enum
import inspect
from dataclasses import dataclass
from typing import Any

from diator.containers import Key
from diator.containers.port import Lifetime


class CannotExpressError(Exception):
    """Raise it in ``ContainerSuite.container`` with a reason if the library has no syntax for a registration."""


class RefusedByLibraryError(Exception):
    """Raise it in ``ContainerSuite.container``, ``from`` the library's error, if the library rejects a registration."""


class Feature(enum.Flag):
    """The features of a library on which cases depend."""

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
    """Values passed to ``scope`` reach the container's own factories; declared by the plugin."""
    QUALIFIERS = enum.auto()
    """Two providers of one type, distinguished by a qualifier."""
    DEEP_VALIDATION = enum.auto()
    """``validate`` finds missing providers below the requested keys; declared by the plugin."""
    REUSABLE = enum.auto()
    """Usable again after ``aclose``; declared by the plugin."""


NOTHING = Feature(0)


class SourceKind(enum.Enum):
    """The kind of the source of a registration."""

    CLASS = "class"
    """A class, whose constructor parameters are dependencies."""
    FUNCTION = "function"
    COROUTINE = "coroutine function"
    GENERATOR = "generator function"
    """Yields one object, and closes it afterwards."""
    ASYNC_GENERATOR = "async generator function"
    VALUE = "value"
    """The object itself."""


@dataclass(frozen=True, slots=True)
class Registration:
    """One registration: a source that returns the object of a key, and its lifetime."""

    key: Key
    # Any: a source is a class, a factory of any signature, or any value (see `kind`).
    source: Any
    kind: SourceKind
    lifetime: Lifetime

    @property
    def needs(self) -> Feature:
        """The features that a container needs to support this."""
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
    """Return the kind of a class or a factory."""
    if isinstance(source, type):
        return SourceKind.CLASS
    if inspect.isasyncgenfunction(source):
        return SourceKind.ASYNC_GENERATOR
    if inspect.isgeneratorfunction(source):
        return SourceKind.GENERATOR
    return SourceKind.COROUTINE if inspect.iscoroutinefunction(source) else SourceKind.FUNCTION
