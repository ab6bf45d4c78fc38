"""What punq would do to resolve a key, found without building anything.

punq takes the last registration of a service. Where that one needs the same service again, it takes the one before,
which is how decorators are chained. When none is left, the parameter gets its default, or the service is missing. What
was built is used again until the object that was asked for is complete.
"""

from collections.abc import Collection, Hashable, Iterator
from typing import Any, get_args, get_origin

import punq

from diator.containers import Key, Lifetime, Need, Provider, Reason, hint_of, key_of, members_with
from diator_punq._registrations import Registered, Registrations, is_instance

# Any, in this module: a hint is any typing form.


class Way:
    """The way of punq to one object. Needs must be asked for in the order in which punq would."""

    def __init__(self, registrations: Registrations, provided: Collection[Key]) -> None:
        self.registrations = registrations
        self._provided = {hint_of(key) for key in provided}
        self._unregistered: dict[Any, Registered | None] = {}
        self.begin()

    def begin(self) -> None:
        """Forget what was taken and built, as punq does for a list."""
        self.left: dict[Any, list[Registered]] = {}
        self.built: set[Any] = set()
        self.taken = 0

    def need(self, hint: Any) -> Need:
        """Take what punq would take for a hint now."""
        if hint in self._provided:
            return Need(key_of(hint), None)
        if get_origin(hint) is list:
            return Need(key_of(hint), ListProvider(self, hint))
        one = self._take(hint)
        return Need(key_of(hint), None if one is None else PunqProvider(self, hint, one))

    def look(self, key: Key) -> "PunqProvider | None":
        """Return what is registered under a key, without taking it."""
        found = self.registrations.of(hint_of(key))
        return PunqProvider(self, hint_of(key), found[-1]) if found else None

    def has(self, hint: Any) -> bool:
        """Tell whether punq would find something for a hint now."""
        known = hint in self.built or hint in self._provided or get_origin(hint) is list
        return known or bool(self.left_of(hint))

    def left_of(self, hint: Any) -> list[Registered]:
        """Return the registrations that punq has not taken yet."""
        return self.left.setdefault(hint, self.registrations.of(hint))

    def _take(self, hint: Any) -> Registered | None:
        left = self.left_of(hint)
        if left:
            self.taken += left[-1].cache
            return left.pop() if left[-1].cache else left[-1]
        if hint not in self._unregistered and not self.registrations.of(hint):
            self._unregistered[hint] = self.registrations.unregistered(hint)
        return self._unregistered.get(hint)


class PunqProvider(Provider):
    """A registration of punq."""

    def __init__(self, way: Way, hint: Any, one: Registered, *, in_list: bool = False) -> None:
        self._way = way
        self._hint = hint
        self._one = one
        self._in_list = in_list
        self._taken = way.taken
        self.key = key_of(hint)
        self.lifetime = Lifetime.SINGLETON if one.scope is punq.Scope.singleton else Lifetime.TRANSIENT
        self.opaque = hint is punq.Container

    @property
    def factory(self) -> object | None:
        builder: object = self._one.builder
        return builder

    @property
    def identity(self) -> Hashable:
        # With as many others taken it would go on forever. Each registration has a dict of needs of its own.
        return self._way, id(self._one.needs), self._taken

    def needs(self) -> Iterator[Need]:
        for name, hint in self._one.hints.items():
            is_missing = name in self._one.defaults and not self._way.has(hint)
            if not is_missing and hint not in self._way.built:
                yield self._way.need(hint)
        if self._one.cache:
            self._way.built.add(self._hint)

    def refusals(self) -> Iterator[Reason]:
        if self._in_list and self.lifetime is Lifetime.SINGLETON and not is_instance(self._one):
            reason = f"punq builds the singleton {self._one.builder!r} anew for each list"
            yield reason, "make it first, and register it with instance=..., or as transient"
        yield from self._way.registrations.refusals(self._one)

    def warnings(self) -> Iterator[Reason]:
        for name, hint in self._one.hints.items():
            if name in self._one.defaults and not self._way.has(hint):
                for member in members_with(Key(hint), self._way.look):
                    why = f"since punq looks for a provider of {hint!r} itself"
                    yield (
                        f"{self._one.builder!r} gets the default of {name!r}, {why}",
                        f"hint {member} alone, which has one",
                    )


class ListProvider(Provider):
    """All that is registered for the items of a list."""

    lifetime = Lifetime.TRANSIENT

    def __init__(self, way: Way, hint: Any) -> None:
        self._way = way
        self.hint = hint
        self.key = key_of(hint)
        (self.item,) = get_args(hint)

    @property
    def identity(self) -> Hashable:
        return self

    def needs(self) -> Iterator[Need]:
        way = self._way
        outer = way.left, way.built, way.taken
        way.begin()
        for one in way.left_of(self.item):  # which gets shorter where one of them takes another
            yield Need(key_of(self.item), PunqProvider(way, self.item, one, in_list=True))
        way.left, way.built, way.taken = outer

    def refusals(self) -> Iterator[Reason]:
        if self._way.registrations.of(self.hint):
            reason = (
                f"punq does not look at this registration, and gives a list of all that is registered for {self.item!r}"
            )
            yield reason, "register a NewType of the list, and hint that"
