"""The di plugin keeps the contract of the port."""

from collections.abc import Callable, Collection, Sequence
from typing import Annotated, Any

import di
from di import bind_by_type
from di.dependent import Dependent
from diator_conformance import ContainerSuite, Registration, SourceKind
from diator_di import DiContainer

from diator import Named
from diator.containers import Container, Key, Lifetime


class TestDiConformance(ContainerSuite):
    def container(self, registrations: Sequence[Registration], provided: Collection[Key]) -> Container:
        native = di.Container()
        for one in registrations:
            native.bind(bind_by_type(provider_of(one), hint_of(one.key)))
        return DiContainer(native)


def provider_of(one: Registration) -> Dependent[Any]:
    if one.kind is SourceKind.VALUE:
        return Dependent(giving(one.source), scope="app")
    scope = "app" if one.lifetime is Lifetime.SINGLETON else "request"
    return Dependent(one.source, scope=scope, use_cache=one.lifetime is not Lifetime.TRANSIENT)


def hint_of(key: Key) -> Any:
    return key.hint if key.qualifier is None else Annotated[key.hint, Named(key.qualifier)]


def giving(value: object) -> Callable[[], object]:
    return lambda: value
