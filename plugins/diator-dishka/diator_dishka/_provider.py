"""What dishka would do to build a key, and what would not mean what it seems to mean."""

from collections.abc import Collection, Hashable, Iterator

from dishka import AsyncContainer, DependencyKey
from dishka.entities.factory_type import FactoryType

from diator.containers import Key, Lifetime, Need, Provider, Reason, Validation, check, senders_provide
from diator_dishka._graph import Found, Graph, to_diator, to_dishka


def look(graph: Graph, key: DependencyKey, level: int) -> "DishkaProvider | None":
    """Return what dishka would use for a key in a scope; if it has nothing there, what it would use further inside."""
    found = graph.find(key, level) or graph.find(key, graph.deepest)
    return None if found is None else DishkaProvider(graph, key, found)


def problems(graph: Graph, keys: Collection[Key], provided: Collection[Key]) -> Validation:
    """Find what is missing, also where dishka was told to skip that, and what provided values can't reach."""
    return check(
        keys,
        provided,
        lambda key: look(graph, to_dishka(key), graph.deepest),
        lambda key: f"declare it for dishka: from_context({key}, scope=Scope.REQUEST)",
    )


class DishkaProvider(Provider):
    """A factory of dishka."""

    def __init__(self, graph: Graph, key: DependencyKey, found: Found) -> None:
        self._graph = graph
        self._found = found
        self._native_key = key
        self.key = to_diator(key)
        self.opaque = found.factory.provides.type_hint is AsyncContainer

    @property
    def lifetime(self) -> Lifetime:  # type: ignore[override]
        source = self._graph.source(self.key)
        return Lifetime.SCOPED if source is None else source.lifetime

    @property
    def factory(self) -> object | None:
        source = self._graph.source(self.key)
        made: object = None if source is None else source.factory.source
        return made

    @property
    def identity(self) -> Hashable:
        return self._native_key, self._found.level

    @property
    def level(self) -> int:
        return self._graph.unit - self._found.level

    @property
    def absent(self) -> Reason | None:
        if not self._found.is_context:
            return None
        if self._found.in_unit:
            return "is a value from_context, and the sender does not provide it", senders_provide(self.key)
        if self._graph.has_value(self._native_key):
            return None
        fix = f"pass it: make_async_container(..., context={{{self.key}: ...}})"
        return "is a value from_context that the container was not given", fix

    @property
    def hides(self) -> Reason | None:
        reason = "senders provide it, but other factories would get that of the container, which"
        if not self._found.in_unit:
            fix = f"give it scope=Scope.REQUEST there, or drop app.provides({self.key})"
            return f"{reason} outlives the unit of work", fix
        if not self._found.is_context and not self._found.factory.cache:
            return f"{reason} is made or chosen anew each time", "drop cache=False there, or when="
        return None

    def needs(self) -> Iterator[Need]:
        for key in self._found.needs:
            yield Need(to_diator(key), look(self._graph, key, self._found.level))

    def warnings(self) -> Iterator[Reason]:
        if self._found.factory.type is FactoryType.SELECTOR and not self._found.variants:
            reason = "each of its factories has when=, and whether one is active is known only in the unit of work"
            yield reason, "provide one without when= too, before the others"
