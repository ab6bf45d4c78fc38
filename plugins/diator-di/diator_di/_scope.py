"""A scope for one unit of work, and the scopes around it."""

import asyncio
from collections.abc import Awaitable, Hashable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from di import ScopeState, SolvedDependent
from di.api.dependencies import CacheKey
from di.api.executor import SupportsTaskGraph
from di.exceptions import IncompatibleDependencyError
from typing_extensions import Self

from diator.containers import Key, ResourceStack
from diator.errors import ScopeClosedError

if TYPE_CHECKING:
    from diator_di._container import Plans


class Plan(NamedTuple):
    """How the object of a key is built."""

    # Any: it has the type that the hint of the key names.
    solved: SolvedDependent[Any]
    awaits: bool
    """Whether it is built with an await, so that another task may come in between."""
    singletons: tuple[tuple[CacheKey, SolvedDependent[Any]], ...]
    """The singletons among what is built with an await, in the order in which they need each other."""


class Outer:
    """The scopes around those of units of work. They are open until the app ends."""

    def __init__(self, scopes: Sequence[Hashable]) -> None:
        self.stack = ResourceStack()
        self.state = ScopeState()
        for scope in scopes:
            self.state = enter(scope, self.state, self.stack)
        self._locks: dict[CacheKey, asyncio.Lock] = {}
        self._complete: set[SolvedDependent[Any]] = set()

    async def build(self, plan: Plan) -> None:
        """Build the singletons that a plan awaits, each one once."""
        if plan.solved in self._complete:
            return
        for key, solved in plan.singletons:
            async with self._locks.setdefault(key, asyncio.Lock()):
                await solved.execute_async(_EXECUTOR, self.state)
        self._complete.add(plan.solved)


def enter(scope: Hashable, outer: ScopeState, stack: ResourceStack) -> ScopeState:
    """Return the state of a scope whose resources come to a stack."""
    cached = type(outer.cached_values)(outer.cached_values)
    cached.add_scope(scope)
    # Any: di calls the methods of a stack that open resources, and no others.
    stacks: dict[Hashable, Any] = {**outer.stacks, scope: stack}
    return ScopeState(cached, stacks)


class DiScope:
    """A scope for one unit of work, and its resolver."""

    __slots__ = ("_outer", "_plans", "_provided", "_ready", "_stack", "_state", "_unit", "_values")

    def __init__(self, unit: Hashable, outer: Outer, plans: "Plans", provided: Mapping[Key, object]) -> None:
        self._unit = unit
        self._outer = outer
        self._plans = plans
        self._provided = provided
        self._ready = plans.of(provided)
        self._values = plans.values(provided) if provided else None
        self._stack = ResourceStack()
        self._state: ScopeState | None = None

    async def __aenter__(self) -> Self:
        self._state = enter(self._unit, self._outer.state, self._stack)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._state = None
        if self._stack.exits:
            await self._stack.close(error)

    # Any: what a key gives has the type that its hint names.
    async def resolve(self, key: Key, /) -> Any:
        """Give the object for a key. Raises as `diator.containers.port.Resolver` says."""
        if self._state is None:
            raise ScopeClosedError(key)
        if self._provided and key in self._provided:
            return self._provided[key]
        plan = self._ready.get(key) or self._plans.add(key, self._provided)
        if not plan.awaits:  # so no other task comes in between
            return plan.solved.execute_sync(_EXECUTOR, self._state, self._values)
        return await self._build(plan, self._state)

    async def _build(self, plan: Plan, state: ScopeState) -> Any:
        try:
            if plan.singletons:
                await self._outer.build(plan)
            return await plan.solved.execute_async(_EXECUTOR, state, self._values)
        except IncompatibleDependencyError as error:
            hidden = error.__context__  # an AttributeError of the user's code, which di takes for one of its own
            if not isinstance(hidden, AttributeError):
                raise
        raise hidden


class _Executor:
    """Takes the steps of a plan one after the other. Those that di ships import anyio."""

    # Any: a state of di, which is handed through.

    def execute_sync(self, tasks: SupportsTaskGraph, state: Any) -> None:
        for task in tasks.static_order():
            task.compute(state)

    async def execute_async(self, tasks: SupportsTaskGraph, state: Any) -> None:
        for task in tasks.static_order():
            waiting: Awaitable[None] | None = task.compute(state)
            if waiting is not None:
                await waiting


_EXECUTOR = _Executor()
