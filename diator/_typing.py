"""The overloads of the decorators, which carry what type checkers know about handlers.

Two tricks do it:

- ``Command`` and ``Query`` have phantom members of the type of their result, so that the *class* of a message can be
  matched against a protocol that yields the message and its result.
- A protocol that declares ``__class__`` as ``type[T]`` gives the concrete class back when ``type[Protocol[T, ...]]`` is
  matched, which is what an intersection type would be for.

A bare ``@app.command`` can't relate the result of a handler to the ``R`` of its message (parameters are contravariant);
that is checked when it is registered.
"""

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, ParamSpec, Protocol, TypedDict, TypeVar, overload

from typing_extensions import Concatenate, Unpack  # noqa: UP035 - that of typing takes no ellipsis on 3.10

from diator.engine.decorator_checks import ADD, ensure_decorator
from diator.engine.hints import class_of, union_members
from diator.engine.registrations import DeliveryGuarantee
from diator.messages import Command, Event, Message, Query
from diator.retry import Retry

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
P = ParamSpec("P")
M = TypeVar("M")
M_contra = TypeVar("M_contra", contravariant=True)
C = TypeVar("C", bound=Command[Any])
Q = TypeVar("Q", bound=Query[Any])
E = TypeVar("E", bound=Event)
Coro = Coroutine[Any, Any, T]  # Any: what a coroutine yields to the event loop is private to both


class _EventOptions(TypedDict, total=False):
    thread: bool
    subscription: str | None
    retry: Retry | None
    concurrency: int | None
    timeout: float | None
    ordered: bool | None
    delivery: DeliveryGuarantee | None
    once: bool | None


class _CommandType(Protocol[T_co, R_co]):
    @property  # type: ignore[misc]  # see the module's docstring
    def __class__(self) -> type[T_co]: ...  # type: ignore[override]  # as above
    @property
    def __diator_command__(self) -> R_co: ...


class _QueryType(Protocol[T_co, R_co]):
    @property  # type: ignore[misc]  # as above
    def __class__(self) -> type[T_co]: ...  # type: ignore[override]  # as above
    @property
    def __diator_query__(self) -> R_co: ...


class _Handler(Protocol[T_co, M_contra, R_co]):
    """A class whose ``handle`` takes the message and gives that, awaited or not."""

    @property  # type: ignore[misc]  # as above
    def __class__(self) -> type[T_co]: ...  # type: ignore[override]  # as above
    @property
    def handle(self) -> Callable[Concatenate[M_contra, ...], R_co]: ...


class HandlerOf(Protocol[M, R]):
    """``@app.command(JoinMeeting)``: the message is known, so its parameter and its result are checked."""

    @overload
    def __call__(self, handler: type[_Handler[T, M, Coro[R] | R]], /) -> type[T]: ...
    @overload
    def __call__(self, handler: Callable[Concatenate[M, P], Coro[R]], /) -> Callable[Concatenate[M, P], Coro[R]]: ...
    @overload
    def __call__(self, handler: Callable[Concatenate[M, P], R], /) -> Callable[Concatenate[M, P], R]: ...


class QueryHandlerOf(Protocol[M, R]):
    """``@app.query(FindMeeting)``: like `HandlerOf`, and the rows of a streaming handler are checked too."""

    @overload
    def __call__(self, handler: type[_Handler[T, M, Coro[R] | AsyncIterator[R] | R]], /) -> type[T]: ...
    @overload
    def __call__(self, handler: Callable[Concatenate[M, P], Coro[R]], /) -> Callable[Concatenate[M, P], Coro[R]]: ...
    @overload
    def __call__(
        self, handler: Callable[Concatenate[M, P], AsyncIterator[R]], /
    ) -> Callable[Concatenate[M, P], AsyncIterator[R]]: ...
    @overload
    def __call__(self, handler: Callable[Concatenate[M, P], R], /) -> Callable[Concatenate[M, P], R]: ...


