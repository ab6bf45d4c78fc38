"""What punq would do to resolve a key, found without building anything.

punq takes the last registration of a service. Where that one needs the same service again, it takes the one before,
which is how decorators are chained. When none is left, the parameter gets its default, or the service is missing. What
was built is used again until the object that was asked for is complete.
"""

from collections.abc import Collection
from typing import Any, get_args, get_origin

import punq

from diator.containers import Key
from diator.errors import (
    ContainerError,
    DependencyCycleError,
    DependencyNotFoundError,
    LifetimeMismatchError,
    UnsupportedRegistrationError,
)
from diator_punq._registrations import Registered, Registrations, hint_of, is_instance, key_of

Path = tuple[Key, ...]


class Walk:
    """One way through the registrations, and all that is wrong on it."""

    def __init__(self, registrations: Registrations, provided: Collection[Key]) -> None:
        self.errors: list[ContainerError] = []
        self.warnings: list[UnsupportedRegistrationError] = []
        self._registrations = registrations
        self._provided = {hint_of(key) for key in provided}
        # Any: a hint is any typing form.
        self._left: dict[Any, list[Registered]] = {}
        self._unregistered: dict[Any, Registered | None] = {}
        self._built: set[Any] = set()
        self._taken = 0
        self._building: list[tuple[Registered, int]] = []

    def to(self, key: Key) -> None:
        """Go to all that this key needs."""
        self._service(hint_of(key), (), None)

    def _service(self, hint: Any, path: Path, keeper: Key | None) -> None:
        key = key_of(hint)
        if hint in self._provided:
            if keeper is not None:
                self.errors.append(LifetimeMismatchError(keeper, key))
        elif get_origin(hint) is list:
            self._all_of(hint, key, path, keeper)
        elif hint not in self._built:
            one = self._take(hint)
            if (one is None and key in path) or (one is not None and self._is_building(one)):
                self.errors.append(DependencyCycleError((*path[path.index(key) :], key)))
            elif one is None:
                self.errors.append(DependencyNotFoundError(key, path))
            else:
                self._built_by(one, key, path, keeper)
                if one.cache:
                    self._built.add(hint)

    def _built_by(self, one: Registered, key: Key, path: Path, keeper: Key | None) -> None:
        refusals = list(self._registrations.refusals(one, key))
        if refusals:
            self.errors.extend(refusals)
            return
        if keeper is None and one.scope is punq.Scope.singleton:
            keeper = key
        self._building.append((one, self._taken))
        for name, hint in one.hints.items():
            if name in one.defaults and not self._has(hint):
                self._warn_of_default(one, key, name, hint)
            else:
                self._service(hint, (*path, key), keeper)
        self._building.pop()

    def _all_of(self, hint: Any, key: Key, path: Path, keeper: Key | None) -> None:
        (item,) = get_args(hint)
        if self._registrations.of(hint):
            reason = f"punq does not look at this registration, and gives a list of all that is registered for {item!r}"
            remedy = "register a NewType of the list, and hint that"
            self.errors.append(UnsupportedRegistrationError(key, reason, remedy))
        outer = self._left, self._built, self._taken
        self._left, self._built, self._taken = {}, set(), 0  # punq begins anew for a list
        for one in self._left_of(item):  # which gets shorter where one of them takes another
            if one.scope is punq.Scope.singleton and not is_instance(one):
                reason = f"punq builds the singleton {one.builder!r} anew for each list"
                remedy = "make it first, and register it with instance=..., or as transient"
                self.errors.append(UnsupportedRegistrationError(key_of(item), reason, remedy))
            elif self._is_building(one):
                self.errors.append(DependencyCycleError((*path, key)))
            else:
                self._built_by(one, key_of(item), (*path, key), keeper)
                if one.cache:
                    self._built.add(item)
        self._left, self._built, self._taken = outer

    def _is_building(self, one: Registered) -> bool:
        # With as many others taken it would go on for ever. Each registration has a dict of needs of its own.
        return any(one.needs is other.needs and self._taken == taken for other, taken in self._building)

    def _has(self, hint: Any) -> bool:
        known = hint in self._built or hint in self._provided or get_origin(hint) is list
        return known or bool(self._left_of(hint))

    def _take(self, hint: Any) -> Registered | None:
        left = self._left_of(hint)
        if left:
            self._taken += left[-1].cache
            return left.pop() if left[-1].cache else left[-1]
        if hint not in self._unregistered and not self._registrations.of(hint):
            self._unregistered[hint] = self._registrations.unregistered(hint)
        return self._unregistered.get(hint)

    def _left_of(self, hint: Any) -> list[Registered]:
        return self._left.setdefault(hint, self._registrations.of(hint))

    def _warn_of_default(self, one: Registered, key: Key, name: str, hint: Any) -> None:
        others = [other for other in get_args(hint) if self._registrations.of(other)]
        if others:
            reason = f"{one.builder!r} gets the default of {name!r}, since punq looks for a provider of {hint!r} itself"
            remedy = f"hint {others[0]!r} alone, which has one"
            self.warnings.append(UnsupportedRegistrationError(key, reason, remedy))
