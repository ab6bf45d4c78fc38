"""The port over a ``punq.Container``, which has transient and singleton objects, and nothing that closes."""

from collections.abc import Callable, Collection, Hashable, Mapping
from types import TracebackType
from typing import Any, NoReturn, TypeVar, get_args, get_origin

import punq
from typing_extensions import Self

from diator.containers import Capability, GraphContainer, Key, Provider, hint_of, key_of
from diator.errors import ScopeClosedError
from diator_punq._provider import Way
from diator_punq._registrations import Registrations

T = TypeVar("T")


class PunqContainer(GraphContainer):
    """Serves what is registered in a ``punq.Container``, also what is registered later.

    The key of a qualified provider is the hint as a handler writes it:
    ``container.register(Annotated[Repository, Named("replica")], Replica)``.
    """

    capabilities = Capability.PROVIDED | Capability.DEEP_VALIDATION | Capability.REOPENS

    def __init__(self, container: punq.Container) -> None:
        self._container = container
        self._registrations = Registrations(container)

    def __repr__(self) -> str:
        return f"PunqContainer({self._container!r})"

    def qualifier(self, _metadata: tuple[object, ...], /) -> Hashable | None:
        """Give None: punq has no marker of its own, and `diator.Named` is read by Diator."""
        return None

    def provider(self, key: Key, provided: Collection[Key] = (), /) -> Provider | None:
        """Return what punq would take for a key: the last registration."""
        return Way(self._registrations, provided).need(hint_of(key)).provider

    def can_resolve(self, key: Key, /) -> bool:
        """Tell whether punq has a provider; with ``auto_register`` a class that it can build counts as its own."""
        hint = hint_of(key)
        is_list = get_origin(hint) is list
        if self._registrations.of(get_args(hint)[0] if is_list else hint):
            return True
        return not is_list and self.provider(key) is not None and not self.validate([key], ()).errors

    def scope(self, provided: Mapping[Key, object], /) -> "PunqScope":
        """Make a scope. Without values it is the container itself, with values a child that has them."""
        return PunqScope(self, self._child(provided) if provided else self._container, provided)

    async def aclose(self) -> None:
        """Forget the singletons, so that the app can run again, in another event loop too. punq closes nothing."""
        self._container._singletons.clear()  # pyright: ignore[reportPrivateUsage] - the only way to forget

    def _child(self, provided: Mapping[Key, object]) -> punq.Container:
        # Not with `instance=`: parent and children keep those in one dict, by the id of a registration. The id of one
        # that is gone is given to another, which would then answer with the value of another sender.
        child = self._container.child()
        child.register(punq.Container, _giving(child))
        for key, value in provided.items():
            child.register(hint_of(key), _giving(value))
        return child


class PunqScope:
    """A container of punq, for as long as the app, or a unit of work, may use it."""

    __slots__ = ("_container", "_provided", "_resolve")

    def __init__(self, container: PunqContainer, native: punq.Container, provided: Mapping[Key, object]) -> None:
        self._container = container
        self._provided = provided
        # Any: what punq gives has the type that the hint names.
        self._resolve: Callable[[Any], Any] = native.resolve

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._resolve = _refuse

    async def resolve(self, key: Key, /) -> Any:
        """Have punq build the object of a key."""
        try:
            return self._resolve(key.hint if key.qualifier is None else hint_of(key))
        except punq.MissingDependencyError as error:
            found = self._container.validate([key], self._provided).errors
            if not found:  # raised by a constructor or factory that uses punq itself
                raise
            raise found[0] from error


def _refuse(hint: Any) -> NoReturn:
    raise ScopeClosedError(key_of(hint))


def _giving(value: T) -> Callable[[], T]:
    return lambda: value
