"""Routers: registrations that an app, or another router, can include."""

from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, TypeVar, overload

from diator._locations import caller, location_in_frame
from diator._misuse import NamedOtherwise
from diator._typing import Decorators
from diator.engine.decorator_checks import ensure_known_options
from diator.engine.hints import class_of
from diator.engine.maps import EventMap, RequestMap
from diator.engine.registrations import (
    UNSET,
    DeliveryGuarantee,
    HandlerKind,
    MiddlewareRegistration,
    Registration,
    SubscriptionOptions,
)
from diator.engine.registry import Registry
from diator.errors import ConfigurationError, Problem
from diator.messages import Event, Message
from diator.options import FLAG, NAME, Rule, require
from diator.retry import Retry

T = TypeVar("T")


class Router(NamedOtherwise, Decorators):
    """Contains registrations. An app is a router; include others in it with ``app.include(router)``."""

    def __init__(self) -> None:
        self._registry = Registry()

    def add_command(
        self, handler: Any, message: Any = None, /, *, timeout: float | None = None, thread: bool = False
    ) -> None:
        """Register the handler of a command.

        ``handler`` is a function (sync or async), a class with ``handle``, or a bound method. Its first parameter is
        the command, the others are its dependencies. Pass ``message`` if its type hint does not name the command. After
        ``timeout`` seconds, the unit of work is cancelled and `TimeoutError` raised. A sync handler blocks the event
        loop, unless ``thread`` is true. A thread cannot be stopped, so Diator waits for its end.

        ``app.check()`` and startup report mistakes in the handler, such as a duplicate, a hint that is not a command or
        a wrong result, together with all other problems and the line of each.

        Raises `ConfigurationError` for an invalid option, and after the app has been started or the router has been
        included.
        """
        # Any: handlers have signatures of their own, which the decorators check, and `Registry` reads.
        self._add(HandlerKind.COMMAND, handler, message, timeout, thread)

    def add_query(
        self, handler: Any, message: Any = None, /, *, timeout: float | None = None, thread: bool = False
    ) -> None:
        """Register the handler of a query; read an async generator with ``app.stream``. See `add_command`."""
        self._add(HandlerKind.QUERY, handler, message, timeout, thread)

    def add_event_handler(
        self,
        handler: Any,  # Any: see `add_command`
        event: Any = None,
        /,
        *,
        thread: bool = False,
        subscription: str | None = None,
        retry: Retry | None = None,
        concurrency: int | None = None,
        timeout: float | None = None,
        ordered: bool | None = None,
        delivery: DeliveryGuarantee | None = None,
        once: bool | None = None,
    ) -> None:
        """Register a handler of an event, of a union of events, or of a base class of events. See `add_command`.

        ``@app.on_event`` describes the other options, which are for notification and ECST events.
        """
        consuming = SubscriptionOptions(subscription, retry, concurrency, timeout, ordered, delivery, once)
        self._add(HandlerKind.EVENT, handler, event, timeout, thread, consuming)

    @overload
    def middleware(self, middleware: T, /) -> T: ...
    @overload
    def middleware(self, /, *, inside: bool = False) -> Callable[[T], T]: ...
    def middleware(self, middleware: Any = None, /, *, inside: bool = False, **options: object) -> Any:
        """Register a middleware: an async callable around the messages selected by the hint of its first parameter.

        For example::

            @app.middleware
            async def measure(message: Command[Any], call_next: CallNext) -> Any:
                with timer():
                    return await call_next(message)

        It wraps handlers, and the middlewares that are registered later. See `add_middleware`.

        With ``inside=True`` it runs inside the unit of work, and may have the same dependencies as a handler.
        """
        # Any: the overloads say what is returned. Other options are unknown ones.
        ensure_known_options(self, "middleware", options)
        if middleware is None:
            return partial(self.middleware, inside=inside)
        self.add_middleware(middleware, inside=inside)
        return middleware

    def add_middleware(self, middleware: Any, /, *, inside: bool = False) -> None:
        """Register an async callable with a message and ``call_next`` as parameters. It wraps those registered later.

        The type hint of its first parameter selects the messages that it wraps. It runs outside the unit of work, where
        it sees the scope close, may call ``call_next`` again, and may depend on singletons of the container and values
        of the sender. With ``inside=True`` it runs inside, may have the same dependencies as a handler, and calls
        ``call_next`` once. Around domain events, a middleware wraps each call of a handler, inside the unit of work of
        the command, and calls ``call_next`` once in both cases.
        """
        # Any: middlewares have parameters of their own, which `Registry` reads.
        frame = caller()
        require("add_middleware", {"inside": FLAG}, {"inside": inside})
        self._registry.add_middleware(
            MiddlewareRegistration(middleware, location_in_frame(frame), inside=inside), _names(frame)
        )

    def include(self, router: "Router", /, *, prefix: str = "") -> None:
        """Include all registrations of a router, at this place in the order.

        The router accepts no more registrations afterwards.

        Several apps may include the same router, but each only once. ``prefix`` is added to the names of its
        subscriptions: ``app.include(router, prefix="billing.")``.

        Raises `ConfigurationError` if the router is already included, or is not a router.
        """
        location = location_in_frame(caller())
        require("include", {"prefix": _PREFIX}, {"prefix": prefix})
        if not hasattr(router, "_registry"):
            text = f"include got {router!r}, which is not a router"
            raise ConfigurationError(
                [Problem("router", text, "pass the Router itself, such as module.router", location)]
            )
        self._registry.include(router._registry, location, prefix)

    def publishes(self, *events: type[Event]) -> None:
        """Declare the events that are published with ``app.publish``, outside handlers."""
        location = location_in_frame(caller())
        self._registry.ensure_open("`publishes`", location)
        for event in events:
            cls = class_of(event)
            if cls is None or not issubclass(cls, Event):
                text = f"app.publishes got {event!r}, which is not an event class"
                raise ConfigurationError([Problem("publish-hint", text, "pass classes of events", location)])
            self._registry.declared_events.setdefault(cls, location)
            self._registry.published_as.setdefault(event, location)

    def provides(self, *hints: Any) -> None:
        """Declare values that senders provide with ``app.using(provide={User: user})``, for handlers to depend on.

        ``Annotated[User, Named("actor")]`` works as in a handler, and so does a marker of the app's container.
        """
        # Any: a hint is any typing form, which no type can name before PEP 747 (TypeForm).
        location = location_in_frame(caller())
        self._registry.ensure_open("`provides`", location)
        for hint in hints:
            self._registry.provide(hint, location)

    @property
    def requests(self) -> RequestMap:
        """The handler of each command and query.

        Raises `ConfigurationError` if a handler has a mistake, or a hint cannot be resolved.
        """
        self._settle()
        return RequestMap(dict(self._registry.requests))  # type: ignore[arg-type]  # only requests are claimed there

    @property
    def events(self) -> EventMap:
        """The handlers of each event, in the order of registration.

        Raises `ConfigurationError` if a handler has a mistake, or a hint cannot be resolved.
        """
        self._settle()
        handlers = (one for one in self._registry.handlers if one.kind is HandlerKind.EVENT)
        return EventMap((one, one.message_types or ()) for one in handlers)  # type: ignore[misc]  # only events are claimed there

    def _settle(self) -> None:
        problems = list(self._registry.resolve_pending())
        if problems:
            raise ConfigurationError(problems)

    def _add(
        self,
        kind: HandlerKind,
        handler: Any,
        message: Any,
        timeout: float | None,
        thread: bool,
        consuming: SubscriptionOptions = UNSET,
    ) -> None:
        frame = caller()
        declared: type[Message] | None = message
        registration = Registration(kind, handler, declared, timeout, thread, location_in_frame(frame), consuming)
        self._registry.add_handler(registration, _names(frame))


def _is_prefix(value: object) -> bool:
    return value == "" or NAME.fits(value)


_PREFIX = Rule(_is_prefix, "a text without white space, such as 'billing.'")


def _names(frame: FrameType) -> dict[str, object]:
    """The names local to the function that registers; at the level of a module there are none."""
    return {} if frame.f_locals is frame.f_globals else dict(frame.f_locals)
