"""Each message is handled in a new context, though one task handles many of them, one after another."""

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from contextvars import copy_context
from typing import Any

from diator.context import Context, current_context

Call = Callable[[Any], Coroutine[Any, Any, Any]]
"""What handles the events of one class. ``Any``: handlers of all results meet here."""


@types.coroutine
def run_in_new_context(call: Call, context: Context, event: Any) -> Generator[Any, Any, BaseException | None]:
    """Handle one event and return what its handler raised. What it sets in context variables is gone afterwards.

    What is returned came out of the handler, and what is raised came from outside: a `GeneratorExit` may be either.
    """
    run = copy_context().run
    run(current_context.set, context)
    is_closed = False
    try:
        handling = run(call, event)
        waits_for = run(handling.send, None)
        while True:
            try:
                got = yield waits_for
            except BaseException as error:
                if issubclass(type(error), GeneratorExit) and not _is_result_of(waits_for, error):
                    is_closed = True
                    handling.close()
                    raise
                waits_for = run(handling.throw, error)
            else:
                waits_for = run(handling.send, got)
    except StopIteration:
        return None
    except BaseException as error:
        if is_closed or issubclass(type(error), KeyboardInterrupt):  # a person's
            raise
        return error


def _is_result_of(future: Any, error: BaseException) -> bool:
    """Whether an error is that of what the handler has waited for, such as a task of its own."""
    done = isinstance(future, asyncio.Future) and future.done() and not future.cancelled()
    return done and future.exception() is error
