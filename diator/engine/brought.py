"""Values that senders bring: what of the container needs them, and what asks for them where there is no sender.

A container says the former by what its check adds when a value is left out, so the port needs no question for it.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from diator._keys import Key
from diator.containers.port import Capability, Container, Validation
from diator.engine.reach import Reach
from diator.engine.records import Layer, Registration
from diator.engine.unit import Unit, Work
from diator.engine.wiring import Wired
from diator.errors import ContainerError, DependencyNotFoundError, NotProvidedError, Problem
from diator.messages import BROKERED, Message

Below = Mapping[Key, tuple[Key, ...]]
"""For keys of the container, the values that senders have to bring for them."""


def asked_key(error: ContainerError) -> Key:
    """The key that led to an error of a container: the first of its path."""
    path: tuple[Key, ...] = getattr(error, "path", ())
    key: Key = path[0] if path else getattr(error, "key", Key(None))
    return key


def needed_below(container: Container | None, keys: Collection[Key], provided: Collection[Key]) -> Below:
    """Tell which of these keys can't be resolved without a value that senders bring, and without which."""
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


def _errors(found: Validation) -> dict[str, Key]:
    return {f"{asked_key(error)} {error}": asked_key(error) for error in found.errors}


class Running(NamedTuple):
    """A handler or middleware that runs because of a brokered event, and whose event that is."""

    record: Registration | Layer
    wired: Wired
    root: Registration


def without_sender(
    handlers: Mapping[Registration, Wired],
    layers: Mapping[Layer, Wired],
    classes: Mapping[Registration, tuple[type[Message], ...]],
    reach: Reach,
) -> Iterator[Running]:
    """Find all that runs in a worker, where nothing is sent: handlers of brokered events, and what is around and below.

    Each is given once, with the first handler that leads to it.
    """
    records: dict[int, Registration | Layer] = {id(wired): record for record, wired in handlers.items()}
    records.update((id(wired), layer) for layer, wired in layers.items())
    seen: set[int] = set()
    for root, wired in handlers.items():
        events = [cls for cls in classes[root] if issubclass(cls, BROKERED)]
        if not events:
            continue
        family = {member for event in events for member in reach.family(event)}
        following = reach.following(wired.publishes)
        for one in (wired, *reach.layers_of(*family), *following.handlers, *following.layers):
            if id(one) not in seen:
                seen.add(id(one))
                yield Running(records[id(one)], one, root)


def refused_in_a_worker(
    running: Iterable[Running], container: Container | None, provided: Collection[Key], below: Below
) -> Iterator[Problem]:
    """Report what asks for a value that only senders bring, in a worker, and warn where a container can't tell."""
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
    text = f"{one.record.name} asks for {asked}{needs}{where}: only senders bring {key}"
    remedy = f"register {key} with the container, or carry what is needed of it in the event"
    if isinstance(one.record, Layer):
        remedy = f"{remedy}, or have the middleware wrap only what is sent: hint Command[Any] or Query[Any]"
    return Problem("missing-dependency", f"{text}, and a brokered event has no sender", remedy, one.record.place)


class _Opaque:
    """A container that does not tell what its factories ask for."""

    def __init__(self, container: Container | None, provided: Collection[Key]) -> None:
        is_opaque = container is not None and Capability.DEEP_VALIDATION not in container.capabilities
        self._container = container if is_opaque else None
        self._brought = [key for key in provided if container is None or not container.can_resolve(key)]

    def below(self, key: Key) -> bool:
        """Whether a value of senders may be needed below a key, as far as the container knows."""
        return (
            self._container is not None and bool(self._brought) and bool(self._container.validate([key], ()).warnings)
        )

    def warning(self, one: Running, asked: Key) -> Problem:
        """Say so."""
        brought = ", ".join(map(str, self._brought))
        text = (
            f"{one.record.name} asks for {asked} in a worker, and the container can't tell whether that needs {brought}"
        )
        text = f"{text}, which only senders bring; a brokered event has no sender"
        remedy = f"make sure that it does not, with a test that publishes the event of {one.root.name}"
        return Problem("missing-dependency", text, remedy, one.record.place, "warning")


def telling_what_was_not_brought(work: Work, declared: Collection[Key]) -> Work:
    """Say that a sender had to bring what a container misses, where only the factory that asks for it can tell."""

    # Any: messages and results of all kinds meet here.
    async def work_or_tell(message: Any, unit: Unit) -> Any:
        try:
            return await work(message, unit)
        except DependencyNotFoundError as error:
            if error.key not in declared or error.key in unit.provided:
                raise
            raise not_brought(error.key, error.path[0] if error.path else None) from error

    return work_or_tell


def not_brought(key: Key, asker: object = None) -> NotProvidedError:
    """The error of a value that only senders bring, where none did."""
    needed = "" if asker is None else f", which {asker} needs,"
    text = f"{key}{needed} is brought by senders only, and was not brought here"
    how = f"use app.using(provide={{{key}: ...}}), or register {key} with the container, as a worker has no sender"
    return NotProvidedError(f"{text}: {how}")
