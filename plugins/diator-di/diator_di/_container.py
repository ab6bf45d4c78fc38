"""The plugin: implements Diator's port for a di container."""

import contextlib
from collections.abc import Collection, Hashable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any, NoReturn

from di import Container
from di._utils.inspect import is_async_gen_callable, is_coroutine_callable  # what di itself decides by
from di.dependent import Dependent

from diator.containers import GraphContainer, Key, ValidationResult, check, require
from diator.errors import ContainerError, DependencyNotFoundError
from diator_di._check import DiProvider, Graph
from diator_di._scope import DiScope, Outer, Plan
from diator_di._wiring import Dependency, Wiring, marker_in


class DiContainer(GraphContainer):
    """Wraps a di container. ``scopes`` are the names of its scopes, outermost first.

    The last scope is opened for each unit of work; the others live until the app ends. Raises
    `~diator.ConfigurationError` for anything but a `di.Container`.
    """

    def __init__(self, container: Container, *, scopes: Sequence[Hashable] = ("app", "request")) -> None:
        require(container, Container, "pass the one that has your binds")
        self._wiring = Wiring(container, scopes)
        self._plans = Plans(self._wiring)
        self._outer: Outer | None = None

    def qualifier(self, metadata: tuple[object, ...], /) -> Hashable | None:
        """Read di's own ``Marker(...)``."""
        return marker_in(metadata)

    def provider(self, key: Key, provided: Collection[Key] = (), /) -> DiProvider | None:
        """Return the user's binding; classes that di could build without a binding do not count."""
        return Graph(self._wiring, provided).find(key)

    def validate(self, keys: Collection[Key], provided: Collection[Key], /) -> ValidationResult:
        """Return what cannot be built. If everything can, let di plan all of it."""
        found = self._plans.check(keys, provided)
        if not found.errors:
            for key, given in product(keys, {(), tuple(provided)}):
                if key in given:
                    continue
                with contextlib.suppress(ContainerError):  # what senders bring may be missing where they don't
                    self._plans.add(key, given)
        return found

    def scope(self, provided: Mapping[Key, object], /) -> DiScope:
        """Create a scope for one unit of work."""
        if self._outer is None:
            self._outer = Outer(self._wiring.scopes[:-1])
        return DiScope(self._wiring.unit, self._outer, self._plans, provided)

    async def aclose(self) -> None:
        """Close the outer scopes. They are opened again if the container is used again."""
        outer, self._outer = self._outer, None
        if outer is not None:
            await outer.stack.close(None)


class Plans:
    """How objects are built, planned once, since that takes di a millisecond: by what was provided, and by key."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._binds = wiring.hooks.copy()
        self._plans: dict[frozenset[Key], dict[Key, Plan]] = {}
        self._places: dict[Key, Dependency] = {}

    def of(self, provided: Collection[Key]) -> dict[Key, Plan]:
        """Give the plans that there are for scopes with these values; none, if binds came or went since."""
        if self._binds != self._wiring.hooks:
            self._binds = self._wiring.hooks.copy()
            self._plans.clear()
        return self._plans.setdefault(frozenset(provided), {})

    def add(self, key: Key, provided: Collection[Key]) -> Plan:
        """Plan how to build the object of a key. Raises `~diator.ContainerError` where it can't be built."""
        errors = self.check([key], provided).errors
        if errors:
            raise errors[0]
        plan = self.of(provided)[key] = self._plan(self._wiring.find(key).dependent, provided)
        return plan

    def check(self, keys: Collection[Key], provided: Collection[Key]) -> ValidationResult:
        """Find what would fail below these keys."""
        return check(keys, provided, Graph(self._wiring, provided).find, lambda _: None)

    def values(self, provided: Mapping[Key, object]) -> dict[Any, object]:
        """Translate what was provided for di, which wants to know what it need not call."""
        return {self._place(key).call: value for key, value in provided.items()}

    def _plan(self, root: Dependency, provided: Collection[Key]) -> Plan:
        solved = self._wiring.solve(root, {key: self._place(key) for key in provided})
        awaited = [provider for provider in solved.dag if _awaits(provider)]
        singletons = [one for one in awaited if one.use_cache and one.scope != self._wiring.unit]
        alone = tuple((one.cache_key, self._wiring.solve(one, {})) for one in singletons)
        return Plan(solved, bool(awaited), alone)

    def _place(self, key: Key) -> Dependency:
        """Give what stands in a plan for a value that is provided."""
        if key not in self._places:
            self._places[key] = Dependent[Any](partial(_missing, key), scope=self._wiring.unit, wire=False)
        return self._places[key]


def _awaits(provider: Dependency) -> bool:
    call = provider.call
    return call is not None and (is_coroutine_callable(call) or is_async_gen_callable(call))


def _missing(key: Key) -> NoReturn:
    raise DependencyNotFoundError(key)
