"""Provided values: which keys of the container need one, and what needs one in a worker, which has no sender.

A container says the former by what its check adds when a value is left out, so the port needs no question for it.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from diator._keys import Key
from diator.containers.port import Container, ContainerCapability, ValidationResult
from diator.engine.event_graph import EventGraph
from diator.engine.registrations import MiddlewareRegistration, Record, Registration
from diator.engine.unit import UnitCall, UnitOfWork
from diator.engine.wiring import WiredCallable
from diator.errors import ContainerError, DependencyNotFoundError, NotProvidedError, Problem
from diator.messages import BROKERED_KINDS, Message

Below = Mapping[Key, tuple[Key, ...]]
"""For keys of the container, the values that senders must provide for them."""


def requested_key(error: ContainerError) -> Key:
    """The requested key that led to an error of a container: the first of its path."""
    path: tuple[Key, ...] = getattr(error, "path", ())
    key: Key = path[0] if path else getattr(error, "key", Key(None))
    return key


def needed_below(container: Container | None, keys: Collection[Key], provided: Collection[Key]) -> Below:
    """Return which of these keys need a provided value, and which one."""
    if container is None or not keys or not provided:
        return {}
    try:
        known = _errors(container.validate(keys, provided))
    except Exception:  # noqa: BLE001 - the check reports it, for each key
        return {}
    found: dict[Key, tuple[Key, ...]] = {}
    for value in provided:
        others = [key for key in provided if key != value]
        for text, key in _errors(container.validate(keys, others)).items():
            if text not in known and value not in found.get(key, ()):
                found[key] = (*found.get(key, ()), value)
    return found


def _errors(found: ValidationResult) -> dict[str, Key]:
    return {f"{requested_key(error)} {error}": requested_key(error) for error in found.errors}


class Running(NamedTuple):
    """A handler or middleware that runs because of a brokered event, with the handler of that event."""

    record: Record
    wired: WiredCallable
    root: Registration


def without_sender(
    handlers: Mapping[Registration, WiredCallable],
    middlewares: Mapping[MiddlewareRegistration, WiredCallable],
    classes: Mapping[Registration, tuple[type[Message], ...]],
    reach: EventGraph,
) -> Iterator[Running]:
    """Find everything that runs in a worker: handlers of brokered events, with their middlewares and domain events.

    Each is given once, with the first handler that leads to it.
    """
    records: dict[int, Record] = {id(wired): record for record, wired in handlers.items()}
    records.update((id(wired), middleware) for middleware, wired in middlewares.items())
    seen: set[int] = set()
    for root, wired in handlers.items():
        events = [cls for cls in classes[root] if issubclass(cls, BROKERED_KINDS)]
        if not events:
            continue
        family = {member for event in events for member in reach.with_subclasses(event)}
        following = reach.reachable_from(wired.publishes)
        for one in (wired, *reach.middlewares_for(*family), *following.handlers, *following.middlewares):
            if id(one) not in seen:
                seen.add(id(one))
                yield Running(records[id(one)], one, root)


def worker_problems(
    running: Iterable[Running], container: Container | None, provided: Collection[Key], below: Below
) -> Iterator[Problem]:
    """Report what needs a provided value in a worker, and warn if a container can't tell."""
    unknown = _Opaque(container, provided)
    for one in running:
        for key in one.wired.asked_of_senders:
            yield _needs_a_sender(one, key, key)
        for asked in dict.fromkeys(one.wired.keys):
            for key in below.get(asked, ()):
                yield _needs_a_sender(one, key, asked)
            if unknown.below(asked):
                yield unknown.warning(one, asked)


def _needs_a_sender(one: Running, key: Key, asked: Key) -> Problem:
    needs = "" if asked == key else f", which needs {key}"
    where = "" if one.record is one.root else f", and runs for {one.root.name} too"
    text = f"{one.record.name} needs {asked}{needs}{where}: only senders provide {key}"
    fix = f"register {key} with the container, or put the data that is needed into the event"
    if isinstance(one.record, MiddlewareRegistration):
        fix = f"{fix}, or let the middleware wrap requests only: annotate its message as Command[Any] or Query[Any]"
    return one.record.problem("missing-dependency", f"{text}, but a brokered event has no sender", fix)


class _Opaque:
    """A container that does not report the dependencies of its factories."""

    def __init__(self, container: Container | None, provided: Collection[Key]) -> None:
        is_opaque = container is not None and ContainerCapability.DEEP_VALIDATION not in container.capabilities
        self._container = container if is_opaque else None
        self._from_senders = [key for key in provided if container is None or not container.can_resolve(key)]

    def below(self, key: Key) -> bool:
        """Whether a key may need a provided value, as far as the container knows."""
        return (
            self._container is not None
            and bool(self._from_senders)
            and bool(self._container.validate([key], ()).warnings)
        )

    def warning(self, one: Running, asked: Key) -> Problem:
        """Say so."""
        provided = ", ".join(map(str, self._from_senders))
        text = (
            f"{one.record.name} needs {asked} in a worker, and the container can't tell whether that "
            f"depends on {provided}"
        )
        text = f"{text}, which only senders provide; a brokered event has no sender"
        fix = f"ensure with a test that it does not: publish the event of {one.root.name}"
        return one.record.problem("missing-dependency", text, fix, "warning")


def name_missing_value(work: UnitCall, declared: Collection[Key]) -> UnitCall:
    """Name the missing provided value in the error of a container, if only the factory that needs it can tell."""

    # Any: messages and results of all kinds meet here.
    async def work_or_tell(message: Any, unit: UnitOfWork) -> Any:
        try:
            return await work(message, unit)
        except DependencyNotFoundError as error:
            if error.key not in declared or error.key in unit.provided:
                raise
            raise missing_value_error(error.key, error.path[0] if error.path else None) from error

    return work_or_tell


def missing_value_error(key: Key, asker: object = None) -> NotProvidedError:
    """The error for a value that the sender did not provide."""
    needed = "" if asker is None else f", which {asker} needs,"
    text = f"{key}{needed} must be provided by the sender, and was not"
    how = f"use app.using(provide={{{key}: ...}}), or register {key} with the container, as a worker has no sender"
    return NotProvidedError(f"{text}: {how}")


def ensure_provided(missing: Collection[Key], message: object, *, streams: bool) -> None:
    """Raise `NotProvidedError` where a sender does not bring what a plan needs."""
    if missing:
        keys = sorted(map(str, missing))
        values = ", ".join(f"{key}: ..." for key in keys)
        name, how = _sent(message, f"app.using(provide={{{values}}})", streams=streams)
        raise NotProvidedError(f"{name} needs {', '.join(keys)} from its sender: {how}")


def _sent(message: Any, sender: str, *, streams: bool) -> tuple[str, str]:
    """The name of what is sent or, from ``publish``, of the events, and how to send it."""
    if streams:
        return type(message).__qualname__, f"async with {sender}.stream(...) as rows"
    if isinstance(message, Message):
        return type(message).__qualname__, f"await {sender}.send(...)"
    names = dict.fromkeys(type(event).__qualname__ for event in message)
    return ", ".join(names), f"await {sender}.publish(...)"
