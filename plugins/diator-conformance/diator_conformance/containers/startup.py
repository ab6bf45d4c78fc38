"""Cases: what is found before the first message, and that looking runs no user code."""

from collections.abc import AsyncIterator, Iterator

import pytest

from diator.containers import Key
from diator.containers.port import InspectableContainer, Lifetime, ValidationResult
from diator.errors import ContainerError, DependencyCycleError, DependencyNotFoundError, LifetimeMismatchError
from diator_conformance.containers.bench import ContainerSuiteBase, case
from diator_conformance.containers.registration import Feature, RefusedByLibraryError, Registration
from diator_conformance.containers.services import (
    Billing,
    Config,
    Database,
    Egg,
    Hen,
    Report,
    Repository,
    Request,
    Session,
    Tenant,
    Tolerant,
)


class Startup(ContainerSuiteBase):
    """Validation: problems are found before the first message, without running user code."""

    def find(self, key: Key, *registrations: Registration) -> ValidationResult | None:
        """Validate this key; None where the library refused the registrations when the container was made."""
        try:
            container = self.build(*registrations)
        except RefusedByLibraryError:
            return None
        found = container.validate([key], ())
        if Feature.DEEP_VALIDATION not in self.features:
            assert found.warnings or found.errors, "what validate() could not look into is a warning"
            return None
        return found

    @case()
    async def test_a_missing_provider_is_an_error_with_its_key(self) -> None:
        """Resolving a key without a provider raises an error that names it, and never returns None."""
        container = self.build(self.register(Config))
        async with container.scope({}) as scope:
            with pytest.raises(DependencyNotFoundError) as raised:
                await scope.resolve(Key(Session))
        assert raised.value.key == Key(Session)

    @case()
    def test_looking_runs_no_factory(self) -> None:
        """``can_resolve``, ``lifetime`` and ``validate`` run no user code."""
        calls: list[str] = []

        class Loud(Config):
            def __init__(self) -> None:
                calls.append("built")

        container = self.build(self.register(Config, Loud), self.register(Database))
        keys = [Key(Config), Key(Database)]
        assert [container.can_resolve(key) for key in keys] == [True, True]
        assert not container.can_resolve(Key(Session))
        assert [container.lifetime(key) for key in keys] == [self.usual, self.usual]
        assert not container.validate(keys, ()).errors
        assert calls == []

    @case()
    def test_looking_opens_no_resource(self) -> None:
        """The same for factories, of all kinds that the container can do."""
        calls: list[str] = []

        def function() -> Config:
            calls.append("function")
            return Config()

        def generator() -> Iterator[Session]:
            calls.append("generator")
            yield Session()

        async def async_generator() -> AsyncIterator[Request]:
            calls.append("async generator")
            yield Request()

        container = self.build(
            self.register(Config, function),
            self.register(Session, generator),
            self.register(Request, async_generator),
        )
        keys = [Key(Config), Key(Session), Key(Request)]
        assert [container.can_resolve(key) for key in keys] == [True, True, True]
        assert not container.validate(keys, ()).errors
        assert calls == []

    @case()
    def test_finds_that_a_key_is_missing(self) -> None:
        """A dependency of a handler without a provider is reported at startup."""
        container = self.build(self.register(Config))
        errors = container.validate([Key(Config), Key(Session)], ()).errors
        assert [_missing(error) for error in errors] == [Key(Session)]

    @case()
    def test_finds_all_keys_that_are_missing(self) -> None:
        """Every problem is reported, not only the first."""
        container = self.build(self.register(Config))
        errors = container.validate([Key(Session), Key(Config), Key(Request)], ()).errors
        assert {_missing(error) for error in errors} == {Key(Session), Key(Request)}

    @case()
    def test_what_senders_provide_is_not_missing(self) -> None:
        """A key that scopes will provide needs no provider."""
        container = self.build(self.register(Config), provided=[Key(Request)])
        assert not container.validate([Key(Config), Key(Request)], [Key(Request)]).errors

    @case()
    def test_finds_what_is_missing_further_below(self) -> None:
        """A dependency of a service is missing; the path leads to it."""
        found = self.find(Key(Repository), self.register(Database), self.register(Repository))
        if found is not None:
            (error,) = found.errors
            assert isinstance(error, DependencyNotFoundError)
            assert error.key == Key(Config)
            assert error.path == (Key(Repository), Key(Database))

    @case()
    def test_finds_what_is_missing_further_below_for_every_key(self) -> None:
        """Each requested key that cannot be built is reported, even if the same service is missing."""
        services = (Database, Repository, Report)
        try:
            container = self.build(*(self.register(cls) for cls in services))
        except RefusedByLibraryError:
            return
        if Feature.DEEP_VALIDATION in self.features:
            errors = container.validate([Key(Repository), Key(Report)], ()).errors
            assert {_missing(error) for error in errors} == {Key(Config)}
            assert {getattr(error, "path", ())[:1] for error in errors} == {(Key(Repository),), (Key(Report),)}

    @case()
    def test_a_class_that_is_not_registered_is_not_built_in_silence(self) -> None:
        """A class is not its own provider only because it could be called."""
        found = self.find(Key(Database), self.register(Database))
        if found is not None:
            assert [_missing(error) for error in found.errors] == [Key(Config)]

    @case()
    def test_a_service_that_gets_along_without_another_is_fine(self) -> None:
        """With a default, the check does not report a missing provider."""
        found = self.find(Key(Tolerant), self.register(Tolerant))
        assert found is None or not found.errors

    @case()
    def test_finds_a_cycle(self) -> None:
        """Two services that need each other are reported at startup, with the cycle."""
        found = self.find(Key(Hen), self.register(Hen), self.register(Egg))
        if found is not None:
            (error,) = found.errors
            assert isinstance(error, DependencyCycleError)
            assert {Key(Hen), Key(Egg)} <= set(error.path)

    @case()
    def test_finds_an_object_that_would_outlive_what_it_holds(self) -> None:
        """A singleton that needs a scoped object would use it after its scope."""
        found = self.find(
            Key(Database),
            self.register(Config, lifetime=Lifetime.SCOPED),
            self.register(Database, lifetime=Lifetime.SINGLETON),
        )
        if found is not None:
            (error,) = found.errors
            assert isinstance(error, LifetimeMismatchError)
            assert (error.key, error.needs) == (Key(Database), Key(Config))

    @case()
    def test_tells_whether_a_key_is_below_others(self) -> None:
        """``reaches``, where the plugin has it: a store asks whether a handler's dependencies lead to its session."""
        services = (Config, Database, Repository, Report, Session)
        container = self.build(*(self.register(cls) for cls in services))
        if isinstance(container, InspectableContainer):
            assert container.reaches([Key(Config)], Key(Config))
            assert container.reaches([Key(Session), Key(Repository)], Key(Config)), "however deep it is"
            if Feature.DEEP_VALIDATION in self.features:
                assert not container.reaches([Key(Repository), Key(Report)], Key(Session))
                assert not container.reaches([Key(Config)], Key(Database)), "not what needs the key"
                assert not container.reaches([], Key(Config))

    @case(Feature.PROVIDED_VALUES)
    def test_tells_whether_a_value_that_senders_bring_is_below_others(self) -> None:
        """The same for a session that comes with ``app.using(provide=...)``, and not for a default."""
        given = [Key(Request)]
        container = self.build(self.register(Tenant), self.register(Billing), self.register(Config), provided=given)
        if isinstance(container, InspectableContainer):
            assert container.reaches([Key(Billing)], Key(Request))
            if Feature.DEEP_VALIDATION in self.features:
                assert not container.reaches([Key(Config)], Key(Request))


def _missing(error: ContainerError) -> Key | None:
    return error.key if isinstance(error, DependencyNotFoundError) else None
