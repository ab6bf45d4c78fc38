"""Inspect a factory without running it. For plugins."""

import contextlib
import dis
import inspect
from collections.abc import Callable
from typing import Any

from typing_extensions import is_protocol

from diator.errors import NotProvidedError

_GIVES = frozenset({"RETURN_VALUE", "RETURN_CONST", "YIELD_VALUE"})

# Any, in this module: factories are any objects that a user registers.


def is_placeholder(factory: object) -> bool:
    """Return whether a factory does nothing but raise `~diator.NotProvidedError`, without running it.

    For libraries that require a factory for each value of ``app.using(provide=...)``: without a sender, such as in a
    worker, the value has no provider.
    """
    code = getattr(factory, "__code__", None)
    if code is None or NotProvidedError.__name__ not in code.co_names:
        return False
    return _GIVES.isdisjoint(step.opname for step in dis.get_instructions(code))


def unfinished(factory: Any) -> str | None:
    """Return the kind of a call's result if it must be processed: a coroutine, generator or context manager."""
    call = None if isinstance(factory, type) else getattr(factory, "__call__", None)  # noqa: B004 - the method itself
    for called in (factory, call):
        if inspect.isasyncgenfunction(called):
            return "async generator"
        if inspect.isgeneratorfunction(called):
            return "generator"
        if inspect.iscoroutinefunction(called):
            return "coroutine"
    return "context manager" if is_of(contextlib, factory) else None


def is_of(module: Any, factory: Any) -> bool:
    """Return whether a function's code is from a module, even if a decorator has renamed it."""
    return getattr(factory, "__globals__", None) is vars(module)


def is_abstract(factory: Any) -> bool:
    """Return whether it is a class that cannot be instantiated, or a protocol."""
    return isinstance(factory, type) and (inspect.isabstract(factory) or is_protocol(factory))


def call_error(factory: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Exception | None:
    """Return why a factory cannot be called with these arguments, if so; `ValueError` if its signature is unknown."""
    try:
        inspect.signature(factory).bind(*args, **kwargs)
    except (TypeError, ValueError) as error:
        return error
    return None
