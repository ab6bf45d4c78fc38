"""One scope of a dishka container, and how it closes."""

import asyncio
from collections.abc import Iterator, Mapping
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

    __slots__ = ("_graph", "_opened", "_outer", "_provided")

    def __init__(self, outer: AsyncContainer, graph: Graph, provided: Mapping[Key, object]) -> None:
        self._outer = outer
        self._graph = graph
        self._provided = provided
        self._opened: AsyncContainer | None = None

    async def __aenter__(self) -> Self:
        if self._provided:
            context = {key.hint: value for key, value in self._provided.items() if key.qualifier is None}
            self._opened = self._outer(context, lock_factory=_Lock)
            self._put_in_place(self._opened)
        else:
            self._opened = self._outer(lock_factory=_Lock)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            await close(opened, error)

    async def resolve(self, key: Key, /) -> Any:
        """Give the object for a key. Raises as `diator.containers.port.Resolver` says."""
        if self._opened is None:
            raise ScopeClosedError(key)
        if self._provided and key in self._provided:
            return self._provided[key]
        try:
            if key.qualifier is None:
                return await self._opened.get(key.hint)
            return await self._opened.get(key.hint, to_dishka(key).component)
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
        found = Check(self._graph, self._provided).run([key]).errors
        return found[0] if found else ContainerError(f"dishka can't give {key}: {error}")


async def close(container: AsyncContainer, error: BaseException | None) -> None:
    """Close everything in a container, whatever happens to the closing of one resource.

    dishka goes on after an `Exception`, but not after a cancellation: it is asked again for what is left.
    """
    failures: list[Exception] = []
    interruption: BaseException | None = None
    while True:
        try:
            await container.close(error)
        except ExitError as group:
            failures = [failure for failure in _ungrouped(group) if failure is not error]
        except Exception:
            raise
        except BaseException as raised:  # noqa: BLE001 - raised below
            interruption = interruption if raised is error else raised
            continue
        break
    if interruption is not None:
        raise interruption
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise ExitError("several resources failed to close", failures)


def _ungrouped(group: Any) -> Iterator[Exception]:
    """The errors in an `ExitError`; each scope that dishka skipped wraps its own into one more."""
    # Any: the base of this class is of another package on Python 3.10, which a type checker need not find.
    for failure in group.exceptions:
        if isinstance(failure, ExitError):
            yield from _ungrouped(failure)
        else:
            yield failure


class _Lock:
    """Lets one task build at a time. A factory that was given the container may ask it for more meanwhile."""

    __slots__ = ("_depth", "_owner", "_queue")

    def __init__(self) -> None:
        self._owner: asyncio.Task[Any] | None = None
        self._depth = 0
        self._queue: asyncio.Lock | None = None
        """Made when a second task comes, which is rare; held for the owner from then on."""

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        if self._owner is not task:
            if self._queue or self._owner:
                await self._wait()
            self._owner = task
        self._depth += 1

    async def __aexit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._owner = None
            if self._queue:
                self._queue.release()

    async def _wait(self) -> None:
        if self._queue is None:
            self._queue = asyncio.Lock()
            await self._queue.acquire()  # does not wait
        await self._queue.acquire()
