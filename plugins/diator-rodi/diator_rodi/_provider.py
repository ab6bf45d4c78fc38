"""What rodi would do to resolve keys, found without building anything."""

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from diator.containers import Key, Lifetime, Need, Provider, Reason, key_of
from diator_rodi._refusals import parameters_of, refusals, unexpected
from diator_rodi._registrations import Registrations, class_of, function_of, layers, lifetime_of

# Any, in this module: a hint is any typing form.


def find(registered: Registrations, hint: Any, provided: Collection[Key]) -> "RodiProvider | None":
    """Return the provider of a hint, in scopes that are given values for the ``provided`` keys."""
    return RodiProvider(registered, hint, provided) if hint in registered else None


class RodiProvider(Provider):
    """A registration of rodi."""

    def __init__(self, registered: Registrations, hint: Any, provided: Collection[Key]) -> None:
        self._registered = registered
        self._provided = provided
        self._hint = hint
        outer, *_, inner = [*layers(registered[hint])] * 2
        super().__init__(key_of(hint), lifetime_of(outer))
        self.factory = function_of(inner) or class_of(inner)
        self.opaque = any(function_of(one) and parameters_of(function_of(one)) for one in layers(registered[hint]))
        if registered.kept.get(hint, {}).get(hint) is not registered[hint]:
            reason = "senders provide it, but rodi would give services that need it one of its own"
            self.hides = reason, declare(self.key)

    def needs(self) -> Iterator[Need]:
        for hint in self._registered.needs(self._hint):
            yield Need(key_of(hint), find(self._registered, hint, self._provided))

    def refusals(self) -> Iterable[Reason]:
        try:
            missing = [need for need in self._registered.needs(self._hint) if need not in self._registered]
            found = list(refusals(self._registered, self._hint))
        except Exception as error:  # noqa: BLE001 - of reading hints, which may raise anything
            fix = "hint each parameter with names of the module; with @rodi.inject() they may be local to a function"
            return [(f"rodi can't tell what it needs: {error}", fix)]
        unknown = (need for need in missing if key_of(need) not in self._provided)
        return found or [reason for need in unknown if (reason := unexpected(self._registered, self._hint, need))]

    def warnings(self) -> Iterator[Reason]:
        if self.opaque and self.key not in self._provided:
            reason = "what its factory asks the scope for is unknown until it runs"
            if self.lifetime is Lifetime.SINGLETON:
                reason += ", and a scoped object would be kept by this singleton after its scope"
            yield reason, "register a class whose constructor hints what it needs"


def declare(key: Key) -> str:
    """Say how rodi is told of a value that senders bring."""
    return f"register it with add_scoped_by_factory(..., {key}); the factory is for senders that bring none"
