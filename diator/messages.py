"""The kinds of messages, and the contract of those that travel.

The classes here are field-less mixins: a message is a dataclass, an attrs class, a pydantic model or a msgspec
struct that also derives from one of them. Ids, time and headers are no business of a message; they live in the context
and on the wire.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from typing_extensions import Format, get_annotations

from diator.errors import ConfigurationError, Problem

R_co = TypeVar("R_co", covariant=True)


class Message:
    """Base of everything that is handled."""

    __slots__ = ()


class Request(Message, Generic[R_co]):
    """Base of commands and queries; ``R`` is the type of the result."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def __diator_result__(self) -> R_co: ...


class Command(Request[R_co]):
    """A wish to change something, handled by exactly one handler: ``class JoinMeeting(Command[None])``."""

    __slots__ = ()

    if TYPE_CHECKING:
        # Phantom members: they let a type checker read the kind and the result off the class of a message.
        @property
        def __diator_command__(self) -> R_co: ...


class Query(Request[R_co]):
    """A question that changes nothing, answered by exactly one handler: ``class FindMeeting(Query[Meeting | None])``.

    For ``app.stream``, ``R`` is the type of one row.
    """

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def __diator_query__(self) -> R_co: ...


class Event(Message):
    """Base of the three kinds of events: something that happened."""

    __slots__ = ()


class DomainEvent(Event):
    """Handled in process, inside the unit of work of the command that raised it."""

    __slots__ = ()


class NotificationEvent(Event):
    """Goes to the message broker and carries ids only."""

    __slots__ = ()


class ECSTEvent(Event):
    """Goes to the message broker and carries the state (event-carried state transfer)."""

    __slots__ = ()


BROKERED = (NotificationEvent, ECSTEvent)
"""The kinds of events that go over the message broker."""

BrokeredT = TypeVar("BrokeredT", bound=NotificationEvent | ECSTEvent)


@dataclass(frozen=True, slots=True)
class Contract:
    """How a brokered event is known to other processes."""

    name: str
    version: int = 1
    key: str | None = None
    aliases: tuple[str, ...] = ()
    topic: str | None = None


def contract(
    name: str, /, *, version: int = 1, key: str | None = None, aliases: Iterable[str] = (), topic: str | None = None
) -> Callable[[type[BrokeredT]], type[BrokeredT]]:
    """Give a brokered event its stable wire name: ``@contract("meetings.user-joined", version=2, key="meeting_id")``.

    ``key`` names the field that orders delivery, ``aliases`` are former names that are still read, and the topic is
    the wire name unless given. Without a contract the name of the class serves.

    Raises `ConfigurationError` where a name is empty, the version below 1, or ``key`` no field of the class.
    """
    terms = Contract(name, version, key, tuple(aliases), topic)

    def sign(event: type[BrokeredT]) -> type[BrokeredT]:
        problems = list(_contract_problems(event, terms))
        if problems:
            raise ConfigurationError(problems)
        event.__diator_contract__ = terms  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        return event

    return sign


def contract_of(event: type[Event]) -> Contract:
    """Read the contract of an event: its own, never one of a base, since a wire name belongs to one class."""
    own: Contract | None = vars(event).get("__diator_contract__")
    return own or Contract(event.__name__)


def _contract_problems(event: type[Any], terms: Contract) -> Iterable[Problem]:
    if not issubclass(event, BROKERED):
        text = f"@contract on {event.__qualname__}, which never leaves the process"
        yield Problem("contract", text, "make it a NotificationEvent or an ECSTEvent, or drop the contract")
    if isinstance(terms.version, bool) or terms.version < 1:
        text = f"@contract on {event.__qualname__} has version {terms.version!r}"
        yield Problem("contract", text, "count versions from 1")
    for name in (terms.name, terms.topic, *terms.aliases):
        if name is not None and (not name or any(letter.isspace() for letter in name)):
            text = f"@contract on {event.__qualname__} has the name {name!r}"
            yield Problem("contract", text, "give a name without white space, as in 'meetings.user-joined'")
    if terms.key is not None and terms.key not in (fields := _fields(event)):
        text = f"@contract on {event.__qualname__} is keyed by {terms.key!r}, which is no field of it"
        yield Problem("contract", text, f"name one of: {', '.join(fields) or '(it has no fields)'}")


def _fields(event: type[Any]) -> list[str]:
    return [name for base in reversed(event.__mro__) for name in get_annotations(base, format=Format.FORWARDREF)]
