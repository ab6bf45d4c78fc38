"""The walk at the start and punq agree on what can be resolved, for any graph of services."""

import os
from typing import Any, NamedTuple

import punq
from diator_punq import PunqContainer
from hypothesis import given, settings
from hypothesis import strategies as st

from diator.containers import Key

PROOFS = int(os.environ.get("DIATOR_PROOFS", "1"))
"""How much of a long proof is done: a short version in every run of the tests, more where there is more time."""

SERVICES: list[type] = [type(f"Service{number}", (), {}) for number in range(4)]


class Need(NamedTuple):
    service: int
    optional: bool
    many: bool


class Given(NamedTuple):
    service: int
    needs: list[Need]
    cache: bool
    singleton: bool


services = st.integers(0, len(SERVICES) - 1)
needs = st.lists(st.builds(Need, services, st.booleans(), st.booleans()), max_size=2)
graphs = st.lists(st.builds(Given, services, needs, st.booleans(), st.just(False)), max_size=7)
graphs_of_singletons = st.lists(
    st.builds(
        Given,
        services,
        st.lists(st.builds(Need, services, st.booleans(), st.just(False))),
        st.just(True),
        st.booleans(),
    ),
    max_size=7,
)


def implementation(needs: list[Need]) -> type:
    """Make a class whose constructor needs this."""
    ordered = sorted(needs, key=lambda need: need.optional)
    names = [f"need{number}" + ("=None" if need.optional else "") for number, need in enumerate(ordered)]
    namespace: dict[str, Any] = {}
    exec(f"def __init__({', '.join(['self', *names])}): pass", namespace)
    namespace["__init__"].__annotations__ = {
        f"need{number}": _listed(SERVICES[need.service]) if need.many else SERVICES[need.service]
        for number, need in enumerate(ordered)
    }
    return type("Implementation", (), {"__init__": namespace["__init__"]})


def _listed(service: Any) -> Any:
    return list[service]


def container_of(graph: list[Given]) -> punq.Container:
    native = punq.Container()
    for one in graph:
        scope = punq.Scope.singleton if one.singleton else punq.Scope.transient
        native.register(SERVICES[one.service], implementation(one.needs), scope=scope, cache=one.cache)
    return native


def resolves(graph: list[Given], service: type) -> bool:
    try:
        container_of(graph).resolve(service)
    except (punq.MissingDependencyError, RecursionError, TypeError):  # `inspect` makes one of the other
        return False
    return True


def agree(graph: list[Given]) -> None:
    for service in SERVICES:
        found = PunqContainer(container_of(graph)).validate([Key(service)], ()).errors
        assert (not found) == resolves(graph, service), found


@settings(max_examples=35 * PROOFS, deadline=None)
@given(graphs)
def test_what_the_walk_finds_right_punq_can_resolve_and_nothing_else(graph: list[Given]) -> None:
    agree(graph)


@settings(max_examples=20 * PROOFS, deadline=None)
@given(graphs_of_singletons)
def test_the_same_holds_for_singletons(graph: list[Given]) -> None:
    agree(graph)
