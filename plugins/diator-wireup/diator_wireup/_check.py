"""The check: what wireup lets pass when a container is made, and what would not mean what it seems to mean."""

import contextlib
from collections.abc import Collection

from wireup import ScopedAsyncContainer

from diator import Named
from diator.containers import Key, Lifetime, Validation, is_placeholder
from diator.errors import ContainerError, DependencyNotFoundError, UnsupportedRegistrationError
from diator_wireup._registrations import Hinted, Registrations, is_config


class Check:
    """Walks the factories below keys, for scopes that are given the ``provided`` ones.

    What is missing below a key, needs itself or would outlive what it holds, wireup refuses when the container is made.
    """

    def __init__(self, registrations: Registrations, provided: Collection[Key]) -> None:
        self._registrations = registrations
        self._provided = provided
        self._errors: list[ContainerError] = []
        self._warnings: list[ContainerError] = []
        self._seen: set[Key] = set()

    def run(self, keys: Collection[Key]) -> Validation:
        """Walk below all of these keys."""
        for key in self._provided:
            self._reach(key)
        for key in keys:
            if self._registrations.knows(key):
                self._walk(key)
                self._refuse_placeholders(key, key, set())
            elif key not in self._provided:
                self._errors.append(DependencyNotFoundError(key))
        return Validation(self._errors, self._warnings)

    def _reach(self, key: Key) -> None:
        """Refuse a provided value in whose place factories would get another."""
        if self._registrations.find(key) is None:
            return
        lifetime = self._registrations.lifetime(key)
        if lifetime is not Lifetime.SCOPED:
            reason = (
                f"senders provide it, but other factories would get that of the container, which is {lifetime.value}"
            )
            self._refuse(key, reason, f'register it with lifetime="scoped", or drop app.provides({key})')

    def _walk(self, key: Key) -> None:
        if key in self._seen or is_config(key):
            return
        self._seen.add(key)
        if self._registrations.is_abstract(key):
            reason = "it is @abstract: wireup does not see that such a class needs itself, and waits for ever"
            self._refuse(key, reason, "register what implements it with @injectable(as_type=...), and drop @abstract")
            return
        self._look_at_factory(key)
        needs = self._registrations.needs(key)
        for parameter in self._registrations.parameters(key):
            self._look_at_parameter(key, parameter, needs.get(parameter.name))
        for need in needs.values():
            self._walk(need)

    def _refuse_placeholders(self, asked: Key, key: Key, seen: set[Key]) -> None:
        """Refuse a key, if what only senders bring is needed below it, and they do not."""
        if key in seen or key in self._provided or is_config(key) or self._registrations.is_abstract(key):
            return
        seen.add(key)
        factory = self._registrations.factory(key).factory
        if is_placeholder(factory):
            reason = "its factory gives none" if key == asked else f"it needs {key}, whose factory gives none"
            self._refuse(asked, reason, f"declare app.provides({key}), and send with app.using(provide={{{key}: ...}})")
        for need in self._registrations.needs(key).values():
            self._refuse_placeholders(asked, need, seen)

    def _look_at_factory(self, key: Key) -> None:
        function = self._registrations.factory(key).factory
        if getattr(function, "__globals__", None) is vars(contextlib):
            reason = "wireup would give the context manager itself, and never enter it"
            self._refuse(key, reason, "register the generator function: drop @contextmanager or @asynccontextmanager")
        elif key.hint is ScopedAsyncContainer and not self._registrations.may_share_scopes:
            reason = "tasks that ask it together may each build a scoped object"
            remedy = "ask it in one task only, or make the container with concurrent_scoped_access=True"
            self._warnings.append(UnsupportedRegistrationError(key, reason, remedy))

    def _look_at_parameter(self, key: Key, parameter: Hinted, need: Key | None) -> None:
        marks = parameter.metadata
        named = next((mark for mark in marks if isinstance(mark, Named)), None)
        if named is not None and need is not None and need.qualifier is None:
            reason = f"wireup takes no notice of {named!r} at the parameter {parameter.name!r} of its factory"
            self._refuse(key, reason, f"write Inject(qualifier={named.name!r}) there")
        wanted = Key(parameter.hint)
        if need is None and parameter.is_optional and self._registrations.find(wanted) is not None:
            reason = (
                f"it gets the default of {parameter.name!r}: wireup looks for `{wanted} | None`, not for `{wanted}`"
            )
            remedy = f"hint {wanted} alone, which is registered"
            self._warnings.append(UnsupportedRegistrationError(key, reason, remedy))

    def _refuse(self, key: Key, reason: str, remedy: str) -> None:
        self._errors.append(UnsupportedRegistrationError(key, reason, remedy))
