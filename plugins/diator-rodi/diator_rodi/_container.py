"""The plugin for ``rodi.Container``: three lifetimes, synchronous, closes nothing."""

from collections.abc import Callable, Collection, Mapping
from types import TracebackType
from typing import Any

import rodi
from typing_extensions import Self

from diator.containers import (
    NOTHING_TO_CLOSE,
    GraphContainer,
    Key,
    ValidationResult,
    check,
    hint_of,
    is_placeholder,
    key_of,
)
from diator.errors import (
    ConfigurationError,
    ContainerError,
    DependencyNotFoundError,
    Problem,
    ScopeClosedError,
    UnsupportedRegistrationError,
)
from diator_rodi._provider import RodiProvider, declare, find
from diator_rodi._registrations import Registrations


class RodiContainer(GraphContainer):
    """Wraps a ``rodi.Container``, and shares the singletons of its ``provider``.

    The key of a qualified provider is the type hint in the handler:
    ``container.register(Annotated[Database, Named("replica")], instance=replica)``.

    Raises `~diator.ConfigurationError` for a container with its own ``scope_cls``.
    """

    def __init__(self, container: rodi.Container) -> None:
        # Any: what is private to rodi is read here too, and its hints leave much open.
        self._container: Any = container
        if self._container._scope_cls not in (None, rodi.ActivationScope):
            raise ConfigurationError([_own_scopes(self._container._scope_cls)])
        self._checked: dict[Any, Any] = {}
        """What was registered when all of it was found to be right."""
        self._services: Any = None
        """The provider that scopes resolve from; None until the first one opens."""

    def __repr__(self) -> str:
        return f"RodiContainer({self._container!r})"

    def provider(self, key: Key, provided: Collection[Key] = (), /) -> RodiProvider | None:
        """Return rodi's registration for the hint of a key."""
        return find(Registrations(self._container), hint_of(key), provided)

    def validate(self, keys: Collection[Key], provided: Collection[Key], /) -> ValidationResult:
        """Return what is wrong below these keys, and what prevents rodi from building all services."""
        registered = Registrations(self._container)

        def look(key: Key) -> RodiProvider | None:
            return find(registered, hint_of(key), provided)

        errors, warnings = check(keys, provided, look, declare)
        if not errors:
            every = {key: look(key) for key in map(key_of, registered)}
            absent = [key for key, one in every.items() if one and is_placeholder(one.factory)]
            errors = check(every, [*provided, *absent], look, declare).errors or self._build()
        if not errors and self._services is None:
            self._checked = dict(self._container)
        return ValidationResult(errors, warnings)

    def immediate(self, key: Key, /) -> "Callable[[RodiScope], Any]":
        """Return the function that resolves a key in a scope: rodi awaits nothing."""
        return lambda scope: scope.resolve_now(key)

    def scope(self, provided: Mapping[Key, object], /) -> "RodiScope":
        """Create a scope. Raises `~diator.ContainerError` if services were registered after the first scope opened."""
        services = self._services
        if services is None or self._container._provider is not services:
            services = self._look_again()
        return RodiScope(services, provided)

    async def aclose(self) -> None:
        """Drop the singletons, so that the app can run again, even in another event loop. rodi closes nothing."""
        if self._services is not None:
            self._container._provider = None
        self._services = None

    def _build(self) -> list[ContainerError]:
        try:
            _ = self._container.provider
        except Exception as error:  # noqa: BLE001 - rodi lets through whatever reading hints and aliases raises
            failure = ContainerError(f"rodi can't build its provider: {error}")
            failure.__cause__ = error
            return [failure]
        return []

    def _look_again(self) -> Any:
        """Give the provider. What was registered after the check counts until the first scope opens, and is checked."""
        now = dict(self._container)
        if self._services is not None:
            if now != self._checked:
                raise _registered_late(next(key for key in now if self._checked.get(key) is not now[key]))
            self._container._provider = self._services  # another app has closed this container
        else:
            if now != self._checked:
                for error in self.validate((), ()).errors:
                    raise error
            self._services = self._container.provider
        return self._services


class RodiScope(rodi.ActivationScope):
    """A scope of rodi, which factories may ask for more, and its resolver."""

    __slots__ = ("_builders", "_provided")

    def __init__(self, services: Any, provided: Mapping[Key, object]) -> None:
        # Any: what rodi gives has the type that the hint names.
        self._builders: Mapping[Any, Any] | None = services._map
        self._provided = provided
        self.provider = services
        self.scoped_services: dict[Any, Any] = {}
        if provided:
            self.scoped_services.update((hint_of(key), provided[key]) for key in provided if hint_of(key) in services)

    async def __aenter__(self) -> Self:
        return self

    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Any:  # what a coroutine function returns, or NOTHING_TO_CLOSE
        self._builders = None
        self.dispose()  # type: ignore[no-untyped-call]  # of rodi
        return NOTHING_TO_CLOSE

    async def resolve(self, key: Key, /) -> Any:
        """Have rodi build the object of a key."""
        return self.resolve_now(key)

    def resolve_now(self, key: Key) -> Any:
        """Have rodi build the object of a key, without awaiting."""
        if self._builders is None:
            raise ScopeClosedError(key)
        if self._provided and key in self._provided:
            return self._provided[key]
        hint = key.hint if key.qualifier is None else hint_of(key)
        # Not with `get` of rodi: for a key that is the class of a scoped object too, it gives that one after the first
        # time, the object without its decorator for example; and it takes the truth of an object for its presence.
        build = self._builders.get(hint)
        if build is None:
            raise DependencyNotFoundError(key)
        try:
            return build(self, hint)
        except rodi.DIException as error:  # a factory asked the scope for what it does not have
            raise ContainerError(f"{key} could not be built: {error}") from error


def _own_scopes(scope_cls: object) -> Problem:
    text = f"the rodi container has scope_cls={scope_cls!r}, where Diator opens scopes of its own for units of work"
    fix = "leave scope_cls out: each unit of work has scoped objects of its own, also inside another one"
    return Problem("container-plugin", text, fix)


def _registered_late(hint: Any) -> UnsupportedRegistrationError:
    reason = (
        "it was registered or decorated while the app was running, and rodi would build the singletons again for it"
    )
    return UnsupportedRegistrationError(key_of(hint), reason, "register it before the app handles its first message")
