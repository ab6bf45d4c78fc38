"""The suite for container plugins passes a container that keeps the whole contract."""

from collections.abc import Collection, Sequence

from diator.conformance import ContainerSuite, Registration
from diator.containers import Container, Key
from tests.conformance.reference_container import Marker, ReferenceContainer


class TestReferenceContainer(ContainerSuite):
    """Every case, nothing overridden, nothing that can't be expressed."""

    def container(self, registrations: Sequence[Registration], provided: Collection[Key]) -> Container:
        return ReferenceContainer(registrations)

    def marker(self, name: str) -> object:
        return Marker(name)
