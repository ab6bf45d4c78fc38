"""The factories that a dishka container holds, found without running any.

dishka does not document its registry. Its shape, and that of the cache in `_scope`, is that of the releases which
pyproject.toml admits.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dishka import DEFAULT_COMPONENT, AsyncContainer, DependencyKey
from dishka.dependency_source import Factory
from dishka.entities.factory_type import FactoryType
from dishka.entities.marker import BoolMarker
from dishka.exceptions import NoContextValueError
from dishka.registry import Registry

from diator.containers import Key, Lifetime
from diator.errors import ConfigurationError, Problem


def to_dishka(key: Key) -> DependencyKey:
    """Write a key as dishka does: the qualifier is a component."""
    # A qualifier that is no text names no component, so dishka finds nothing for it.
    return DependencyKey(key.hint, DEFAULT_COMPONENT if key.qualifier is None else key.qualifier)  # type: ignore[arg-type]


def to_diator(key: DependencyKey) -> Key:
    """Write a key of dishka as Diator does."""
    return Key(key.type_hint, key.component or None)


class Found(NamedTuple):
    """A factory, and the scope that it stands in."""

    factory: Factory
    level: int
    in_unit: bool
    """Whether the unit of work opens this scope, rather than the container itself."""

    @property
    def is_brought(self) -> bool:
        """Whether the sender of a message has to bring the value: ``from_context`` in the scope of the unit."""
        return self.in_unit and self.is_context

    @property
    def is_context(self) -> bool:
        """Whether it stands for a value from outside. The container itself is inside."""
        return self.factory.type is FactoryType.CONTEXT and self.factory.provides.type_hint is not AsyncContainer

    @property
    def lifetime(self) -> Lifetime:
        """How long what it makes is shared."""
        if not self.factory.cache and self.factory.type is not FactoryType.CONTEXT:
            return Lifetime.TRANSIENT
        return Lifetime.SCOPED if self.in_unit else Lifetime.SINGLETON

    @property
    def needs(self) -> Iterator[DependencyKey]:
        """What its arguments are looked up by."""
        for key in (*self.factory.dependencies, *self.factory.kw_dependencies.values()):
            if not (key.is_const() or key.is_type_var() or key.type_hint is DependencyKey):
                yield key
        yield from self.variants

    @property
    def variants(self) -> list[DependencyKey]:
        """What is chosen from, or collected, as far as that is known before the unit of work: see ``when=``."""
        active = [one.provides for one in self.factory.when_dependencies if one.when_active == BoolMarker(value=True)]
        return active[:1] if self.factory.type is FactoryType.SELECTOR else active


class Graph:
    """The factories of all scopes, from the outermost one to that of the unit of work.

    Raises `~diator.ConfigurationError` for a container that has no scope to open.
    """

    def __init__(self, container: AsyncContainer) -> None:
        self._container = container
        outer = list(_outer(container))[::-1]
        inner = list(_inner(container))
        self._registries = (*outer, *inner)
        self.unit = len(outer)
        """The outermost scope that the unit of work opens."""
        self.deepest = len(self._registries) - 1
        self.innermost = self._registries[-1]

    def find(self, key: DependencyKey, level: int) -> Found | None:
        """Find the factory that dishka would use for a key in this scope: the innermost one."""
        for candidate in range(level, -1, -1):
            factory = self._registries[candidate].get_factory(key)
            if factory is not None and not _is_off(factory):
                return Found(factory, candidate, candidate >= self.unit)
        return None

    def source(self, key: Key) -> Found | None:
        """Find what makes the object of a key in the end: aliases are followed, and choices."""
        found = self.find(to_dishka(key), self.deepest)
        while found is not None and (ways := _ways(found)):
            found = self.find(ways[0], found.level)
        return found

    def has_value(self, key: DependencyKey) -> bool:
        """Tell whether ``make_async_container`` was given a value that it was told to expect."""
        try:
            self._container.get_sync(key.type_hint, key.component)  # a value from outside, so nothing is run
        except NoContextValueError:
            return False
        return True


def _is_off(factory: Factory) -> bool:
    """Whether there is nothing to choose from. Values that a container was not given are off too, but told as such."""
    return factory.type is FactoryType.SELECTOR and factory.when_active == BoolMarker(value=False)


def _ways(found: Found) -> Sequence[DependencyKey]:
    if found.factory.type is FactoryType.SELECTOR:
        return found.variants
    return found.factory.dependencies if found.factory.type is FactoryType.ALIAS else ()


def _outer(container: AsyncContainer | None) -> Iterator[Registry]:
    while container is not None:
        yield container.registry
        container = container.parent_container


def _inner(container: AsyncContainer) -> Iterator[Registry]:
    """The scopes that ``container()`` opens: the next one that is not skipped, and those that are."""
    registry = container.registry.child_registry
    while registry is not None:
        yield registry
        if not registry.scope.skip:
            return
        registry = registry.child_registry
    text = f"the dishka container of {container.scope} has no scope to open for a unit of work"
    fix = "pass the one that make_async_container gave, and leave a scope below its own"
    raise ConfigurationError([Problem("container-plugin", text, fix)])
