"""One scope of a dishka container, and how it closes."""

from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, NoReturn

from dishka import AsyncContainer
from dishka.container_objects import Exit
from dishka.exception_base import DishkaError
from typing_extensions import Self

from diator.containers import NOTHING_TO_CLOSE, Key, close_in_reverse
from diator.errors import ContainerError, DependencyCycleError, ScopeClosedError
from diator_dishka._graph import Graph, to_dishka
from diator_dishka._provider import problems


class DishkaScope:
    """A scope for one unit of work, and its resolver.

    It opens a scope of dishka when it has values to bring, or resolves something that has to be awaited.
    """

    __slots__ = ("_graph", "_opened", "_outer", "cache", "context", "exits", "provided")

    def __init__(self, outer: AsyncContainer, graph: Graph, provided: Mapping[Key, object]) -> None:
        self._outer = outer
        self._graph = graph
        self.provided = provided
        self.context: dict[Any, object] | None = None
        """The provided values that have no qualifier, by their hints."""
        self.cache: dict[Any, object] | None = {}
        """What was built here, and in the scope of dishka. None after the end."""
        self.exits: list[Exit] = []
        """What was opened here, and in the scope of dishka."""
        self._opened: AsyncContainer | None = None

    async def __aenter__(self) -> Self:
        if self.provided:
            self.context = {key.hint: value for key, value in self.provided.items() if key.qualifier is None}
            self._put_in_place(self._open())
        return self

    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Any:  # what a coroutine function returns, or NOTHING_TO_CLOSE
        self.cache = None
        if self._opened is not None:
            return close(self._opened, error)
        return close_in_reverse(self.exits, _send, error) if self.exits else NOTHING_TO_CLOSE

    def _open(self) -> AsyncContainer:
        opened = self._opened = self._outer(self.context)
        # Private: what was built before the scope of dishka was opened belongs to it from now on, and what is built
        # later belongs to both.
        opened._cache.update(self.cache or {})  # pyright: ignore[reportPrivateUsage]
        opened._exits.extend(self.exits)  # pyright: ignore[reportPrivateUsage]
        self.cache, self.exits = opened._cache, opened._exits  # pyright: ignore[reportPrivateUsage]
        return opened

    async def resolve(self, key: Key, /) -> Any:
        """Give the object for a key. Raises as `diator.containers.port.Resolver` says."""
        if self.cache is None:
            raise ScopeClosedError(key)
        if self.provided and key in self.provided:
            return self.provided[key]
        opened = self._opened or self._open()
        try:
            if key.qualifier is None:
                return await opened.get(key.hint)
            return await opened.get(key.hint, to_dishka(key).component)
        except (DishkaError, RecursionError) as error:
            self.reject(key, error)

    def _put_in_place(self, opened: AsyncContainer) -> None:
        """Have factories find the provided values, also those that a factory of the container would make."""
        level: AsyncContainer | None = opened
        while level is not None and level is not self._outer:
            for key, value in self.provided.items():
                # Private: dishka itself takes values of `context` only for what is declared with `from_context`.
                level._cache[to_dishka(key).as_compilation_key()] = value  # pyright: ignore[reportPrivateUsage]
            level = level.parent_container

    def reject(self, key: Key, error: DishkaError | RecursionError) -> NoReturn:
        """Raise the error that tells what dishka failed for; a recursion of the user's own code as it is."""
        found = problems(self._graph, [key], self.provided).errors
        if isinstance(error, RecursionError) and not any(isinstance(one, DependencyCycleError) for one in found[:1]):
            raise error
        raise (found[0] if found else ContainerError(f"dishka can't give {key}: {error}")) from error


async def close(container: AsyncContainer, error: BaseException | None) -> None:
    """Close everything in a container, and in those that close with it, as `close_in_reverse` says.

    dishka itself would not tell those that close after one that failed.
    """
    resources: list[Exit] = []
    level: AsyncContainer | None = container
    while level is not None:
        # Private: there is no other way to close resources one by one.
        resources[:0] = level._exits  # pyright: ignore[reportPrivateUsage]
        level._exits.clear()  # pyright: ignore[reportPrivateUsage]
        level = level.parent_container if level.parent_closer is not None else None
    try:
        if resources:
            await close_in_reverse(resources, _send, error)
    finally:
        await container.close()  # which finds no resources, and forgets what was built


async def _send(opened: Exit, error: BaseException | None) -> None:
    generator, async_generator = opened
    with suppress(StopIteration, StopAsyncIteration):
        if async_generator is not None:
            await async_generator.asend(error)
        elif generator is not None:
            generator.send(error)
