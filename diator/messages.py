"""The kinds of messages, and the contract of brokered events.

The classes here are field-less mixins: a message is a dataclass, an attrs class, a pydantic model or a msgspec struct
that also derives from one of them. Messages contain no ids, times or headers: these are in the context and on the wire.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, cast

from typing_extensions import Format, get_annotations

from diator._locations import caller, location_in_frame
from diator.errors import ConfigurationError, Problem

R_co = TypeVar("R_co", covariant=True)


class Message:
    """Base of all messages."""

    __slots__ = ()


class Request(Message, Generic[R_co]):
    """Base of commands and queries; ``R`` is the type of the result."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def __diator_result__(self) -> R_co: ...


class Command(Request[R_co]):
    """A request to change something, with exactly one handler: ``class JoinMeeting(Command[int])``.

    The type argument is what ``await app.send(...)`` returns. The class is a dataclass, an attrs class, a pydantic
    model or a msgspec struct::

        @dataclass(frozen=True)
        class JoinMeeting(Command[int]):
            user: str

        number = await app.send(JoinMeeting("ann"))  # an int, for type checkers too

    ``@app.command`` registers the handler.
    """

    __slots__ = ()

    if TYPE_CHECKING:
        # Phantom members: they let a type checker read the kind and the result off the class of a message.
        @property
        def __diator_command__(self) -> R_co: ...


class Query(Request[R_co]):
    """A request that changes nothing, with exactly one handler: ``class FindMeeting(Query[Meeting | None])``.

    The type argument is what ``await app.send(...)`` returns, or the type of one row for ``app.stream``. The class is a
    dataclass, an attrs class, a pydantic model or a msgspec struct::

        @dataclass(frozen=True)
        class FindMeeting(Query[Meeting | None]):
            meeting_id: int

        meeting = await app.send(FindMeeting(7))

    ``@app.query`` registers the handler. It cannot publish events.
    """

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def __diator_query__(self) -> R_co: ...


class Event(Message):
    """Base of the three kinds of events: something that happened."""

    __slots__ = ()


class DomainEvent(Event):
    """An event that is handled in process, inside the unit of work of the command that published it.

    It may have any number of handlers. An error in one of them fails the command.
    """

    __slots__ = ()


class NotificationEvent(Event):
    """An event sent to the message broker with ids only: it says what happened, and to what.

    Each handler, in this app or another, has its own subscription, with retries and dead letters. `contract` sets the
    name on the wire, and the field that orders delivery::

        @contract("meetings.user-joined", key="meeting_id")
        @dataclass(frozen=True)
        class UserJoined(NotificationEvent):
            meeting_id: int
            user_id: int

    A handler publishes it with `Publish`, other code with ``await app.publish(event)``. ``@app.on_event`` registers its
    handlers. For an event that contains the data its handlers need, use `ECSTEvent`.
    """

    __slots__ = ()


class ECSTEvent(Event):
    """An event sent to the message broker with the state itself (event-carried state transfer).

    Its handlers don't need to request data from the publisher. ``@contract`` sets its name on the wire.
    """

    __slots__ = ()


BROKERED_KINDS = (NotificationEvent, ECSTEvent)
"""The kinds of events that go over the message broker."""

_Wrong = tuple[str, str]
"""What is wrong with a contract, and the fix."""

BrokeredT = TypeVar("BrokeredT", bound=NotificationEvent | ECSTEvent)


class Contract(NamedTuple):
    """How other processes identify a brokered event."""

    name: str
    version: int = 1
    key: str | None = None
    aliases: tuple[str, ...] = ()
    topic: str | None = None


def contract(
    name: str, /, *, version: int = 1, key: str | None = None, aliases: Iterable[str] = (), topic: str | None = None
) -> Callable[[type[BrokeredT]], type[BrokeredT]]:
    """Name a brokered event on the wire, so that its class can be renamed or moved.

    For example::

        @contract("meetings.user-joined", key="meeting_id")
        @dataclass(frozen=True)
        class UserJoined(NotificationEvent):
            meeting_id: int
            user_id: int

    Without it, the wire name is the name of the class.

    Args:
        name: The wire name, such as ``"meetings.user-joined"``. Programs that read the event depend on it.
        version: The version of the fields, starting at 1. It is sent with the event, for error messages.
        key: The field that orders delivery: handlers receive events with the same value one at a time and in order.
        aliases: Former wire names. Events with these names can still be read.
        topic: The topic at the broker; the wire name by default.

    Raises `ConfigurationError` if the name is empty or contains white space, the version is below 1, the key is not a
    field of the class, or the class is not a notification or ECST event.
    """
    location = location_in_frame(caller())
    problems = [Problem("contract", *found, location) for found in _wrong_terms(name, version, key, aliases, topic)]
    if problems:
        raise ConfigurationError(problems)
    terms = Contract(name, version, key, tuple(aliases), topic)

    def sign(event: type[BrokeredT]) -> type[BrokeredT]:
        problems = [Problem("contract", *found, location) for found in _misfits(event, terms)]
        if problems:
            raise ConfigurationError(problems)
        event.__diator_contract__ = terms  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]  # read by `contract_of` alone
        return event

    return sign


def contract_of(event: type[Event]) -> Contract:
    """Read the contract of an event: its own, never one of a base, since a wire name belongs to one class."""
    own: Contract | None = vars(event).get("__diator_contract__")
    return own or Contract(event.__name__)


def _wrong_terms(name: object, version: object, key: object, aliases: object, topic: object) -> Iterator[_Wrong]:
    if isinstance(name, type):
        yield f"@contract was put on {name.__qualname__} without a name", 'write @contract("meetings.user-joined")'
        return
    if isinstance(aliases, str) or not isinstance(aliases, Iterable):
        yield f"@contract({name!r}) has aliases={aliases!r}", "give a tuple of former names, as in aliases=('joined',)"
        aliases = ()
    former = tuple(cast("Iterable[object]", aliases))
    for given in (name, *(() if topic is None else (topic,)), *former):
        if not isinstance(given, str) or not given or any(letter.isspace() for letter in given):
            text = f"@contract({name!r}) has the name {given!r}"
            yield text, "give a text without white space, as in 'meetings.user-joined'"
    if name in former:
        yield f"@contract({name!r}) has its own name among its aliases", "list former names only"
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        yield f"@contract({name!r}) has version={version!r}", "count versions from 1, in whole numbers"
    if not isinstance(key, (str, type(None))):
        yield f"@contract({name!r}) has key={key!r}", "name the field that orders delivery"


def _misfits(event: object, terms: Contract) -> Iterator[_Wrong]:
    if not (isinstance(event, type) and issubclass(event, BROKERED_KINDS)):
        text = f"@contract({terms.name!r}) is put on {event!r}, which never leaves the process"
        yield text, "make it a NotificationEvent or an ECSTEvent, or drop the contract"
    elif terms.key is not None and terms.key not in (fields := _fields(event)):
        text = (
            f"@contract({terms.name!r}): {event.__qualname__} is keyed by {terms.key!r}, which is not one of its fields"
        )
        yield text, f"name one of: {', '.join(fields) or '(it has no fields)'}"


def _fields(event: type[Any]) -> list[str]:
    """The names of the fields: those that are annotated, and those that attrs was given without an annotation."""
    annotated = [
        name
        for base in reversed(event.__mro__)
        for name, hint in get_annotations(base, format=Format.FORWARDREF).items()
        if "ClassVar" not in str(hint)
    ]
    return list(dict.fromkeys((*annotated, *(field.name for field in getattr(event, "__attrs_attrs__", ())))))
