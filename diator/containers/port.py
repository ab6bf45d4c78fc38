"""The port of dependency-injection containers: what a plugin gives, on one screen.

Diator looks at handlers itself; a container is only asked for **keys**. The contract:

*Registration* stays in the library's own API. The plugin wraps one configured, native container.

*Start.* ``can_resolve``, ``lifetime`` and ``validate`` run no user code and may be called before an event loop runs.
``validate`` returns every problem, not the first one. What the library cannot do, but a registration needs, is an
`~diator.UnsupportedRegistrationError` among them: a plugin refuses at the start and never misbehaves in silence.

*Scope.* One scope for each unit of work. In a scope, what is registered as scoped is built once, also when several
tasks ask for it at the same time; scopes that overlap, or are nested, share singletons only. Resources open when they
are resolved, not before, and close in reverse order when the scope is left: after success, after an error (which they
see, where the library can show it) and after a cancellation, when they may still await. When one fails to close, the
others are closed all the same and the error is raised. Diator enters a scope, resolves and leaves it in one task.
A container without `Capability.SCOPED` is given one scope for the whole life of the app.

*Values provided* with ``scope(provided)`` are what the scope answers for those keys. With `Capability.PROVIDED` they
reach the container's own factories too.

*Errors.* Library errors become `~diator.ContainerError`, raised ``from`` the original. What a user's factory or
constructor raises passes through unchanged.

*Closing.* ``aclose`` closes the singletons, by the same rule, and may be called more than once. With
`Capability.REOPENS` the container can be used again afterwards, its singletons built anew, also in another event loop.
"""

import enum
from collections.abc import Awaitable, Collection, Hashable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
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


class Capability(enum.Flag):
    """What a container keeps its promises on. Read when the app starts, and by the suites in ``diator_conformance``."""

    SCOPED = enum.auto()
    """One object for each scope."""
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
    PROVIDED = enum.auto()
    """Values given to ``scope`` reach the container's own factories."""
    QUALIFIERS = enum.auto()
    """Two providers of one type, told apart by a qualifier."""
    DEEP_VALIDATION = enum.auto()
    """``validate`` finds what is missing below the keys that it is asked for."""
    CONCURRENT_SCOPE = enum.auto()
    """A scoped object is built once, however many tasks ask for it at a time."""
    CONCURRENT_SINGLETON = enum.auto()
    """A singleton is built once, however many tasks ask for it at a time."""
    REOPENS = enum.auto()
    """Usable again after ``aclose``."""


class Validation(NamedTuple):
    """What ``validate`` found: errors, which stop the start, and warnings, which are logged.

    A warning is for what cannot be known at the start, or is seldom meant.
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


@runtime_checkable
class Container(Protocol):
    """A plugin: wraps one configured container of one library. The module's docstring is its contract."""

    @property
    def capabilities(self) -> Capability:
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

    def validate(self, keys: Collection[Key], provided: Collection[Key], /) -> Validation:
        """Find all that would fail when these keys are resolved, in scopes that are given the ``provided`` keys."""
        ...

    def scope(self, provided: Mapping[Key, object], /) -> AbstractAsyncContextManager[Resolver]:
        """Make a scope; entering it opens it."""
        ...

    async def aclose(self) -> None:
        """Close what outlived the scopes. Idempotent."""
        ...
