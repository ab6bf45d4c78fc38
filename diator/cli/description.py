"""What an app consists of, as plain records: what ``diator show`` and ``diator graph`` draw.

Messages, handlers and middlewares are named ``module.QualifiedName``. The names of the fields are those of the JSON
that ``diator show --json`` prints, so they are public: docs/reference/command-line.md lists them.
"""

from dataclasses import dataclass

from diator.cli.names import Names
from diator.errors import Problem


@dataclass(frozen=True, slots=True)
class DependencyDescription:
    """One parameter of a handler or middleware, apart from the message."""

    parameter: str
    type: str
    qualifier: str | None
    source: str
    """``container``, ``sender``, ``diator``, ``default`` or ``missing``."""
    lifetime: str | None
    """For what the container gives: ``transient``, ``scoped`` or ``singleton``."""


@dataclass(frozen=True, slots=True)
class MiddlewareDescription:
    """One middleware in the pipeline of a message."""

    name: str
    file: str
    line: int
    position: str
    """``outside`` the unit of work, or ``inside`` of it, in its scope."""
    dependencies: tuple[DependencyDescription, ...]


@dataclass(frozen=True, slots=True, eq=False)
class HandlerDescription:
    """One handler; the same record wherever it handles."""

    name: str
    file: str
    line: int
    call_kind: str
    """``async``, ``sync``, ``thread`` or ``async generator``."""
    timeout: float | None
    """Seconds."""
    from_container: bool
    """Whether it is a class whose instance the container gives."""
    dependencies: tuple[DependencyDescription, ...]
    publishes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RequestDescription:
    """A command or query, and its pipeline from the outside in: ``middlewares``, then ``handler``."""

    message: str
    result: str
    streams: bool
    scope: bool
    """Whether its unit of work opens a scope of the container."""
    required_values: tuple[str, ...]
    """What ``app.using(provide=...)`` has to bring."""
    middlewares: tuple[MiddlewareDescription, ...]
    handler: HandlerDescription


@dataclass(frozen=True, slots=True)
class ContractDescription:
    """How a notification or ECST event is known to other processes."""

    name: str
    topic: str
    version: int
    key: str | None
    """The field that orders delivery."""
    aliases: tuple[str, ...]
    """Former names, which are still read."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and after what delays, a message is tried again."""

    attempts: int
    delay: float
    """Seconds, as are the next two that are times."""
    factor: float
    max_delay: float
    jitter: float
    never: tuple[str, ...]
    """Classes of errors after which there is no retry."""


@dataclass(frozen=True, slots=True)
class SubscriptionDescription:
    """One handler's share of what goes over the broker. Each message is a unit of work of its own."""

    name: str
    handler: str
    topics: tuple[str, ...]
    ordered: bool
    """Whether messages of one key come one at a time, in order."""
    delivery: str
    """``at-least-once`` or ``at-most-once``."""
    concurrency: int
    timeout: float
    """Seconds."""
    retry: RetryPolicy
    scope: bool
    """Whether its unit of work opens a scope of the container."""
    once: bool
    """Whether the inbox of the store acknowledges what was handled before."""


@dataclass(frozen=True, slots=True)
class EventDescription:
    """An event: who publishes it, and who handles it."""

    event: str
    kind: str
    """``domain``, ``notification``, ``ecst``, or ``event`` for `Event` itself and for what is of no kind."""
    published_by: tuple[str, ...]
    declared: bool
    """Whether the app declares it with ``app.publishes``."""
    subclasses: tuple[str, ...]
    """The nearest subclasses that are events of this app too."""
    contract: ContractDescription | None
    """For what goes over the broker."""
    middlewares: tuple[MiddlewareDescription, ...]
    """Around each call of a handler; the unit of work of a domain event is that of the command."""
    handlers: tuple[HandlerDescription, ...]
    """In the order in which they run, those of base classes included."""
    subscriptions: tuple[SubscriptionDescription, ...]
    """One for each of those handlers, for what comes over the broker."""
    handled: bool
    """Whether an instance, of the class or of a subclass, reaches any handler."""


@dataclass(frozen=True, slots=True)
class Description:
    """An app: its messages and handlers, in the order of registration."""

    container: str | None
    broker: str | None
    store: str | None
    commands: tuple[RequestDescription, ...]
    queries: tuple[RequestDescription, ...]
    events: tuple[EventDescription, ...]
    unresolved_handlers: tuple[HandlerDescription, ...]
    """Handlers whose message can't be told; ``diator check`` says why."""
    problems: tuple[Problem, ...]
    names: Names
    """Gives the short form of a name."""
