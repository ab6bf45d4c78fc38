"""What a unit of work resolves without awaiting is what dishka resolves: random providers, compared with dishka alone.

Everything that is built has a number, in the order of building, so that one comparison covers sharing, order, and what
closes when.
"""

import asyncio
import inspect
import os
from collections.abc import AsyncGenerator, Generator
from typing import Any, NamedTuple

import pytest
from diator_dishka import DishkaContainer
from dishka import AsyncContainer, Marker, Provider, Scope, make_async_container
from dishka.exception_base import DishkaError
from dishka.registry import Registry
from hypothesis import given, settings
from hypothesis import strategies as st

from diator.containers import Key
from diator.errors import ContainerError

PROOFS = int(os.environ.get("DIATOR_PROOFS", "1"))

# Any, in this module: factories of all kinds are made here.


class Made:
    """What factories make."""

    def __init__(self, log: list[str], needs: dict[str, Any]) -> None:
        self.number = len(log)
        self.needs = needs
        log.append(f"{type(self).__name__} built")


class Brought:
    """The value of a sender."""


class Never(Marker):
    """What is never active."""


HINTS: list[type[Made]] = [type(f"S{number}", (Made,), {}) for number in range(5)]
SCOPES = [Scope.RUNTIME, Scope.APP, Scope.SESSION, Scope.REQUEST]
KINDS = ["function"] * 5 + ["generator"] * 3 + ["coroutine", "async generator", "alias", "inactive", "fails once"]


class Recipe(NamedTuple):
    """How the object of one hint is made; it needs only hints before its own, in scopes as long as its own."""

    kind: str
    scope: Scope
    cached: bool
    needs: list[int]
    container: bool
    """Whether it needs the container too."""
    brought: bool
    """Whether it needs the value of the sender too."""


recipes = st.builds(
    Recipe,
    st.sampled_from(KINDS),
    st.sampled_from([*SCOPES, Scope.APP, *[Scope.REQUEST] * 6]),
    st.sampled_from([True, True, False]),
    st.lists(st.integers(0, len(HINTS) - 1), max_size=2, unique=True),
    st.sampled_from([False] * 9 + [True]),
    st.sampled_from([False] * 6 + [True]),
)


class Resolve(NamedTuple):
    """A step: one of two units of work that overlap resolves a key."""

    unit: int
    number: int
    immediately: bool


steps = st.lists(st.builds(Resolve, st.integers(0, 1), st.integers(0, len(HINTS) - 1), st.booleans()), max_size=8)


def container_of(made_so: list[Recipe], log: list[str]) -> AsyncContainer:
    provider = Provider()
    provider.from_context(Brought, scope=Scope.REQUEST)
    for number, recipe in enumerate(made_so):
        needs = [one for one in recipe.needs if one < number and _lasts(made_so[one], recipe)]
        if recipe.kind == "alias" and needs:
            provider.alias(HINTS[needs[0]], provides=HINTS[number], cache=recipe.cached)
            continue
        hints: dict[str, Any] = {f"p{one}": HINTS[one] for one in needs}
        if recipe.container:
            hints["container"] = AsyncContainer
        if recipe.brought and recipe.scope is Scope.REQUEST:
            hints["brought"] = Brought
        when: dict[str, Any] = {"when": Never("never")} if recipe.kind == "inactive" else {}
        source = _source(recipe.kind, HINTS[number], hints, log)
        provider.provide(source, provides=HINTS[number], scope=recipe.scope, cache=recipe.cached, **when)
    provider.activate(lambda: False, Never)
    return make_async_container(provider)


def _lasts(needed: Recipe, recipe: Recipe) -> bool:
    return SCOPES.index(needed.scope) <= SCOPES.index(recipe.scope) and needed.kind != "inactive"


