"""The contract of every container plugin, kept by svcs."""

# pyright: reportUnknownMemberType=false
# The methods of svcs take callables whose results are untyped.

from collections.abc import Collection, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any

from diator_conformance import CannotExpressError, ContainerSuite, Feature, Registration, SourceKind
from diator_svcs import SvcsContainer
from svcs import Registry, aautowire

from diator import Named
from diator.containers import Container, Key, Lifetime


class TestSvcsConformance(ContainerSuite):
    lacks = Feature.SINGLETON | Feature.SINGLETON_TEARDOWN

    def container(self, registrations: Sequence[Registration], provided: Collection[Key]) -> Container:
        registry = Registry()
        for one in registrations:
            register(registry, one)
        return SvcsContainer(registry)


def register(registry: Registry, one: Registration) -> None:
    name = one.key.qualifier
    service: Any = one.key.hint if name is None else Annotated[one.key.hint, Named(str(name))]
    if one.kind is SourceKind.VALUE:
        registry.register_value(service, one.source)
    elif one.lifetime is not Lifetime.SCOPED:
        raise CannotExpressError("svcs builds an object once in each container; only values are shared by all")
    else:
        source = one.source
        if one.kind is SourceKind.GENERATOR:
            source = contextmanager(source)
        elif one.kind is SourceKind.ASYNC_GENERATOR:
            source = asynccontextmanager(source)
        registry.register_factory(service, aautowire(source), suppress_context_exit=False)
