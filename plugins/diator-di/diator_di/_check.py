"""What di would do to build a key: what is missing or circular below it, and what di would not do right."""

import contextlib
from collections.abc import Collection, Iterator
from typing import Any, cast

# Private to di, which decides by these itself; pyproject.toml admits the releases tried.
from di._utils.inspect import is_async_gen_callable, is_gen_callable
from di.api.dependencies import CacheKey

from diator.containers import Key, Lifetime, Need, Provider, Reason, call_error, is_abstract, is_of
from diator_di._wiring import EMPTY, Found, Wiring


class Graph:
    """The dependents below keys, in scopes that are given values for the ``provided`` ones."""

    def __init__(self, wiring: Wiring, provided: Collection[Key]) -> None:
        self.wiring = wiring
        self.provided = provided
        self.kept: dict[CacheKey, Found] = {}
        """The first dependent with each cache key."""

    def find(self, key: Key) -> "DiProvider | None":
        """Return what the user has chosen for a key; that di could make one up does not count."""
        found = self.wiring.find(key)
        return DiProvider(self, found) if found.chosen else None


class DiProvider(Provider):
    """A dependent that the user has chosen."""

    def __init__(self, graph: Graph, found: Found) -> None:
        self._graph = graph
        self._found = found
        dependent, scopes = found.dependent, graph.wiring.scopes
        outer = Lifetime.SCOPED if dependent.scope == graph.wiring.unit else Lifetime.SINGLETON
        call = self.factory = dependent.call
        identity = id(call) if type(call).__hash__ is None else call, dependent.scope
        super().__init__(found.key, outer if dependent.use_cache else Lifetime.TRANSIENT, identity)
        self.level = scopes[::-1].index(dependent.scope) if dependent.scope in scopes else None

    def needs(self) -> Iterator[Need]:
        for found in self._graph.wiring.needs(self._found.dependent):
            yield Need(found.key, DiProvider(self._graph, found) if found.chosen else None, found.default)

    def refusals(self) -> Iterator[Reason]:
        found = list(_refusals(self._found, self._graph.wiring))
        yield from found
        if found:
            return
        kept = self._graph.kept.setdefault(self._found.dependent.cache_key, self._found)
        if kept.dependent.scope != self._found.dependent.scope:
            reason = f"{kept.key} has the same provider in the scope {kept.dependent.scope!r}, and di would mix them up"
            yield reason, "give both the same scope, or write a function of its own for each"

    def warnings(self) -> Iterator[Reason]:
        if self._found.overridden:
            reason = f"the bind of its type overrides Marker({self._found.overridden.call!r})"
            yield reason, "drop the marker, or bind what it names, to override that alone"


def _refusals(found: Found, wiring: Wiring) -> Iterator[Reason]:
    """Yield why di cannot honor a dependent, if it cannot, and what to do instead."""
    # Any: whatever was given to a `Dependent`.
    dependent, call, unit = found.dependent, cast("Any", found.dependent.call), wiring.unit
    if dependent.scope not in wiring.scopes:
        reason = f"{call!r} has the scope {dependent.scope!r}, which is none of {', '.join(map(repr, wiring.scopes))}"
        yield reason, f"give it one, as in scope={unit!r}, or name yours: DiContainer(..., scopes=...)"
    if type(call).__hash__ is None:
        yield f"di keeps objects by what makes them, and {call!r} can't be hashed", "bind a function that makes it"
    elif is_abstract(call):
        yield f"{call!r} is abstract", "bind a class that implements it"
    elif isinstance(call, type) and call.__module__ == "builtins":
        yield f"di would make an empty {call.__qualname__}", "bind a function that gives the value"
    elif is_of(contextlib, call):
        yield f"{call!r} gives a context manager, which di takes for a generator", "drop its decorator"
    elif not dependent.use_cache and dependent.scope != unit and (is_gen_callable(call) or is_async_gen_callable(call)):
        yield "each use would open one that stays open until the app ends", f"give it the scope {unit!r}"
    else:
        yield from _wrong_needs(found, wiring)


def _wrong_needs(found: Found, wiring: Wiring) -> Iterator[Reason]:
    call = cast("Any", found.dependent.call)
    try:
        needs = list(wiring.needs(found.dependent))
    except Exception as error:  # noqa: BLE001 - whatever reading hints raises
        reason = f"di can't tell what {call!r} needs: {error}"
        yield reason, "correct its parameters and their hints, or bind a function that makes it"
        return
    if not needs and isinstance(call_error(call), TypeError):
        yield f"{call!r} wants arguments, and di would pass none", "drop wire=False"
    if any(need.key.hint is EMPTY and not need.chosen and need.default is None for need in needs):
        yield f"{call!r} has a parameter without a hint", "hint it"
