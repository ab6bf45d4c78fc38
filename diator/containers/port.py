"""The port of dependency-injection containers: what a plugin implements, on one screen.

Diator inspects handlers itself and asks a container only for **keys**. Users register services with the library's own
API: a plugin wraps one configured, native container. The contract:

*Startup.* ``can_resolve``, ``lifetime`` and ``validate`` run no user code and may be called before an event loop runs.
``validate`` returns every problem. These include an `~diator.UnsupportedRegistrationError` for each registration that
the library does not support: a plugin rejects it at startup and never misbehaves silently.

*Scopes.* One scope for each unit of work; nested and overlapping scopes share only singletons. A scoped object is built
once in its scope. Diator resolves one key at a time in a scope, so a scope needs no lock. Scopes overlap, so a
singleton may need one. Without `ContainerCapability.SCOPED`, all units share one scope, for as long as the app runs.

*Resources* open when they are resolved and close in reverse order when the scope closes: after success, after an error
(which they see, if the library supports this) and after a cancellation, when they may still await. If one fails to
close, the others close regardless and the error is raised: `~diator.containers.close_in_reverse` implements this.

*Provided values* are what the scope returns for their keys; with `ContainerCapability.PROVIDED_VALUES` factories
receive them, too.

*Errors.* Errors of the library become `~diator.ContainerError`, raised ``from`` the original. Errors of a user's
factory or constructor pass unchanged.

*Closing.* ``aclose`` closes the singletons by the same rule and may be called repeatedly. With
`ContainerCapability.REUSABLE`, the container can be used again afterwards: singletons are built again, even in another
event loop.
"""

import enum
from collections.abc import Awaitable, Callable, Collection, Coroutine, Hashable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Protocol, runtime_checkable

from diator._keys import Key
from diator.errors import ContainerError


class Lifetime(enum.Enum):
    """How long an object is shared."""

    TRANSIENT = "transient"
    """A new object for each request."""
    SCOPED = "scoped"
    """One object for each scope."""
    SINGLETON = "singleton"
    """One object that outlives the scopes."""


class ContainerCapability(enum.Flag):
    """The capabilities of a container, read at startup."""

    SCOPED = enum.auto()
    """One object for each scope. Without it, the app has one scope."""
    PROVIDED_VALUES = enum.auto()
    """Values passed to ``scope`` reach the container's own factories."""
    DEEP_VALIDATION = enum.auto()
    """``validate`` finds missing providers below the keys; without it, parts that it cannot inspect are warnings."""
    REUSABLE = enum.auto()
    """Usable again after ``aclose``."""


class ValidationResult(NamedTuple):
    """The result of ``validate``: errors, which prevent the app from starting, and warnings, which are logged.

    Report a warning for what startup cannot know, or what is rarely intended.
    """

    errors: Sequence[ContainerError] = ()
    warnings: Sequence[ContainerError] = ()


class Resolver(Protocol):
    """An open scope."""

    def resolve(self, key: Key, /) -> Awaitable[Any]:
        """Return the object for a key, and build its dependencies.

        Raises `~diator.DependencyNotFoundError` if the container has no provider, `~diator.DependencyCycleError` if a
        dependency needs itself, and `~diator.ScopeClosedError` after the scope was closed.
        """
        # Any: what a key gives has the type that its hint names (see Key.hint).
        ...


class Scope(Protocol):
    """Opens when it is entered, and closes its resources when it is exited."""

    def __aenter__(self) -> Awaitable[Resolver]: ...

    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> Coroutine[Any, Any, bool | None]: ...  # Any: only what it returns matters to who awaits it


@runtime_checkable
class Container(Protocol):
    """A plugin: wraps one configured container of one library. The docstring of the module is its contract."""

    @property
    def capabilities(self) -> ContainerCapability:
        """The capabilities of this container. They never change."""
        ...

    def qualifier(self, metadata: tuple[object, ...], /) -> Hashable | None:
        """Read the library's own marker from ``Annotated[T, *metadata]``; Diator reads `Named` itself."""
        ...

    def can_resolve(self, key: Key, /) -> bool:
        """Return whether the container has a provider for this key."""
        ...

    def lifetime(self, key: Key, /) -> Lifetime:
        """Return how long the object of a key that ``can_resolve`` is shared."""
        ...

    def validate(self, keys: Collection[Key], provided: Collection[Key], /) -> ValidationResult:
        """Return all that would fail when these keys are resolved, in scopes with values for the ``provided`` keys."""
        ...

    def scope(self, provided: Mapping[Key, object], /) -> Scope:
        """Create a scope; entering it opens it."""
        ...

    async def aclose(self) -> None:
        """Close objects that outlive scopes. Idempotent."""
        ...


Immediate = Callable[[Any], Any]
"""Resolves one key from an open scope of its container without awaiting: takes the `Resolver`, returns the object."""


@runtime_checkable
class ImmediateContainer(Container, Protocol):
    """Optional: a container that can resolve some keys without awaiting. Read only with `PROVIDED_VALUES`."""

    def immediate(self, key: Key, /) -> Immediate | None:
        """Return a function that resolves this key like ``resolve``, but without awaiting; None if there is none.

        Called at startup, after ``validate``; it runs no user code. The function takes any open scope of this container
        and raises the same errors as ``resolve``. Both share their objects.
        """
        ...


@runtime_checkable
class InspectableContainer(Container, Protocol):
    """Optional: a container that knows the dependencies of its keys. The methods run no user code."""

    def factory_of(self, key: Key, /) -> object | None:
        """Return the class or function that creates the object of a key: errors contain its location."""
        ...

    def reaches(self, keys: Collection[Key], target: Key, /) -> bool:
        """Return whether building these keys may build the object of ``target``; True if unknown."""
        ...
