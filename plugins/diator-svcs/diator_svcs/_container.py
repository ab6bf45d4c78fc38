"""`SvcsContainer`: what Diator asks of a container, answered by a `svcs.Registry`."""

import inspect
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from typing import Annotated, get_args, get_origin

from svcs import Container, RegisteredService, Registry

from diator.containers import Capability, Key, Lifetime, Validation
from diator.errors import ContainerError, DependencyNotFoundError, UnsupportedRegistrationError
from diator_svcs._keys import Marks, key_of, service_type
from diator_svcs._scope import HIDDEN, SvcsScope


class SvcsContainer:
    """Serves what is in a `svcs.Registry`: each unit of work has a `svcs.Container` of its own.

    The registry stays its owner's: whoever made it closes it.
    """

    capabilities = Capability.SCOPED | Capability.PROVIDED | Capability.REOPENS

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def qualifier(self, metadata: tuple[object, ...], /) -> Hashable | None:
        """Give all of the metadata back, if a service is registered under ``Annotated`` with just this."""
        known = (get_args(one.svc_type)[1:] for one in self._registry if get_origin(one.svc_type) is Annotated)
        return Marks(metadata) if metadata in known else None

    def can_resolve(self, key: Key, /) -> bool:
        """Tell whether the registry knows the key's type."""
        return service_type(key) in self._registry

    def lifetime(self, key: Key, /) -> Lifetime:
        """Tell values, which every unit of work shares, from what factories build for each of them."""
        return Lifetime.SINGLETON if _is_value(self._find(key)) else Lifetime.SCOPED

    def factory_of(self, key: Key, /) -> object | None:
        """Return the factory of a key, for the line that errors name."""
        factory: object = inspect.unwrap(_factory(self._find(key)))
        return factory

    def validate(self, keys: Collection[Key], provided: Collection[Key], /) -> Validation:
        """Look at the factories that may run.

        svcs does not tell what a factory asks its container for. So one that takes the container may reach each
        service in the registry; and whether all of them are there is a warning.
        """
        wanted = [key for key in keys if key not in provided]
        found = [self._find(key) for key in wanted if self.can_resolve(key)]
        errors: list[ContainerError] = [DependencyNotFoundError(key) for key in wanted if not self.can_resolve(key)]
        opaque = [one for one in found if one.takes_container]
        for service in self._registry if opaque else found:
            errors.extend(_problems(service))
        return Validation(errors, [_unknown_below(opaque)] if opaque else [])

    def scope(self, provided: Mapping[Key, object], /) -> SvcsScope:
        """Make the scope of a unit of work."""
        return SvcsScope(self._registry, provided)

    async def aclose(self) -> None:
        """Leave the registry open: closing would empty it, and others may serve from it."""

    def _find(self, key: Key) -> RegisteredService:
        return self._registry.get_registered_service_for(service_type(key))


def _factory(service: RegisteredService) -> Callable[..., object]:
    return service.factory  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - untyped in svcs


def _is_value(service: RegisteredService) -> bool:
    """Tell whether it came by ``register_value``, which wraps the value in a function of its own."""
    return getattr(_factory(service), "__module__", None) == Registry.__module__


def _problems(service: RegisteredService) -> Iterator[ContainerError]:
    key = key_of(service.svc_type)
    if service.enter and service.suppress_context_exit and _is_resource(service):
        yield UnsupportedRegistrationError(key, *HIDDEN)
    if (problem := _call_problem(service)) is not None:
        given = "the container alone" if service.takes_container else "nothing"
        reason = f"svcs gives {given} to its factory ({problem})"
        yield UnsupportedRegistrationError(
            key, reason, "wrap the factory in svcs.aautowire, which fills its parameters"
        )


def _is_resource(service: RegisteredService) -> bool:
    """Tell whether svcs will enter what the factory gives, as far as can be seen before it runs."""
    function = inspect.unwrap(_factory(service))
    return (
        inspect.isgeneratorfunction(function)
        or inspect.isasyncgenfunction(function)
        or any(hasattr(one, name) for one in (function, service.svc_type) for name in ("__exit__", "__aexit__"))
    )


def _call_problem(service: RegisteredService) -> TypeError | None:
    try:
        signature = inspect.signature(_factory(service))
    except (TypeError, ValueError):
        return None  # it is written in C and does not tell
    try:
        signature.bind(*[Container] * service.takes_container)
    except TypeError as problem:
        return problem
    return None


def _unknown_below(services: Sequence[RegisteredService]) -> ContainerError:
    names = ", ".join(dict.fromkeys(service.name for service in services))
    return UnsupportedRegistrationError(
        key_of(services[0].svc_type),
        f"svcs does not tell what the factories of {names} ask for, so that what is missing or goes in a circle below "
        "them shows only when they run",
        "send a message to each handler in a test",
    )
