"""The objects that Diator itself injects: the context of the current message, and the way to publish events."""

import os
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar, overload

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from diator.messages import ECSTEvent, NotificationEvent

    B = TypeVar("B", bound=NotificationEvent | ECSTEvent)

E_contra = TypeVar("E_contra", contravariant=True)


class Headers(dict[str, str]):
    """Immutable headers. A dict, so that they can be copied, pickled and written as JSON."""

    __slots__ = ()

    def _reject_change(self, *_: Any, **__: Any) -> NoReturn:  # Any: in place of methods that take this and that
        raise TypeError("headers can't be changed; send with app.using(headers={...})")

    __setitem__ = __delitem__ = __ior__ = _reject_change  # pyright: ignore[reportAssignmentType]  # those of a dict return
    clear = pop = popitem = setdefault = update = _reject_change  # pyright: ignore[reportAssignmentType]  # as above

    def __hash__(self) -> int:  # type: ignore[override]  # a dict has none, since it can be changed
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return Headers, (dict(self),)


NO_HEADERS: Mapping[str, str] = Headers()


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Ids and headers of the current message. A handler receives it as a parameter: ``context: Context``.

    For example::

        @app.on_event
        async def charge(event: OrderPlaced, context: Context, payments: Payments) -> None:
            await payments.charge(event.order_id, idempotency_key=context.message_id)

    It is plain data: you can copy, compare and pickle it, and turn it into a dict. The message id of a brokered event
    is the same at each attempt. A domain event has the context of the command that published it.
    """

    message_id: str
    """The id of this message."""
    correlation_id: str
    """The same for all messages that one outer message caused, even in other processes."""
    causation_id: str | None = None
    """The id of the message whose handler sent this one; ``None`` for the outermost."""
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS)
    """The headers that the sender added with ``app.using(headers=...)``."""
    attempt: int = 1
    """The number of the attempt, starting at 1; above 1 if the handler of a brokered event has failed before."""
    published_at: "datetime | None" = None
    """The time at which a brokered event was published; ``None`` for requests and domain events."""
    subscription: str | None = None
    """The subscription that delivered the brokered event; ``None`` outside a worker."""

    def __post_init__(self) -> None:
        """Keep the headers in a form that can't be changed."""
        if type(self.headers) is not Headers:
            object.__setattr__(self, "headers", Headers(self.headers))


TRACE = ("traceparent", "tracestate")
"""The headers of the W3C Trace Context, which what a message causes takes over."""


class Publish(Protocol[E_contra]):
    """Publishes the events that a handler declares: ``publish: Publish[UserJoined | UserWarned]``.

    For example::

        @app.command
        async def join(command: Join, publish: Publish[UserJoined]) -> None:
            publish(UserJoined(command.user))  # not awaited

    Domain events are handled after the handler has returned, in its unit of work. Notification and ECST events are sent
    to the broker when the unit of work has completed or, if the app has a store, commit with it.
    ``publish(event, after=60)`` delays a brokered event by seconds; ``headers=`` are sent with it. Type checkers only
    accept the events in the hint. In a test, pass a `diator.testing.FakePublish`.

    A call raises `UndeclaredEventError` for an event that the hint does not name, and `LatePublishError` after the
    handler has returned. If the broker does not accept the events, ``app.send`` raises `PublishError`.
    """

    @overload
    def __call__(
        self: "Publish[B]",
        event: "B",
        /,
        *,
        after: "float | timedelta | None" = None,
        headers: Mapping[str, str] | None = None,
    ) -> str: ...
    @overload
    def __call__(
        self, event: E_contra, /, *, after: "float | timedelta | None" = None, headers: Mapping[str, str] | None = None
    ) -> str | None: ...
    def __call__(
        self, event: Any, /, *, after: "float | timedelta | None" = None, headers: Mapping[str, str] | None = None
    ) -> str | None:
        """Collect an event, and return the id of its message; ``None`` for a domain event.

        ``after`` delays a brokered event by seconds or a timedelta. ``headers`` are sent with this event, in addition
        to those of the sender.

        Raises `~diator.UndeclaredEventError` for an event that the hint does not name, `~diator.LatePublishError` after
        the handler has returned, `~diator.InvalidMessageError` for a domain event with a delay or headers, and
        `~diator.ConfigurationError` if neither a store nor the broker supports delays.
        """
        ...

    async def cancel(self, message_id: str, /) -> bool:
        """Cancel a delayed event in the transaction of this unit of work, and return whether it was in time.

        ``message_id`` is the id that publishing the event returned. If it is unknown, the result is False.

        Raises `~diator.ConfigurationError` in an app without a store.
        """
        ...


current_context: ContextVar[Context | None] = ContextVar("diator.context", default=None)
"""The context of the message that is being handled here, where its plan needed one."""


def new_id() -> str:
    """A random id: a UUID of version 4 (RFC 9562), made in half the time that `uuid` takes, and without its import."""
    digits = os.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def child_context(headers: Mapping[str, str] | None = None, correlation_id: str | None = None) -> Context:
    """Make the context of a message that is sent now, caused by the one being handled, if there is one."""
    cause = current_context.get()
    message_id = new_id()
    if cause is None:
        return Context(
            message_id=message_id,
            correlation_id=correlation_id or message_id,
            headers=headers or NO_HEADERS,
        )
    return Context(
        message_id=message_id,
        correlation_id=correlation_id or cause.correlation_id,
        causation_id=cause.message_id,
        headers=traced(headers, cause.headers),
        subscription=cause.subscription,
    )


def traced(headers: Mapping[str, str] | None, of_cause: Mapping[str, str]) -> Mapping[str, str]:
    """The headers of a message, with the trace of what caused it unless it brings its own."""
    if not of_cause or (headers and "traceparent" in headers):
        return headers or NO_HEADERS
    trace = {name: of_cause[name] for name in TRACE if name in of_cause}
    return Headers({**trace, **(headers or {})}) if trace or headers else NO_HEADERS
