"""What dishka would do to build a key, and what would not mean what it seems to mean."""

from collections.abc import Collection, Iterator

from dishka import AsyncContainer, DependencyKey
from dishka.entities.factory_type import FactoryType

from diator.containers import Key, Need, Provider, Reason, ValidationResult, check, senders_provide
from diator_dishka._graph import Found, Graph, to_diator, to_dishka


def look(graph: Graph, key: DependencyKey, level: int) -> "DishkaProvider | None":
    """Return what dishka would use for a key in a scope; if it has nothing there, what it would use further inside."""
    found = graph.find(key, level) or graph.find(key, graph.deepest)
    return None if found is None else DishkaProvider(graph, key, found)


def problems(graph: Graph, keys: Collection[Key], provided: Collection[Key]) -> ValidationResult:
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
        source = graph.source(to_diator(key)) or found
        super().__init__(to_diator(key), source.lifetime, (key, found.level))
        self.factory = source.factory.source
        self.level = graph.unit - found.level
        self.opaque = found.factory.provides.type_hint is AsyncContainer
        if found.is_context and found.in_unit:
            self.absent = "is a value from_context, and the sender does not provide it", senders_provide(self.key)
        elif found.is_context and not graph.has_value(key):
            fix = f"pass it: make_async_container(..., context={{{self.key}: ...}})"
            self.absent = "is a value from_context that the container was not given", fix
        reason = "senders provide it, but other factories would get that of the container, which"
        if not found.in_unit:
            fix = f"give it scope=Scope.REQUEST there, or drop app.provides({self.key})"
            self.hides = f"{reason} outlives the unit of work", fix
        elif not found.is_context and not found.factory.cache:
            self.hides = f"{reason} is made or chosen again each time", "drop cache=False there, or when="

    def needs(self) -> Iterator[Need]:
        for key in self._found.needs:
            yield Need(to_diator(key), look(self._graph, key, self._found.level))

    def warnings(self) -> Iterator[Reason]:
        if self._found.factory.type is FactoryType.SELECTOR and not self._found.variants:
            reason = "each of its factories has when=, and whether one is active is known only in the unit of work"
            yield reason, "provide one without when= too, before the others"
