"""The dependency graph of a library, inspected without building anything. For plugins.

A plugin describes what its library would use for a key as a `Provider`, and derives its container from
`GraphContainer`. This module then finds missing, circular, too long-lived and rejected dependencies, by the same rules
for each library.
"""

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from types import UnionType
from typing import NamedTuple, Union, get_args, get_origin

from diator._keys import Key
from diator.containers.factories import is_placeholder
from diator.containers.port import ContainerCapability, Lifetime, ValidationResult
from diator.errors import (
    ConfigurationError,
    ContainerError,
    DependencyCycleError,
    DependencyNotFoundError,
    LifetimeMismatchError,
    Problem,
    UnsupportedRegistrationError,
)

Reason = tuple[str, str]
"""What is wrong with a registration, and the fix."""

_LEVELS: Mapping[Lifetime, int | None] = {Lifetime.TRANSIENT: None, Lifetime.SCOPED: 0, Lifetime.SINGLETON: 1}


class Provider:
    """The provider that a library would use for a key. Plugins derive from it and override what they need."""

    factory: object | None = None
    """The class or function whose location errors contain."""
    opaque = False
    """Whether it resolves more dependencies while it runs, so that its needs are unknown."""
    varies = False
    """Whether its needs depend on earlier lookups."""
    absent: Reason | None = None
    """Why it has no value of its own, as a clause that follows "which", and the fix. Placeholders never have one."""
    hides: Reason | None = None
    """Why its own object would replace a value that senders provide."""

    def __init__(self, key: Key, lifetime: Lifetime, identity: Hashable = None) -> None:
        self.key = key
        """The key in errors."""
        self.lifetime = lifetime
        self.identity = key if identity is None else identity
        """Equal for lookups with the same needs."""
        self.level = _LEVELS[lifetime]
        """The scope in which it is kept: 0 is the unit of work. None: for as long as the object that holds it."""

    def needs(self) -> "Iterable[Need]":
        """Yield the lookups that the library would make to build it."""
        return ()

    def refusals(self) -> Iterable[Reason]:
        """Yield why the library does not support the registration."""
        return ()

    def warnings(self) -> Iterable[Reason]:
        """Yield what cannot be known at startup, or is rarely intended."""
        return ()


class Need(NamedTuple):
    """A lookup: a key, and the provider that the library would use for it."""

    key: Key
    provider: Provider | None
    """None if the library has nothing."""
    default: str | None = None
    """The parameter whose default is used in that case, if there is one."""


Find = Callable[[Key], Provider | None]


class GraphContainer:
    """A container that derives most of its members from the providers of its library."""

    capabilities = ~ContainerCapability(0)

    def qualifier(self, _metadata: tuple[object, ...], /) -> Hashable | None:
        """Return None: the library has no marker of its own. Diator reads `diator.Named` itself."""
        return None

    def provider(self, key: Key, provided: Collection[Key] = (), /) -> Provider | None:
        """Return the provider that the library would use for a key, in scopes with values for the ``provided`` keys."""
        raise NotImplementedError

    def declare(self, _key: Key, /) -> str | None:
        """Return how to declare a provided value, if factories cannot receive it otherwise."""
        return None

    def can_resolve(self, key: Key, /) -> bool:
        """Return whether the library has a provider."""
        return self.provider(key) is not None

    def lifetime(self, key: Key, /) -> Lifetime:
        """Return the lifetime of a key that has a provider."""
        provider = self.provider(key)
        return Lifetime.SCOPED if provider is None else provider.lifetime

    def factory_of(self, key: Key, /) -> object | None:
        """Return the factory of a key, whose location errors contain."""
        provider = self.provider(key)
        return None if provider is None else provider.factory

    def validate(self, keys: Collection[Key], provided: Collection[Key], /) -> ValidationResult:
        """Return everything that would fail for these keys, without building anything."""
        if ContainerCapability.PROVIDED_VALUES not in self.capabilities:
            keys, provided = [key for key in keys if key not in provided], ()  # factories would not receive them
        return check(keys, provided, lambda key: self.provider(key, provided), self.declare)

    def reaches(self, keys: Collection[Key], target: Key, /) -> bool:
        """Return whether building these keys may build the object of ``target``; True if unknown."""
        seen: set[Hashable] = set()

        def below(need: Need) -> bool:
            key, provider, default = need
            if provider is None and default is not None:
                return False
            if key == target or (provider is not None and (provider.opaque or provider.key == target)):
                return True
            if provider is None or provider.identity in seen:
                return False
            seen.add(provider.identity)
            return any(below(one) for one in provider.needs())

        return any(below(Need(key, self.provider(key))) for key in keys)


def check(
    keys: Collection[Key], provided: Collection[Key], find: Find, declare: Callable[[Key], str | None]
) -> ValidationResult:
    """Return everything that would fail for these keys, in scopes with values for the ``provided`` keys."""
    walk = _Walk(provided, find, declare)
    walk.run(keys)
    return ValidationResult(list(walk.errors.values()), list(walk.warnings.values()))


