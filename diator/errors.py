"""Every error that Diator raises on purpose.

::

    DiatorError
    ├── ConfigurationError            the app is misconfigured; ``problems`` has all mistakes
    ├── NotRunningError               used before it starts, after it ends, or entered twice
    ├── InvalidMessageError           not a message, or the wrong kind for this call          (also a TypeError)
    ├── HandlerNotFoundError          no handler for a command or query                       (also a LookupError)
    ├── NotProvidedError              a value that ``app.using(provide=...)`` must provide    (also a LookupError)
    ├── UndeclaredEventError          an event that the handler has not declared
    ├── LatePublishError              published after its handler returned
    ├── CallNextError                 wrong use of ``call_next`` inside the unit of work
    ├── PublishError                  a command took effect, but not all its events were sent
    ├── BrokerError                   the message broker failed
    │   ├── BrokerUnavailableError        it is unavailable or full: retrying can help
    │   ├── MessageTooLargeError          a message is over the broker's limit
    │   └── NotPublishedError             the unsent and unknown messages of a batch
    ├── StoreError                    the outbox or inbox failed
    │   ├── StoreUnavailableError         its database is unavailable: retrying can help
    │   ├── EarlyCommitError              a commit before the events of the unit were written
    │   └── NotCommittedError             a unit completed, but its session was never committed
    ├── UnreadableMessageError        a message from the broker is not a readable event
    └── ContainerError                the container failed to resolve
        ├── DependencyNotFoundError       no provider                                         (also a LookupError)
        ├── DependencyCycleError          a dependency needs itself
        ├── LifetimeMismatchError         an object would outlive what it needs
        ├── UnsupportedRegistrationError  the plugin does not support a registration
        └── ScopeClosedError              resolved from a closed scope

Errors of handlers, middlewares and factories are never wrapped: they reach the caller unchanged.

`Reject` and `RetryLater` are not errors of Diator: a handler of a brokered event raises them to choose an outcome.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from diator._keys import Key
from diator._locations import SourceLocation

if TYPE_CHECKING:
    from datetime import timedelta

    from diator.brokers.envelope import OutgoingMessage
    from diator.messages import Event


PROBLEMS_PAGE = "https://github.com/akhundMurad/diator/tree/main/docs/reference/problems.md"
"""The page of the documentation that explains every code of a problem."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in an app, with its location and its fix."""

    code: str
    """A short, stable name for this kind of problem, for searching and filtering."""
    text: str
    """What is wrong, and what was expected."""
    fix: str
    """What to do about it."""
    location: SourceLocation | None = None
    """Where the code in question was registered or defined, if this is in a file."""
    severity: Literal["error", "warning"] = "error"
    """An error prevents the app from starting; a warning is logged."""

    @property
    def url(self) -> str:
        """The address of the page that explains ``code``, with an example."""
        return f"{PROBLEMS_PAGE}#{self.code}"

    def __str__(self) -> str:
        where = f"\n    at {self.location}" if self.location else ""
        return f"{self.text} [{self.code}]{where}\n    -> {self.fix}"


class DiatorError(Exception):
    """Base of all errors of Diator."""


