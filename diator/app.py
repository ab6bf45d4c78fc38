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
    ``diator run module:app`` starts it with a worker, which handles brokered events. It belongs to one event loop at a
    time, and may be entered again later.

    Args:
        name: Tells apps apart, and begins the names of its subscriptions. Needed with a broker.
        container: Builds the dependencies of handlers: a container of a library that has a plugin, such as
            ``punq.Container()``, or a `diator.containers.Container`. It is closed when the app ends.
        broker: Carries notification and ECST events: an address, such as ``"redis://localhost:6379"`` or
            ``"memory://"``, or a `diator.brokers.Broker`.
        retry: How often handlers of brokered events are tried, and after what delays.
        concurrency: How many messages each of these handlers runs for at the same time in one worker.
        event_timeout: Seconds after which a run of such a handler is cancelled and counts as failed.
        max_deliveries: After how many deliveries without an outcome a message becomes a dead letter, since it may kill
            its worker.
        publish_timeout: Seconds that publishing to the broker may take.
        hooks: Wrap and observe sending, handling and publishing, such as ``OpenTelemetry()``.
        store: Writes events in the transaction of the data, and remembers what was handled, in the app's own
            database: a `diator.stores.Store`, such as ``SQLAlchemyStore(AsyncSession)``.
        relay: Whether this process publishes what is in the store; if false, ``diator relay module:app`` has to.
        lifespan: An async context manager that gets the app, as in Starlette. It is entered when the app has started,
            and left before it ends, so ``app.send`` works in both halves. The worker runs inside it.

    Raises `ConfigurationError` for an invalid option. Starting it raises the same with all mistakes in its handlers,
    each with file, line and fix.
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
        """Look for everything that would not work, without starting: no handler and no factory runs.

        Starting does the same, raises `ConfigurationError` with all the errors and logs the warnings.
        """
        return list(self._inspected().problems)

    def worker(
        self, *, subscriptions: Collection[str] | None = None, concurrency: int | None = None, grace: float = 20.0
    ) -> "Worker":
        """Handle brokered events: ``async with app, app.worker(): ...``. ``diator run module:app`` does the same.

        ``subscriptions`` names those to consume; all by default. ``concurrency`` replaces what handlers and
        app say. On leaving, handlers that run may take ``grace`` seconds; what is not done by then is released.

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

        The app need not run. Raises `ConfigurationError` without a broker.
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

        Brokered events go over a new broker in memory, or over ``broker``: an address, an object, the open session of
        another app, or ``"keep"`` for the app's own, where no other worker may then handle the same subscriptions. The
        app is started, unless it runs. ``container`` is used, and closed at the end, in place of the app's own, which
        is neither opened nor closed; the app must not run then.
        ``replace`` maps what handlers ask for to what they get instead. Retries come at once, unless ``delays``.
        With ``faults``, messages come twice or late, or the broker is away; see `diator.testing.Faults`. Events pass by
        the app's store, without outbox and inbox, unless ``store`` is ``"keep"``.

        Entering raises `ConfigurationError` for a replacement that no handler needs, and for mistakes of the app.
        """
        # By name: nothing here depends on it.
        make: Callable[..., Session] = import_module("diator.testing.session").session
        return make(
            self, broker=broker, container=container, replace=replace, delays=delays, faults=faults, store=store
        )

    @marked
    def send(self, request: Request[R], /) -> Coroutine[Any, Any, R]:
        """Have a command or a query handled, in a unit of work of its own, and give its result.

        Raises at once, before it is awaited: `InvalidMessageError` for what is no request, `HandlerNotFoundError`
        where it has no handler, `NotRunningError` outside ``async with app``, `NotProvidedError` where its handler
        needs ``app.using(provide=...)``. What handlers and middlewares raise reaches the caller unchanged.
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
        """Have events handled that no command has raised, in one unit of work.

        Returns the message id of one brokered event, ``None`` for a domain event and for several. ``after`` delays
        brokered events: seconds, or a timedelta. An app with a store stores them; otherwise the broker has them when
        this returns.

        Raises at once what `send` does, and `ConfigurationError` for an event that needs a message broker; what it
        raises for ``after``, see `Publish`. Raises `StoreError` if the store can't take the events.
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
        """Cancel a delayed event, in a transaction of its own; return whether it was in time.

        ``message_id`` is what `Publish` and `publish` return. False also for an id that never was.

        Raises `ConfigurationError` in an app without a store, `StoreError` if the store can't do it.
        """
        self._running()
        if self._parts.messaging is None:
            raise ConfigurationError([needs_store("app.cancel was called")])
        return await self._parts.messaging.cancel(message_id)

    def stream(self, query: Query[R], /) -> Stream[R]:
        """Read the rows of a query whose handler is an async generator: ``async with app.stream(query) as rows``.

        The block is the unit of work: its scope opens and closes with it, in the same task, and sees its exception.
        Middlewares wrap the opening: what they await from ``call_next`` is the iterator of the rows.
        """
        return self.using().stream(query)

    def using(
        self,
        *,
        provide: Mapping[Any, object] | None = None,
        headers: Mapping[str, str] | None = None,
        correlation_id: str | None = None,
    ) -> Sender:
        """Give a sender with the same verbs that brings values, headers and a correlation id to what it sends.

        Headers and ids travel with brokered events: they are texts without control characters and lone surrogates, an
        id of 1 to 1,000 characters, headers of 32,000 in all.

        Raises `ConfigurationError` for such a text that could not travel, and for a value that the app does not declare
        with ``provides``.
        """
        return create_sender(self._running, self._registry, repr(self), provide, headers, correlation_id)
