"""How a case gets its container, and what happens if the container does not support the case."""

import asyncio
import functools
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any, ClassVar, Concatenate, TypeVar

import pytest
from typing_extensions import ParamSpec

from diator import Named
from diator.containers import Key
from diator.containers.port import Container, ContainerCapability, Lifetime
from diator.errors import ContainerError, DependencyNotFoundError, UnsupportedRegistrationError
from diator_conformance.containers.registration import (
    NOTHING,
    CannotExpressError,
    Feature,
    RefusedByLibraryError,
    Registration,
    SourceKind,
    kind_of,
)
from diator_conformance.overriding import Suite, own_case

# Any: of a coroutine, only what it returns matters to who awaits it. A hint is any typing form.
P = ParamSpec("P")
B = TypeVar("B", bound="ContainerSuiteBase")


class EndedError(Exception):
    """Ends a case successfully: the plugin rejects it at startup, or the case does not apply."""


def case(
    needs: Feature = NOTHING,
) -> Callable[[Callable[Concatenate[B, P], Coroutine[Any, Any, None] | None]], Callable[Concatenate[B, P], None]]:
    """Make a case of the suite, which needs these features beside those of its registrations.

    An async case runs in an event loop of its own, so that the suite needs no pytest plugin.
    """

    def decorate(
        body: Callable[Concatenate[B, P], Coroutine[Any, Any, None] | None],
    ) -> Callable[Concatenate[B, P], None]:
        @own_case
        @functools.wraps(body)
        def run(self: B, /, *args: P.args, **kwargs: P.kwargs) -> None:
            self._needs = needs  # pyright: ignore[reportPrivateUsage] - of the bench, which belongs to this module
            try:
                outcome = body(self, *args, **kwargs)
                if outcome is not None:
                    asyncio.run(asyncio.wait_for(outcome, self.case_timeout))
            except EndedError:
                return

        return run

    return decorate


class ContainerSuiteBase(Suite):
    """The base of all cases: the hooks of the plugin's author, and helpers for cases."""

    case_timeout: ClassVar[float] = 10.0
    """Seconds that a case may take before it fails."""

    lacks: ClassVar[Feature] = NOTHING
    """Features that the library does not support. ``validate`` must reject registrations that need them."""

    _needs: Feature = NOTHING

    def container(self, registrations: Sequence[Registration], provided: Collection[Key]) -> Container:
        """Create a container of the library with these registrations, wrapped by the plugin. Implemented by its author.

        ``provided`` contains keys that scopes will provide, for libraries that require their declaration. Raise
        `CannotExpressError` for a registration for which the library has no syntax, and `RefusedByLibraryError`
        ``from`` the library's error for one that the library itself rejects.
        """
        raise NotImplementedError(f"write {type(self).__qualname__}.container: it makes the container under test")

    def marker(self, name: str) -> object:
        """Return the library's own marker in ``Annotated[T, ...]`` that qualifies a constructor parameter."""
        return Named(name)

    @property
    def features(self) -> Feature:
        """All features except those in ``lacks`` and those that the plugin does not declare."""
        declared = self.container((), ()).capabilities
        undeclared = (Feature[str(one.name)] for one in ContainerCapability if one not in declared)
        return functools.reduce(lambda found, one: found & ~one, undeclared, ~self.lacks)

    @property
    def usual(self) -> Lifetime:
        """The lifetime for cases that are not about lifetimes."""
        return Lifetime.SCOPED if Feature.SCOPED in self.features else Lifetime.TRANSIENT

    @property
    def longest(self) -> Lifetime:
        """The longest lifetime that the library supports."""
        return Lifetime.SINGLETON if Feature.SINGLETON in self.features else self.usual

    def register(
        self, hint: Any, source: object = None, *, lifetime: Lifetime | None = None, qualifier: str | None = None
    ) -> Registration:
        """Return the registration of a class or a factory; by default, a class is its own source."""
        source = hint if source is None else source
        return Registration(Key(hint, qualifier), source, kind_of(source), lifetime or self.usual)

    def value(self, hint: Any, value: object, *, qualifier: str | None = None) -> Registration:
        """Return the registration of an existing object."""
        return Registration(Key(hint, qualifier), value, SourceKind.VALUE, Lifetime.SINGLETON)

    def build(self, *registrations: Registration, provided: Collection[Key] = ()) -> Container:
        """Create the container of a case; end the case if the container rejects what it does not support."""
        needs = functools.reduce(Feature.__or__, (one.needs for one in registrations), self._needs)
        lacking = needs & ~self.features
        try:
            container = self.container(registrations, provided)
        except CannotExpressError as reason:
            without = names(lacking) or self._lacks_transients(registrations)
            if not without:
                pytest.fail(f"the suite lists nothing that this case needs as lacking, but can't express it: {reason}")
            pytest.xfail(f"without {without}: {reason}")
        except RefusedByLibraryError as refusal:
            if lacking:
                raise EndedError from refusal
            raise
        if lacking:
            _must_refuse(container, [one.key for one in registrations], provided, lacking)
            raise EndedError
        return container

    def _lacks_transients(self, registrations: Sequence[Registration]) -> str:
        """No capability stands for transient objects: a library with scopes may do without them."""
        asked = any(one.lifetime is Lifetime.TRANSIENT for one in registrations)
        return "transient objects" if asked and self.usual is not Lifetime.TRANSIENT else ""


def names(features: Feature) -> str:
    """Write features as text."""
    return ", ".join(one.name or "" for one in Feature if one in features)


def _must_refuse(container: Container, keys: Sequence[Key], provided: Collection[Key], lacking: Feature) -> None:
    kinds: tuple[type[ContainerError], ...] = (UnsupportedRegistrationError,)
    if Feature.PROVIDED_VALUES in lacking:
        kinds += (DependencyNotFoundError,)
    errors = container.validate(keys, provided).errors
    refusals = [error for error in errors if isinstance(error, kinds)]
    assert refusals, (
        f"the library lacks {names(lacking)}, so validate() must refuse {', '.join(map(str, keys))} "
        f"with an UnsupportedRegistrationError; it gave {list(errors)!r}"
    )
    for refusal in refusals:
        if isinstance(refusal, UnsupportedRegistrationError):
            assert refusal.key in keys, "a refusal names the key that was registered"
            assert refusal.fix, "a refusal says what to do instead"
