"""One scope of a dishka container, and how it closes."""

from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any

from dishka import AsyncContainer
from dishka.container_objects import Exit
from dishka.exception_base import DishkaError
from typing_extensions import Self

from diator.containers import Key, close_in_reverse
from diator.errors import ContainerError, DependencyCycleError, ScopeClosedError
from diator_dishka._graph import Graph, to_dishka
from diator_dishka._provider import problems


class DishkaScope:
    """A scope for one unit of work, and its resolver."""

    __slots__ = ("_graph", "_opened", "_outer", "_provided")

    def __init__(self, outer: AsyncContainer, graph: Graph, provided: Mapping[Key, object]) -> None:
        self._outer = outer
        self._graph = graph
        self._provided = provided
        self._opened: AsyncContainer | None = None

    async def __aenter__(self) -> Self:
        if self._provided:
            context = {key.hint: value for key, value in self._provided.items() if key.qualifier is None}
            self._opened = self._outer(context)
            self._put_in_place(self._opened)
        else:
            self._opened = self._outer()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            await close(opened, error)

    async def resolve(self, key: Key, /) -> Any:
        """Give the object for a key. Raises as `diator.containers.port.Resolver` says."""
        opened = self._opened
        if opened is None:
            raise ScopeClosedError(key)
        if self._provided and key in self._provided:
            return self._provided[key]
        try:
            if key.qualifier is None:
                return await opened.get(key.hint)
            return await opened.get(key.hint, to_dishka(key).component)
        except DishkaError as error:
            raise self._explain(key, error) from error
        except RecursionError as error:  # a circle, or something in the user's own code
            explained = self._explain(key, error)
            if isinstance(explained, DependencyCycleError):
                raise explained from error
            raise

    def _put_in_place(self, opened: AsyncContainer) -> None:
        """Have factories find the provided values, also those that a factory of the container would make."""
        level: AsyncContainer | None = opened
        while level is not None and level is not self._outer:
            for key, value in self._provided.items():
                # Private: dishka itself takes values of `context` only for what is declared with `from_context`.
                level._cache[to_dishka(key).as_compilation_key()] = value  # pyright: ignore[reportPrivateUsage]
            level = level.parent_container

    def _explain(self, key: Key, error: Exception) -> ContainerError:
        found = problems(self._graph, [key], self._provided).errors
        return found[0] if found else ContainerError(f"dishka can't give {key}: {error}")


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