class CommandHandler(Protocol):
    """``@app.command(timeout=5)``: the message is taken from the hints of the handler."""

    @overload
    def __call__(self, handler: type[_Handler[T, C, Any]], /) -> type[T]: ...
    @overload
    def __call__(self, handler: Callable[Concatenate[C, P], R], /) -> Callable[Concatenate[C, P], R]: ...


class QueryHandler(Protocol):
    """``@app.query(timeout=5)``."""

    @overload
    def __call__(self, handler: type[_Handler[T, Q, Any]], /) -> type[T]: ...
    @overload
    def __call__(self, handler: Callable[Concatenate[Q, P], R], /) -> Callable[Concatenate[Q, P], R]: ...


class EventHandler(Protocol):
    """``@app.on_event(thread=True)``."""

    @overload
    def __call__(self, handler: type[_Handler[T, E, Coro[None] | None]], /) -> type[T]: ...
    @overload
    def __call__(
        self, handler: Callable[Concatenate[E, P], Coro[None]], /
    ) -> Callable[Concatenate[E, P], Coro[None]]: ...
    @overload
    def __call__(self, handler: Callable[Concatenate[E, P], None], /) -> Callable[Concatenate[E, P], None]: ...


def _is_message(target: Any) -> bool:
    try:
        classes = list(map(class_of, union_members(target)))
        return all(cls is not None and issubclass(cls, Message) for cls in classes)
    except Exception:  # noqa: BLE001 - some objects answer to no question; the check says so
        return False


