"""The session of a test: a recorded app with its worker, which waits until everything has been handled."""

from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from types import TracebackType
from typing import Any, Literal, TypeVar

from typing_extensions import Self

from diator._coroutines import marked
from diator._inspection import messaging_of
from diator._misuse import AsyncOnly
from diator.app import Diator
from diator.engine.stream import Stream
from diator.errors import ConfigurationError, NotRunningError, Problem
from diator.messages import Event, Query, Request
from diator.options import FLAG, SECONDS, Rule, is_a, one_of, optional, require
from diator.sender import Sender
from diator.testing.activity import is_own
from diator.testing.attach import attached, start
from diator.testing.entries import Entry
from diator.testing.faults import Faults, Injection, report
from diator.testing.recording import Recording, replacements
from diator.testing.session_messaging import SessionOptions
from diator.testing.unsettled import UnsettledError
from diator.testing.watch import RecordingHooks

# Any: of a coroutine, only what it returns matters to who awaits it. A key of `provide` or `replace` is a hint (see
# Router.provides).
R = TypeVar("R")


def session(
    app: Diator,
    *,
    broker: object | None = None,
    container: object | None = None,
    replace: Mapping[Any, object] | None = None,
    delays: bool = False,
    faults: Faults | None = None,
    store: Literal["keep"] | None = None,
) -> "Session":
    """Create a session; see ``app.testing``."""
    require("app.testing", _RULES, {"delays": delays, "faults": faults, "store": store})
    if isinstance(broker, Diator):
        text = f"app.testing got the app {broker!r} as its broker"
        raise ConfigurationError([Problem("session-option", text, _SESSION_OF_ANOTHER)])
    injection, keeps = None if faults is None else Injection(faults), store is not None
    if isinstance(broker, Session) and faults is not None:
        raise ConfigurationError([_FAULTS_OF_ANOTHER])
    options = SessionOptions(broker, delays, injection, keeps_store=keeps, relays=keeps, container=container)
    return Session(app, options, replacements("app.testing", replace))


_SESSION_OF_ANOTHER = (
    "give the open session of that app: async with web.testing() as session, worker.testing(broker=session)"
)
_FAULTS_OF_ANOTHER = Problem(
    "session-option",
    "app.testing got faults, and the session of another app as its broker",
    "pass the faults to the session that has the broker; they concern the deliveries of both",
)


_NOT_OPEN = "the session is not open; use it inside its block: async with app.testing() as session"

_RULES = {
    "delays": FLAG,
    "faults": optional(Rule(is_a(Faults), "an instance of diator.testing.Faults")),
    "store": optional(one_of("keep")),
}


class Session(AsyncOnly, Recording):
    """A recorded app with a worker, for a test: ``async with app.testing() as session``.

    It contains the record of everything that the app has started in the block. It handles messages of other programs on
    the broker, but neither shows nor awaits them. Leaving the block cancels everything that is still running. Sessions
    that share a broker share one record of all their apps, and wait for all of them.
    """

    _how = "async with app.testing() as session"

    def __init__(self, app: Diator, stage: SessionOptions, replace: Mapping[Any, object]) -> None:
        watcher, other = RecordingHooks(), stage.broker
        if isinstance(other, Session):
            if not other.is_open:
                raise NotRunningError(_NOT_OPEN)
            watcher = other.recorder
            messaging = messaging_of(watcher.apps[0])
            stage = stage._replace(broker=messaging and messaging.broker)
        super().__init__(app, watcher)
        self._stage = stage
        self._replace = replace
        self._stack: AsyncExitStack | None = None
        self.is_open: bool = False
        """Whether the block is running."""
        self._told = 0

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries, in the order in which they began."""
        return tuple(filter(is_own, self.recorder.entries))

    @property
    def faults(self) -> tuple[str, ...]:
        """The injected faults, in order, each as a line of a plan; see `Faults`."""
        return () if self._stage.injection is None else self._stage.injection.lines

    @marked
    def send(self, request: Request[R], /) -> Coroutine[Any, Any, R]:
        """Send a command or a query, as ``app.send`` does."""
        return self._entered().send(request)

    @marked
    def publish(self, *events: Event, after: float | timedelta | None = None) -> Coroutine[Any, Any, str | None]:
        """Publish events, as ``app.publish`` does."""
        return self._entered().publish(*events, after=after)

    async def cancel(self, message_id: str, /) -> bool:
        """Cancel a delayed event, as ``app.cancel`` does."""
        return await self._entered().cancel(message_id)

    def stream(self, query: Query[R], /) -> Stream[R]:
        """Read the rows of a query, as ``app.stream`` does."""
        return self._entered().stream(query)

    def using(
        self,
        *,
        provide: Mapping[Any, object] | None = None,
        headers: Mapping[str, str] | None = None,
        correlation_id: str | None = None,
    ) -> Sender:
        """Return a sender, as ``app.using`` does."""
        return self._app.using(provide=provide, headers=headers, correlation_id=correlation_id)

    def _entered(self) -> Diator:
        if not self.is_open:
            raise NotRunningError(_NOT_OPEN)
        return self._app

    async def settled(self, timeout: float = 10.0, *, allow_failures: bool = False) -> None:
        """Wait until everything that the app has started has finished, including retries and follow-ups.

        Raises `UnsettledError` if this takes longer than ``timeout`` seconds, or if a handler has failed permanently,
        unless ``allow_failures``. Each failure is reported once.
        """
        __tracebackhide__ = True
        given = {"timeout": timeout, "allow_failures": allow_failures}
        require("session.settled", {"timeout": SECONDS, "allow_failures": FLAG}, given)
        if not self.is_open:
            raise NotRunningError("session.settled() was called outside its block; wait inside: async with session")
        activity = self.recorder.activity
        in_time = await activity.idle(timeout)
        failed, self._told = activity.failed[self._told :], len(activity.failed)
        if allow_failures and in_time:
            return
        if failed or not in_time:
            unfinished = () if in_time else tuple(activity.unfinished())
            raise UnsettledError(self, failed, unfinished, timeout) from (failed[0].error if failed else None)

    async def __aenter__(self) -> Self:
        """Replace the broker, start the app if it is not running, and start its worker.

        Raises the errors of ``record`` and ``app.worker``, and `NotRunningError` if the session was already entered.
        """
        if self._stack is not None:
            raise NotRunningError("a session can be entered once; call app.testing() again")
        self._stack = AsyncExitStack()
        async with AsyncExitStack() as stack:
            stack.enter_context(attached(self._app, self.recorder, self._replace, self._stage))
            await start(self._app, stack)
            if messaging_of(self._app) is not None:
                worker = await stack.enter_async_context(self._app.worker(grace=0.0))
                stack.callback(self.recorder.activity.forget, worker.configs)
            self._stack = stack.pop_all()
        self.is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the worker, stop the app if the session started it, and restore its own broker.

        With faults, an error of the block gets a note that lists them; for errors raised after the block, they are in
        the log. Raises `DiatorError` if a part of a plan did not happen.
        """
        self.is_open = False
        assert self._stack is not None
        await self._stack.__aexit__(kind, error, traceback)
        if self._stage.injection is not None:
            report(self._stage.injection, error)