class ConfigurationError(DiatorError):
    """The app is misconfigured. ``problems`` contains everything that was found, in order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return str(self.problems[0])
        return f"{len(self.problems)} problems:\n" + "\n".join(f"  {problem}" for problem in self.problems)


class NotRunningError(DiatorError):
    """The app is not running, or is already running."""


class InvalidMessageError(DiatorError, TypeError):
    """The argument is not a message that this call accepts."""


class HandlerNotFoundError(DiatorError, LookupError):
    """No handler is registered for this command or query."""


class NotProvidedError(DiatorError, LookupError):
    """A handler needs a value that the app declared with ``provides``, but the sender did not provide it."""


class UndeclaredEventError(DiatorError):
    """A handler published an event that it had not declared."""


class LatePublishError(DiatorError):
    """``publish`` was called after its handler had returned."""


class CallNextError(DiatorError):
    """A middleware inside the unit of work called ``call_next`` twice, or returned before it had finished."""


class BrokerError(DiatorError):
    """An operation of the message broker failed permanently; `BrokerUnavailableError` is the exception."""


class BrokerUnavailableError(BrokerError):
    """The broker cannot be reached, is full or timed out. Retrying later can help."""


class MessageTooLargeError(BrokerError):
    """A message has ``size`` bytes, more than the ``limit`` of the broker."""

    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(what, size, limit)
        self.what, self.size, self.limit = what, size, limit

    def __str__(self) -> str:
        text = f"{self.what} is {self.size:,} bytes; the broker accepts at most {self.limit:,}"
        return f"{text}; send less data, such as an id to load the rest by"


class StoreError(DiatorError):
    """The store failed, and retrying does not help; `StoreUnavailableError` is the exception.

    Raised by stores, ``from`` the error of the driver if there is one.
    """


class StoreUnavailableError(StoreError):
    """The database cannot be reached, or is not ready. Retrying later can help."""


class EarlyCommitError(StoreError):
    """Code inside a unit of work commits before its events are written. Raised at the line that commits.

    Nothing was committed, because the data would have been stored without its events.
    """


class NotCommittedError(StoreError):
    """A unit of work completed, but its session was never committed: its data and its events are lost."""


class NotPublishedError(BrokerError):
    """A batch was not published completely. Raised by brokers; messages in none of the three groups were published.

    ``unsent`` messages were certainly not published, and can be published again. ``unknown`` messages may have been
    published. ``rejected`` messages were not published because of their content, such as their size, and never will be.
    """

    def __init__(
        self,
        unsent: "Sequence[OutgoingMessage]",
        unknown: "Sequence[OutgoingMessage]" = (),
        rejected: "Sequence[OutgoingMessage]" = (),
    ) -> None:
        super().__init__(unsent, unknown, rejected)
        self.unsent, self.unknown, self.rejected = tuple(unsent), tuple(unknown), tuple(rejected)

    def __str__(self) -> str:
        counts = (
            (len(self.unsent), "{} not published"),
            (len(self.unknown), "{} with an unknown outcome"),
            (len(self.rejected), "{} rejected permanently"),
        )
        told = ", ".join(text.format(number) for number, text in counts if number)
        cause = self.__cause__
        return f"messages: {told}" + (f": {str(cause) or type(cause).__name__}" if cause else "")


class PublishError(DiatorError):
    """The broker did not accept all events. The changes of the command remain.

    ``unsent`` events were not sent, and can be published again. The outcome of ``unknown`` events is not known, because
    the connection broke. ``permanent`` is true if the cause is not an outage: the broker would reject the events again.
    """

    def __init__(
        self, unsent: "Sequence[Event]", unknown: "Sequence[Event]" = (), reason: str = "", *, permanent: bool = False
    ) -> None:
        super().__init__(unsent, unknown, reason)
        self.unsent, self.unknown, self.reason, self.permanent = tuple(unsent), tuple(unknown), reason, permanent

    def __str__(self) -> str:
        names = ", ".join(dict.fromkeys(type(event).__qualname__ for event in (*self.unsent, *self.unknown)))
        reason = self.reason.rstrip(" .;:") or "the broker gave no reason"
        return f"{self._counted} ({names}): {reason}; committed changes remain; {self._fix}"

    @property
    def _counted(self) -> str:
        unsent = f"could not publish {_events(self.unsent)}"
        if not self.unknown:
            return unsent
        if not self.unsent:
            return f"the outcome of {_events(self.unknown)} is unknown"
        return f"{unsent}, the outcome of {len(self.unknown)} is unknown"

    @property
    def _fix(self) -> str:
        if self.permanent:
            return "fix the cause first: the broker would reject them again"
        if self.unsent:
            return "publish the events in the `unsent` of this error again when the broker is available"
        return "the events in `unknown` may have arrived: published again, they may be handled twice"


def _events(events: "Sequence[Event]") -> str:
    return f"{len(events)} event{'' if len(events) == 1 else 's'}"


class UnreadableMessageError(DiatorError):
    """A message from the broker is not an event that can be read."""


class Reject(Exception):  # noqa: N818 - an order, not an error
    """Raised by a handler of a brokered event: dead-letter the message immediately, with this reason.

    Use it for a message that no later attempt can handle::

        @app.on_event
        async def charge(event: OrderPlaced, orders: Orders) -> None:
            if not await orders.exists(event.order_id):
                raise Reject(f"order {event.order_id} does not exist")

    ``diator dead-letters`` lists it with the reason, and replays it when the cause is fixed. Outside a handler of a
    brokered event, it is an ordinary error. To request another attempt instead, raise `RetryLater`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class RetryLater(Exception):  # noqa: N818 - an order, not an error
    """Raised by a handler of a brokered event: retry the message after some seconds, or after a `timedelta`.

    It counts as an attempt. A negative time means immediately. Raises `TypeError` if the argument is not a time, and
    `ValueError` if it is not finite.
    """

    def __init__(self, seconds: "float | timedelta") -> None:
        super().__init__(seconds)
        self.seconds = _seconds(seconds)
        """Seconds to wait, 0 or more."""


