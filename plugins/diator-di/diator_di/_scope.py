"""A scope for one unit of work, and the scopes around it."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from di import ScopeState, SolvedDependent
from di.api.dependencies import CacheKey
from di.api.executor import SupportsTaskGraph
from di.exceptions import IncompatibleDependencyError
from typing_extensions import Self

from diator.containers import Key, close_in_reverse, exit_arguments
from diator.errors import ScopeClosedError

if TYPE_CHECKING:
    from diator_di._container import Plans

T = TypeVar("T")


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
        self.stack = Stack()
        self.state = ScopeState()
        for scope in scopes:
            self.state = self.stack.open(scope, self.state)
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
        self._stack = Stack()
        self._state: ScopeState | None = None

    async def __aenter__(self) -> Self:
        self._state = self._stack.open(self._unit, self._outer.state)
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


class Stack:
    """Takes the place of the `AsyncExitStack` that di would use.

    With that one, a resource that swallows the error of the handler hides it from those opened before, which then
    commit. Here each one sees the error.
    """

    __slots__ = ("exits",)

    def __init__(self) -> None:
        # Any: the exits of context managers, and of asynchronous ones.
        self.exits: list[tuple[Callable[..., Any], bool]] = []

    def open(self, scope: Hashable, outer: ScopeState) -> ScopeState:
        """Give the state of a scope whose resources come here."""
        cached = type(outer.cached_values)(outer.cached_values)
        cached.add_scope(scope)
        # Any: di calls the next two methods of a stack, and no others.
        stacks: dict[Hashable, Any] = {**outer.stacks, scope: self}
        return ScopeState(cached, stacks)

    def enter_context(self, manager: AbstractContextManager[T]) -> T:
        """Open a resource."""
        value = manager.__enter__()
        self.exits.append((manager.__exit__, False))
        return value

    async def enter_async_context(self, manager: AbstractAsyncContextManager[T]) -> T:
        """Open a resource."""
        value = await manager.__aenter__()
        self.exits.append((manager.__aexit__, True))
        return value

    async def close(self, error: BaseException | None) -> None:
        """Close everything, as `~diator.containers.close_in_reverse` says."""
        await close_in_reverse(self.exits, _leave, error)


# Any: the exit of a context manager, or of an asynchronous one.
async def _leave(opened: tuple[Callable[..., Any], bool], error: BaseException | None) -> None:
    leave, awaits = opened
    left = leave(*exit_arguments(error))
    if awaits:
        await left
