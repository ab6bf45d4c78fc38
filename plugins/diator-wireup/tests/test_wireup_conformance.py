"""The wireup plugin keeps the contract of the port."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from diator_conformance import ContainerSuite, RefusedByLibraryError, Registration, SourceKind
from diator_wireup import WireupContainer
from wireup import Inject, create_async_container, injectable
from wireup.errors import WireupError

from diator import NotProvidedError
from diator.containers import Container, Key


class TestWireupConformance(ContainerSuite):
    def container(self, registrations: Sequence[Registration], provided: Collection[Key]) -> Container:
        injectables = [*map(injectable_of, registrations), *map(brought, provided)]
        try:
            return WireupContainer(create_async_container(injectables=injectables))
        except WireupError as error:
            raise RefusedByLibraryError from error

    def marker(self, name: str) -> object:
        return Inject(qualifier=name)


def injectable_of(one: Registration) -> object:
    lifetime: Any = one.lifetime.value
    source, hint = one.source, one.key.hint
    if one.kind is SourceKind.VALUE:
        source = giving(hint, lambda: one.source)
    elif one.kind is SourceKind.CLASS and not isinstance(hint, type):  # wireup wants a factory for Store[str]
        source = giving(hint, one.source)
    as_type = hint if isinstance(hint, type) else None
    return injectable(source, lifetime=lifetime, qualifier=one.key.qualifier, as_type=as_type)


def brought(key: Key) -> object:
    def missing_value_error() -> object:
        raise NotProvidedError(str(key))

    missing_value_error.__annotations__["return"] = key.hint
    return injectable(missing_value_error, lifetime="scoped", qualifier=key.qualifier)


def giving(hint: Any, make: Callable[[], object]) -> Callable[[], object]:
    """Write a factory whose hint says what it gives."""

    def factory() -> object:
        return make()

    factory.__annotations__["return"] = hint
    return factory
