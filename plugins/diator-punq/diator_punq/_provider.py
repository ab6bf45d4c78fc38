"""What punq would do to resolve a key, found without building anything.

punq takes the last registration of a service. Where that one needs the same service again, it takes the one before,
which is how decorators are chained. When none is left, the parameter gets its default, or the service is missing. What
was built is used again until the object that was asked for is complete.
"""

from collections.abc import Collection, Iterator
from typing import Any, get_args, get_origin

import punq

from diator.containers import Key, Lifetime, Need, Provider, Reason, hint_of, key_of
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

    def need(self, hint: Any, default: str | None = None) -> Need:
        """Take what punq would take for a hint now."""
        if default is not None and not self.has(hint):
            return Need(key_of(hint), None, default)
        if hint in self._provided:
            return Need(key_of(hint), None)
        if get_origin(hint) is list:
            return Need(key_of(hint), ListProvider(self, hint))
        one = self._take(hint)
        return Need(key_of(hint), None if one is None else PunqProvider(self, hint, one))

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

    varies = True

    def __init__(self, way: Way, hint: Any, one: Registered, *, in_list: bool = False) -> None:
        self._way = way
        self._hint = hint
        self._one = one
        self._in_list = in_list
        # With as many others taken it would go on forever. Each registration has a dict of needs of its own.
        identity = way, id(one.needs), way.taken
        lifetime = Lifetime.SINGLETON if one.scope is punq.Scope.singleton else Lifetime.TRANSIENT
        super().__init__(key_of(hint), lifetime, identity)
        self.factory = one.builder
        self.opaque = hint is punq.Container

    def needs(self) -> Iterator[Need]:
        for name, hint in self._one.hints.items():
            if hint not in self._way.built:
                yield self._way.need(hint, name if name in self._one.defaults else None)
        if self._one.cache:
            self._way.built.add(self._hint)

    def refusals(self) -> Iterator[Reason]:
        if self._in_list and self.lifetime is Lifetime.SINGLETON and not is_instance(self._one):
            reason = f"punq builds the singleton {self._one.builder!r} again for each list"
            yield reason, "make it first, and register it with instance=..., or as transient"
        yield from self._way.registrations.refusals(self._one)


class ListProvider(Provider):
    """All that is registered for the items of a list."""

    def __init__(self, way: Way, hint: Any) -> None:
        super().__init__(key_of(hint), Lifetime.TRANSIENT, self)
        self._way = way
        self._hint = hint
        (self._item,) = get_args(hint)

    def needs(self) -> Iterator[Need]:
        way = self._way
        outer = way.left, way.built, way.taken
        way.begin()
        for one in way.left_of(self._item):  # which gets shorter where one of them takes another
            yield Need(key_of(self._item), PunqProvider(way, self._item, one, in_list=True))
        way.left, way.built, way.taken = outer

    def refusals(self) -> Iterator[Reason]:
        if self._way.registrations.of(self._hint):
            reason = "punq does not look at this registration, and gives a list of all that is registered for"
            reason = f"{reason} {self._item!r}"
            yield reason, "register a NewType of the list, and hint that"
