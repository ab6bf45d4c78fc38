"""Where each argument of a handler comes from: the message, Diator itself, the container, or a default."""

import enum
import inspect
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple, get_args

from typing_extensions import is_protocol

from diator._keys import Key
from diator.containers.port import Container, Lifetime
from diator.context import Context
from diator.engine.hints import class_of, injection_target, is_publish, key_of, unalias, union_members
from diator.engine.middleware_checks import is_clear, middleware_problems, wrapped
from diator.engine.registrations import HandlerKind, MiddlewareRegistration, Record, Registration
from diator.engine.signature import EMPTY, Parameter, Signature, Unresolved
from diator.errors import Problem
from diator.messages import Event


class Source(enum.Enum):
    """Who supplies an argument."""

    CONTAINER = enum.auto()
    SENDER = enum.auto()
    """Declared with ``app.provides``, and unknown to the container."""
    PUBLISH = enum.auto()
    CONTEXT = enum.auto()
    APP = enum.auto()
    DEFAULT = enum.auto()


class Argument(NamedTuple):
    """One argument after the message."""

    name: str
    keyword: bool
    source: Source
    key: Key | None = None
    default: Any = EMPTY


class WiredCallable(NamedTuple):
    """A handler or middleware with the sources of its arguments."""

    target: Any
    call_kind: str
    arguments: tuple[Argument, ...] = ()
    constructor: tuple[Argument, ...] = ()
    key: Key | None = None
    """The handler class itself, where the container knows it."""
    publishes: tuple[type[Event], ...] = ()
    """The events that it may publish."""
    has_events: bool = False
    """Whether it is a class whose ``events`` are read after ``handle``."""
    streams: bool = False
    thread: bool = False
    timeout: float | None = None
    wraps: tuple[Any, ...] = ()
    """For a middleware: the hints of the messages that it wraps, with type arguments as in ``Command[int]``."""
    is_outer: bool = False
    """For a middleware: whether it runs outside the unit of work."""
    below: tuple[Key, ...] = ()
    """The values of senders without which the container can't give what is asked of it."""

    @property
    def publishes_events(self) -> bool:
        """Whether it may raise events."""
        return bool(self.publishes) or self.has_events

    @property
    def keys(self) -> Iterator[Key]:
        """What it asks the container for."""
        if self.key is not None:
            yield self.key
        yield from (argument.key for argument in self._all if argument.source is Source.CONTAINER and argument.key)

    @property
    def required_values(self) -> Iterator[Key]:
        """What a sender has to provide."""
        yield from self.asked_of_senders
        yield from self.below

    @property
    def asked_of_senders(self) -> Iterator[Key]:
        """The provided values that it asks for itself."""
        needed = (one for one in self._all if one.source is Source.SENDER and one.default is EMPTY)
        yield from (argument.key for argument in needed if argument.key)

    @property
    def _all(self) -> tuple[Argument, ...]:
        return (*self.constructor, *self.arguments)

    @property
    def needs_context(self) -> bool:
        """Whether it asks for the `Context`."""
        return any(argument.source is Source.CONTEXT for argument in self._all)


