"""What wireup would do to build a key, and what would not mean what it seems to mean.

What is missing below a key, needs itself or would outlive what it holds, wireup rejects when the container is made.
"""

import contextlib
from collections.abc import Iterator

from wireup import AsyncContainer, ScopedAsyncContainer
from wireup.ioc.type_analysis import TypeAnalysis

from diator import Named
from diator.containers import Key, Lifetime, Need, Provider, Reason, is_of
from diator_wireup._registrations import Registrations, is_config

_ABSTRACT = (
    "it is @abstract: wireup does not see that such a class needs itself, and waits for ever",
    "register what implements it with @injectable(as_type=...), and drop @abstract",
)


class WireupProvider(Provider):
    """A factory of wireup, an ``@abstract`` class, or a value in its config."""

    def __init__(self, registrations: Registrations, key: Key) -> None:
        super().__init__(key, registrations.lifetime(key))
        self._registrations = registrations
        self._is_abstract = registrations.is_abstract(key)
        self._has_factory = not self._is_abstract and not is_config(key)
        self.factory = registrations.factory(key).factory if self._has_factory else None
        self.opaque = key.hint in (ScopedAsyncContainer, AsyncContainer)
        if self._is_abstract:
            self.hides = _ABSTRACT
        elif self.lifetime is not Lifetime.SCOPED:
            reason = f"other factories would get that of the container, which is {self.lifetime.value}"
            fix = f'register it with lifetime="scoped", or drop app.provides({key})'
            self.hides = f"senders provide it, but {reason}", fix

    def needs(self) -> Iterator[Need]:
        for name, hint, key in self._parameters():
            if key is not None:
                yield Need(key, WireupProvider(self._registrations, key))
            elif hint.is_optional:  # wireup looks for `T | None`, not for `T`
                yield Need(Key(hint.raw_type | None), None, name)

    def refusals(self) -> Iterator[Reason]:
        if self._is_abstract:
            yield _ABSTRACT
        if is_of(contextlib, self.factory):
            reason = "wireup would give the context manager itself, and never enter it"
            yield reason, "register the generator function: drop @contextmanager or @asynccontextmanager"
        for name, hint, need in self._parameters():
            for mark in hint.annotations:
                if isinstance(mark, Named) and need is not None and need.qualifier is None:
                    reason = f"wireup takes no notice of {mark!r} at the parameter {name!r} of its factory"
                    yield reason, f"write Inject(qualifier={mark.name!r}) there"

    def _parameters(self) -> Iterator[tuple[str, TypeAnalysis, Key | None]]:
        """Yield the name of each parameter of the factory, its hint, and what wireup passes for it."""
        if self._has_factory:
            needs = self._registrations.needs(self.key)
            for name, hint in self._registrations.hints(self.key):
                yield name, hint, needs.get(name)
