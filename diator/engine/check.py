"""The check: everything that is wrong with an app, found before its first message."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Any, Literal, NamedTuple, TypeGuard, TypeVar, get_origin

from diator._keys import Key
from diator._locations import SourceLocation, location_of, location_of_class
from diator.containers.port import Container, ValidationResult
from diator.context import Context, Publish
from diator.engine.arguments import spelled_out
from diator.engine.event_graph import EventGraph, brokered
from diator.engine.events import is_brokered, needs_broker
from diator.engine.hints import format_hint
from diator.engine.message_checks import message_problems
from diator.engine.provided_values import Below, needed_below, requested_key, without_sender, worker_problems
from diator.engine.registrations import HandlerKind, MiddlewareRegistration, Record, Registration
from diator.engine.registry import Registry
from diator.engine.unreadable import guarded, in_words, unfinished, unreadable
from diator.engine.wiring import WiredCallable, WiringBuilder
from diator.errors import (
    ConfigurationError,
    ContainerError,
    DependencyCycleError,
    DependencyNotFoundError,
    LifetimeMismatchError,
    Problem,
    UnsupportedRegistrationError,
)
from diator.messages import DomainEvent, Event, Message

logger = logging.getLogger("diator")

R = TypeVar("R", Registration, MiddlewareRegistration)


class CheckResult(NamedTuple):
    """An app that was inspected: what is wrong with it, and what plans are compiled from."""

    problems: tuple[Problem, ...]
    handlers: Mapping[Registration, WiredCallable]
    middlewares: Mapping[MiddlewareRegistration, WiredCallable]
    classes: Mapping[Registration, tuple[type[Message], ...]]
    reach: EventGraph
    registry: Registry
    container: Container | None

    @property
    def errors(self) -> list[Problem]:
        """What the app can't start with."""
        return [problem for problem in self.problems if problem.severity == "error"]

    def raise_errors(self) -> None:
        """Raise `ConfigurationError` with all errors; without one, log the warnings."""
        if self.errors:
            raise ConfigurationError(self.errors)
        for problem in self.problems:
            logger.warning("%s", problem)


def check_registry(
    registry: Registry, container: Container | None, app: object, has_broker: bool = False
) -> CheckResult:
    """Inspect everything that is registered. Runs no handler and no factory."""
    problems = list(registry.resolve_pending())
    problems.extend(_guarded("requests", registry.subclassed()))
    wirer = WiringBuilder(app, container, registry.provided, problems)
    wired = _wired(registry.handlers, wirer.handler, problems)
    middlewares = _wired(registry.middlewares, wirer.middleware, problems)
    asked = {key for one in (*wired.values(), *middlewares.values()) for key in one.keys}
    below = needed_below(container, asked, registry.provided)
    handlers = {record: _with_below(one, below) for record, one in wired.items() if record not in registry.unclear}
    middlewares = {middleware: _with_below(one, below) for middleware, one in middlewares.items()}
    classes = {record: record.message_types or () for record in handlers}
    reach = EventGraph(_domain_handlers(handlers, classes), middlewares.values(), _spelled(handlers))
    published = chain.from_iterable(one.publishes for one in wired.values())
    problems.extend(_guarded("events", _events(registry, handlers, classes, reach, has_broker)))
    messages = chain(registry.declared_events, published, chain.from_iterable(classes.values()))
    problems.extend(_guarded("messages", message_problems(messages)))
    problems.extend(
        _guarded("the container", _container(container, registry, chain(wired.items(), middlewares.items())))
    )
    in_workers = without_sender(handlers, middlewares, classes, reach)
    problems.extend(_guarded("what workers run", worker_problems(in_workers, container, registry.provided, below)))
    return CheckResult(tuple(problems), handlers, middlewares, classes, reach, registry, container)


def _wired(records: Iterable[R], wire: Callable[[R], WiredCallable], problems: list[Problem]) -> dict[R, WiredCallable]:
    found: dict[R, WiredCallable] = {}
    for record in records:
        try:
            found[record] = wire(record)
        except Exception as error:  # noqa: BLE001 - classes and hints of the user's may raise anything
            problems.append(unreadable(record, error))
    return found


def _guarded(what: str, problems: Iterable[Problem]) -> Iterator[Problem]:
    return guarded(problems, partial(unfinished, what))


def _with_below(wired: WiredCallable, below: Below) -> WiredCallable:
    needed = dict.fromkeys(value for key in wired.keys for value in below.get(key, ()))
    return wired._replace(below=tuple(needed)) if needed else wired


def _spelled(handlers: Iterable[Registration]) -> dict[type, Any]:
    """Generic messages as their handlers write them, the first one counting. ``Any``: `Get[Meeting]` is not a class."""
    found: dict[type, Any] = {}
    for record in handlers:
        with suppress(Exception):  # a hint that can't be looked at is told where it is read
            found = {**spelled_out(record.message_hint), **found}
    return found


def _domain_handlers(
    handlers: Mapping[Registration, WiredCallable], classes: Mapping[Registration, tuple[type[Message], ...]]
) -> Iterator[tuple[WiredCallable, tuple[type[Message], ...]]]:
    for registration, wired in handlers.items():
        if registration.kind is HandlerKind.EVENT and not any(map(is_brokered, classes[registration])):
            yield wired, classes[registration]


