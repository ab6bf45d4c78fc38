"""Keys that a scope resolves without awaiting: everything below them is built by sync factories.

dishka compiles two functions for each key, a sync and an async one, that take the cache and the open resources of a
container as arguments. For these keys the plugin calls the sync one with those of `DishkaScope`, and so needs no
`AsyncContainer` until another key is resolved in the same unit of work.

The arguments of those functions are private to dishka, and those of the releases which pyproject.toml admits. If dishka
does not offer such functions, each key is resolved with `AsyncContainer.get`.
"""

from collections.abc import Callable
from typing import Any

from dishka import AsyncContainer, DependencyKey
from dishka.entities.factory_type import FactoryType
from dishka.exception_base import DishkaError

from diator.containers import Key
from diator.errors import ScopeClosedError
from diator_dishka._graph import Found, Graph, to_dishka
from diator_dishka._scope import DishkaScope

Build = Callable[[DishkaScope], Any]

_SYNC = (FactoryType.FACTORY, FactoryType.GENERATOR, FactoryType.VALUE, FactoryType.ALIAS, FactoryType.CONTEXT)
"""Not those that choose between factories, which asks the container for what is active."""


class Immediate:
    """Makes the functions that resolve keys of one container without awaiting."""

    def __init__(self, container: AsyncContainer, graph: Graph) -> None:
        self._container = container
        self._graph = graph
        self._found: dict[tuple[DependencyKey, int], bool] = {}

    def build(self, key: Key) -> Build | None:
        """Return the function that resolves a key in a scope; None if some factory below it has to be awaited."""
        asked = to_dishka(key)
        compile_sync = getattr(self._graph.innermost, "get_compiled", None)
        if compile_sync is None or not self._is_sync(asked, self._graph.deepest):
            return None
        name, outer = asked.as_compilation_key(), self._container.get_sync
        compiled: Any = None

        def singleton(*_: object) -> Any:
            return outer(name)

        def build(scope: DishkaScope) -> Any:
            nonlocal compiled
            cache = scope.cache
            if cache is None:
                raise ScopeClosedError(key)
            if scope.provided and key in scope.provided:
                return scope.provided[key]
            try:
                if compiled is None:  # the first time, because compiling takes dishka a millisecond
                    compiled = compile_sync(name) or singleton
                # The last two are the container and its `when=`: no factory below asks for them.
                return compiled(outer, scope.exits, cache, scope.context, None, None)
            except (DishkaError, RecursionError) as error:
                scope.reject(key, error)

        return build

    def _is_sync(self, key: DependencyKey, level: int) -> bool:
        """Whether everything below a key is built without awaiting. A key that needs itself is not."""
        if (key, level) not in self._found:
            self._found[key, level] = False
            found = self._graph.find(key, level)
            self._found[key, level] = found is not None and self._are_all_sync(found)
        return self._found[key, level]

    def _are_all_sync(self, found: Found) -> bool:
        factory = found.factory
        if factory.type not in _SYNC or factory.when_dependencies or factory.provides.type_hint is AsyncContainer:
            return False
        if found.in_unit:  # a value of a scope that is skipped is kept in a container of its own
            return found.level == self._graph.deepest and all(self._is_sync(need, found.level) for need in found.needs)
        # If a singleton needed one of a scope further out, an async build of it might wait for the lock of that scope
        # half-way, and a sync build would then make a second one.
        own = found.level
        return all(self._is_sync(need, own) and self._is_at(need, own) for need in found.needs)

    def _is_at(self, key: DependencyKey, level: int) -> bool:
        found = self._graph.find(key, level)
        return found is not None and found.level == level
