"""One unit of work: a `svcs.Container` that builds each service once, and tells its resources of an error."""

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, final

from svcs import Container, RegisteredService, Registry
from svcs.exceptions import ServiceNotFoundError

from diator.containers import Key, close_in_reverse, exit_arguments
from diator.errors import (
    ContainerError,
    DependencyCycleError,
    DependencyNotFoundError,
    ScopeClosedError,
    UnsupportedRegistrationError,
)
from diator_svcs._keys import key_of, service_type

HIDDEN = (
    "svcs hides from it that a handler failed, so it would commit all the same",
    "register it with suppress_context_exit=False, and let a generator clean up in a finally",
)


@final
class SvcsScope(Container):
    """Gives services until it is left, then closes their resources.

    svcs itself logs what a resource raises as it closes, and forgets it. Here it is raised.
    """

    __slots__ = ("_asked", "_error", "_left")
    if TYPE_CHECKING:  # private: svcs offers no other way to close resources one by one, in the order of opening
        _on_close: list[tuple[RegisteredService, Any]]
        _instantiated: dict[Any, tuple[object, RegisteredService]]

    def __init__(self, registry: Registry, provided: Mapping[Key, object]) -> None:
        super().__init__(registry)  # pyright: ignore[reportUnknownMemberType] - untyped in svcs
        self._left = False
        self._error: Exception | None = None
        self._asked: list[Any] = []
        """What led to the error, the last one asked for first."""
        for key, value in provided.items():
            self.register_local_value(service_type(key), value)  # pyright: ignore[reportUnknownMemberType] - untyped in svcs

    async def __aenter__(self) -> "SvcsScope":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._left, self._error = True, None  # the error of a factory that was caught holds its frames, and this scope
        if self._on_close:
            managers = self._by_readiness()
            self._on_close.clear()
            try:
                await close_in_reverse(managers, _leave, error)
            finally:
                await self.aclose()

    async def resolve(self, key: Key, /) -> Any:
        """Build a service, or give the one that this scope has built."""
        if self._left:
            raise ScopeClosedError(key)
        opened = len(self._on_close)
        try:
            service = await self.aget(key.hint if key.qualifier is None else service_type(key))
        except (ServiceNotFoundError, RecursionError) as error:
            explained = _explained(error, [key_of(one) for one in reversed(self._asked)])
            self._error = None
            if explained is None:
                raise
            raise explained from error
        for registered, _ in self._on_close[opened:]:
            if registered.suppress_context_exit:  # only its factory could tell that it is a resource
                raise UnsupportedRegistrationError(key_of(registered.svc_type), *HIDDEN)
        return service

    # Any: what svcs gives has the type that is asked for.
    def get(self, *services: Any) -> Any:
        """Give services as svcs does, and note what was asked for if one of them is missing or needs itself."""
        found: list[Any] = []
        for service in services:
            try:
                found.append(super().get(service))
            except (ServiceNotFoundError, RecursionError) as error:
                self._note(service, error)
                raise
        return found if len(found) > 1 else found[0]

    async def aget(self, *services: Any) -> Any:
        """Do the same as `get`, for services whose factories are awaited."""
        found: list[Any] = []
        for service in services:
            try:
                found.append(await super().aget(service))
            except (ServiceNotFoundError, RecursionError) as error:
                self._note(service, error)
                raise
        return found if len(found) > 1 else found[0]

    def _note(self, service: Any, error: Exception) -> None:
        if error is not self._error:
            self._error, self._asked = error, []
        self._asked.append(service)

    def _by_readiness(self) -> list[object]:
        """List the resources in the order in which they were ready.

        svcs notes a resource before it opens: so before those that it asks for while it opens, and also if it fails to.
        """
        noted: dict[Any, list[object]] = {}
        for service, manager in self._on_close:
            noted.setdefault(service.svc_type, []).append(manager)
        return [manager for service in self._instantiated for manager in noted.get(service, ())]


async def _leave(manager: Any, error: BaseException | None) -> None:
    told = exit_arguments(error)
    if hasattr(manager, "__aexit__"):
        await manager.__aexit__(*told)
    else:
        manager.__exit__(*told)


def _explained(error: Exception, asked: list[Key]) -> ContainerError | None:
    """Name what is missing, or the services that need each other; a recursion of a factory itself stays as it is."""
    if isinstance(error, ServiceNotFoundError):
        return DependencyNotFoundError(asked[-1], asked[:-1])
    for end, key in enumerate(asked):
        if key in asked[:end]:
            return DependencyCycleError(asked[asked.index(key) : end + 1])
    return None
