"""The unit of work as it runs: its scope, how that closes, and what has failed it.

Three rules hold around any container: a resource can't swallow an error; the error of the handler wins over one from
closing, which becomes its cause; and a cancellation during closing wins over both.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from contextvars import copy_context
from functools import partial
from types import MappingProxyType
from typing import Any

from diator._keys import Key
from diator.containers.port import Capability, Container, Resolver
from diator.errors import CallNextError, DiatorError
from diator.messages import Event, Message

# Any: handlers of all signatures and results meet here.
Resolve = Callable[[Key], Awaitable[Any]]
Scope = AbstractAsyncContextManager[Resolver]
Work = Callable[[Any, "Unit"], Coroutine[Any, Any, Any]]
"""What runs inside a unit of work: takes the message and the unit."""

NOTHING: Mapping[Key, object] = MappingProxyType({})


CLOSED: frozenset[type] = frozenset()
"""What may be published once the handler has returned."""


class Published(list[Event]):
    """What one handler has published for one message."""

    __slots__ = ("allowed",)

    allowed: set[type] | frozenset[type]
    """The classes of events that it may publish, as far as they were let through before."""


class Unit:
    """One unit of work."""

    __slots__ = ("events", "failure", "provided", "resolve")

    def __init__(self, resolve: Resolve, provided: Mapping[Key, object]) -> None:
        self.events: list[Event] = []
        """The domain events of this unit, a list that grows while it is walked."""
        self.resolve = _overlay(resolve, provided) if provided else resolve
        self.provided = provided
        self.failure: BaseException | None = None
        """What was raised inside, whether or not a middleware has let it through."""

    def published(self) -> Published:
        """Make the list that collects what one handler publishes; it joins ``events`` when that handler has ended."""
        return Published()


def _overlay(resolve: Resolve, provided: Mapping[Key, object]) -> Resolve:
    async def resolve_or_take(key: Key) -> Any:
        return provided[key] if key in provided else await resolve(key)

    return resolve_or_take


class StreamUnit(Unit):
    """The unit of work of a stream, which knows the rows as the handler gives them."""

    __slots__ = ("rows",)

    def __init__(self, resolve: Resolve, provided: Mapping[Key, object]) -> None:
        super().__init__(resolve, provided)
        self.rows: Any = None
        """The async generator of the handler, which a middleware may have wrapped into another."""


def opening(call: Work) -> Work:
    """The work of a stream: calls the handler, whose rows are read later."""

    async def work(query: Any, unit: Any) -> Any:
        unit.rows = await call(query, unit)
        return unit.rows

    return work


class Resources:
    """The container as units of work see it, while the app runs."""

    __slots__ = ("container", "resolve", "root")

    def __init__(self, container: Container | None) -> None:
        self.container = container
        self.root: Scope | None = None
        """The one scope of a container that has no scopes of its own."""
        self.resolve: Resolve = _outside

    def unit(self, work: Work, uses_container: bool) -> Callable[..., Coroutine[Any, Any, Any]]:
        """Give the unit of work around ``work``: a function of the message and of what the sender provides."""
        if not uses_container or self.container is None:
            return partial(self.without_scope, work)
        if Capability.SCOPED in self.container.capabilities:
            return partial(self.in_scope, work)
        return partial(self._in_scope_if_provided, work)

    def scope_for(self, uses_container: bool, provided: Mapping[Key, object]) -> Scope | None:
        """Make the scope of a unit of work; none where it needs none."""
        if not uses_container or self.container is None:
            return None
        capabilities = self.container.capabilities
        needs_one = Capability.SCOPED in capabilities or (provided and Capability.PROVIDED in capabilities)
        return self.container.scope(provided) if needs_one else None

    async def start(self) -> None:
        """Open the one scope of a container that has no scopes of its own."""
        if self.container is not None and Capability.SCOPED not in self.container.capabilities:
            self.root = self.container.scope(NOTHING)
            self.resolve = (await self.root.__aenter__()).resolve

    async def stop(self) -> None:
        """Close what `start` has opened, and the container."""
        root, self.root, self.resolve = self.root, None, _outside
        try:
            if root is not None:
                await root.__aexit__(None, None, None)
        finally:
            if self.container is not None:
                await self.container.aclose()

    async def without_scope(self, work: Work, message: Any, provided: Mapping[Key, object] = NOTHING) -> Any:
        """Run a unit of work that opens no scope."""
        return await work(message, Unit(self.resolve, provided))

    def _in_scope_if_provided(
        self, work: Work, message: Any, provided: Mapping[Key, object] = NOTHING
    ) -> Coroutine[Any, Any, Any]:
        scoped = provided and self.container and Capability.PROVIDED in self.container.capabilities
        return (self.in_scope if scoped else self.without_scope)(work, message, provided)

    async def in_scope(self, work: Work, message: Any, provided: Mapping[Key, object] = NOTHING) -> Any:
        """Run a unit of work in a scope of its own."""
        assert self.container is not None
        scope = self.container.scope(provided)
        unit = Unit((await scope.__aenter__()).resolve, provided)
        try:
            result = await work(message, unit)
        except BaseException as error:
            await close_after(scope, error)
            raise
        if unit.failure is None:
            await scope.__aexit__(None, None, None)
        else:  # a middleware has put a result in the place of an error: the work is undone all the same
            await _close_knowing(scope, unit.failure)
        return result


async def close_after(scope: Scope, error: BaseException) -> None:
    """Close the scope of a unit that has failed; the caller goes on raising ``error``, whatever the scope says."""
    try:
        await _close_knowing(scope, error)
    except Exception as closing:  # noqa: BLE001 - whatever it is, the error of the handler wins
        add_cause(error, closing)


async def _close_knowing(scope: Scope, error: BaseException) -> None:
    try:
        await scope.__aexit__(type(error), error, error.__traceback__)
    except BaseException as closing:
        if closing is not error:
            raise


def add_cause(error: BaseException, closing: BaseException) -> None:
    """Put an error of closing at the end of the causes that an error has already."""
    seen = {id(closing)}
    while error.__cause__ is not None and id(error) not in seen:
        seen.add(id(error))
        error = error.__cause__
    if id(error) not in seen:
        error.__cause__ = closing


class Once:
    """The ``call_next`` of a middleware inside the unit of work: usable once, and remembers what has failed."""

    __slots__ = ("_unit", "_work")

    def __init__(self, work: Work, unit: Unit) -> None:
        self._work: Work | None = work
        self._unit = unit

    async def __call__(self, message: Message, /) -> Any:
        """Go on, the first time; remember what fails there."""
        work, self._work = self._work, None
        if work is None:
            text = (
                f"call_next was called twice for {type(message).__qualname__}, by a middleware inside the unit of work"
            )
            remedy = "to try again, use a middleware without dependencies: each of its calls is a new unit of work"
            raise CallNextError(f"{text}; {remedy}")
        try:
            return await work(message, self._unit)
        except BaseException as error:
            if self._unit.failure is None:
                self._unit.failure = error
            raise


async def finished(result: Any) -> Any:
    """The result of a sync handler, awaited if need be: a sync wrapper around an async handler gives a coroutine."""
    return await result if hasattr(_class(result), "__await__") else result


def _class(thing: object) -> type:
    return type(thing)


async def in_thread(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Run a sync handler in a thread of the loop's executor; a cancellation waits until the thread is done."""
    loop = asyncio.get_running_loop()
    future = loop.run_in_executor(None, partial(copy_context().run, function, *arguments))
    try:
        return await finished(await asyncio.shield(future))
    except asyncio.CancelledError as cancelled:
        while not future.done():  # a thread can't be stopped, and the scope it uses must not close under it
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError:
                continue
        raise cancelled from None if future.cancelled() else future.exception()


async def _outside(key: Key) -> Any:
    text = (
        f"{key} was asked for in a unit of work that has no scope, because its event was defined after the app started"
    )
    raise DiatorError(f"{text}; import the module of every event before the app starts")
