"""Handlers that need nothing but what an open scope resolves without awaiting, in a unit of work that has no object.

No event and no middleware can come in between, so there is nothing to remember but the scope. A key costs one call.
"""

from asyncio import get_running_loop
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from diator._shielding import shielded
from diator.containers.closing import NOTHING_TO_CLOSE
from diator.containers.port import ContainerCapability, Immediate
from diator.engine.calls import awaited_function
from diator.engine.resources import ContainerScopes, close_after
from diator.engine.unit import NO_VALUES
from diator.engine.wiring import Source, WiredCallable

# Any: handlers of all signatures and results meet here.
Function = Callable[..., Awaitable[Any]]
Unit = Callable[[Any], Coroutine[Any, Any, Any]]


def compile_immediate_unit(wired: WiredCallable, resources: ContainerScopes) -> Unit | None:
    """Compile the unit of work of a handler; None if it needs more than such a unit has.

    For an app without provided values.
    """
    if isinstance(wired.target, type) or wired.publishes_events or wired.streams or not wired.arguments:
        return None
    keys = [one.key for one in wired.arguments if one.source is Source.CONTAINER and one.key is not None]
    first, *others = (resources.immediate(key) for key in keys) if len(keys) == len(wired.arguments) else [None]
    rest = [resolve for resolve in others if resolve is not None]
    if first is None or len(rest) < len(others):
        return None
    compile_unit = _in_scope if ContainerCapability.SCOPED in resources.capabilities else _in_root
    return compile_unit(awaited_function(wired, resources.threads), first, rest, resources)


# The first key is apart from the others, since most handlers have one, and a list of none takes time too. What counts
# units of work is written out: calling it would take as long as building an object.
def _in_root(function: Function, first: Immediate, rest: list[Immediate], resources: ContainerScopes) -> Unit:
    async def unit(message: Any) -> Any:
        root: Any = resources.opened
        if get_running_loop() is not resources.loop:
            resources.reject(message)
        resources.under_way += 1
        try:
            if rest:
                return await function(message, first(root), *[resolve(root) for resolve in rest])
            return await function(message, first(root))
        finally:
            resources.under_way -= 1
            if resources.all_ended is not None:
                resources.wake()

    return unit


def _in_scope(function: Function, first: Immediate, rest: list[Immediate], resources: ContainerScopes) -> Unit:
    assert resources.container is not None
    make_scope = resources.container.scope

    async def unit(message: Any) -> Any:
        if get_running_loop() is not resources.loop:
            resources.reject(message)
        resources.under_way += 1
        try:
            scope = make_scope(NO_VALUES)
            resolver = await scope.__aenter__()
            try:
                if rest:
                    result = await function(message, first(resolver), *[resolve(resolver) for resolve in rest])
                else:
                    result = await function(message, first(resolver))
            except BaseException as error:
                await close_after(scope, error)
                raise
            closing = scope.__aexit__(None, None, None)
            if closing is not NOTHING_TO_CLOSE:
                await shielded(closing)
            return result
        finally:
            resources.under_way -= 1
            if resources.all_ended is not None:
                resources.wake()

    return unit
