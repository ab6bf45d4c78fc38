"""The registrations of one app or router: what is in, what is refused, and when nothing more is taken."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from diator._keys import Key
from diator._locations import SourceLocation
from diator.containers.port import Container
from diator.engine.handler_checks import handler_problems, options_fit, same_request, unclear
from diator.engine.hints import format_hint, is_hint, key_of
from diator.engine.registrations import HandlerKind, MiddlewareRegistration, Record, Registration
from diator.engine.signature import NOTHING, Parameter, Signature, Unresolved, read_signature
from diator.engine.unreadable import guarded, in_words, unreadable
from diator.errors import ConfigurationError, Problem
from diator.messages import Event, Message


class Registry:
    """Handlers and middlewares in the order of registration, each with what its hints say.

    A handler is read when it is registered, since the names of its hints are known there. Hints that can't be resolved
    then (forward references) are read again by `resolve_pending`, which checks all handlers and reports all problems
    together, each with its line. Wrong options, and registrations that are too late, are rejected immediately.
    """

    def __init__(self) -> None:
        self.handlers: list[Registration] = []
        self.unclear: set[Registration] = set()
        """The handlers of which `settle` can't tell which messages they take."""
        self.middlewares: list[MiddlewareRegistration] = []
        self.declared_events: dict[type[Event], SourceLocation] = {}
        self.published_as: dict[Any, SourceLocation] = {}
        """The same as they were written: ``Paid[Money]``, where the class is ``Paid``. ``Any``: that is not a class."""
        self.container: Container | None = None
        """Whose markers count in what senders bring; set by an app."""
        self.provided: dict[Key, SourceLocation] = {}
        # Any: a hint is any typing form.
        self.declared: list[tuple[Any, SourceLocation]] = []
        """What ``provided`` was made of, for the app that includes this."""
        self.prefixes: dict[Registration, str] = {}
        """What goes before the names of subscriptions, for handlers of included routers."""
        self.requests: dict[type[Message], Registration] = {}
        self.closed: str | None = None
        """Why nothing more is taken, once that is so."""
        self._included: dict[Registry, SourceLocation] = {}
        self._names: dict[Registration | MiddlewareRegistration, Mapping[str, object]] = {}
        self._by_target: dict[object, list[Registration]] = {}

    def add_handler(self, registration: Registration, names: Mapping[str, object]) -> None:
        """Take a handler in. Raises `ConfigurationError` where it is too late, and for wrong options."""
        self.ensure_open(f"handler {registration.name}", registration.registered_at)
        wrong = list(options_fit(registration))
        if wrong:
            raise ConfigurationError(wrong)
        self.handlers.append(registration)
        registration.signature = _read(registration, names)
        if not registration.is_settled:
            self._names[registration] = dict(names)

    def add_middleware(self, middleware: MiddlewareRegistration, names: Mapping[str, object]) -> None:
        """Take a middleware in."""
        self.ensure_open(middleware.title, middleware.registered_at)
        self.middlewares.append(middleware)
        middleware.signature = _read(middleware, names)
        if any(middleware.signature.unresolved):
            self._names[middleware] = dict(names)

    def include(self, other: "Registry", location: SourceLocation, prefix: str = "") -> None:
        """Take in everything that another registry holds, and close that one."""
        self.ensure_open("a router", location)
        if other is self or other in self._included:
            text = "it is the one that includes" if other is self else f"it was included at {self._included[other]}"
            text = f"a router can't be included here: {text}"
            raise ConfigurationError([Problem("router", text, "include each router once", location)])
        own = set(self.handlers)
        again = next((handler for handler in other.handlers if handler in own), None)
        if again is not None:
            text = f"a router can't be included here: {again} was already included through another router"
            raise ConfigurationError([Problem("router", text, "include each router once", location)])
        self.handlers += other.handlers
        self.middlewares += other.middlewares
        self.prefixes.update((handler, prefix + other.prefixes.get(handler, "")) for handler in other.handlers)
        self.declared_events.update(other.declared_events)
        self.published_as.update(other.published_as)
        for hint, where in other.declared:
            self.provide(hint, where)
        self._names.update(other._names)
        self._included[other] = location
        other.closed = f"the router was included at {location}"

    def provide(self, hint: Any, location: SourceLocation) -> None:
        """Note what senders bring, by the key that a handler with this hint asks for.

        Raises `ConfigurationError` if it is not a type hint.
        """
        if not is_hint(hint):
            text = f"provides({hint!r}) is invalid: expected a type hint, such as a class"
            fix = "declare the type that handlers need, app.provides(User); senders provide the value: app.using(...)"
            raise ConfigurationError([Problem("provide-hint", text, fix, location)])
        self.declared.append((hint, location))
        self.provided.setdefault(key_of(hint, self.container), location)

    def ensure_open(self, what: str, location: SourceLocation) -> None:
        """Raise `ConfigurationError` once nothing more is taken."""
        if self.closed:
            text = f"{what} was registered too late: {self.closed}"
            fix = "register before the app is entered, and before the router is included"
            raise ConfigurationError([Problem("late-registration", text, fix, location)])

    def resolve_pending(self) -> Iterator[Problem]:
        """Read again what could not be resolved at its line; yield what is wrong with handlers, at each call."""
        yield from self._read_again()
        self.requests, self._by_target, self.unclear = {}, {}, set()
        for registration in self.handlers:
            yield from guarded(self._problems(registration), partial(unreadable, registration))

    def _read_again(self) -> Iterator[Problem]:
        for record, names in list(self._names.items()):
            record.signature = _read(record, names)
            unresolved = list(record.signature.unresolved)
            described = (_unresolved(record, parameter) for parameter in unresolved)
            yield from guarded(described, partial(unreadable, record))
            if not unresolved and (isinstance(record, MiddlewareRegistration) or record.is_settled):
                del self._names[record]

    def _problems(self, registration: Registration) -> Iterator[Problem]:
        self.unclear.add(registration)
        if registration.signature.unreadable is not None:
            raise registration.signature.unreadable
        found = unclear(registration)
        if found is not None:
            yield found
            return
        yield from handler_problems(registration)
        yield from self._duplicates(registration)
        self._claim(registration)
        self.unclear.discard(registration)

    def freeze(self, reason: str) -> None:
        """Reject further registrations, and drop the references to the namespaces of hints."""
        self.closed = reason
        self._names.clear()

    def _claim(self, registration: Registration) -> None:
        classes = frozenset(registration.message_types or ())  # raises for one that can't be looked up
        if registration.kind is HandlerKind.EVENT:
            self._by_target.setdefault(_identity(registration.target), []).append(registration)
            return
        for cls in classes:
            self.requests.setdefault(cls, registration)

    def _duplicates(self, new: Registration) -> Iterator[Problem]:
        for cls in new.message_types or ():
            if new.kind is HandlerKind.EVENT:
                former = self._same_event_handler(new, cls)
                what = f"event handler {new.name} is registered for {format_hint(cls)} twice"
                fix = "register it once"
            else:
                former = self.requests.get(cls)
                what = f"{new.kind.value} {format_hint(cls)} has a second handler, {new.name}"
                fix = f"keep one; a {new.kind.value} has exactly one handler"
            if former is not None:
                text = f"{what}; the first is {former.name}, registered at {former.registered_at}"
                yield Problem("duplicate-handler", text, fix, new.registered_at)
                return

    def _same_event_handler(self, new: Registration, cls: type[Message]) -> Registration | None:
        for former in self._by_target.get(_identity(new.target), ()):
            claims = former.message_types or ()
            if former is not new and (issubclass(cls, claims) or any(issubclass(claim, cls) for claim in claims)):
                return former
        return None

    def subclassed(self) -> Iterator[Problem]:
        """Find requests whose base is a registered request too: which handler is meant would be a guess."""
        for cls, registration in self.requests.items():
            for base in cls.__mro__[1:]:
                if base in self.requests and not same_request(cls, base):
                    other = self.requests[base]
                    former = f"{format_hint(base)}, handled by {other.name} at {other.location}"
                    text = f"{format_hint(cls)}, handled by {registration.name}, derives from {former}"
                    yield Problem(
                        "request-subclass", text, "give both a common base without a handler", registration.location
                    )


def _read(record: Record, names: Mapping[str, object]) -> Signature:
    target = record.target
    try:
        if not callable(target) or (isinstance(record, MiddlewareRegistration) and isinstance(target, type)):
            return NOTHING
        return read_signature(target, names)
    except Exception as error:  # noqa: BLE001 - what is registered may be any object, and answers as it likes
        return NOTHING._replace(unreadable=error)


def _unresolved(record: Record, parameter: Parameter) -> Problem:
    hint = parameter.hint
    assert isinstance(hint, Unresolved)
    text = f"{record.name} has a hint that can't be resolved: {parameter} ({in_words(hint.reason)})"
    return record.problem("unresolved-hint", text, hint.fix)


def _identity(target: object) -> object:
    """Tells handlers apart: two accesses to ``service.method`` give two objects for one method."""
    bound_to = getattr(target, "__self__", None)
    return id(target) if bound_to is None else (id(bound_to), id(getattr(target, "__func__", target)))
