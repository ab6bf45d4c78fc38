"""One scope of a dishka container, and how it closes."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any

from dishka import AsyncContainer
from dishka.exception_base import DishkaError
from dishka.exceptions import ExitError
from typing_extensions import Self

from diator.containers import Key
from diator.errors import ContainerError, DependencyCycleError, ScopeClosedError
from diator_dishka._check import Check
from diator_dishka._graph import Graph, to_dishka


class DishkaScope:
    """A scope for one unit of work, and its resolver."""

    __slots__ = ("_freed", "_graph", "_is_busy", "_opened", "_outer", "_provided")

    def __init__(self, outer: AsyncContainer, graph: Graph, provided: Mapping[Key, object]) -> None:
        self._outer = outer
        self._graph = graph
        self._provided = provided
        self._opened: AsyncContainer | None = None
        self._is_busy = False
        """Whether a task is resolving. The others wait: two at a time would build one object twice."""
        self._freed: asyncio.Event | None = None
        """What they wait for, made by the first of them."""

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
        while self._is_busy:
            await self._wait()
        opened = self._opened
        if opened is None:
            raise ScopeClosedError(key)
        if self._provided and key in self._provided:
            return self._provided[key]
        self._is_busy = True
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
        finally:
            self._is_busy = False
            if self._freed is not None:
                self._freed.set()
                self._freed = None

    async def _wait(self) -> None:
        if self._freed is None:
            self._freed = asyncio.Event()
        await self._freed.wait()

    def _put_in_place(self, opened: AsyncContainer) -> None:
        """Have factories find the provided values, also those that a factory of the container would make."""
        level: AsyncContainer | None = opened
        while level is not None and level is not self._outer:
            for key, value in self._provided.items():
                # Private: dishka itself takes values of `context` only for what is declared with `from_context`.
                level._cache[to_dishka(key).as_compilation_key()] = value  # pyright: ignore[reportPrivateUsage]
            level = level.parent_container

    def _explain(self, key: Key, error: Exception) -> ContainerError:
        found = Check(self._graph, self._provided).run([key]).errors
        return found[0] if found else ContainerError(f"dishka can't give {key}: {error}")


async def close(container: AsyncContainer, error: BaseException | None) -> None:
    """Close everything in a container, whatever happens to the closing of one resource.

    dishka goes on after an `Exception`, but not after a cancellation: it is asked again for what is left.
    """
    try:
        return await container.__aexit__(None, error, None)
    except ExitError as group:
        failures = [failure for failure in _ungrouped(group) if failure is not error]
    except BaseException as interruption:
        if interruption is not error:
            with suppress(Exception):  # the cancellation wins
                await close(container, error)
            raise
        return await close(container, error)
    # Not in the clause above, where dishka's group, which holds the error, would become its context.
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise ExitError("several resources failed to close", failures)
    return None


def _ungrouped(group: Any) -> Iterator[Exception]:
    """The errors in an `ExitError`; each scope that dishka skipped wraps its own into one more."""
    # Any: the base of this class is of another package on Python 3.10, which a type checker need not find.
    for failure in group.exceptions:
        if isinstance(failure, ExitError):
            yield from _ungrouped(failure)
        else:
            yield failure
