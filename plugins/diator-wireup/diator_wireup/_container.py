"""The plugin: implements Diator's port for a wireup container."""

from collections.abc import Collection, Hashable, Mapping

from wireup import AsyncContainer
from wireup.ioc.types import ConfigInjectionRequest, InjectableQualifier

from diator.containers import GraphContainer, Key, close_in_reverse, require
from diator_wireup._provider import WireupProvider
from diator_wireup._registrations import Registrations, marker_of
from diator_wireup._scope import WireupScope, finish


class WireupContainer(GraphContainer):
    """Wraps an async wireup container. Each unit of work enters its own scope.

    Raises `~diator.ConfigurationError` for anything but an `AsyncContainer` of ``create_async_container``.
    """

    def __init__(self, container: AsyncContainer) -> None:
        fix = "make it with wireup.create_async_container(...); its factories may still be sync"
        require(container, AsyncContainer, fix)
        self._container = container
        self._registrations = Registrations(container)

    def __repr__(self) -> str:
        return f"WireupContainer({self._container!r})"

    def qualifier(self, metadata: tuple[object, ...], /) -> Hashable | None:
        """Read wireup's own ``Inject(qualifier="x")``; ``Inject(config="x")`` qualifies by itself."""
        marker = marker_of(metadata)
        if isinstance(marker, InjectableQualifier):
            return marker.qualifier
        return marker if isinstance(marker, ConfigInjectionRequest) else None

    def provider(self, key: Key, _provided: Collection[Key] = (), /) -> WireupProvider | None:
        """Return wireup's factory for a key, or the value in its config."""
        return WireupProvider(self._registrations, key) if self._registrations.knows(key) else None

    def scope(self, provided: Mapping[Key, object], /) -> WireupScope:
        """Create a scope for one unit of work."""
        return WireupScope(self._container, self._registrations, provided)

    async def aclose(self) -> None:
        """Close the singletons. If the container is used again, it creates new ones."""
        try:
            await close_in_reverse(self._registrations.singleton_resources, finish, None)
        finally:
            self._registrations.forget_singletons()