def _source(kind: str, cls: type[Made], hints: dict[str, Any], log: list[str]) -> Any:
    fails = iter([kind == "fails once"])

    def function(**needs: Any) -> Made:
        if next(fails, False):
            raise ZeroDivisionError
        return cls(log, needs)

    def generator(**needs: Any) -> Generator[Made, Any, None]:
        made = function(**needs)
        error: object = yield made
        log.append(f"{cls.__name__} {made.number} closed, {error!r}")

    async def coroutine(**needs: Any) -> Made:
        await asyncio.sleep(0)
        return function(**needs)

    async def async_generator(**needs: Any) -> AsyncGenerator[Made, Any]:
        made = function(**needs)
        error: object = yield made
        log.append(f"{cls.__name__} {made.number} closed, {error!r}")

    sources: dict[str, Any] = {"generator": generator, "coroutine": coroutine, "async generator": async_generator}
    source = sources.get(kind, function)
    parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=hints[name]) for name in hints]
    source.__signature__ = inspect.Signature(parameters)
    source.__annotations__ = {**hints, "return": source.__annotations__["return"]}
    return source


def dump(one: Any) -> Any:
    if isinstance(one, Made):
        return type(one).__name__, one.number, {name: dump(need) for name, need in one.needs.items()}
    return type(one).__name__


class Alone:
    """dishka by itself."""

    def __init__(self, container: AsyncContainer) -> None:
        self.container = container

    def open(self, value: Brought) -> Any:
        return self.container({Brought: value})

    async def resolve(self, scope: Any, step: Resolve) -> Any:
        return await scope.get(HINTS[step.number])

    async def leave(self, scope: Any, error: Exception | None) -> None:
        await scope.close(error)

    async def close(self) -> None:
        await self.container.close()


class Plugin:
    """dishka behind the port, with or without a value of the sender."""

    def __init__(self, container: AsyncContainer, brings: bool) -> None:
        self.port = DishkaContainer(container)
        self.brings = brings
        self.immediate = [self.port.immediate(Key(hint)) for hint in HINTS]

    def open(self, value: Brought) -> Any:
        return self.port.scope({Key(Brought): value} if self.brings else {})

    async def resolve(self, scope: Any, step: Resolve) -> Any:
        now = self.immediate[step.number]
        return now(scope) if now is not None and step.immediately else await scope.resolve(Key(HINTS[step.number]))

    async def leave(self, scope: Any, error: Exception | None) -> None:
        await scope.__aexit__(None if error is None else type(error), error, None)

    async def close(self) -> None:
        await self.port.aclose()


async def run(side: Any, log: list[str], program: list[Resolve], fails: bool) -> list[Any]:
    """Run two units of work that overlap, and then a third."""
    results: list[Any] = []
    scopes = [side.open(Brought()) for _ in range(3)]
    for scope in scopes:
        await scope.__aenter__()
    for number, mine in enumerate((program, [step._replace(unit=2) for step in program])):
        for step in mine:
            before = len(log)
            try:
                results.append(dump(await side.resolve(scopes[step.unit], step)))
            except (DishkaError, ContainerError):
                results.append("failed")
            except ZeroDivisionError:
                results.append("broke")
            results.append(log[before:])
        for scope in scopes[2 * number : 2 * number + 2 - number]:
            await side.leave(scope, RuntimeError("of the handler") if fails else None)
    await side.close()
    return [*results, log]


@settings(max_examples=100 * PROOFS, deadline=None)
@given(st.lists(recipes, min_size=len(HINTS), max_size=len(HINTS)), steps, st.booleans(), st.booleans())
def test_the_plugin_resolves_what_dishka_resolves(
    made_so: list[Recipe], program: list[Resolve], fails: bool, brings: bool
) -> None:
    if not brings:
        made_so = [recipe._replace(brought=False) for recipe in made_so]
    log: list[str] = []
    expected = asyncio.run(run(Alone(container_of(made_so, log)), log, program, fails))
    log = []
    assert asyncio.run(run(Plugin(container_of(made_so, log), brings), log, program, fails)) == expected


def test_without_the_compiled_functions_every_key_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another release of dishka may have other ones: then the plugin is slower, and right."""
    provider = Provider(scope=Scope.REQUEST)
    provider.provide(Brought)
    assert DishkaContainer(make_async_container(provider)).immediate(Key(Brought)) is not None
    monkeypatch.delattr(Registry, "get_compiled")
    port = DishkaContainer(make_async_container(provider))
    assert port.immediate(Key(Brought)) is None

    async def resolved() -> Any:
        async with port.scope({}) as scope:
            return await scope.resolve(Key(Brought))

    assert isinstance(asyncio.run(resolved()), Brought)
