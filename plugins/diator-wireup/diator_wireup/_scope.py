"""One scope of a wireup container, and how it closes."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from typing_extensions import Self
from wireup import AsyncContainer, ScopedAsyncContainer
from wireup.errors import WireupError
from wireup.ioc.types import ContainerObjectIdentifier, ExitStackEntry

from diator.containers import Key, close_in_reverse
from diator.errors import ContainerError, ScopeClosedError
from diator_wireup._registrations import Registrations, id_of


class WireupScope:
    """A scope for one unit of work, and its resolver."""

    __slots__ = ("_opened", "_outer", "_provided", "_registrations")

    def __init__(self, outer: AsyncContainer, registrations: Registrations, provided: Mapping[Key, object]) -> None:
        self._outer = outer
        self._registrations = registrations
        self._provided = provided
        self._opened: ScopedAsyncContainer | None = None

    async def __aenter__(self) -> Self:
        self._opened = self._outer.enter_scope(self._objects() if self._provided else None)
        return self

    def _objects(self) -> dict[ContainerObjectIdentifier, object]:
        """What the scope begins with. wireup takes it for what it has built already."""
        find = self._registrations.find
        return {find(key) or id_of(key): value for key, value in self._provided.items()}

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        opened, self._opened = self._opened, None
        # Private: wireup's own closing stops at a cancellation, and commits after another resource failed to close.
        resources = opened and opened._current_scope_exit_stack  # pyright: ignore[reportPrivateUsage]
        if not resources:
            return
        try:
            await close_in_reverse(resources, finish, error)
        finally:
            if error is not None:
                # Else it would end among the resources that it was thrown into.
                BaseException.with_traceback(error, traceback)

    async def resolve(self, key: Key, /) -> Any:
        """Give the object for a key. Raises as `diator.containers.port.Resolver` says."""
        opened = self._opened
        if opened is None:
            raise ScopeClosedError(key)
        if self._provided and key in self._provided:
            return self._provided[key]
        found = self._registrations.find(key)
        if found is None:
            return self._registrations.config(key)
        try:
            # Private, and half of the time of `get`, which does the same.
            compiled = opened._factories[found]  # pyright: ignore[reportPrivateUsage]
            return await compiled.factory(opened) if compiled.is_async else compiled.factory(opened)
        except WireupError as error:
            raise ContainerError(f"wireup can't give {key}: {error}") from error


async def finish(entry: ExitStackEntry, error: BaseException | None) -> None:
    """Have the generator of a resource go on: after its ``yield``, or with an error there."""
    resource: Any = entry[0]  # Any: which of the two kinds of generators it is, wireup tells beside it
    try:
        if entry[1]:
            await (resource.asend(None) if error is None else resource.athrow(error))
        elif error is None:
            resource.send(None)
        else:
            resource.throw(error)
    except (StopIteration, StopAsyncIteration):
        return
