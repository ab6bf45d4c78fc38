"""Calls: one handler or middleware as a function of its message and the unit of work it runs in.

What a call needs is decided here, once, so that a message pays only for what its handler uses.
"""

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any, cast

from diator._coroutines import marked
from diator._keys import Key
from diator.containers.port import Immediate
from diator.context import Context, current_context
from diator.engine.provided_values import missing_value_error
from diator.engine.publish import PublishGuard
from diator.engine.signature import EMPTY
from diator.engine.threads import Threads, finished, is_awaitable
from diator.engine.unit import InnerCallNext, Resolve, UnitCall, UnitOfWork
from diator.engine.wiring import Argument, Source, WiredCallable
from diator.errors import DiatorError

# Any: handlers of all signatures and results meet here.
Function = Callable[..., Any]
Call = Callable[[Any], Coroutine[Any, Any, Any]]
"""What ``app.send`` calls, or a middleware as its ``call_next``."""
Direct = Callable[[Any], Coroutine[Any, Any, Any]]
"""A handler that needs nothing but its message."""
Wrapper = Callable[[Call, Mapping[Key, object]], Call]
"""Puts something around a call, for a sender that provides these values."""
ArgumentFactory = Callable[[Any], Any]
ArgumentSource = tuple[Key | None, ArgumentFactory | None]
"""Where an argument comes from: a key that the unit resolves, or a function of the unit; neither means `Publish`.

With a key, the function is the one that resolves it from an open scope without awaiting.
"""
_PUBLISH: ArgumentSource = (None, None)
Immediates = Callable[[Key], Immediate | None]
"""Returns that function for a key."""


def compile_call(
    wired: WiredCallable, rule: PublishGuard | None, app: object, threads: Threads, immediate: Immediates
) -> UnitCall:
    """Compile the call of one handler inside a unit of work."""
    if isinstance(wired.target, type):
        return _class_call(wired, rule, app, threads, immediate)
    function = awaited_function(wired, threads)
    supplies = _supplies(wired.arguments, app, immediate)
    return _function_call(function, supplies, rule)


def compile_inner(
    wired: WiredCallable, work: UnitCall, app: object, singleton: Resolve, immediate: Immediates
) -> UnitCall:
    """Compile a middleware inside the unit of work, around ``work``.

    Around domain events an outer middleware runs there too, and has what it may have elsewhere.
    """
    function = with_keywords(wired.target, wired.arguments)
    supplies, outer = _supplies(wired.arguments, app, immediate), wired.is_outer

    async def inner(message: Any, unit: UnitOfWork) -> Any:
        call_next = InnerCallNext(work, unit)
        source = UnitOfWork().begin(singleton, unit.provided) if outer else unit
        result = await function(message, call_next, *await _arguments(supplies, source, None))
        call_next.ensure_awaited(message)
        return result

    return inner


def compile_direct(wired: WiredCallable, threads: Threads) -> Direct | None:
    """Compile a handler that needs nothing but its message to a function of that; none for others."""
    if wired.arguments or wired.constructor or wired.key or wired.publishes_events or wired.streams:
        return None
    if not isinstance(wired.target, type):
        return awaited_function(wired, threads)
    cls, run = cast("type[Any]", wired.target), _runner(wired, threads)

    async def build_and_handle(message: Any) -> Any:
        return await run(cls().handle, (message,))

    return build_and_handle


def with_keywords(function: Function, arguments: Iterable[Argument]) -> Function:
    """A function that takes by position what the given one takes by keyword, after everything else."""
    names = tuple(argument.name for argument in arguments if argument.keyword)
    if not names:
        return function
    count = len(names)

    def positional(*given: Any) -> Any:
        return function(*given[:-count], **dict(zip(names, given[-count:], strict=True)))

    return positional


def compile_outer(wired: WiredCallable, app: object, singleton: Resolve) -> Wrapper:
    """Compile a middleware outside the unit of work, which may have singletons and the values of the sender."""
    function = with_keywords(wired.target, wired.arguments)
    supplies = _supplies(wired.arguments, app, lambda _: None)  # without a scope, it awaits singletons

    def wrap(call_next: Call, provided: Mapping[Key, object]) -> Call:
        source = UnitOfWork().begin(singleton, provided)

        async def outer(message: Any) -> Any:
            return await function(message, call_next, *await _arguments(supplies, source, None))

        return outer if supplies else marked(lambda message: function(message, call_next))

    return wrap


