"""What a wireup container holds. All that is private to wireup is read here, except for the stack in `_scope`.

wireup has no public way to list its factories and what they need, to close resources one by one, and to build
singletons again after they were closed; pyproject.toml admits the releases that were tried.
"""

# pyright: reportPrivateUsage=false
import contextlib
import inspect
from collections.abc import Iterator

from wireup import AsyncContainer
from wireup.errors import UnknownParameterError
from wireup.ioc.factory_compiler import CompiledFactory
from wireup.ioc.registry import InjectableFactory
from wireup.ioc.type_analysis import TypeAnalysis, analyze_type
from wireup.ioc.types import (
    ConfigInjectionRequest,
    ContainerObjectIdentifier,
    ExitStack,
    InjectableType,
    get_container_object_id,
)
from wireup.ioc.util import _get_injectable_type, ensure_is_type, get_globals

from diator.containers import Key, Lifetime
from diator.errors import DependencyNotFoundError


def id_of(key: Key) -> ContainerObjectIdentifier:
    """Write a key as wireup does."""
    return get_container_object_id(key.hint, key.qualifier)


def is_config(key: Key) -> bool:
    """Tell whether this asks for a value of the config: ``Inject(config="url")``, ``Inject(expr="${host}:1")``."""
    return isinstance(key.qualifier, ConfigInjectionRequest)


def marker_of(metadata: tuple[object, ...]) -> InjectableType | None:
    """Find wireup's marker in ``Annotated[T, *metadata]``. Where FastAPI is installed, wireup wraps it for FastAPI."""
    return next(filter(None, map(_get_injectable_type, metadata)), None)


class Registrations:
    """What a wireup container holds, also what is registered later."""

    def __init__(self, container: AsyncContainer) -> None:
        self._container = container
        self._registry = container._registry
        self._found: dict[Key, ContainerObjectIdentifier] = {}

    def knows(self, key: Key) -> bool:
        """Tell whether wireup has a factory, or a value in its config, for this key."""
        if not is_config(key):
            return self.find(key) is not None
        try:
            self.config(key)
        except DependencyNotFoundError:
            return False
        return True

    def find(self, key: Key) -> ContainerObjectIdentifier | None:
        """Tell by which name wireup has a factory for a key; None where it has none."""
        found = self._found.get(key)
        if found is None and self._registry.is_type_with_qualifier_known(key.hint, key.qualifier):
            found = self._found[key] = id_of(self._without_warning(key))
        return found

    def _without_warning(self, key: Key) -> Key:
        """Prefer ``T | None``, out of which wireup makes ``T`` by itself, with a warning each time."""
        if self.is_abstract(key) or not self.factory(key).is_synthetic:
            return key
        optional = Key(key.hint | None, key.qualifier)
        return optional if id_of(optional) in self._registry.factories else key

    def config(self, key: Key) -> object:
        """Give the value that ``Inject(config=...)`` asks for. Raises `~diator.DependencyNotFoundError`."""
        if isinstance(key.qualifier, ConfigInjectionRequest):
            with contextlib.suppress(UnknownParameterError, ValueError):  # the latter for "a..b"
                return self._registry.parameters.get(key.qualifier.config_key)
        raise DependencyNotFoundError(key)

    def is_abstract(self, key: Key) -> bool:
        """Tell whether this is an ``@abstract`` class, which stands for others."""
        return self._registry.is_interface_known(key.hint)

    def lifetime(self, key: Key) -> Lifetime:
        """Tell how long the object of a known key is shared."""
        if is_config(key):
            return Lifetime.SINGLETON
        return Lifetime(self._registry.get_lifetime(key.hint, key.qualifier))

    def factory(self, key: Key) -> InjectableFactory:
        """Give what makes the object of a known key."""
        return self._registry.factories[id_of(key)]

    def needs(self, key: Key) -> dict[str, Key]:
        """Tell what wireup passes to the factory of a known key, by the name of the parameter."""
        found = self._registry.dependencies[self.factory(key).factory]
        return {name: Key(one.klass, one.qualifier_value) for name, one in found.items() if not one.is_parameter}

    def hints(self, key: Key) -> Iterator[tuple[str, TypeAnalysis]]:
        """Read the hints of the factory of a known key, as wireup does."""
        function = self.factory(key).factory
        for name, parameter in inspect.signature(function).parameters.items():
            yield (
                name,
                analyze_type(ensure_is_type(parameter.annotation, globalns_supplier=lambda: get_globals(function))),
            )

    @property
    def singleton_resources(self) -> ExitStack:
        """The open resources that outlive the scopes."""
        return self._container._global_scope_exit_stack

    def forget_singletons(self) -> None:
        """Have singletons built again.

        wireup itself goes on giving out those that were closed, and their locks belong to the event loop that waited.
        """
        self._container._global_scope_objects.clear()
        compiler, registry = self._container._compiler, self._registry
        for hint, qualifiers in registry.impls.items():
            for qualifier in qualifiers:
                key = Key(hint, qualifier)
                if self.lifetime(key) is Lifetime.SINGLETON:
                    fresh = compiler._compile_and_create_function(self.factory(key), hint, qualifier)
                    self._compiled(id_of(key)).factory = fresh.factory

    def _compiled(self, identifier: ContainerObjectIdentifier) -> CompiledFactory:
        """What wireup calls for a key, or will call again when ``container.override`` ends."""
        overrides = self._container._override_mgr._original_factories.get(identifier)
        return overrides[0].original_factory if overrides else self._container._compiler.factories[identifier]
