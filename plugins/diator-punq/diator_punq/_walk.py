"""What punq would do to resolve a key, found without building anything.

punq takes the last registration of a service. Where that one needs the same service again, it takes the one before,
which is how decorators are chained; when none is left, the parameter gets its default, or the service is missing. What
was built is used again until the object that was asked for is complete.
"""

import inspect
from collections.abc import Collection, Iterator
from typing import Annotated, Any, NamedTuple, get_args, get_origin

import punq
from typing_extensions import get_type_hints, is_protocol

from diator.containers import Key
from diator.containers.port import Named
from diator.errors import (
    ContainerError,
    DependencyCycleError,
    DependencyNotFoundError,
    LifetimeMismatchError,
    UnsupportedRegistrationError,
)

# Any, in this module: hints and builders are anything that a user may register.
REGISTER_FUNCTION = "register a plain function or a class that gives the object"


class Entry(NamedTuple):
    """A registration, as far as the walk reads it."""

    builder: Any
    scope: punq.Scope
    needs: dict[str, Any]
    given: dict[str, Any]
    once: bool
    """Whether punq takes it only once while it builds one object."""


def hint_of(key: Key) -> Any:
    """Fold the qualifier into the hint: punq takes anything that can be hashed."""
    return key.hint if key.qualifier is None else Annotated[key.hint, Named(key.qualifier)]


def key_of(hint: Any) -> Key:
    """Do the reverse of `hint_of`."""
    if get_origin(hint) is Annotated and isinstance(hint.__metadata__[0], Named):
        return Key(get_args(hint)[0], hint.__metadata__[0].name)
    return Key(hint)


class Registrations:
    """What a punq container holds."""

    def __init__(self, container: punq.Container) -> None:
        self._container = container

    def of(self, hint: Any) -> list[Entry]:
        """Give the registrations of a service, the one that punq takes last."""
        found = self._container.registrations.build_context(hint).all_registrations(hint)
        return [Entry(one.builder, one.scope, one.needs, one.args, one.cache) for one in found]

    def builds_unregistered(self, hint: Any) -> bool:
        """Tell whether punq would make this service without a registration of it."""
        return isinstance(hint, type) and self._container._auto_register  # pyright: ignore[reportPrivateUsage]


class Walk:
    """One way through the registrations, from one key."""

    def __init__(self, registrations: Registrations, provided: Collection[Key]) -> None:
        self._registrations = registrations
        self._provided = {hint_of(key) for key in provided}
        self._left: dict[Any, list[Entry]] = {}
        self._built: set[Any] = set()

    def of(self, key: Key) -> Iterator[ContainerError]:
        """Find all that would fail if this key were resolved."""
        yield from self._service(hint_of(key), (), None)

    def _service(self, hint: Any, path: tuple[Key, ...], keeper: Key | None) -> Iterator[ContainerError]:
        key = key_of(hint)
        if hint in self._provided:
            if keeper is not None:
                yield LifetimeMismatchError(keeper, key)
        elif get_origin(hint) is list:
            yield from self._all_of(hint, key, path, keeper)
        elif hint not in self._built:
            entry = self._take(hint)
            if key in path and (entry is None or not entry.once):
                yield DependencyCycleError((*path[path.index(key) :], key))
            elif entry is None:
                yield DependencyNotFoundError(key, path)
            else:
                yield from self._built_by(entry, key, path, keeper)
                if entry.once:
                    self._built.add(hint)

    def _all_of(self, hint: Any, key: Key, path: tuple[Key, ...], keeper: Key | None) -> Iterator[ContainerError]:
        if self._registrations.of(hint):
            reason = f"punq does not look at it, and gives all that is registered for {get_args(hint)[0]!r}"
            yield UnsupportedRegistrationError(key, reason, "register a NewType or a class of its own for the list")
        walk = Walk(self._registrations, [key_of(provided) for provided in self._provided])
        for entry in self._registrations.of(get_args(hint)[0]):
            yield from walk._built_by(entry, key, path, keeper)

    def _built_by(self, entry: Entry, key: Key, path: tuple[Key, ...], keeper: Key | None) -> Iterator[ContainerError]:
        refusal = _refusal(entry, key)
        if refusal is not None:
            yield refusal
            return
        keeper = keeper or (key if entry.scope is punq.Scope.singleton else None)
        defaults = _defaults(entry.builder)
        for name, hint in entry.needs.items():
            optional = name in defaults and not self._has(hint)
            if name != "return" and name not in entry.given and not optional:
                yield from self._service(hint, (*path, key), keeper)

    def _has(self, hint: Any) -> bool:
        known = hint in self._built or hint in self._provided or get_origin(hint) is list
        return known or bool(self._left_of(hint))

    def _take(self, hint: Any) -> Entry | None:
        left = self._left_of(hint)
        if left:
            return left.pop() if left[-1].once else left[-1]
        if self._registrations.builds_unregistered(hint) and not self._registrations.of(hint):
            return Entry(hint, punq.Scope.transient, get_type_hints(hint.__init__), {}, once=False)
        return None

    def _left_of(self, hint: Any) -> list[Entry]:
        return self._left.setdefault(hint, self._registrations.of(hint))


def _refusal(entry: Entry, key: Key) -> UnsupportedRegistrationError | None:
    """Tell why punq cannot honour a registration, if it cannot."""
    builder = entry.builder
    kind = _unawaited(builder)
    if kind is not None:
        reason = f"punq would give the {kind} itself, and never run or close it"
        remedy = f"{REGISTER_FUNCTION}, or use a container that can close resources, such as dishka"
        return UnsupportedRegistrationError(key, reason, remedy)
    if inspect.isabstract(builder) or is_protocol(builder):
        return UnsupportedRegistrationError(key, f"{builder!r} is abstract", "register a class that implements it")
    ignored = _qualified(builder, entry.given)
    if ignored:
        reason = f"punq drops the qualifier of the parameter {ignored!r} of {builder!r}"
        return UnsupportedRegistrationError(key, reason, "hint a class or a NewType of its own, and register that")
    try:
        passed = {*_defaults(builder), *entry.needs, *entry.given} - {"return"}
        inspect.signature(builder).bind(**dict.fromkeys(passed))
    except (TypeError, ValueError) as error:
        reason = f"punq cannot call {builder!r}: {error}"
        remedy = "hint all parameters of the constructor, or give them: register(..., name=value); a function takes none"
        return UnsupportedRegistrationError(key, reason, remedy)
    return None


def _unawaited(builder: Any) -> str | None:
    if inspect.isasyncgenfunction(builder):
        return "async generator"
    if inspect.isgeneratorfunction(builder):
        return "generator"
    if inspect.iscoroutinefunction(builder):
        return "coroutine"
    # What contextlib's decorators return is a function of theirs.
    made_by = getattr(builder, "__globals__", {}).get("__name__")
    return "context manager" if made_by == "contextlib" else None


def _qualified(builder: Any, given: Collection[str]) -> str | None:
    if not isinstance(builder, type):
        return None
    for name, hint in get_type_hints(builder.__init__, include_extras=True).items():
        marks = getattr(hint, "__metadata__", ())
        if name not in given and any(isinstance(mark, Named) for mark in marks):
            return name
    return None


def _defaults(builder: Any) -> set[str]:
    """The parameters that punq passes with their defaults, if it finds nothing better."""
    return {
        parameter.name
        for parameter in inspect.signature(builder).parameters.values()
        if parameter.default is not parameter.empty
    }