def _seconds(given: Any) -> float:
    """The seconds of a delay. ``Any``: callers may be unchecked."""
    from datetime import timedelta  # noqa: PLC0415 - slow to import, and needed after a failure only

    value = given.total_seconds() if isinstance(given, timedelta) else given
    how = "pass a number of seconds or a timedelta, such as RetryLater(30) or RetryLater(timedelta(minutes=5))"
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"RetryLater got {given!r}; {how}")
    if not -_ENDLESS < value < _ENDLESS:
        raise ValueError(f"RetryLater got {given!r}, which is not a finite time; {how}")
    return float(max(0, min(value, _MAX_SECONDS)))


_ENDLESS, _MAX_SECONDS = float("inf"), 1e12


class ContainerError(DiatorError):
    """A container cannot resolve a dependency."""


class DependencyNotFoundError(ContainerError, LookupError):
    """The container has no provider for ``key``; ``path`` leads from the requested key to the missing one."""

    def __init__(self, key: Key, path: Sequence[Key] = ()) -> None:
        super().__init__(key, path)
        self.key, self.path = key, tuple(path)

    def __str__(self) -> str:
        needed_by = f", needed by {_chain(self.path)}" if self.path else ""
        own = getattr(self.key.hint, "__module__", None) == "diator.context"  # not imported: it stands above
        return f"no provider for {self.key}{needed_by}" + ("; only handlers and middlewares get it" if own else "")


class DependencyCycleError(ContainerError):
    """The keys in ``path`` depend on each other in a cycle."""

    def __init__(self, path: Sequence[Key]) -> None:
        super().__init__(path)
        self.path = tuple(path)

    def __str__(self) -> str:
        return f"dependency cycle: {_chain(self.path)}"


class LifetimeMismatchError(ContainerError):
    """``key`` lives longer than ``needs``, which it holds."""

    def __init__(self, key: Key, needs: Key) -> None:
        super().__init__(key, needs)
        self.key, self.needs = key, needs

    def __str__(self) -> str:
        return f"{self.key} outlives {self.needs}, which it needs: it would keep one whose scope is closed"


class UnsupportedRegistrationError(ContainerError):
    """The plugin does not support a registration in the container; ``fix`` says what to do instead."""

    def __init__(self, key: Key, reason: str, fix: str) -> None:
        super().__init__(key, reason, fix)
        self.key, self.reason, self.fix = key, reason, fix

    def __str__(self) -> str:
        return f"{self.key}: {self.reason}; {self.fix}"


class ScopeClosedError(ContainerError):
    """``key`` was resolved from a scope that was already closed."""

    def __init__(self, key: Key) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"{self.key} was resolved after its scope had closed; resolve it before, or keep the object itself"


def _chain(path: Collection[Key]) -> str:
    return " -> ".join(map(str, path))