class WiringBuilder:
    """Wires the handlers of one app. What is wrong is added to ``problems``."""

    def __init__(
        self, app: object, container: Container | None, provided: Collection[Key], problems: list[Problem]
    ) -> None:
        self.app = app
        self.container = container
        self.provided = provided
        self.problems = problems

    def handler(self, registration: Registration) -> WiredCallable:
        """Wire a handler."""
        if registration.is_unbound:  # reported where it was read
            return WiredCallable(registration.target, registration.signature.call_kind)
        is_class = isinstance(registration.target, type)
        key = Key(registration.target) if is_class and self._knows(Key(registration.target)) else None
        constructor = () if key else self._arguments(registration, registration.signature.constructor)
        publishes = self._publishes(registration)
        has_events = registration.signature.events is not EMPTY
        if key and has_events:
            self._reject_shared_events(registration, key)
        if is_class and not key and (inspect.isabstract(registration.target) or is_protocol(registration.target)):
            text = f"{registration.title} is abstract, so it can't be built"
            self._add(
                registration, "invalid-handler", text, "register the class that implements it, also with the container"
            )
        return WiredCallable(
            target=registration.target,
            call_kind=registration.signature.call_kind,
            arguments=self._arguments(registration, registration.signature.parameters[1:]),
            constructor=constructor,
            key=key,
            publishes=publishes,
            has_events=has_events,
            streams=registration.signature.is_stream,
            thread=registration.thread,
            timeout=registration.timeout,
        )

    def middleware(self, middleware: MiddlewareRegistration) -> WiredCallable:
        """Wire a middleware."""
        self.problems.extend(middleware_problems(middleware))
        if not is_clear(middleware):
            return WiredCallable(middleware.target, middleware.signature.call_kind)
        arguments = self._arguments(middleware, middleware.signature.parameters[2:])
        if not middleware.inside:
            self._reject_scoped(middleware, arguments)
        return WiredCallable(
            middleware.target,
            middleware.signature.call_kind,
            arguments,
            wraps=wrapped(middleware),
            is_outer=not middleware.inside,
        )

    def _reject_scoped(self, middleware: MiddlewareRegistration, arguments: Iterable[Argument]) -> None:
        """Outside a unit of work there is no scope to resolve from."""
        for argument in arguments:
            if argument.source is not Source.CONTAINER or argument.key is None or self.container is None:
                continue
            lifetime = self.container.lifetime(argument.key)
            if lifetime is not Lifetime.SINGLETON:
                text = f"{middleware.title} runs outside the unit of work, so it can't use {argument.key}"
                fix = "run it inside: @app.middleware(inside=True) or app.add_middleware(..., inside=True)"
                text = f"{text}, which the container creates for each scope or call ({lifetime.value})"
                self._add(middleware, "outer-middleware", text, f"{fix}; there it calls call_next once")

    def _arguments(self, record: Record, parameters: Collection[Parameter]) -> tuple[Argument, ...]:
        found = [self._argument(record, parameter) for parameter in parameters]
        arguments = [argument for argument in found if argument is not None]
        kept = [argument for argument in arguments if not (argument.keyword and argument.source is Source.DEFAULT)]
        while kept and kept[-1].source is Source.DEFAULT:  # the function puts it in itself
            kept.pop()
        return tuple(kept)

    def _argument(self, record: Record, parameter: Parameter) -> Argument | None:
        name, keyword, default = parameter.name, parameter.keyword, parameter.default
        if isinstance(parameter.hint, Unresolved):
            return None  # reported where it was read
        if parameter.hint is EMPTY:
            if default is EMPTY:
                text = f"{record.name} has the parameter {name!r} without a type hint"
                self._add(
                    record, "unhinted-parameter", text, "annotate it with the type that it needs, or give it a default"
                )
            return Argument(name, keyword, Source.DEFAULT, default=default)
        source = self._own_source(parameter)
        if source is not None:
            return Argument(name, keyword, source)
        key = self._key(record, parameter)
        return None if key is None else Argument(name, keyword, self._source(record, parameter, key), key, default)

    def _own_source(self, parameter: Parameter) -> Source | None:
        if is_publish(parameter.hint):
            return Source.PUBLISH
        hint, _ = injection_target(parameter.hint)
        if hint is Context:
            return Source.CONTEXT
        return Source.APP if hint in type(self.app).__mro__[:-1] else None

    def _key(self, record: Record, parameter: Parameter) -> Key | None:
        hint, _ = injection_target(parameter.hint)
        if len(union_members(hint)) != 1:
            text = f"{record.name} needs {parameter}, and a container can't choose between types"
            self._add(record, "union-dependency", text, "annotate one type, or one type with `| None` and a default")
            return None
        return key_of(parameter.hint, self.container)

    def _source(self, record: Record, parameter: Parameter, key: Key) -> Source:
        if self._knows(key):
            return Source.CONTAINER
        if key in self.provided:
            return Source.SENDER
        if parameter.default is EMPTY:
            self._missing(record, parameter, key)
        return Source.DEFAULT

    def _knows(self, key: Key) -> bool:
        return self.container is not None and self.container.can_resolve(key)

    def _missing(self, record: Record, parameter: Parameter, key: Key) -> None:
        if self.container is None:
            text = f"{record.name} needs {parameter}, but the app has no container"
            fix = 'pass one: Diator(container=punq.Container()); install punq: uv add "diator[punq]"'
        else:
            text = f"{record.name} needs {parameter}, but the container has no provider for it"
            fix = (
                f"register {key} with the container, give the parameter a default,"
                f" or declare that senders provide it: app.provides({key})"
            )
        self._add(record, "missing-dependency", text, fix)

    def _publishes(self, registration: Registration) -> tuple[type[Event], ...]:
        declared = [
            cls
            for parameter in (*registration.signature.constructor, *registration.signature.parameters[1:])
            if is_publish(parameter.hint)
            for cls in self._declared(registration, parameter)
        ]
        if declared and registration.kind is HandlerKind.QUERY:
            text = f"{registration.title} needs Publish, but a query changes nothing, so it has no events to publish"
            self._add(registration, "query-publishes", text, "make it a command, or drop the parameter")
        if registration.kind is not HandlerKind.QUERY and registration.signature.events is not EMPTY:
            declared += _event_classes(registration.signature.events) or [Event]
        return tuple(dict.fromkeys(declared))

    def _declared(self, registration: Registration, parameter: Parameter) -> list[type[Event]]:
        events_hint = get_args(injection_target(parameter.hint)[0])
        classes = [class_of(member) for hint in events_hint for member in union_members(unalias(hint))]
        events = [cls for cls in classes if cls is not None and issubclass(cls, Event)]
        if not events or len(events) != len(classes):
            text = f"{registration.name} needs {parameter}, which does not name the events that it publishes"
            self._add(registration, "publish-hint", text, "name them: Publish[UserJoined | UserWarned]")
        return events

    def _reject_shared_events(self, registration: Registration, key: Key) -> None:
        assert self.container is not None
        lifetime = self.container.lifetime(key)
        if lifetime is Lifetime.SINGLETON or (lifetime is Lifetime.SCOPED and registration.kind is HandlerKind.EVENT):
            text = (
                f"{registration.name} has `events`, and the container shares one {registration.name} ({lifetime.value})"
            )
            fix = "register it as transient, or not at all: Diator builds it for each message"
            self._add(registration, "shared-events", text, fix)

    def _add(self, record: Record, code: str, text: str, fix: str) -> None:
        self.problems.append(record.problem(code, text, fix))


def publish_hints(signature: Signature) -> Iterator[Any]:
    """What stands in the ``Publish[...]`` of a handler. ``Any``: a hint is any typing form."""
    for parameter in (*signature.constructor, *signature.parameters[1:]):
        if not isinstance(parameter.hint, Unresolved) and is_publish(parameter.hint):
            yield from map(unalias, get_args(injection_target(parameter.hint)[0]))


def _event_classes(hint: Any) -> list[type[Event]]:
    """The events in a hint such as ``list[UserJoined | UserWarned]``."""
    found = [class_of(member) for inner in get_args(hint) for member in union_members(unalias(inner))]
    return [cls for cls in found if cls is not None and issubclass(cls, Event)]
