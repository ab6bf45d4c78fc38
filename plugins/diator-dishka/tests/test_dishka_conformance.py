"""The dishka plugin keeps the contract of the port; what dishka does in its own way is listed with its reason."""

from collections.abc import Collection, Sequence

import pytest
from diator_conformance import ContainerSuite, RefusedByLibraryError, Registration, SourceKind
from diator_dishka import DishkaContainer
from dishka import FromComponent, Provider, Scope, make_async_container
from dishka.exceptions import InvalidGraphError

from diator.containers import Container, Key, Lifetime

ERROR_IS_SENT = "dishka sends the error to the yield (`error = yield x`)"


class TestDishkaConformance(ContainerSuite):
    def container(self, registrations: Sequence[Registration], provided: Collection[Key]) -> Container:
        providers = [provider_of(one) for one in registrations]
        brought = Provider(scope=Scope.REQUEST)
        for key in provided:
            brought.from_context(provides=key.hint)
        try:
            return DishkaContainer(make_async_container(*providers, brought))
        except InvalidGraphError as error:
            raise RefusedByLibraryError from error

    def marker(self, name: str) -> object:
        return FromComponent(name)

    @pytest.mark.xfail(reason=ERROR_IS_SENT)
    @pytest.mark.parametrize("kind", [SourceKind.GENERATOR, SourceKind.ASYNC_GENERATOR])
    def test_the_error_is_thrown_into_the_resource(self, kind: SourceKind) -> None:
        super().test_the_error_is_thrown_into_the_resource(kind)

    @pytest.mark.xfail(reason="dishka takes no notice of defaults: it refuses such a class when the container is made")
    def test_a_default_stands_in_where_nothing_is_registered(self) -> None:
        super().test_a_default_stands_in_where_nothing_is_registered()


def provider_of(one: Registration) -> Provider:
    component = one.key.qualifier
    provider = Provider(component=str(component)) if component is not None else Provider()
    if one.kind is SourceKind.VALUE:
        provider.provide(lambda: one.source, provides=one.key.hint, scope=Scope.APP)
    else:
        scope = Scope.APP if one.lifetime is Lifetime.SINGLETON else Scope.REQUEST
        cached = one.lifetime is not Lifetime.TRANSIENT
        provider.provide(one.source, provides=one.key.hint, scope=scope, cache=cached)
    return provider
