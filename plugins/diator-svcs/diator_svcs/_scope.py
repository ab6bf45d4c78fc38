"""One unit of work: a `svcs.Container` that builds each service once, and tells its resources of an error."""

from collections.abc import Mapping
from traceback import walk_tb
from types import TracebackType
from typing import TYPE_CHECKING, Any, final

from svcs import Container, RegisteredService, Registry
from svcs.exceptions import ServiceNotFoundError

from diator.containers import Key, close_in_reverse, exit_arguments
from diator.errors import DependencyCycleError, DependencyNotFoundError, ScopeClosedError, UnsupportedRegistrationError
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

    __slots__ = ("_left",)
    if TYPE_CHECKING:  # both are private to svcs, which leaves their types open
        _on_close: list[tuple[RegisteredService, Any]]
        _instantiated: dict[Any, tuple[object, RegisteredService]]

    def __init__(self, registry: Registry, provided: Mapping[Key, object]) -> None:
        super().__init__(registry)  # pyright: ignore[reportUnknownMemberType] - untyped in svcs
        self._left = False
        for key, value in provided.items():
            self.register_local_value(service_type(key), value)  # pyright: ignore[reportUnknownMemberType] - untyped in svcs

    async def __aenter__(self) -> "SvcsScope":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._left = True
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
        except ServiceNotFoundError as error:
            *path, missing = _asked(error)
            raise DependencyNotFoundError(missing, path) from error
        except RecursionError as error:
            if circle := _circle(error):
                raise DependencyCycleError(circle) from error
            raise
        for registered, _ in self._on_close[opened:]:
            if registered.suppress_context_exit:  # only its factory could tell that it is a resource
                raise UnsupportedRegistrationError(key_of(registered.svc_type), *HIDDEN)
        return service

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


def _asked(error: Exception) -> list[Key]:
    """List the services that were asked for in the calls that led to an error."""
    asked: list[Key] = []
    for frame, _ in walk_tb(error.__traceback__):
        if frame.f_code is SvcsScope.resolve.__code__:
            asked.clear()  # an error that is raised again keeps the calls of the first time, too
        elif frame.f_code in (Container.get.__code__, Container.aget.__code__):
            asked.append(key_of(frame.f_locals["svc_type"]))
    return asked


def _circle(error: RecursionError) -> list[Key]:
    """Find the services that need each other, in the calls that led to the error."""
    asked = _asked(error)
    for end, key in enumerate(asked):
        if key in asked[:end]:
            return asked[asked.index(key) : end + 1]
    return []
