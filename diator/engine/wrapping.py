"""Wrapping: what hooks put around sending and handling. Imported and compiled in only where an app has such hooks."""

import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from contextvars import Context as Variables
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, cast

from diator._hook_details import Collected, Handling, Sending, Verb
from diator._hooks import HookDispatcher, Wrap
from diator._rows import WrappedRows
from diator.context import Headers, current_context
from diator.engine.outbound import Outbound, SendingUnit, Take
from diator.engine.registrations import Registration
from diator.engine.unit import Delay, UnitCall, UnitOfWork
from diator.messages import Event

if TYPE_CHECKING:
    from diator.brokers.port import Broker

# Any: messages and results of all kinds meet here.
Call = Callable[[Any], Coroutine[Any, Any, Any]]


class Wrapping:
    """The hooks of an app, as its plans are compiled with them."""

    def __init__(self, hooks: HookDispatcher, broker: "Broker | None" = None) -> None:
        self.needs_context = hooks.needs_context
        """Whether every plan sets a context."""
        self.handles = hooks.has_listener("handling")
        """Whether something goes around each handler."""
        self.collects = hooks.has_listener("collected") or hooks.has_listener("propagate")
        """Whether something sees each event that is published."""
        self._sending = hooks.methods("sending")
        self._handling = hooks.methods("handling")
        self._hooks = hooks
        self._broker = broker

    def sent(self, call: Call, verb: Verb) -> Call:
        """Go around what `app.send`, `app.stream` or `app.publish` calls, middlewares included."""
        if not self._sending:
            return call
        methods = self._sending

        async def wrapped(message: Any) -> Any:
            details = Sending(verb, message if verb == "publish" else (message,), current_context.get())
            with Wrap(methods, details):
                details.result = await call(message)
            return details.result

        async def opened(query: Any) -> Any:
            details = Sending(verb, (query,), current_context.get())
            return await _opened(Wrap(methods, details), details, lambda: call(query))

        return opened if verb == "stream" else wrapped

    def handler(self, registration: Registration, work: UnitCall, *, streams: bool) -> UnitCall:
        """Go around one handler, inside its unit of work."""
        methods = self._handling
        if not methods:
            return work

        async def wrapped(message: Any, unit: UnitOfWork) -> Any:
            details = Handling(message, registration, current_context.get())
            with Wrap(methods, details):
                details.result = await work(message, unit)
            return details.result

        async def opened(query: Any, unit: UnitOfWork) -> Any:
            details = Handling(query, registration, current_context.get())
            return await _opened(Wrap(methods, details), details, lambda: work(query, unit))

        return opened if streams else wrapped

    def collected(
        self,
        event: Event,
        handler: Registration | None,
        outbound: Outbound | None,
        after: Delay | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Report an event that was published, and add the headers of hooks to a brokered one."""
        message_id, broker = (None, None) if outbound is None else (outbound.id, self._broker)
        details = Collected(event, handler, current_context.get(), message_id, after, headers, broker)
        if outbound is not None and (added := self._hooks.headers(details)):
            outbound.headers = Headers({**added, **(outbound.headers or {})})
        self._hooks.emit("collected", details)

    def taking(self, take: Take) -> Take:
        """Report the brokered events of one ``app.publish``."""
        if not self.collects:
            return take

        def taking(unit: SendingUnit, events: Sequence[Event], after: Delay | None) -> None:
            take(unit, events, after)
            for outbound in unit.outbound:
                self.collected(outbound.event, None, outbound, after)

        return taking


async def _opened(wrap: Wrap, details: Sending | Handling, open_rows: Callable[[], Awaitable[Any]]) -> WrappedRows:
    """Open a stream, in context variables of its own: what hooks set must not reach the code that reads the rows."""
    variables = copy_context()

    def end(error: BaseException | None, *, left: bool = False) -> None:  # noqa: ARG001 - hooks are not told
        kind, traceback = (None, None) if error is None else (type(error), error.__traceback__)
        variables.run(wrap.__exit__, kind, error, traceback)
        del error, traceback  # an error must not hold the frames that hold it

    async def make_row(step: Callable[[], Awaitable[Any]]) -> Any:
        row = await _in(variables, step)
        if details.rows is not None:
            details.rows.append(row)
        return row

    variables.run(wrap.__enter__)
    try:
        rows = await _in(variables, open_rows)
    except BaseException as error:
        end(error)
        raise
    return WrappedRows(rows, make_row, lambda close: _in(variables, close), end)


async def _in(variables: Variables, call: Callable[[], Awaitable[Any]]) -> Any:
    """Call and await something in context variables of its own, in this task."""

    async def awaited() -> Any:
        return await call()

    return await _driven(variables, awaited())


@types.coroutine
def _driven(variables: Variables, running: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
    run = variables.run
    try:
        waits_for = run(running.send, None)
        while True:
            try:
                got = yield waits_for
            except GeneratorExit:
                run(running.close)
                raise
            except BaseException as error:  # noqa: BLE001 - any error, also a cancel, is for what waits
                waits_for = run(running.throw, error)
            else:
                waits_for = run(running.send, got)
    except StopIteration as end:
        return cast("object", end.value)
