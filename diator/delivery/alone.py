"""Alone: each message is handled in a context of its own, though one task handles many of them, one after another."""

import types
from collections.abc import Callable, Coroutine, Generator
from contextvars import copy_context
from typing import Any

from diator.context import Context, current

Call = Callable[[Any], Coroutine[Any, Any, Any]]
"""What handles the events of one class. ``Any``: handlers of all results meet here."""


@types.coroutine
def alone(call: Call, context: Context, event: Any) -> Generator[Any, Any, None]:
    """Handle one event. What its handler sets in context variables is gone afterwards, as if a task had run it."""
    run = copy_context().run
    run(current.set, context)
    handling = run(call, event)
    try:
        waits_for = run(handling.send, None)
        while True:
            try:
                got = yield waits_for
            except GeneratorExit:
                handling.close()
                raise
            except BaseException as error:  # noqa: BLE001 - it is passed on
                waits_for = run(handling.throw, error)
            else:
                waits_for = run(handling.send, got)
    except StopIteration:
        return
