"""Senders: created by ``app.using(...)``, with values, headers and a correlation id for their messages."""

from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from diator._coroutines import marked
from diator._headers import sealed_headers
from diator._keys import Key
from diator.engine.dispatch import Dispatch
from diator.engine.hints import key_of
from diator.engine.publish import ensure_may_wait
from diator.engine.registry import Registry
from diator.engine.stream import Stream
from diator.engine.unit import NO_VALUES
from diator.errors import ConfigurationError, Problem
from diator.messages import ECSTEvent, Event, NotificationEvent, Query, Request
from diator.options import DELAY, ID, optional, require

if TYPE_CHECKING:
    from datetime import timedelta

# Any: of a coroutine, only what it returns matters to who awaits it.
R = TypeVar("R")
BrokeredEvent = NotificationEvent | ECSTEvent


class Sender:
    """Sends messages with values, headers and a correlation id; created by ``app.using(...)``."""

    __slots__ = ("_correlation_id", "_headers", "_provided", "_running")

    def __init__(
        self,
        running: Callable[[], Dispatch],
        provided: Mapping[Key, object],
        headers: Mapping[str, str] | None,
        correlation_id: str | None,
    ) -> None:
        self._running = running
        self._provided = provided
        self._headers = headers
        self._correlation_id = correlation_id

    @marked
    def send(self, request: Request[R], /) -> Coroutine[Any, Any, R]:
        """Send a command or a query, as ``app.send`` does."""
        plan = self._running().plan_of(request)
        result: Coroutine[Any, Any, R] = plan.bind(self._provided, self._headers, self._correlation_id)(request)
        return result

    @overload
    def publish(
        self, event: BrokeredEvent, /, *, after: "float | timedelta | None" = None
    ) -> Coroutine[Any, Any, str]: ...
    @overload
    def publish(self, *events: Event, after: "float | timedelta | None" = None) -> Coroutine[Any, Any, str | None]: ...
    @marked
    def publish(self, *events: Event, after: "float | timedelta | None" = None) -> Coroutine[Any, Any, Any]:
        """Publish events, as ``app.publish`` does."""
        require("app.publish", {"after": DELAY}, {"after": after})
        plan = self._running().plan_of_events(events)
        for event in events:
            ensure_may_wait(event, after)
        call = plan.bind(self._provided, self._headers, self._correlation_id, after=after)
        result: Coroutine[Any, Any, str | None] = call(events)
        return result

    def stream(self, query: Query[R], /) -> Stream[R]:
        """Read the rows of a query, as ``app.stream`` does."""
        dispatch = self._running()
        plan = dispatch.stream_of(query)
        plan.ensure_provided(self._provided, query, streams=True)
        return Stream(plan, query, dispatch.resources, self._provided, (self._headers, self._correlation_id))


def create_sender(
    running: Callable[[], Dispatch],
    registry: Registry,
    app: str,
    provide: Any,
    headers: Mapping[str, str] | None,
    correlation_id: str | None,
) -> Sender:
    """Create a sender for an app; ``app`` is its name in errors. See ``Diator.using``."""
    # Any: callers may be unchecked.
    if not isinstance(provide, (Mapping, type(None))):
        text = f"app.using got provide={provide!r}; expected a mapping"
        raise ConfigurationError([Problem("undeclared-value", text, "write app.using(provide={User: user})")])
    sealed = None if headers is None else sealed_headers(headers)
    require("app.using", {"correlation_id": optional(ID)}, {"correlation_id": correlation_id})
    values = cast("Mapping[Any, object]", provide or {})
    provided = {key_of(hint, registry.container): value for hint, value in values.items()} or NO_VALUES
    unknown = sorted(map(str, provided.keys() - registry.provided.keys()))
    if unknown:
        text = f"app.using got {', '.join(unknown)}, which {app} does not expect"
        fix = f"declare it before startup: app.provides({unknown[0]})"
        raise ConfigurationError([Problem("undeclared-value", text, fix)])
    return Sender(running, provided, sealed, correlation_id)
