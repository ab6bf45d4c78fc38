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
    """Holds registrations. An app is a router; others are included in it with ``app.include(router)``."""

    def __init__(self) -> None:
        self._registry = Registry()

    def add_command(
        self, handler: Any, message: Any = None, /, *, timeout: float | None = None, thread: bool = False
    ) -> None:
        """Register the one handler of a command.

        ``handler`` is a function (sync or async), a class with ``handle``, or a bound method; its first parameter is
        the command, the others are its dependencies. ``message`` says which command it takes where its hint does not.
        After ``timeout`` seconds its unit of work is cancelled and `TimeoutError` raised. A sync handler blocks the
        event loop, unless ``thread`` is true; a thread that has begun can't be stopped, and is waited for.

        What is wrong with it, such as a duplicate, a hint that is no command or a wrong result, is told by
        ``app.check()`` and at startup, with all other problems and the line of each.

        Raises `ConfigurationError` for a wrong option, and once the app has been started or the router is included.
        """
        # Any: handlers have signatures of their own, which the decorators check, and `Registry` reads.
        self._add(HandlerKind.COMMAND, handler, message, timeout, thread)

    def add_query(
        self, handler: Any, message: Any = None, /, *, timeout: float | None = None, thread: bool = False
    ) -> None:
        """Register the one handler of a query; an async generator is read with ``app.stream``. See `add_command`."""
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

        The rest is for notification and ECST events, which come over the broker: ``subscription`` names the handler's
        own share of them (by default ``{app}.{handler}``; a rename strands what waits under the old name), ``retry``
        says how often it is tried, ``concurrency`` how many messages it handles at a time in one worker, ``timeout``
        how many seconds one may take, ``ordered=False`` gives up the order by key, and
        ``delivery="at-most-once"`` accepts a broker that may lose messages. ``once`` says whether the inbox of the
        app's store acknowledges a message that was handled before without running the handler; by default it does for
        handlers whose dependencies use the session. What is not given is as the app says.
        """
        consuming = SubscriptionOptions(subscription, retry, concurrency, timeout, ordered, delivery, once)
        self._add(HandlerKind.EVENT, handler, event, timeout, thread, consuming)

    @overload
    def middleware(self, middleware: T, /) -> T: ...
    @overload
    def middleware(self, /, *, inside: bool = False) -> Callable[[T], T]: ...
    def middleware(self, middleware: Any = None, /, *, inside: bool = False, **options: object) -> Any:
        """Register a middleware: an async callable around the messages that its first hint names.

        For example::

            @app.middleware
            async def measure(message: Command[Any], call_next: CallNext) -> Any:
                with timer():
                    return await call_next(message)

        It wraps the handlers that run inside, and the middlewares registered later. See `add_middleware`.

        With ``inside=True`` it runs inside the unit of work, where it may use dependencies as a handler does.
        """
        # Any: the overloads say what is returned. Other options are unknown ones.
        ensure_known_options(self, "middleware", options)
        if middleware is None:
            return partial(self.middleware, inside=inside)
        self.add_middleware(middleware, inside=inside)
        return middleware

    def add_middleware(self, middleware: Any, /, *, inside: bool = False) -> None:
        """Register an async callable that takes a message and what to call next, around those registered later.

        The hint of its first parameter says which messages it wraps. It runs outside the unit of work, where it sees
        the scope close, may call ``call_next`` again, and may ask for singletons of the container and values of the
        sender. With ``inside=True`` it runs inside, where it may ask for everything that a handler may, and calls
        ``call_next`` once. Around domain events, a middleware wraps each call of a handler, inside the unit of work of
        the command, and calls ``call_next`` once either way.
        """
        # Any: middlewares have parameters of their own, which `Registry` reads.
        frame = caller()
        require("add_middleware", {"inside": FLAG}, {"inside": inside})
        self._registry.add_middleware(
            MiddlewareRegistration(middleware, location_in_frame(frame), inside=inside), _names(frame)
        )

    def include(self, router: "Router", /, *, prefix: str = "") -> None:
        """Take in everything that a router holds, at this place in the order. It takes nothing more afterwards.

        A router may be included in several apps, and once in each. ``prefix`` goes before the names of its
        subscriptions: ``app.include(router, prefix="billing.")``.

        Raises `ConfigurationError` where the router is included already, or is no router.
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
        """Declare the events that are published with ``app.publish``, from outside any handler."""
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
        """Declare what senders bring with ``app.using(provide={User: user})``, so that handlers may ask for it.

        ``Annotated[User, Named("actor")]`` works as it does in a handler, and so does a marker of the app's container.
        """
        # Any: a hint is any typing form, which no type can name before PEP 747 (TypeForm).
        location = location_in_frame(caller())
        self._registry.ensure_open("`provides`", location)
        for hint in hints:
            self._registry.provide(hint, location)

    @property
    def requests(self) -> RequestMap:
        """The handler of each command and query.

        Raises `ConfigurationError` while something is wrong with a handler, or a hint can't be resolved.
        """
        self._settle()
        return RequestMap(dict(self._registry.requests))  # type: ignore[arg-type]  # only requests are claimed there

    @property
    def events(self) -> EventMap:
        """The handlers of each event, in the order of registration.

        Raises `ConfigurationError` while something is wrong with a handler, or a hint can't be resolved.
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
