"""The check: what would fail, or would not mean what it seems to mean, when keys are resolved."""

from collections.abc import Collection, Iterator

from dishka import DependencyKey
from dishka.entities.factory_type import FactoryType

from diator.containers import Key, Validation
from diator.errors import (
    ContainerError,
    DependencyCycleError,
    DependencyNotFoundError,
    LifetimeMismatchError,
    UnsupportedRegistrationError,
)
from diator_dishka._graph import Found, Graph, to_diator, to_dishka

Path = tuple[DependencyKey, ...]


class Check:
    """Walks the factories below keys, for scopes that are given the ``provided`` ones."""

    def __init__(self, graph: Graph, provided: Collection[Key]) -> None:
        self._graph = graph
        self._provided = provided
        self._errors: list[ContainerError] = []
        self._warnings: dict[DependencyKey, ContainerError] = {}
        self._seen: set[tuple[DependencyKey, int]] = set()

    def run(self, keys: Collection[Key]) -> Validation:
        """Walk below all of these keys."""
        self._errors.extend(error for key in self._provided for error in self._unreachable(key))
        sound: set[tuple[DependencyKey, int]] = set()
        for key in keys:
            self._seen, count = set(sound), len(self._errors)
            start = to_dishka(key)
            if key not in self._provided or self._graph.find(start, self._graph.deepest):
                self._walk(start, self._graph.deepest, ())
            if len(self._errors) == count:  # else each key that leads to the error is told
                sound |= self._seen
        return Validation(self._errors, list(self._warnings.values()))

    def _walk(self, key: DependencyKey, level: int, path: Path) -> None:
        if key in path:
            circle = (*path[path.index(key) :], key)
            self._errors.append(DependencyCycleError([to_diator(one) for one in circle]))
            return
        if (key, level) in self._seen:
            return
        self._seen.add((key, level))
        found = self._graph.find(key, level)
        if found is None:
            self._errors.append(self._missing(key, path))
            return
        self._errors.extend(self._without_value(found, key, path))
        if found.factory.type is FactoryType.SELECTOR and not found.variants:
            self._warnings[key] = _may_be_absent(key)
        for need in found.needs:
            self._walk(need, found.level, (*path, key))

    def _missing(self, key: DependencyKey, path: Path) -> ContainerError:
        plain = to_diator(key)
        if path and self._graph.find(key, self._graph.deepest):
            return LifetimeMismatchError(to_diator(path[-1]), plain)
        if path and plain in self._provided:
            reason = f"it needs {plain}, which senders provide, but no provider declares"
            remedy = f"declare it for dishka: from_context({plain}, scope=Scope.REQUEST)"
            return UnsupportedRegistrationError(to_diator(path[0]), reason, remedy)
        return DependencyNotFoundError(plain, [to_diator(one) for one in path])

    def _without_value(self, found: Found, key: DependencyKey, path: Path) -> Iterator[ContainerError]:
        plain = to_diator(key)
        if not found.is_context or plain in self._provided:
            return
        asked = to_diator(path[0]) if path else plain
        needs = f"it needs {plain}, which is" if path else "it is"
        if found.in_unit:
            reason = f"{needs} a value from_context, and the sender does not provide it"
            remedy = f"declare app.provides({plain}), and send with app.using(provide={{{plain}: ...}})"
            yield UnsupportedRegistrationError(asked, reason, remedy)
        elif not self._graph.has_value(key):
            reason = f"{needs} a value from_context that the container was not given"
            yield UnsupportedRegistrationError(
                asked, reason, f"pass it: make_async_container(..., context={{{plain}: ...}})"
            )

    def _unreachable(self, key: Key) -> Iterator[ContainerError]:
        """What factories would get in the place of a provided value."""
        found = self._graph.find(to_dishka(key), self._graph.deepest)
        if found is None:
            return
        reason = "senders provide it, but other factories would get that of the container, which"
        if not found.in_unit:
            remedy = f"give it scope=Scope.REQUEST there, or drop app.provides({key})"
            yield UnsupportedRegistrationError(key, f"{reason} outlives the unit of work", remedy)
        elif not found.is_context and not found.factory.cache:
            remedy = "drop cache=False there, or when="
            yield UnsupportedRegistrationError(key, f"{reason} is made or chosen anew each time", remedy)


def _may_be_absent(key: DependencyKey) -> ContainerError:
    reason = "each of its factories has when=, and whether one is active is known only in the unit of work"
    return UnsupportedRegistrationError(to_diator(key), reason, "provide one without when= too, before the others")
