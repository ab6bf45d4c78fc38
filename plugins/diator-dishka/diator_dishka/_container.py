"""The plugin: implements Diator's port for a dishka container."""

import asyncio
from collections.abc import Collection, Hashable, Mapping

from dishka import AsyncContainer, FromComponent

from diator.containers import GraphContainer, Key, ValidationResult, require
from diator_dishka._graph import Graph, to_dishka
from diator_dishka._immediate import Build, Immediate
from diator_dishka._provider import DishkaProvider, look, problems
from diator_dishka._scope import DishkaScope, close

_Marker = type(FromComponent())


class DishkaContainer(GraphContainer):
    """Wraps an async dishka container. Each unit of work opens its next scope, ``Scope.REQUEST`` by default.

    Raises `~diator.ConfigurationError` for anything but an `AsyncContainer` that has another scope to open.
    """

    def __init__(self, container: AsyncContainer) -> None:
        fix = "make it with dishka.make_async_container(...); its factories may still be sync"
        require(container, AsyncContainer, fix)
        self._container = container
        self._graph = Graph(container)
        self._immediate = Immediate(container, self._graph)

    def qualifier(self, metadata: tuple[object, ...], /) -> Hashable | None:
        """Read dishka's own ``FromComponent("x")``."""
        marks = (mark.component for mark in metadata if isinstance(mark, _Marker))
        return next(marks, None) or None

    def provider(self, key: Key, _provided: Collection[Key] = (), /) -> DishkaProvider | None:
        """Return the factory that dishka would use."""
        return look(self._graph, to_dishka(key), self._graph.deepest)

    def can_resolve(self, key: Key, /) -> bool:
        """Return whether a factory creates this key; values that only senders provide do not count."""
        source = self._graph.source(key)
        return source is not None and not source.is_brought

    def validate(self, keys: Collection[Key], provided: Collection[Key], /) -> ValidationResult:
        """Return what is missing, even if dishka skips validation, and what provided values cannot reach."""
        return problems(self._graph, keys, provided)

    def immediate(self, key: Key, /) -> Build | None:
        """Return the function that resolves a key in a scope; None if one of its factories must be awaited."""
        return self._immediate.build(key)

    def scope(self, provided: Mapping[Key, object], /) -> DishkaScope:
        """Create a scope for one unit of work."""
        return DishkaScope(self._container, self._graph, provided)

    async def aclose(self) -> None:
        """Close the singletons. If the container is used again, it creates new ones."""
        try:
            await close(self._container, None)
        finally:
            level: AsyncContainer | None = self._container
            while level is not None:  # a lock that was waited for belongs to its event loop for ever
                level.lock = asyncio.Lock() if isinstance(level.lock, asyncio.Lock) else level.lock
                level = level.parent_container