def _events(
    registry: Registry,
    handlers: Mapping[Registration, WiredCallable],
    classes: Mapping[Registration, tuple[type[Message], ...]],
    reach: EventGraph,
    has_broker: bool,
) -> Iterator[Problem]:
    """Every event that is published, or handled, must have somewhere to go."""
    for registration, wired in handlers.items():
        yield from _unroutable(
            wired.publishes, f"is published by {registration.name}", registration.location, has_broker
        )
        if registration.kind is HandlerKind.EVENT:
            events = [cls for cls in classes[registration] if issubclass(cls, Event)]
            yield from _unroutable(events, f"is handled by {registration.name}", registration.location, has_broker)
        yield from _unhandled(wired.publishes, f"published by {registration.name}", registration.location, reach)
    for event, location in registry.declared_events.items():
        yield from _unroutable([event], "is declared with `publishes`", location, has_broker)
        yield from _unhandled([event], "declared with `publishes`", location, reach)


def _unroutable(
    events: Iterable[type[Event]], what: str, location: SourceLocation, has_broker: bool
) -> Iterator[Problem]:
    for event in brokered(events):
        if has_broker and is_brokered(event):
            continue
        problem = needs_broker(event, what)
        yield Problem(problem.code, problem.text, problem.fix, location)


def _unhandled(
    events: Iterable[type[Event]], what: str, location: SourceLocation, reach: EventGraph
) -> Iterator[Problem]:
    for event in events:
        if issubclass(event, DomainEvent) and not reach.handlers_for(event):
            text = f"{format_hint(event)}, {what}, has no handler"
            yield Problem(
                "unhandled-event", text, "handle it with @app.on_event, or stop publishing it", location, "warning"
            )


def _container(
    container: Container | None,
    registry: Registry,
    records: Iterable[tuple[Record, WiredCallable]],
) -> Iterator[Problem]:
    """What the container itself finds wrong, each with the handler that asked for it."""
    if container is None:
        return
    asked: dict[Key, Record] = {}
    for record, wired in records:
        for key in wired.keys:
            asked.setdefault(key, record)
    found = _validated(container, asked, registry.provided)
    for error in found.errors:
        asker = asked.get(requested_key(error))
        needs = "" if asker is None else f"the container can't provide what {asker.name} needs: "
        yield _container_problem(container, error, error.path[-1] if _is_own(error) else None, asker, needs)
    for error in found.warnings:
        yield _container_problem(container, error, getattr(error, "key", None), asked.get(requested_key(error)), None)


def _container_problem(
    container: Container, error: ContainerError, made: Key | None, asker: Record | None, needs: str | None
) -> Problem:
    """Tell an error of the container at the line of what makes ``made`` or, failing that, of what asks for it."""
    location = factory_location(container, made) or (None if asker is None else asker.location)
    text = f"{error.key}: {error.reason}" if isinstance(error, UnsupportedRegistrationError) else str(error)
    severity: Literal["error", "warning"] = "error" if needs is not None else "warning"
    return Problem("container", f"{needs or ''}{text}", _fix(error), location, severity)


def _validated(
    container: Container,
    asked: Mapping[Key, Record],
    provided: Mapping[Key, SourceLocation],
) -> ValidationResult:
    """Have the container look at all keys or, where one makes that fail, at each by itself."""
    try:
        return container.validate(asked.keys(), provided.keys())
    except Exception:  # noqa: BLE001, S110 - reading hints and factories of the user's may raise anything
        pass
    errors: list[ContainerError] = []
    warnings: list[ContainerError] = []
    for key in asked:
        try:
            found = container.validate([key], provided.keys())
        except Exception as error:  # noqa: BLE001 - as above
            reason = f"the container can't inspect it ({in_words(error)})"
            found = ValidationResult(
                [UnsupportedRegistrationError(key, reason, "correct its registration and its hints")]
            )
        errors.extend(found.errors)
        warnings.extend(found.warnings)
    return ValidationResult(errors, warnings)


def factory_location(container: Container, key: Key | None) -> SourceLocation | None:
    """The line of what makes the object of a key, where the container tells."""
    factory_of = getattr(container, "factory_of", None)
    if key is None or factory_of is None:
        return None
    factory: object = None
    with suppress(Exception):  # of reading the hints and factories of the user: the problem is told without its line
        factory = factory_of(key) if container.can_resolve(key) else None
    return location_of_class(factory) if isinstance(factory, type) else location_of(factory)


def _is_own(error: ContainerError) -> TypeGuard[DependencyNotFoundError]:
    """Whether a service below a handler asks the container for what Diator gives to handlers alone."""
    return isinstance(error, DependencyNotFoundError) and bool(error.path) and is_own(error.key)


def is_own(key: Key) -> bool:
    """Whether Diator gives this itself."""
    return key.hint is Context or Publish in (key.hint, get_origin(key.hint))


def _fix(error: ContainerError) -> str:
    match error:
        case UnsupportedRegistrationError():
            return error.fix
        case DependencyNotFoundError() if is_own(error.key):
            own, service = format_hint(error.key.hint), error.path[-1] if error.path else "the service"
            return (
                f"Diator provides it to handlers and middlewares only: take {own} as a parameter of the handler, and "
                f"pass it to a method of {service}, or have that return the events or values that it needs it for"
            )
        case DependencyNotFoundError():
            return f"register {error.key} with the container"
        case DependencyCycleError():
            return "break the cycle: pass what one of them needs to its method as an argument"
        case LifetimeMismatchError():
            return f"make {error.key} scoped, or {error.needs} a singleton"
        case _:
            return "correct the registration in the container"
