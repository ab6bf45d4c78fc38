"""Resources: the container as units of work see it, and how a unit closes what it has opened.

Three rules hold around any container: a resource can't swallow an error; the error of the handler wins over one from
closing, which becomes its cause; and a cancellation during closing is raised when everything is closed, and wins over
both.
"""

import asyncio
import logging
from asyncio import get_running_loop
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, NoReturn

from diator._coroutines import marked
from diator._keys import Key
from diator._misuse import other_loop
from diator._shielding import Shield, shielded
from diator.containers.closing import NOTHING_TO_CLOSE, add_cause, exit_arguments
from diator.containers.port import Container, ContainerCapability, Immediate, ImmediateContainer, Resolver, Scope
from diator.engine.threads import Threads
from diator.engine.unit import NO_VALUES, Resolve, UnitCall, UnitOfWork
from diator.errors import DiatorError, NotRunningError

logger = logging.getLogger("diator")


class ContainerScopes:
    """The container, while the app runs."""

    __slots__ = (
        *("_singletons", "all_ended", "capabilities", "container", "immediate", "loop", "opened", "resolve"),
        *("root", "threads", "under_way"),
    )

    def __init__(self, container: Container | None) -> None:
        self.container = container
        self.capabilities = ContainerCapability(0) if container is None else container.capabilities
        self.immediate: Callable[[Key], Immediate | None] = lambda _: None
        """Returns the function that resolves a key from an open scope without awaiting, if there is one."""
        if isinstance(container, ImmediateContainer) and ContainerCapability.PROVIDED_VALUES in self.capabilities:
            self.immediate = container.immediate
        self.threads = Threads()
        """In which sync handlers run."""
        self.root: Scope | None = None
        """The one scope of a container that has no scopes of its own."""
        self.opened: Resolver | None = None
        """The same, open."""
        self.resolve: Resolve = _after_the_end
        """What units without a scope of their own resolve with."""
        self._singletons: dict[Key, Any] = {}
        """What outer middlewares have, while the app runs."""
        self.under_way = 0
        """How many units of work use the container."""
        self.all_ended: asyncio.Future[None] | None = None
        self.loop: asyncio.AbstractEventLoop | None = None

    def unit(self, work: UnitCall, uses_container: bool) -> Callable[..., Coroutine[Any, Any, Any]]:
        """Give the unit of work around ``work``: a function of the message and of what the sender provides.

        A third argument is the unit itself, for a caller that has made it.
        """
        if not uses_container or self.container is None:
            return self._without_scope(work)
        return partial(self._with_container, work)

    def scope_for(self, uses_container: bool, provided: Mapping[Key, object]) -> Scope | None:
        """Make the scope of a unit of work; none where it needs none."""
        if not uses_container or self.container is None:
            return None
        needs_one = ContainerCapability.SCOPED in self.capabilities or (
            provided and ContainerCapability.PROVIDED_VALUES in self.capabilities
        )
        return self.container.scope(provided) if needs_one else None

    async def start(self) -> None:
        """Open the one scope of a container that has no scopes of its own."""
        self.loop = asyncio.get_running_loop()
        if self.container is None or ContainerCapability.SCOPED in self.capabilities:
            self.resolve = _without_a_scope
        else:
            self.root = self.container.scope(NO_VALUES)
            self.opened = await self.root.__aenter__()
            self.resolve = self.opened.resolve

    async def stop(self) -> None:
        """Wait for the units of work that use the container, then close it and what `start` has opened.

        A cancel ends the waiting, but not the closing.
        """
        try:
            try:
                await self.wait()
            finally:
                await self.threads.stop()
        finally:
            await shielded(self._close())

    async def _close(self) -> None:
        root, self.root, self.opened, self.resolve, self.loop = self.root, None, None, _after_the_end, None
        self._singletons.clear()
        try:
            if root is not None:
                await root.__aexit__(None, None, None)
        finally:
            if self.container is not None:
                await self.container.aclose()

    async def singleton(self, key: Key) -> Any:
        """Resolve a singleton for what runs outside a unit of work."""
        if key in self._singletons:
            return self._singletons[key]
        scope = None if self.resolve is _after_the_end else self.scope_for(True, NO_VALUES)
        self.enter()
        try:
            if scope is None:
                self._singletons[key] = await self.resolve(key)
            else:
                async with scope as resolver:
                    self._singletons[key] = await resolver.resolve(key)
            return self._singletons[key]
        finally:
            self.leave()

    def enter(self) -> None:
        """Count a unit of work that uses the container. Raises `NotRunningError` in another event loop."""
        if get_running_loop() is not self.loop and self.loop is not None:
            raise NotRunningError(other_loop("a message was sent"))
        self.under_way += 1

    def leave(self) -> None:
        """Count one less."""
        self.under_way -= 1
        if self.all_ended is not None:
            self.wake()

    def wake(self) -> None:
        """End the waiting for units of work if there is none left."""
        if self.all_ended is not None and not self.under_way and not self.all_ended.done():
            self.all_ended.set_result(None)

    def reject(self, message: object) -> NoReturn:
        """Raise `NotRunningError` for a unit of work that begins after the end, or in another event loop."""
        if self.resolve is _after_the_end:
            raise NotRunningError(_TOO_LATE.format(what=f"{type(message).__qualname__} was begun"))
        raise NotRunningError(other_loop("a message was sent"))

    async def wait(self) -> None:
        """Wait for the units of work that use the container. A cancel ends the waiting."""
        while self.under_way:
            logger.info(
                "the app is ending: it waits for %d units of work before it closes its container", self.under_way
            )
            self.all_ended = asyncio.get_running_loop().create_future()
            try:
                await self.all_ended
            finally:
                self.all_ended = None

    def _without_scope(self, work: UnitCall) -> Callable[..., Coroutine[Any, Any, Any]]:
        def run(
            message: Any, provided: Mapping[Key, object] = NO_VALUES, unit: UnitOfWork | None = None
        ) -> Coroutine[Any, Any, Any]:
            return work(message, unit or UnitOfWork().begin(self.resolve, provided))

        return marked(run)

    async def _with_container(
        self, work: UnitCall, message: Any, provided: Mapping[Key, object] = NO_VALUES, unit: UnitOfWork | None = None
    ) -> Any:
        """Run a unit of work in a scope of its own, or in the one of a container that has no others."""
        if self.resolve is _after_the_end:
            self.reject(message)
        self.enter()
        try:
            unit = unit or UnitOfWork().begin(self.resolve, provided)
            scope = self.scope_for(True, provided)
            if scope is None:
                unit.resolver = self.opened
                return await work(message, unit)
            unit.open(await scope.__aenter__())
            try:
                result = await work(message, unit)
            except BaseException as error:
                unit.failure = None  # an error must not hold the frames that hold it
                await close_after(scope, error)
                raise
            failure, unit.failure = unit.failure, None
            if failure is None:
                closing = scope.__aexit__(None, None, None)
                if closing is not NOTHING_TO_CLOSE:
                    shield = Shield()
                    await shield.close(closing)
                    if shield.cancelled is not None:
                        unit.cancel(shield.cancelled)
            else:  # a middleware has put a result in the place of an error: the work is undone all the same
                await _close_knowing(scope, failure)
                del failure
            return result
        finally:
            self.leave()


async def close_after(scope: Scope, error: BaseException) -> None:
    """Close the scope of a unit that has failed; the caller raises ``error``, even if the scope returns true."""
    try:
        await _close_knowing(scope, error)
    except Exception as closing:  # noqa: BLE001 - the error of the handler wins over any other
        add_cause(error, closing)
    finally:
        del error  # as above


async def _close_knowing(scope: Scope, error: BaseException) -> None:
    try:
        await shielded(_told(scope, error), error)
    finally:
        del error  # as above


async def _told(scope: Scope, error: BaseException) -> None:
    try:
        await scope.__aexit__(*exit_arguments(error))
    except BaseException as closing:
        if closing is not error:
            raise
    finally:
        del error  # as above


async def _without_a_scope(key: Key) -> Any:
    text = f"{key} is needed in a unit of work without a scope, because its event was defined after the app started"
    raise DiatorError(f"{text}; import the module of every event before the app starts")


_TOO_LATE = "{what} after the app had ended; await each call inside `async with app`"


async def _after_the_end(key: Key) -> Any:
    raise NotRunningError(_TOO_LATE.format(what=f"{key} was resolved"))
