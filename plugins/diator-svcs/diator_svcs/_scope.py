"""One unit of work: a `svcs.Container` that builds each service once, and tells its resources of an error."""

from asyncio import Lock
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias, final

from svcs import Container, RegisteredService, Registry
from svcs.exceptions import ServiceNotFoundError

from diator.containers import Key
from diator.errors import DependencyNotFoundError, ScopeClosedError, UnsupportedRegistrationError
from diator_svcs._keys import key_of, service_type

HIDDEN = (
    "svcs hides from it that a handler failed, so it would commit all the same",
    "register it with suppress_context_exit=False, and let it clean up in a finally",
)
Manager: TypeAlias = AbstractContextManager[Any, Any] | AbstractAsyncContextManager[Any, Any]


@final
class SvcsScope:
    """Gives services until it is left, then closes their resources."""

    __slots__ = ("_left", "_lock", "_services")

    def __init__(self, registry: Registry, provided: Mapping[Key, object]) -> None:
        self._services = _Services(registry)
        self._lock = Lock()
        self._left = False
        for key, value in provided.items():
            self._services.provide(service_type(key), value)

    async def __aenter__(self) -> "SvcsScope":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._left = True
        await self._services.aclose(kind, error, traceback)

    async def resolve(self, key: Key, /) -> Any:
        """Build a service, or give the one that this scope has built."""
        async with self._lock:  # svcs builds a service again for each task that asks while it is being built
            if self._left:
                raise ScopeClosedError(key)
            services = self._services
            opened = services.count()
            try:
                service = await services.aget(key.hint if key.qualifier is None else service_type(key))
            except ServiceNotFoundError as error:
                missing = key_of(error.args[0])
                raise DependencyNotFoundError(missing, () if missing == key else (key,)) from error
            if services.count() != opened:
                services.refuse_hidden(opened)
            return service


class _Services(Container):
    """A container that shows every error to its resources, and raises theirs, which svcs would log and forget."""

    __slots__ = ()
    if TYPE_CHECKING:  # both are private to svcs, which leaves their types open
        _on_close: list[tuple[RegisteredService, Manager]]
        _instantiated: dict[Any, tuple[object, RegisteredService]]

    def provide(self, service: Any, value: object) -> None:
        self.register_local_value(service, value)  # pyright: ignore[reportUnknownMemberType] - untyped in svcs

    def count(self) -> int:
        return len(self._on_close)

    def refuse_hidden(self, start: int) -> None:
        """Refuse a resource that nobody could tell before its factory ran."""
        for service, _ in self._on_close[start:]:
            if service.suppress_context_exit:
                raise UnsupportedRegistrationError(key_of(service.svc_type), *HIDDEN)

    async def aclose(
        self,
        exc_type: type[BaseException] | None = None,
        exc_val: BaseException | None = None,
        exc_tb: TracebackType | None = None,
    ) -> None:
        """Close all resources, the last one that was ready first, also where some fail to close."""
        if self._on_close:
            stack = AsyncExitStack()
            for manager in self._by_readiness():
                if isinstance(manager, AbstractContextManager):
                    stack.push(_closing(manager))
                else:
                    stack.push_async_exit(_closing_async(manager))
            self._on_close.clear()
            await stack.__aexit__(exc_type, exc_val, exc_tb)
        await super().aclose()

    def _by_readiness(self) -> list[Manager]:
        """List the resources in the order in which they were ready.

        svcs notes a resource before it opens: so before those that it asks for while it opens, and also if it fails to.
        """
        ready = {service: number for number, service in enumerate(self._instantiated)}
        noted = [(ready[service.svc_type], manager) for service, manager in self._on_close if service.svc_type in ready]
        return [manager for _, manager in sorted(noted, key=lambda pair: pair[0])]


def _closing(manager: AbstractContextManager[Any, Any]) -> Callable[..., None]:
    def close(*details: Any) -> None:
        manager.__exit__(*details)  # what it returns is dropped: a resource must not swallow the error

    return close


def _closing_async(manager: AbstractAsyncContextManager[Any, Any]) -> Callable[..., Awaitable[None]]:
    async def close(*details: Any) -> None:
        await manager.__aexit__(*details)

    return close
