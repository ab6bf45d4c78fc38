"""The plugin: a dishka container behind the port of Diator."""

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
    """Wraps an async dishka container. Its scope for each unit of work is the next one, ``Scope.REQUEST`` by default.

    Raises `~diator.ConfigurationError` for anything but an `AsyncContainer` that has a scope to open.
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
        """Tell whether a factory gives this key; what only a sender can bring does not count."""
        source = self._graph.source(key)
        return source is not None and not source.is_brought

    def validate(self, keys: Collection[Key], provided: Collection[Key], /) -> ValidationResult:
        """Find what is missing, also where dishka was told to skip that, and what provided values can't reach."""
        return problems(self._graph, keys, provided)

    def immediate(self, key: Key, /) -> Build | None:
        """Return the function that resolves a key in a scope; None if some factory below it has to be awaited."""
        return self._immediate.build(key)

    def scope(self, provided: Mapping[Key, object], /) -> DishkaScope:
        """Make a scope for one unit of work."""
        return DishkaScope(self._container, self._graph, provided)

    async def aclose(self) -> None:
        """Close the singletons. They are built again if they are asked for again."""
        try:
            await close(self._container, None)
        finally:
            level: AsyncContainer | None = self._container
            while level is not None:  # a lock that was waited for belongs to its event loop for ever
                level.lock = asyncio.Lock() if isinstance(level.lock, asyncio.Lock) else level.lock
                level = level.parent_container