def _function_call(function: Function, supplies: tuple[ArgumentSource, ...], rule: PublishGuard | None) -> UnitCall:
    if rule and supplies == (_PUBLISH,):  # there is nothing to wait for: no coroutine but the handler's own

        def publishing(message: Any, unit: UnitOfWork) -> Any:
            return function(message, rule.begin(unit))

        return publishing

    async def call(message: Any, unit: UnitOfWork) -> Any:
        publish = rule.begin(unit) if rule else None
        return await function(message, *await _arguments(supplies, unit, publish))

    return call


def _class_call(
    wired: WiredCallable, rule: PublishGuard | None, app: object, threads: Threads, immediate: Immediates
) -> UnitCall:
    """A class handler: taken from the container or built for each message; its ``events`` are read after success."""
    build = with_keywords(wired.target, wired.constructor)
    constructor, supplies = (_supplies(some, app, immediate) for some in (wired.constructor, wired.arguments))
    keywords = any(argument.keyword for argument in wired.arguments)
    key, collects, run = wired.key, wired.has_events, _runner(wired, threads)

    async def call(message: Any, unit: UnitOfWork) -> Any:
        publish = rule.begin(unit) if rule else None
        if key is None:
            instance = build(*await _arguments(constructor, unit, publish))
        else:
            instance = await unit.resolve(key)
        handle = with_keywords(instance.handle, wired.arguments) if keywords else instance.handle
        result = await run(handle, (message, *await _arguments(supplies, unit, publish)))
        if collects and rule:
            rule.collect(instance.events, unit.run)
        return result

    return call


async def _arguments(supplies: tuple[ArgumentSource, ...], unit: UnitOfWork, publish: Function | None) -> list[Any]:
    found: list[Any] = []
    for key, make in supplies:
        if key is None:
            found.append(publish if make is None else make(unit))
        elif make is None or unit.resolver is None:
            found.append(await unit.resolve(key))
        else:
            found.append(make(unit.resolver))
    return found


def awaited_function(wired: WiredCallable, threads: Threads) -> Function:
    """Return the target as something to await, whichever way it runs."""
    function = with_keywords(wired.target, wired.arguments)
    if wired.call_kind == "async":
        return function
    if not wired.thread and not wired.arguments:
        return _sync(function)
    run = _runner(wired, threads)
    return lambda *arguments: run(function, arguments)


def _runner(wired: WiredCallable, threads: Threads) -> Callable[[Function, tuple[Any, ...]], Awaitable[Any]]:
    """How to call a function that runs in one of the three ways: as a coroutine, here, or in a thread."""
    if wired.thread:
        return threads.run
    if wired.call_kind == "async":
        return lambda function, arguments: function(*arguments)
    return _run_sync


async def _run_sync(function: Function, arguments: tuple[Any, ...]) -> Any:
    return await finished(function(*arguments))


def _sync(function: Function) -> Function:
    known: type = type(None)

    async def run(message: Any) -> Any:
        nonlocal known
        result: object = function(message)
        if type(result) is known:  # looking for __await__ where there is none takes ten times as long
            return result
        if is_awaitable(result):
            return await finished(result)
        known = type(result)
        return result

    return run


def _supplies(arguments: Iterable[Argument], app: object, immediate: Immediates) -> tuple[ArgumentSource, ...]:
    return tuple(_supply(argument, app, immediate) for argument in arguments)


def _supply(argument: Argument, app: object, immediate: Immediates) -> ArgumentSource:
    match argument.source:
        case Source.CONTAINER:
            assert argument.key is not None
            return argument.key, immediate(argument.key)
        case Source.PUBLISH:
            return _PUBLISH
        case Source.CONTEXT:
            return None, _context
        case Source.APP:
            return None, lambda _: app
        case Source.DEFAULT:
            return None, lambda _: argument.default
        case Source.SENDER:
            return None, partial(_provided, argument)


def _context(_unit: UnitOfWork) -> Context:
    context = current_context.get()
    if context is None:  # plans set one where they know that a handler needs it
        text = "a handler needs the Context, but is reached only by an event that was defined after the app started"
        raise DiatorError(f"{text}; import the module of every event before the app starts")
    return context


def _provided(argument: Argument, unit: UnitOfWork) -> Any:
    assert argument.key is not None
    found = unit.provided.get(argument.key, argument.default)
    if found is EMPTY:
        raise missing_value_error(
            argument.key
        )  # of an event that was defined after the start: others are looked at before
    return found
