"""The port over a ``punq.Container``, which has transient and singleton objects, and nothing that closes."""

from collections.abc import Collection, Hashable, Mapping
from types import TracebackType
from typing import Any, get_args, get_origin

import punq
from typing_extensions import Self

from diator.containers import Capability, Key, Lifetime, Validation
from diator.errors import ContainerError, DependencyNotFoundError, ScopeClosedError
from diator_punq._walk import Registrations, Walk, hint_of


class PunqContainer:
    """Serves what is registered in a ``punq.Container``, also what is registered later.

    The key of a qualified provider is the hint as a handler writes it:
    ``container.register(Annotated[Repository, Named("replica")], Replica)``.
    """

    capabilities = (
        Capability.SINGLETON
        | Capability.PROVIDED
        | Capability.QUALIFIERS
        | Capability.DEEP_VALIDATION
        | Capability.CONCURRENT_SINGLETON  # punq builds without an await, so no other task comes in between
        | Capability.REOPENS
    )

    def __init__(self, container: punq.Container) -> None:
        self._container = container
        self._registrations = Registrations(container)

    def __repr__(self) -> str:
        return f"PunqContainer({self._container!r})"

    def qualifier(self, metadata: tuple[object, ...], /) -> Hashable | None:
        """Give None: punq has no marker of its own, and `diator.Named` is read by Diator."""
        return None

    def can_resolve(self, key: Key, /) -> bool:
        """Tell whether punq has a provider; with ``auto_register`` a class that it can build counts as its own."""
        hint = hint_of(key)
        if get_origin(hint) is list:
            return bool(self._registrations.of(get_args(hint)[0]))
        return bool(self._registrations.of(hint)) or (
            self._registrations.builds_unregistered(hint) and not self._problems(key, ())
        )

    def lifetime(self, key: Key, /) -> Lifetime:
        """Tell whether the provider that punq would take, the last one registered, is a singleton."""
        found = self._registrations.of(hint_of(key))
        return Lifetime.SINGLETON if found and found[-1].scope is punq.Scope.singleton else Lifetime.TRANSIENT

    def validate(self, keys: Collection[Key], provided: Collection[Key], /) -> Validation:
        """Go the way that punq goes for each key, without building anything."""
        return Validation([error for key in keys if key not in provided for error in self._problems(key, provided)])

    def scope(self, provided: Mapping[Key, object], /) -> "PunqScope":
        """Make a scope. Without values it is the container itself, with values a child that has them."""
        return PunqScope(self, self._container if not provided else self._child(provided))

    async def aclose(self) -> None:
        """Forget the singletons, so that the app can run again, in another event loop too. punq closes nothing."""
        self._container._singletons.clear()  # pyright: ignore[reportPrivateUsage] - punq has no other way to forget

    def not_found(self, key: Key) -> ContainerError:
        """Tell what it is that punq did not find."""
        return next(iter(self._problems(key, ())), DependencyNotFoundError(key))

    def _problems(self, key: Key, provided: Collection[Key]) -> list[ContainerError]:
        return list(Walk(self._registrations, provided).of(key))

    def _child(self, provided: Mapping[Key, object]) -> punq.Container:
        child = self._container.child()
        # punq 0.8 gives a child singletons of its own; later ones share them already.
        child._singletons = self._container._singletons  # pyright: ignore[reportPrivateUsage]
        for key, value in provided.items():
            child.register(hint_of(key), instance=value)
        return child


class PunqScope:
    """A container of punq as long as a unit of work, or the app, may use it."""

    __slots__ = ("_container", "_left", "_native")

    def __init__(self, container: PunqContainer, native: punq.Container) -> None:
        self._container = container
        self._native = native
        self._left = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._left = True

    async def resolve(self, key: Key, /) -> Any:
        """Have punq build the object of a key."""
        if self._left:
            raise ScopeClosedError(key)
        try:
            return self._native.resolve(key.hint if key.qualifier is None else hint_of(key))
        except punq.MissingDependencyError as error:
            raise self._container.not_found(key) from error