def _decorator(owner: "Decorators", verb: str, target: Any, more: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Register what is decorated and give it back unchanged, or give what does: the overloads say which."""
    ensure_decorator(owner, Decorators, verb, target, more, options)
    is_message = target is None or _is_message(target)

    def register(handler: Any) -> Any:
        getattr(owner, ADD[verb])(handler, target if is_message else None, **options)
        return handler

    return register if is_message else register(target)


class Decorators:
    """The decorators of a router, over its ``add_*`` methods."""

    @overload
    def command(  # type: ignore[overload-overlap]  # a class is also a callable; the first overload that fits wins
        self, message: type[_CommandType[M, R]], /, *, timeout: float | None = ..., thread: bool = ...
    ) -> HandlerOf[M, R]: ...
    @overload
    def command(self, handler: type[_Handler[T, C, Any]], /) -> type[T]: ...
    @overload
    def command(self, handler: Callable[Concatenate[C, P], R], /) -> Callable[Concatenate[C, P], R]: ...
    @overload
    def command(self, *, timeout: float | None = ..., thread: bool = ...) -> CommandHandler: ...
    def command(self, target: Any = None, *more: Any, **options: Any) -> Any:  # noqa: D417 - see the overloads
        """Register the one handler of a command: ``@app.command`` above a function or a class with ``handle``.

        The first parameter is the command. The container resolves the others by their hints; Diator itself provides
        `Publish`, `Context` and `Diator`. ``await app.send(command)`` runs the handler in a unit of work::

            @app.command
            async def join_meeting(command: JoinMeeting, meetings: Meetings, publish: Publish[UserJoined]) -> int:
                publish(UserJoined(command.user))
                return await meetings.add(command.user)

        The decorator returns the function unchanged, so a test can call it directly. With ``@app.command(JoinMeeting)``
        type checkers also compare its result with that of the command.

        Args:
            timeout: Seconds after which the unit of work is cancelled and ``TimeoutError`` raised; no limit by default.
            thread: Whether a sync handler runs in a thread; by default it blocks the event loop.

        Raises `ConfigurationError` for an unknown or invalid option, and after the app has started. Other mistakes,
        such as a second handler of the command, are reported by ``app.check()`` and at startup.
        """
        return _decorator(self, "command", target, more, options)

    @overload
    def query(  # type: ignore[overload-overlap]  # as above
        self, message: type[_QueryType[M, R]], /, *, timeout: float | None = ..., thread: bool = ...
    ) -> QueryHandlerOf[M, R]: ...
    @overload
    def query(self, handler: type[_Handler[T, Q, Any]], /) -> type[T]: ...
    @overload
    def query(self, handler: Callable[Concatenate[Q, P], R], /) -> Callable[Concatenate[Q, P], R]: ...
    @overload
    def query(self, *, timeout: float | None = ..., thread: bool = ...) -> QueryHandler: ...
    def query(self, target: Any = None, *more: Any, **options: Any) -> Any:  # noqa: D417 - as above
        """Register the one handler of a query: ``@app.query`` above a function or a class with ``handle``.

        The first parameter is the query. The container resolves the others by their hints. ``await app.send(query)``
        returns the result::

            @app.query
            async def find_meeting(query: FindMeeting, meetings: Meetings) -> Meeting | None:
                return await meetings.get(query.meeting_id)

        A handler may be an async generator; ``async with app.stream(query) as rows`` reads its rows one by one. A query
        changes nothing, so its handler can't publish events.

        Args:
            timeout: Seconds after which the unit of work is cancelled and ``TimeoutError`` raised; no limit by default.
            thread: Whether a sync handler runs in a thread; by default it blocks the event loop.

        Raises `ConfigurationError` for an unknown or invalid option, and after the app has started. Other mistakes,
        such as a second handler of the query, are reported by ``app.check()`` and at startup.
        """
        return _decorator(self, "query", target, more, options)

    @overload
    def on_event(self, event: type[E], /, **options: Unpack[_EventOptions]) -> HandlerOf[E, None]: ...
    @overload
    def on_event(self, handler: type[_Handler[T, E, Coro[None] | None]], /) -> type[T]: ...
    @overload
    def on_event(
        self, handler: Callable[Concatenate[E, P], Coro[None]], /
    ) -> Callable[Concatenate[E, P], Coro[None]]: ...
    @overload
    def on_event(self, handler: Callable[Concatenate[E, P], None], /) -> Callable[Concatenate[E, P], None]: ...
    @overload
    def on_event(self, **options: Unpack[_EventOptions]) -> EventHandler: ...
    def on_event(self, target: Any = None, *more: Any, **options: Any) -> Any:  # noqa: D417 - as above
        """Register a handler of an event, of a union of events, or of a base class of events: ``@app.on_event``.

        The first parameter is the event. The container resolves the others by their hints::

            @app.on_event(subscription="meetings.send-welcome", retry=Retry(attempts=3))
            async def send_welcome(event: UserJoined, mailer: Mailer) -> None:
                await mailer.welcome(event.user)

        An event may have any number of handlers. Handlers of a domain event run in the unit of work that published it,
        and an error in one of them fails the command. Each handler of a notification or ECST event has a subscription
        at the broker, with its own retries and dead letters; a worker runs it, at least once per message.

        All options except ``thread`` are for notification and ECST events, and default to those of the app.

        Args:
            thread: Whether a sync handler runs in a thread; by default it blocks the event loop.
            subscription: The name of the subscription, ``{app}.{handler}`` by default. If you rename it, waiting
                messages remain in the old one.
            retry: The attempts of the handler, and the delays between them.
            concurrency: Messages that the handler handles at a time in one worker.
            timeout: Seconds after which a run is cancelled, which counts as a failure.
            ordered: ``False`` turns off the order by key.
            delivery: ``"at-most-once"`` accepts a broker that may lose messages.
            once: Whether the inbox of the app's store acknowledges messages that were already handled, without running
                the handler; by default, if the handler uses the session of the store.

        Raises `ConfigurationError` for an unknown or invalid option, and after the app has started. ``app.check()`` and
        startup report other mistakes, such as two subscriptions with the same name.
        """
        return _decorator(self, "on_event", target, more, options)
