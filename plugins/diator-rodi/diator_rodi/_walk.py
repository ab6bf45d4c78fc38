"""What rodi would do to resolve keys, found without building anything."""

from collections.abc import Collection
from typing import Any

from diator.containers import Key, Lifetime, is_placeholder
from diator.errors import (
    ContainerError,
    DependencyCycleError,
    DependencyNotFoundError,
    LifetimeMismatchError,
    UnsupportedRegistrationError,
)
from diator_rodi._refusals import declare, parameters_of, refusals, unexpected
from diator_rodi._registrations import Registrations, function_of, hint_of, key_of, layers, lifetime_of

Path = tuple[Key, ...]
Seen = set[tuple[Any, Key | None]]


class Walk:
    """The way through the registrations below some keys, and all that is wrong on it."""

    def __init__(self, registered: Registrations, provided: Collection[Key]) -> None:
        self.errors: list[ContainerError] = []
        self.warnings: dict[Key, UnsupportedRegistrationError] = {}
        self._registered = registered
        self._provided = provided
        self._asked = True
        self._seen: Seen = set()
        """What was looked through for one key, and for which singleton above it."""
        self._sound: Seen = set()
        """What was looked through for all keys, and nothing was wrong below."""

    def run(self, keys: Collection[Key], *, asked: bool = True) -> None:
        """Go to all that these keys need, which are ``asked`` for, or else only have to be such as rodi can build."""
        self._asked = asked
        for key in keys:
            self._seen, count = set(self._sound), len(self.errors)
            self._to(hint_of(key), (), None)
            if len(self.errors) == count:  # else each key that leads to the error is told
                self._sound |= self._seen

    def _to(self, hint: Any, path: Path, keeper: Key | None) -> None:
        key = key_of(hint)
        if key in path:
            self.errors.append(DependencyCycleError((*path[path.index(key) :], key)))
        elif hint not in self._registered:
            self.errors.append(self._missing(hint, key, path))
        elif keeper is not None and lifetime_of(self._registered[hint]) is Lifetime.SCOPED:
            self.errors.append(LifetimeMismatchError(keeper, key))
        elif (hint, keeper) not in self._seen:
            self._seen.add((hint, keeper))
            self._through(hint, key, path, keeper)

    def _through(self, hint: Any, key: Key, path: Path, keeper: Key | None) -> None:
        try:
            refused = list(refusals(self._registered, hint))
            needs = self._registered.needs(hint)
        except Exception as error:  # noqa: BLE001 - of reading hints, which may raise anything
            reason = f"rodi can't tell what it needs: {error}"
            remedy = "hint each parameter with names of the module; with @rodi.inject() they may be local to a function"
            self.errors.append(UnsupportedRegistrationError(key, reason, remedy))
            return
        if self._asked and key not in self._provided and self._is_placeholder(hint):
            refused.append(_not_given(key, path))
        self.errors.extend(refused)
        if refused:
            return
        lifetime = lifetime_of(self._registered[hint])
        if any(self._takes_scope(layer) for layer in layers(self._registered[hint])) and key not in self._provided:
            self.warnings[key] = _opaque(key, lifetime)
        if lifetime is Lifetime.SINGLETON:
            keeper = key
        for need in needs:
            self._to(need, (*path, key), keeper)

    def _is_placeholder(self, hint: Any) -> bool:
        return is_placeholder(function_of(next(layers(self._registered[hint]))))

    def _takes_scope(self, layer: Any) -> bool:
        function = function_of(layer)
        return function is not None and bool(parameters_of(function))

    def _missing(self, hint: Any, key: Key, path: Path) -> ContainerError:
        if path and key in self._provided:
            reason = f"it needs {key}, which senders provide, but rodi does not know"
            return UnsupportedRegistrationError(path[0], reason, declare(key))
        unexpected_need = unexpected(self._registered, hint_of(path[-1]), hint) if path else None
        if unexpected_need:
            return UnsupportedRegistrationError(path[-1], *unexpected_need)
        return DependencyNotFoundError(key, path)


def _not_given(key: Key, path: Path) -> UnsupportedRegistrationError:
    reason = f"it needs {key}, whose factory gives none" if path else "its factory gives none"
    remedy = f"declare app.provides({key}), and send with app.using(provide={{{key}: ...}})"
    return UnsupportedRegistrationError(path[0] if path else key, reason, remedy)


def _opaque(key: Key, lifetime: Lifetime) -> UnsupportedRegistrationError:
    what = "what its factory asks the scope for is unknown until it runs"
    if lifetime is Lifetime.SINGLETON:
        what += ", and a scoped object would be kept by this singleton after its scope"
    return UnsupportedRegistrationError(key, what, "register a class whose constructor hints what it needs")
