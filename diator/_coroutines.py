"""Marks: functions that return a coroutine, marked so that other libraries treat them as coroutine functions.

Web frameworks, schedulers, retry decorators and mocks ask, and would call any other function in a thread, or never
await what it returns. A mark costs no frame, and what such a function raises before it is awaited is raised there
still.
"""

import asyncio
import inspect
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

# Any: functions of all signatures and results are marked.
F = TypeVar("F", bound=Callable[..., Any])

if sys.version_info >= (3, 12):

    def marked(function: F) -> F:
        """Mark a function, or a class whose objects are called, as a coroutine function; return it."""
        return inspect.markcoroutinefunction(function)

else:
    _MARK: Any = vars(asyncio.coroutines)["_is_coroutine"]

    def marked(function: F) -> F:
        """Mark a function, or a class whose objects are called, as a coroutine function; return it."""
        setattr(function, "_is_coroutine", _MARK)  # noqa: B010 - type checkers know of no such attribute
        return function


def as_coroutine_function(
    function: Callable[..., Coroutine[Any, Any, Any]],
) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Return a wrapper that counts as a coroutine function, for a function that Diator must not mark itself."""
    if asyncio.iscoroutinefunction(function):
        return function
    call = getattr(function, "__call__", function)  # noqa: B004 - an object whose `__call__` is async
    if asyncio.iscoroutinefunction(call):
        return call

    def passing(*arguments: Any, **named: Any) -> Coroutine[Any, Any, Any]:
        return function(*arguments, **named)

    return marked(passing)
