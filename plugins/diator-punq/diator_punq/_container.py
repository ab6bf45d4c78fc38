"""The plugin for ``punq.Container``, which has transient and singleton objects, and closes nothing."""

from collections.abc import Callable, Collection, Mapping
from types import TracebackType
from typing import Any, NoReturn, TypeVar, get_args, get_origin

import punq
from typing_extensions import Self

from diator.containers import ContainerCapability, GraphContainer, Key, Provider, hint_of, key_of
from diator.errors import ScopeClosedError
from diator_punq._construction import Build, Builders
from diator_punq._provider import Way
from diator_punq._registrations import Registrations

T = TypeVar("T")


class PunqContainer(GraphContainer):
    """Wraps a ``punq.Container``, including services that are registered later.

    The key of a qualified provider is the type hint in the handler:
    ``container.register(Annotated[Repository, Named("replica")], Replica)``.
    """

    capabilities = ~ContainerCapability.SCOPED

    def __init__(self, container: punq.Container) -> None:
        self._container = container
        self._registrations = Registrations(container)
        self._builders: dict[frozenset[Key], Builders] = {}

    def __repr__(self) -> str:
        return f"PunqContainer({self._container!r})"

    def provider(self, key: Key, provided: Collection[Key] = (), /) -> Provider | None:
        """Return the registration that punq would use for a key: the last one."""
        return Way(self._registrations, provided).need(hint_of(key)).provider

    def can_resolve(self, key: Key, /) -> bool:
        """Return whether punq has a provider; with ``auto_register``, a class that it can build counts as one."""
        hint = hint_of(key)
        is_list = get_origin(hint) is list
        if self._registrations.of(get_args(hint)[0] if is_list else hint):
            return True
        return not is_list and self.provider(key) is not None and not self.validate([key], ()).errors

    def immediate(self, key: Key, /) -> "Callable[[PunqScope], Any]":
        """Return the function that resolves a key in a scope: punq awaits nothing."""
        hint = hint_of(key)

        def build(scope: PunqScope) -> Any:
            try:
                return scope.builders[hint](scope)
            except punq.MissingDependencyError as error:
                found = self.validate([key], scope.provided).errors
                if not found:  # raised by a constructor or factory that uses punq itself
                    raise
                raise found[0] from error

        return build

    def scope(self, provided: Mapping[Key, object], /) -> "PunqScope":
        """Create a scope: the container itself or, if there are values, a child that has them."""
        return PunqScope(self, provided, self._builders_for(provided))

    def _builders_for(self, provided: Collection[Key]) -> Builders:
        keys = frozenset(provided)
        if keys not in self._builders:
            self._builders[keys] = Builders(self._container, {hint_of(key): key for key in keys})
        return self._builders[keys]

    async def aclose(self) -> None:
        """Drop the singletons, so that the app can run again, even in another event loop. punq closes nothing."""
        self._container._singletons.clear()  # pyright: ignore[reportPrivateUsage] - the only way to forget

    def native(self, provided: Mapping[Key, object]) -> punq.Container:
        """Return what punq resolves from: the container, or a child that has these values."""
        if not provided:
            return self._container
        # Not with `instance=`: parent and children keep those in one dict, by the id of a registration. The id of one
        # that is gone is given to another, which would then answer with the value of another sender.
        child = self._container.child()
        child.register(punq.Container, _giving(child))
        for key, value in provided.items():
            child.register(hint_of(key), _giving(value))
        return child


class PunqScope:
    """A container of punq, for as long as the app, or a unit of work, may use it."""

    __slots__ = ("_container", "_native", "builders", "provided")

    def __init__(self, container: PunqContainer, provided: Mapping[Key, object], builders: Builders) -> None:
        self._container = container
        self._native: punq.Container | None = None
        self.builders: dict[Any, Build] = builders
        self.provided = provided

    @property
    def native(self) -> punq.Container:
        """What punq resolves from in this scope."""
        if self._native is None:
            self._native = self._container.native(self.provided)
        return self._native

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.builders = _CLOSED

    async def resolve(self, key: Key, /) -> Any:
        """Build the object of a key as punq would, or have punq build it."""
        return self._container.immediate(key)(self)


class _Closed(dict[Any, Build]):
    def __missing__(self, hint: Any) -> NoReturn:
        raise ScopeClosedError(key_of(hint))


_CLOSED = _Closed()


def _giving(value: T) -> Callable[[], T]:
    return lambda: value