class _Walk:
    def __init__(self, provided: Collection[Key], find: Find, declare: Callable[[Key], str | None]) -> None:
        self._provided = provided
        self._find = find
        self._declare = declare
        self.errors: dict[Hashable, ContainerError] = {}
        self.warnings: dict[Hashable, ContainerError] = {}
        self._seen: set[Hashable] = set()

    def run(self, keys: Collection[Key]) -> None:
        for key in self._provided:
            provider = self._find(key)
            if provider is not None and provider.hides:
                self._fail(UnsupportedRegistrationError(key, *provider.hides))
        sound: set[Hashable] = set()
        for key in keys:
            self._seen, count = set(sound), len(self.errors)
            self._visit(Need(key, self._find(key)), ())
            if len(self.errors) == count:  # else each key that leads to an error is reported
                sound |= self._seen

    def _visit(self, need: Need, above: tuple[Provider, ...]) -> None:
        key, provider, _ = need
        holder = next((one for one in reversed(above) if one.level is not None), None)
        error = self._error(key, provider, above) or self._mismatch(key, provider, holder)
        if error is not None:
            self._fail(error)
        elif provider is not None and not (key in self._provided and _absent(provider)):
            step = (provider.identity, holder and holder.level)
            if provider.varies or step not in self._seen:
                self._seen.add(step)
                self._enter(provider, above)

    def _error(self, key: Key, provider: Provider | None, above: tuple[Provider, ...]) -> ContainerError | None:
        path = tuple(one.key for one in above)
        if provider is None:
            return self._missing(key, path)
        start = next((at for at, one in enumerate(above) if one.identity == provider.identity), None)
        if start is not None:
            return DependencyCycleError((*path[start:], path[start]))
        absent = _absent(provider)
        if not absent or key in self._provided:
            return None
        clause, fix = absent
        reason = f"it needs {key}, which {clause}" if path else f"it {clause}"
        return UnsupportedRegistrationError(path[0] if path else key, reason, fix)

    def _missing(self, key: Key, path: tuple[Key, ...]) -> ContainerError | None:
        if key not in self._provided:
            circle = key in path
            return (
                DependencyCycleError((*path[path.index(key) :], key)) if circle else DependencyNotFoundError(key, path)
            )
        fix = self._declare(key) if path else None
        reason = f"it needs {key}, which senders provide, but its container does not know"
        return UnsupportedRegistrationError(path[0], reason, fix) if fix else None

    def _mismatch(self, key: Key, provider: Provider | None, holder: Provider | None) -> ContainerError | None:
        is_provided = key in self._provided
        level = 0 if is_provided else None if provider is None else provider.level
        if holder is None or level is None or holder.level is None or level >= holder.level:
            return None
        return LifetimeMismatchError(holder.key, key)

    def _enter(self, provider: Provider, above: tuple[Provider, ...]) -> None:
        refusals = list(provider.refusals())
        for refusal in refusals:
            self._fail(UnsupportedRegistrationError(provider.key, *refusal))
        if refusals:
            return
        for warning in provider.warnings():
            self._warn(provider.key, warning)
        for need in provider.needs():
            if need.provider is not None or need.default is None or need.key in self._provided:
                self._visit(need, (*above, provider))
            for member in self._hidden(need):
                reason = f"it gets the default of {need.default!r}: {need.key} has no provider, though {member} has one"
                self._warn(provider.key, (reason, f"hint {member} alone; you may keep the default"))

    def _hidden(self, need: Need) -> list[Key]:
        """The members of a union that have a provider, if the default is used since the union has none."""
        if need.default is None or need.provider is not None or need.key in self._provided:
            return []
        hints = get_args(need.key.hint) if get_origin(need.key.hint) in (Union, UnionType) else ()
        return [key for key in (need.key._replace(hint=hint) for hint in hints) if self._find(key) is not None]

    def _warn(self, key: Key, reason: Reason) -> None:
        self.warnings[key, reason] = UnsupportedRegistrationError(key, *reason)

    def _fail(self, error: ContainerError) -> None:
        self.errors.setdefault((str(error), getattr(error, "path", None)), error)


def _absent(provider: Provider) -> Reason | None:
    if provider.absent or not is_placeholder(provider.factory):
        return provider.absent
    return "has a factory that returns none", senders_provide(provider.key)


def senders_provide(key: Key) -> str:
    """Say how a value that only senders bring is sent."""
    return f"declare app.provides({key}), and send with app.using(provide={{{key}: ...}})"


def require(container: object, kind: type, fix: str) -> None:
    """Raise `~diator.ConfigurationError` if this is not a container of the plugin's library."""
    if not isinstance(container, kind):
        text = f"expected {kind.__module__.partition('.')[0]}.{kind.__name__}, got {container!r}"
        raise ConfigurationError([Problem("container-plugin", text, fix)])
