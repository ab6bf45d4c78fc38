"""The rodi plugin keeps the contract of the port; what rodi does in its own way is listed with its reason."""

from collections.abc import Collection, Sequence
from typing import Annotated, Any

import pytest
import rodi

# pyright: reportUnknownMemberType=false
# rodi's own hints leave out the arguments of types.
from diator_conformance import ContainerSuite, Feature, Registration, SourceKind
from diator_rodi import RodiContainer

from diator import Named, NotProvidedError
from diator.containers import Container, Key

DEFAULTS = "rodi takes no notice of defaults; the plugin refuses what it would need for them"


class TestRodiConformance(ContainerSuite):
    lacks = (
        Feature.TEARDOWN
        | Feature.ASYNC_FACTORY
        | Feature.ASYNC_TEARDOWN
        | Feature.TEARDOWN_SEES_ERROR
        | Feature.SINGLETON_TEARDOWN
    )

    def container(self, registrations: Sequence[Registration], provided: Collection[Key]) -> Container:
        native = rodi.Container()
        for one in registrations:
            service = hint_of(one.key)
            style = rodi.ServiceLifeStyle[one.lifetime.name]
            if one.kind is SourceKind.VALUE:
                native.add_instance(one.source, service)
            elif one.kind is SourceKind.CLASS:
                native.bind_types(service, one.source, style)
            else:
                native.register_factory(one.source, service, style)
        for key in provided:
            native.add_scoped_by_factory(missing_value_error, hint_of(key))
        return RodiContainer(native)

    @pytest.mark.xfail(reason="rodi drops Annotated from the hints of constructors; the plugin refuses that")
    def test_a_constructor_qualifies_what_it_needs(self) -> None:
        super().test_a_constructor_qualifies_what_it_needs()

    @pytest.mark.xfail(reason=DEFAULTS)
    def test_a_default_stands_in_where_nothing_is_registered(self) -> None:
        super().test_a_default_stands_in_where_nothing_is_registered()

    @pytest.mark.xfail(reason=DEFAULTS)
    def test_a_service_that_gets_along_without_another_is_fine(self) -> None:
        super().test_a_service_that_gets_along_without_another_is_fine()


def hint_of(key: Key) -> Any:
    return key.hint if key.qualifier is None else Annotated[key.hint, Named(key.qualifier)]


def missing_value_error() -> object:
    raise NotProvidedError("no sender brought it")
