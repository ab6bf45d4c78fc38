"""The port of dependency-injection containers: what a plugin implements, on one screen.

Diator reads handlers itself and asks a container for **keys** only. Registration stays in the library's own API: a
plugin wraps one configured, native container. The contract:

*Startup.* ``can_resolve``, ``lifetime`` and ``validate`` run no user code and may be called before an event loop runs.
``validate`` returns every problem. What the library cannot do but a registration needs is an
`~diator.UnsupportedRegistrationError` among them: a plugin rejects it at startup and never misbehaves silently.

*Scopes.* One scope for each unit of work; nested and overlapping scopes share singletons only. A scoped object is built
once in its scope. Diator resolves one key at a time in a scope, so a scope needs no lock. Scopes overlap, so a
singleton may need one. Without `ContainerCapability.SCOPED` all units share one scope, as long as the app runs.

*Resources* open when they are resolved and close in reverse order when the scope is left: after success, after an error
(which they see, if the library can show it) and after a cancellation, when they may still await. If one fails to close,
the others close regardless and the error is raised: `~diator.containers.close_in_reverse` is the rule.

*Provided values* are what the scope returns for their keys; with `ContainerCapability.PROVIDED_VALUES` they reach
factories too.

*Errors.* Library errors become `~diator.ContainerError`, raised ``from`` the original. What a user's factory or
constructor raises passes through unchanged.

*Closing.* ``aclose`` closes the singletons by the same rule and may be called more than once. With
`ContainerCapability.REUSABLE` the container can be used again afterwards: singletons are built again, also in another
event loop.
"""

import enum
from collections.abc import Awaitable, Callable, Collection, Coroutine, Hashable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Protocol, runtime_checkable

from diator._keys import Key
from diator.errors import ContainerError


class Lifetime(enum.Enum):
    """How long an object that the container gives is shared."""

    TRANSIENT = "transient"
    """A new object each time that it is asked for."""
    SCOPED = "scoped"
    """One object for each scope."""
    SINGLETON = "singleton"
    """One object that outlives the scopes."""


class ContainerCapability(enum.Flag):
    """What Diator must know of a container when the app starts."""

    SCOPED = enum.auto()
    """One object for each scope. Without it, the app has one scope."""
    PROVIDED_VALUES = enum.auto()
    """Values given to ``scope`` reach the container's own factories."""
    DEEP_VALIDATION = enum.auto()
    """``validate`` finds what is missing below the keys; without it, what it could not inspect is a warning."""
    REUSABLE = enum.auto()
    """Usable again after ``aclose``."""


class ValidationResult(NamedTuple):
    """What ``validate`` found: errors, which stop the start, and warnings, which are logged.

    Report a warning for what startup cannot know, or what is rarely intended.
    """

    errors: Sequence[ContainerError] = ()
    warnings: Sequence[ContainerError] = ()


class Resolver(Protocol):
    """A scope that is open."""

    def resolve(self, key: Key, /) -> Awaitable[Any]:
        """Give the object for a key, building what it needs.

        Raises `~diator.DependencyNotFoundError` where the container has no provider, `~diator.DependencyCycleError`
        where what it needs needs itself, `~diator.ScopeClosedError` after the scope was left.
        """
        # Any: what a key gives has the type that its hint names (see Key.hint).
        ...


class Scope(Protocol):
    """Opens when it is entered, and closes everything that was opened in it when it is left."""

    def __aenter__(self) -> Awaitable[Resolver]: ...

    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> Coroutine[Any, Any, bool | None]: ...  # Any: only what it returns matters to who awaits it


@runtime_checkable
class Container(Protocol):
    """A plugin: wraps one configured container of one library. The module's docstring is its contract."""

    @property
    def capabilities(self) -> ContainerCapability:
        """What this container can do. Fixed for its life."""
        ...

    def qualifier(self, metadata: tuple[object, ...], /) -> Hashable | None:
        """Read the library's own marker out of ``Annotated[T, *metadata]``; `Named` is read by Diator itself."""
        ...

    def can_resolve(self, key: Key, /) -> bool:
        """Tell whether the container has a provider for this key."""
        ...

    def lifetime(self, key: Key, /) -> Lifetime:
        """Tell how long the object of a key that ``can_resolve`` is shared."""
        ...

    def validate(self, keys: Collection[Key], provided: Collection[Key], /) -> ValidationResult:
        """Find all that would fail when these keys are resolved, in scopes that are given the ``provided`` keys."""
        ...

    def scope(self, provided: Mapping[Key, object], /) -> Scope:
        """Make a scope; entering it opens it."""
        ...

    async def aclose(self) -> None:
        """Close what outlived the scopes. Idempotent."""
        ...


Immediate = Callable[[Any], Any]
"""Resolves one key from an open scope of its container without awaiting: takes the `Resolver`, returns the object."""


@runtime_checkable
class ImmediateContainer(Container, Protocol):
    """A container that can resolve some keys without awaiting. Optional, and read from those with `PROVIDED_VALUES`."""

    def immediate(self, key: Key, /) -> Immediate | None:
        """Return a function that does for this key what ``resolve`` does, without awaiting; None if there is none.

        Called at startup, after ``validate``; it runs no user code. The function takes any open scope of this container
        and raises what ``resolve`` raises. Its results are shared with those of ``resolve``.
        """
        ...


@runtime_checkable
class InspectableContainer(Container, Protocol):
    """A container that knows what is below its keys. Optional; neither method runs user code."""

    def factory_of(self, key: Key, /) -> object | None:
        """Return the class or function that makes the object of a key: errors name its line."""
        ...

    def reaches(self, keys: Collection[Key], target: Key, /) -> bool:
        """Tell whether building these keys may build the object of ``target``; True if that can't be known."""
        ...
