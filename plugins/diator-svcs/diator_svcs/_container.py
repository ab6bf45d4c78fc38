"""`SvcsContainer`: implements Diator's port for a `svcs.Registry`."""

import inspect
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from typing import Annotated, get_args, get_origin

from svcs import Container, RegisteredService, Registry

from diator.containers import (
    ContainerCapability,
    GraphContainer,
    Key,
    Lifetime,
    Provider,
    Reason,
    ValidationResult,
    call_error,
)
from diator.errors import ContainerError, DependencyNotFoundError, UnsupportedRegistrationError
from diator_svcs._keys import Marks, key_of, service_type
from diator_svcs._scope import HIDDEN, SvcsScope


class SvcsContainer(GraphContainer):
    """Wraps a `svcs.Registry`: each unit of work has its own `svcs.Container`.

    It does not close the registry: this is up to the code that created it.
    """

    capabilities = ~ContainerCapability.DEEP_VALIDATION

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def qualifier(self, metadata: tuple[object, ...], /) -> Hashable | None:
        """Return all of the metadata, if a service is registered under ``Annotated`` with exactly this metadata."""
        known = (get_args(one.svc_type)[1:] for one in self._registry if get_origin(one.svc_type) is Annotated)
        return Marks(metadata) if metadata in known else None

    def provider(self, key: Key, _provided: Collection[Key] = (), /) -> "SvcsProvider | None":
        """Return what the registry has for the key's type."""
        service = service_type(key)
        return (
            SvcsProvider(key, self._registry.get_registered_service_for(service)) if service in self._registry else None
        )

    def validate(self, keys: Collection[Key], provided: Collection[Key], /) -> ValidationResult:
        """Check the factories that may run.

        svcs does not know which services a factory requests from its container. So a factory that takes the container
        may request any service in the registry. Whether they all exist is a warning.
        """
        wanted = [key for key in keys if key not in provided]
        found = [provider.service for key in wanted if (provider := self.provider(key))]
        errors: list[ContainerError] = [DependencyNotFoundError(key) for key in wanted if self.provider(key) is None]
        opaque = [one for one in found if one.takes_container]
        for service in self._registry if opaque else found:
            errors.extend(UnsupportedRegistrationError(key_of(service.svc_type), *one) for one in _refusals(service))
        return ValidationResult(errors, [_unknown_below(opaque)] if opaque else [])

    def scope(self, provided: Mapping[Key, object], /) -> SvcsScope:
        """Create the scope of a unit of work."""
        return SvcsScope(self._registry, provided)

    async def aclose(self) -> None:
        """Leave the registry open: closing would empty it, and other code may use it."""


class SvcsProvider(Provider):
    """A service in the registry. svcs does not tell what a factory asks the container for."""

    def __init__(self, key: Key, service: RegisteredService) -> None:
        # Values come by `register_value`, which wraps them in a function of its own; every unit of work shares them.
        is_value = getattr(_factory(service), "__module__", None) == Registry.__module__
        super().__init__(key, Lifetime.SINGLETON if is_value else Lifetime.SCOPED)
        self.service = service
        self.factory = inspect.unwrap(_factory(service))
        self.opaque = service.takes_container


def _factory(service: RegisteredService) -> Callable[..., object]:
    return service.factory  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - untyped in svcs


def _refusals(service: RegisteredService) -> Iterator[Reason]:
    if service.enter and service.suppress_context_exit and _is_resource(service):
        yield HIDDEN
    problem = call_error(_factory(service), *[Container] * service.takes_container)
    if isinstance(problem, TypeError):
        given = "the container alone" if service.takes_container else "nothing"
        fix = "wrap the factory in svcs.aautowire, which fills its parameters"
        yield f"svcs gives {given} to its factory ({problem})", fix


def _is_resource(service: RegisteredService) -> bool:
    """Tell whether svcs will enter what the factory gives, as far as can be seen before it runs."""
    function = inspect.unwrap(_factory(service))
    return (
        inspect.isgeneratorfunction(function)
        or inspect.isasyncgenfunction(function)
        or any(hasattr(one, name) for one in (function, service.svc_type) for name in ("__exit__", "__aexit__"))
    )


def _unknown_below(services: Sequence[RegisteredService]) -> ContainerError:
    names = ", ".join(dict.fromkeys(service.name for service in services))
    return UnsupportedRegistrationError(
        key_of(services[0].svc_type),
        f"svcs does not tell what the factories of {names} ask for, so that what is missing or goes in a circle below "
        "them shows only when they run",
        "send a message to each handler in a test",
    )
