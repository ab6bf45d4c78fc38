"""The app: its lifecycle, and sending."""

from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from diator._coroutines import marked
from diator._hooks import Hooks
from diator._lifecycle import Lifecycle
from diator._parts import create_parts
from diator.engine.dispatch import Dispatch
from diator.engine.events import needs_store
from diator.engine.stream import Stream
from diator.errors import ConfigurationError, Problem
from diator.messages import Event, Query, Request
from diator.readiness import ReadinessChecks
from diator.retry import Retry
from diator.sender import BrokeredEvent, Sender, create_sender

if TYPE_CHECKING:
    from datetime import timedelta

    from diator.delivery.operations import Operations
    from diator.delivery.worker import Worker
    from diator.testing.faults import Faults
    from diator.testing.session import Session

# Any: of a coroutine, only what it returns matters to who awaits it. A key of `provide` or `replace` is a hint (see
# Router.provides).
R = TypeVar("R")


class Diator(Lifecycle, ReadinessChecks):
    """A CQRS application: handlers register on it, and messages are sent through it while it runs.

    For example::

        app = Diator("meetings", container=container, broker="redis://localhost:6379")

        @app.command
        async def join_meeting(command: JoinMeeting) -> int: ...

        async with app:
            await app.send(JoinMeeting("ann"))

    ``async with app`` starts it: it checks all handlers and their dependencies, and connects to the broker.
    ``diator run module:app`` also starts a worker, which handles brokered events. An app belongs to one event loop at a
    time, and can be entered again later.

    Args:
        name: Identifies the app, and is the prefix of its subscriptions. Required with a broker.
        container: Creates the dependencies of handlers: a container of a library that has a plugin, such as
            ``punq.Container()``, or a `diator.containers.Container`. It is closed when the app ends.
        broker: Delivers notification and ECST events: an address, such as ``"redis://localhost:6379"`` or
            ``"memory://"``, or a `diator.brokers.Broker`.
        retry: The attempts of handlers of brokered events, and the delays between them.
        concurrency: Messages that each of these handlers handles at a time in one worker.
        event_timeout: Seconds after which such a handler is cancelled, which counts as a failure.
        max_deliveries: Deliveries without an outcome after which a message becomes a dead letter, because it may crash
            its workers.
        publish_timeout: Seconds that publishing to the broker may take.
        hooks: Wrap and observe sending, handling and publishing, such as ``OpenTelemetry()``.
        store: Writes events in the transaction of the data, and records handled messages, in the app's own database: a
            `diator.stores.Store`, such as ``SQLAlchemyStore(AsyncSession)``.
        relay: Whether this process publishes the events of the store; if false, run ``diator relay module:app``.
        lifespan: A function that takes the app and returns an async context manager, as in Starlette. It is entered
            after the app has started, and exited before the app ends, so ``app.send`` works in both halves. The worker
            runs inside it.

    Raises `ConfigurationError` for an invalid option. Starting the app raises it for all mistakes in its handlers, each
    with file, line and fix.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        container: object | None = None,
        broker: object | None = None,
        retry: Retry | None = None,
        concurrency: int = 10,
        event_timeout: float = 300.0,
        max_deliveries: int = 5,
        publish_timeout: float = 10.0,
        hooks: Iterable[Hooks] = (),
        store: object | None = None,
        relay: bool = True,
        lifespan: "Callable[[Diator], AbstractAsyncContextManager[object]] | None" = None,
    ) -> None:
        options = {
            "name": name,
            "retry": retry,
            "concurrency": concurrency,
            "event_timeout": event_timeout,
            "max_deliveries": max_deliveries,
            "publish_timeout": publish_timeout,
            "hooks": hooks,
            "relay": relay,
            "lifespan": lifespan,
        }
        super().__init__(name, create_parts(options, container, broker, store), lifespan)
        self._readiness = []

    def check(self) -> list[Problem]:
        """Return everything that would not work, without starting the app: no handler or factory runs.

        Startup does the same. It raises `ConfigurationError` with all errors, and logs the warnings.
        """
        return list(self._inspected().problems)

    def worker(
        self, *, subscriptions: Collection[str] | None = None, concurrency: int | None = None, grace: float = 20.0
    ) -> "Worker":
        """Handle brokered events: ``async with app, app.worker(): ...``. ``diator run module:app`` does the same.

        Args:
            subscriptions: The names of the subscriptions to consume; all by default.
            concurrency: Messages per handler at a time; overrides handlers and app.
            grace: Seconds that running handlers get on exit; unfinished messages are released.

        Raises `ConfigurationError` without a broker, or for an unknown subscription.
        """
        dispatch = self._running()
        messaging = self._parts.need_messaging(f"{self!r} has no message broker, so a worker has nothing to do")
        pausing = [check for check in self._readiness if check.pauses]
        return messaging.worker(
            dispatch, subscriptions=subscriptions, concurrency=concurrency, grace=grace, pausing=pausing
        )

    def operations(self) -> "Operations":
        """Manage subscriptions and dead letters, as ``diator dead-letters`` does: ``async with app.operations()``.

        The app does not need to run. Raises `ConfigurationError` without a broker.
        """
        messaging = self._parts.need_messaging(f"{self!r} has no message broker, so it has no subscriptions")
        if not messaging.has_catalog:
            self._inspected()
        return messaging.operations()

    def testing(
        self,
        *,
        broker: object | None = None,
        container: object | None = None,
        replace: Mapping[Any, object] | None = None,
        delays: bool = False,
        faults: "Faults | None" = None,
        store: Literal["keep"] | None = None,
    ) -> "Session":
        """Test the app with a worker: ``async with app.testing() as session``, then ``await session.settled()``.

        The session starts the app, unless it is already running.

        Args:
            broker: An address, a broker, the open session of another app, or ``"keep"`` for the app's own broker, where
                no other worker may handle the same subscriptions. By default a new broker in memory.
            container: Used instead of the app's own container, which is neither opened nor closed; the app must not be
                running. The session closes it at the end.
            replace: Maps dependencies to the objects that handlers receive instead.
            delays: Whether retries and delayed events wait; by default they are delivered immediately.
            faults: Redeliver or delay messages, or simulate outages; see `diator.testing.Faults`.
            store: ``"keep"`` uses the app's store; by default there is neither outbox nor inbox.

        Entering it raises `ConfigurationError` for a replacement that no handler needs, and if the app is
        misconfigured.
        """
        # By name: nothing here depends on it.
        make: Callable[..., Session] = import_module("diator.testing.session").session
        return make(
            self, broker=broker, container=container, replace=replace, delays=delays, faults=faults, store=store
        )

    @marked
    def send(self, request: Request[R], /) -> Coroutine[Any, Any, R]:
        """Handle a command or a query in its own unit of work, and return its result.

        Raises immediately, before it is awaited: `InvalidMessageError` if the argument is not a request,
        `HandlerNotFoundError` if it has no handler, `NotRunningError` outside ``async with app``, and
        `NotProvidedError` if its handler needs ``app.using(provide=...)``. Errors of handlers and middlewares reach the
        caller unchanged.
        """
        try:
            call = self._calls[type(request)]
        except KeyError:
            call = self._compiled_call(Dispatch.plan_of, request)
        result: Coroutine[Any, Any, R] = call(request)
        return result

    @overload
    def publish(
        self, event: BrokeredEvent, /, *, after: "float | timedelta | None" = None
    ) -> Coroutine[Any, Any, str]: ...
    @overload
    def publish(self, *events: Event, after: "float | timedelta | None" = None) -> Coroutine[Any, Any, str | None]: ...
    @marked
    def publish(self, *events: Event, after: "float | timedelta | None" = None) -> Coroutine[Any, Any, Any]:
        """Publish events outside a handler, in one unit of work.

        Returns the message id of one brokered event, and ``None`` for a domain event or several events. ``after``
        delays brokered events by seconds or a timedelta. An app with a store stores the events; otherwise the broker
        has stored them when this returns.

        Raises immediately the same errors as `send`, and `ConfigurationError` if the app has no broker for an event;
        for the errors of ``after``, see `Publish`. Raises `PublishError` if the broker does not accept the events, and
        `StoreError` if the store cannot write them.
        """
        if after is not None:
            return self.using().publish(*events, after=after)
        try:
            call = self._event_calls[type(events[0]) if len(events) == 1 else frozenset(map(type, events))]
        except KeyError:
            call = self._compiled_call(Dispatch.plan_of_events, events)
        result: Coroutine[Any, Any, str | None] = call(events)
        return result

    async def cancel(self, message_id: str, /) -> bool:
        """Cancel a delayed event in a separate transaction, and return whether it was in time.

        ``message_id`` is the id that `Publish` or `publish` returned. If it is unknown, the result is False.

        Raises `ConfigurationError` in an app without a store, and `StoreError` if the store fails.
        """
        self._running()
        if self._parts.messaging is None:
            raise ConfigurationError([needs_store("app.cancel was called")])
        return await self._parts.messaging.cancel(message_id)

    def stream(self, query: Query[R], /) -> Stream[R]:
        """Read the rows of a query whose handler is an async generator: ``async with app.stream(query) as rows``.

        The block is the unit of work: its scope opens and closes with it, in the same task, and sees its exception.
        Middlewares wrap the opening: ``call_next`` returns the iterator of the rows.
        """
        return self.using().stream(query)

    def using(
        self,
        *,
        provide: Mapping[Any, object] | None = None,
        headers: Mapping[str, str] | None = None,
        correlation_id: str | None = None,
    ) -> Sender:
        """Return a sender with the same methods, which adds values, headers and a correlation id to its messages.

        Headers and ids are sent with brokered events. They are texts without control characters and lone surrogates: an
        id has 1 to 1,000 characters, headers up to 32,000 in total.

        Raises `ConfigurationError` for a text that cannot be sent, and for a value that the app does not declare with
        ``provides``.
        """
        return create_sender(self._running, self._registry, repr(self), provide, headers, correlation_id)
