"""The suite for container plugins is proven with a small container that has every capability."""

import asyncio
import inspect
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from copy import copy
from types import TracebackType
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar, get_args, get_origin

import pytest
from typing_extensions import Self, get_type_hints, is_protocol

from diator.conformance import ContainerSuite, Kind, Registration
from diator.containers import Capability, Container, Key, Lifetime, Validation
from diator.conformance.containers.teardown import HandlerError
from diator.containers.port import Named
from diator.errors import (
    ContainerError,
    DependencyCycleError,
    DependencyNotFoundError,
    LifetimeMismatchError,
    ScopeClosedError,
)

T = TypeVar("T")


class Marker(NamedTuple):
    """The reference's own qualifier, as libraries have theirs."""

    name: str


class Need(NamedTuple):
    """A parameter of a source."""

    name: str
    key: Key
    optional: bool


class Shelf:
    """What is kept as long as a scope, or as long as the container."""

    def __init__(self) -> None:
        self.objects: dict[Key, Any] = {}
        self.locks: defaultdict[Key, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.stack = AsyncExitStack()


class ReferenceScope:
    """A scope, and its resolver."""

    def __init__(self, container: "ReferenceContainer", provided: Mapping[Key, object]) -> None:
        self.container = container
        self.provided = provided
        self.shelf = Shelf()
        self.left = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self.left = True
        return await self.shelf.stack.__aexit__(kind, error, traceback)

    async def resolve(self, key: Key, /) -> Any:
        if self.left:
            raise ScopeClosedError(key)
        return await self.give(key)

    async def give(self, key: Key) -> Any:
        if key in self.provided:
            return self.provided[key]
        registration = self.container.find(key)
        if registration is None:
            raise DependencyNotFoundError(key)
        if registration.kind is Kind.VALUE:
            return registration.source
        shelf = self.shelf_of(registration)
        if shelf is None:
            return await self.build(registration, self.shelf.stack)
        async with shelf.locks[key]:
            if key not in shelf.objects:
                shelf.objects[key] = await self.build(registration, shelf.stack)
            return shelf.objects[key]

    def shelf_of(self, registration: Registration) -> Shelf | None:
        shelves = {Lifetime.SINGLETON: self.container.shelf, Lifetime.SCOPED: self.shelf}
        return shelves.get(registration.lifetime)

    async def build(self, registration: Registration, stack: AsyncExitStack) -> Any:
        arguments = {
            need.name: await self.give(need.key)
            for need in self.container.needs(registration)
            if not need.optional or need.key in self.provided or self.container.can_resolve(need.key)
        }
        match registration.kind:
            case Kind.COROUTINE:
                return await registration.source(**arguments)
            case Kind.GENERATOR:
                return stack.enter_context(contextmanager(registration.source)(**arguments))
            case Kind.ASYNC_GENERATOR:
                return await stack.enter_async_context(asynccontextmanager(registration.source)(**arguments))
            case _:
                return registration.source(**arguments)


class ReferenceContainer:
    """Every capability of the port, in as few lines as tell how."""

    capabilities = ~Capability(0)
    scope_class = ReferenceScope

    def __init__(self, registrations: Sequence[Registration]) -> None:
        self.registrations = {one.key: one for one in registrations}
        self.shelf = Shelf()
        self.ambient: list[ReferenceScope] = []

    def find(self, key: Key) -> Registration | None:
        return self.registrations.get(key)

    def needs(self, registration: Registration) -> list[Need]:
        source: Any = registration.source
        function = source.__init__ if registration.kind is Kind.CLASS else source
        hints = get_type_hints(function, include_extras=True)
        parameters = inspect.signature(source).parameters.values()
        return [
            Need(one.name, self.key(hints[one.name]), one.default is not one.empty)
            for one in parameters
            if one.name in hints
        ]

    def key(self, hint: Any) -> Key:
        if get_origin(hint) is not Annotated:
            return Key(hint)
        plain, *metadata = get_args(hint)
        return Key(plain, self.qualifier(tuple(metadata)))

    def qualifier(self, metadata: tuple[object, ...], /) -> Hashable | None:
        return next((mark.name for mark in metadata if isinstance(mark, (Marker, Named))), None)

    def can_resolve(self, key: Key, /) -> bool:
        return self.find(key) is not None

    def lifetime(self, key: Key, /) -> Lifetime:
        return self.registrations[key].lifetime

    def validate(self, keys: Collection[Key], provided: Collection[Key], /) -> Validation:
        return Validation(errors=[error for key in keys for error in self.walk(key, (), provided)])

    def walk(self, key: Key, path: tuple[Key, ...], provided: Collection[Key]) -> Iterator[ContainerError]:
        registration = self.find(key)
        if key in provided:
            return
        if key in path:
            yield DependencyCycleError((*path, key))
        elif registration is None:
            yield DependencyNotFoundError(key, path)
        elif registration.kind is not Kind.VALUE:
            for need in self.needs(registration):
                yield from self.mismatches(registration, need.key)
                if not need.optional or self.can_resolve(need.key):
                    yield from self.walk(need.key, (*path, key), provided)

    def mismatches(self, registration: Registration, needed: Key) -> Iterator[ContainerError]:
        other = self.find(needed)
        if other and registration.lifetime is Lifetime.SINGLETON and other.lifetime is Lifetime.SCOPED:
            yield LifetimeMismatchError(registration.key, needed)

    def scope(self, provided: Mapping[Key, object], /) -> ReferenceScope:
        return self.scope_class(self, provided)

    async def aclose(self) -> None:
        shelf, self.shelf = self.shelf, Shelf()
        await shelf.stack.aclose()


class TestReferenceContainer(ContainerSuite):
    """Every case, nothing overridden, nothing that can't be expressed."""

    def container(self, registrations: Sequence[Registration], provided: Collection[Key]) -> Container:
        return ReferenceContainer(registrations)

    def marker(self, name: str) -> object:
        return Marker(name)


class Mutant(NamedTuple):
    """A container with one defect, and the cases that must catch it."""

    container: type[ReferenceContainer]
    caught_by: frozenset[str]


MUTANTS: list[Mutant] = []


def caught_by(*cases: str) -> Callable[[type[T]], type[T]]:
    """Say which cases must catch the defect of a container, or of a scope in an otherwise right container."""

    def add(defective: type[T]) -> type[T]:
        container: Any = defective
        if issubclass(defective, ReferenceScope):
            container = type(defective.__name__, (ReferenceContainer,), {"scope_class": defective})
        MUTANTS.append(Mutant(container, frozenset(cases)))
        return defective

    return add


@caught_by()
class ScopedObjectsAreShared(ReferenceScope):
    def shelf_of(self, registration: Registration) -> Shelf | None:
        return None if registration.lifetime is Lifetime.TRANSIENT else self.container.shelf


@caught_by()
class TransientsAreKept(ReferenceScope):
    def shelf_of(self, registration: Registration) -> Shelf | None:
        return super().shelf_of(registration) or self.shelf


@caught_by()
class ScopedObjectsAreNotKept(ReferenceScope):
    def shelf_of(self, registration: Registration) -> Shelf | None:
        return self.container.shelf if registration.lifetime is Lifetime.SINGLETON else None


@caught_by()
class SingletonsAreScoped(ReferenceScope):
    def shelf_of(self, registration: Registration) -> Shelf | None:
        return None if registration.lifetime is Lifetime.TRANSIENT else self.shelf


@caught_by()
class SingletonsHaveNoLock(ReferenceScope):
    async def give(self, key: Key) -> Any:
        self.container.shelf.locks.clear()
        return await super().give(key)


@caught_by()
class ScopesHaveNoLock(ReferenceScope):
    async def give(self, key: Key) -> Any:
        self.shelf.locks.clear()
        return await super().give(key)


@caught_by()
class AcloseForgetsToClose(ReferenceContainer):
    async def aclose(self) -> None:
        self.shelf = Shelf()


@caught_by()
class AcloseWorksOnce(ReferenceContainer):
    closed = False

    async def aclose(self) -> None:
        if self.closed:
            raise RuntimeError("closed already")
        self.closed = True
        await super().aclose()


@caught_by()
class AcloseBuildsWhatNobodyAskedFor(ReferenceContainer):
    async def aclose(self) -> None:
        async with self.scope({}) as scope:
            for key in self.registrations:
                with suppress(Exception):
                    await scope.resolve(key)
        await super().aclose()


@caught_by()
class SingletonsSurviveAclose(ReferenceContainer):
    async def aclose(self) -> None:
        kept = self.shelf.objects
        await super().aclose()
        self.shelf.objects = kept


@caught_by()
class ContainersShareSingletons(ReferenceContainer):
    shared = Shelf()

    def __init__(self, registrations: Sequence[Registration]) -> None:
        super().__init__(registrations)
        self.shelf = self.shared
        self.shelf.objects.clear()

    async def aclose(self) -> None:
        await self.shelf.stack.aclose()
        self.shelf.objects.clear()


@caught_by()
class RegistrationsAreGlobal(ReferenceContainer):
    everything: ClassVar[dict[Key, Registration]] = {}

    def __init__(self, registrations: Sequence[Registration]) -> None:
        super().__init__(registrations)
        self.everything.clear() if not registrations else None
        self.everything.update(self.registrations)
        self.registrations = self.everything


@caught_by()
class NeedsARunningLoop(ReferenceContainer):
    def __init__(self, registrations: Sequence[Registration]) -> None:
        super().__init__(registrations)
        if registrations:
            asyncio.get_running_loop()


@caught_by()
class BelongsToItsFirstLoop(ReferenceContainer):
    loop: asyncio.AbstractEventLoop | None = None

    def scope(self, provided: Mapping[Key, object], /) -> ReferenceScope:
        self.loop = self.loop or asyncio.get_running_loop()
        if self.loop is not asyncio.get_running_loop():
            raise RuntimeError("bound to another loop")
        return super().scope(provided)


@caught_by()
class LastScopeAnswersForAll(ReferenceScope):
    async def __aenter__(self) -> Self:
        self.container.ambient.append(self)
        return self

    async def __aexit__(self, *error: Any) -> bool | None:
        self.container.ambient.remove(self)
        return await super().__aexit__(*error)

    async def give(self, key: Key) -> Any:
        return await super(LastScopeAnswersForAll, self.container.ambient[-1]).give(key)


@caught_by()
class NestedScopesJoinTheOuterOne(ReferenceScope):
    async def __aenter__(self) -> Self:
        if self.container.ambient:
            self.shelf = self.container.ambient[-1].shelf
        self.container.ambient.append(self)
        return self

    async def __aexit__(self, *error: Any) -> bool | None:
        self.container.ambient.remove(self)
        return await super().__aexit__(*error)


@caught_by()
class BelongsToItsTask(ReferenceScope):
    async def __aenter__(self) -> Self:
        self.task = asyncio.current_task()
        return self

    async def __aexit__(self, *error: Any) -> bool | None:
        if self.task is not asyncio.current_task():
            raise RuntimeError("left in another task")
        return await super().__aexit__(*error)


@caught_by()
class ResolvesInItsTaskOnly(ReferenceScope):
    async def __aenter__(self) -> Self:
        self.task = asyncio.current_task()
        return self

    async def give(self, key: Key) -> Any:
        if self.task is not asyncio.current_task():
            raise RuntimeError("resolved in another task")
        return await super().give(key)


@caught_by()
class CoroutinesAreNotAwaited(ReferenceScope):
    async def build(self, registration: Registration, stack: AsyncExitStack) -> Any:
        if registration.kind is not Kind.COROUTINE:
            return await super().build(registration, stack)
        registration.source().close()
        return registration.source


@caught_by()
class FunctionsAreNotCalled(ReferenceScope):
    async def build(self, registration: Registration, stack: AsyncExitStack) -> Any:
        if registration.kind is Kind.FUNCTION:
            return registration.source
        return await super().build(registration, stack)


@caught_by()
class ValuesAreCopied(ReferenceScope):
    async def give(self, key: Key) -> Any:
        given = await super().give(key)
        registration = self.container.find(key)
        return copy(given) if registration and registration.kind is Kind.VALUE else given


@caught_by()
class FalsyIsMissing(ReferenceScope):
    async def give(self, key: Key) -> Any:
        given = await super().give(key)
        if not given:
            raise DependencyNotFoundError(key)
        return given


@caught_by()
class DefaultsAreIgnored(ReferenceContainer):
    def needs(self, registration: Registration) -> list[Need]:
        return [need._replace(optional=False) for need in super().needs(registration)]


@caught_by()
class DefaultsAlwaysWin(ReferenceContainer):
    def needs(self, registration: Registration) -> list[Need]:
        return [need for need in super().needs(registration) if not need.optional]


@caught_by()
class ProvidedValuesStayOutside(ReferenceScope):
    async def build(self, registration: Registration, stack: AsyncExitStack) -> Any:
        inner = ReferenceScope(self.container, {})
        inner.shelf = self.shelf
        return await inner.build(registration, stack)


@caught_by()
class ProvidedValuesReachLaterScopes(ReferenceContainer):
    first: Mapping[Key, object] | None = None

    def scope(self, provided: Mapping[Key, object], /) -> ReferenceScope:
        self.first = self.first or provided
        return super().scope(self.first)


@caught_by()
class TextIsNoHint(ReferenceContainer):
    def needs(self, registration: Registration) -> list[Need]:
        init: Any = registration.source.__init__ if registration.kind is Kind.CLASS else None
        raw = getattr(init, "__annotations__", {})
        if "stamp" in raw:
            return [Need("stamp", Key(raw["stamp"]), optional=False)]
        return super().needs(registration)


@caught_by()
class ClosesInOpeningOrder(ReferenceScope):
    async def __aexit__(self, *error: Any) -> bool | None:
        callbacks: Any = self.shelf.stack._exit_callbacks  # type: ignore[attr-defined]
        callbacks.reverse()
        return await super().__aexit__(*error)


@caught_by()
class ClosesSyncResourcesOnly(ReferenceScope):
    async def build(self, registration: Registration, stack: AsyncExitStack) -> Any:
        forgotten = registration.kind is Kind.ASYNC_GENERATOR
        return await super().build(registration, AsyncExitStack() if forgotten else stack)


@caught_by()
class ClosesAsyncResourcesOnly(ReferenceScope):
    async def build(self, registration: Registration, stack: AsyncExitStack) -> Any:
        forgotten = registration.kind is Kind.GENERATOR
        return await super().build(registration, AsyncExitStack() if forgotten else stack)


@caught_by()
class OpensEverything(ReferenceScope):
    async def __aenter__(self) -> Self:
        for key in self.container.registrations:
            with suppress(Exception):
                await self.give(key)
        return self


@caught_by()
class HidesTheError(ReferenceScope):
    async def __aexit__(self, *error: Any) -> bool | None:
        return await super().__aexit__(None, None, None)


@caught_by()
class SendsTheError(ReferenceScope):
    async def build(self, registration: Registration, stack: AsyncExitStack) -> Any:
        if registration.kind not in (Kind.GENERATOR, Kind.ASYNC_GENERATOR) or registration.lifetime is Lifetime.SINGLETON:
            return await super().build(registration, stack)
        generator = registration.source(**{need.name: await self.give(need.key) for need in self.container.needs(registration)})
        is_async = registration.kind is Kind.ASYNC_GENERATOR

        async def close(kind: object, error: object, traceback: object) -> None:
            with suppress(StopIteration, StopAsyncIteration):
                await generator.asend(error) if is_async else generator.send(error)

        stack.push_async_exit(close)
        return await anext(generator) if is_async else next(generator)


@caught_by()
class SwallowsTheError(ReferenceScope):
    async def __aexit__(self, *error: Any) -> bool | None:
        await super().__aexit__(*error)
        return True


@caught_by()
class SwallowsErrorsOfClosing(ReferenceScope):
    async def __aexit__(self, *error: Any) -> bool | None:
        try:
            return await super().__aexit__(*error)
        except Exception:
            return None


@caught_by()
class StopsClosingAtTheFirstError(ReferenceScope):
    async def __aexit__(self, *error: Any) -> bool | None:
        self.left = True
        callbacks: Any = self.shelf.stack._exit_callbacks  # type: ignore[attr-defined]
        handled = False
        while callbacks:
            is_sync, callback = callbacks.pop()
            try:
                handled = callback(*error) if is_sync else await callback(*error)
            except BaseException:
                callbacks.clear()
                raise
        return handled


@caught_by()
class DoesNotCloseAfterAnError(ReferenceScope):
    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> bool | None:
        if isinstance(error, Exception):
            self.shelf.stack.pop_all()
        return await super().__aexit__(kind, error, traceback)


@caught_by()
class DoesNotCloseAfterACancellation(ReferenceScope):
    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> bool | None:
        if isinstance(error, asyncio.CancelledError):
            self.shelf.stack.pop_all()
        return await super().__aexit__(kind, error, traceback)


@caught_by()
class IgnoresACancellationOfClosing(ReferenceScope):
    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> bool | None:
        try:
            return await super().__aexit__(kind, error, traceback)
        except asyncio.CancelledError:
            return None


@caught_by()
class CancelsWhatFailed(ReferenceScope):
    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> bool | None:
        await super().__aexit__(kind, error, traceback)
        if isinstance(error, Exception):
            raise asyncio.CancelledError
        return None


@caught_by()
class ForgetsResourcesOfWhatCouldNotBeBuilt(ReferenceScope):
    async def build(self, registration: Registration, stack: AsyncExitStack) -> Any:
        try:
            return await super().build(registration, stack)
        except BaseException:
            stack.pop_all()
            raise


@caught_by()
class ResolvesAfterItsEnd(ReferenceScope):
    async def resolve(self, key: Key, /) -> Any:
        return await self.give(key)


@caught_by()
class WrapsErrorsOfConstructors(ReferenceScope):
    async def resolve(self, key: Key, /) -> Any:
        try:
            return await super().resolve(key)
        except (HandlerError, LookupError, TypeError, ValueError) as error:
            if isinstance(error, ContainerError):
                raise
            raise ContainerError(str(key)) from error


@caught_by()
class TakesErrorsOfConstructorsForMissingKeys(ReferenceScope):
    async def resolve(self, key: Key, /) -> Any:
        try:
            return await super().resolve(key)
        except (LookupError, RecursionError) as error:
            if isinstance(error, ContainerError):
                raise
            raise DependencyNotFoundError(key) from error


@caught_by()
class MissingKeysGiveNone(ReferenceScope):
    async def resolve(self, key: Key, /) -> Any:
        return await super().resolve(key) if self.container.find(key) or key in self.provided else None


@caught_by()
class MissingKeysAreLibraryErrors(ReferenceScope):
    async def resolve(self, key: Key, /) -> Any:
        try:
            return await super().resolve(key)
        except DependencyNotFoundError as error:
            raise KeyError(key) from error


@caught_by()
class MissingKeysHaveOtherNames(ReferenceScope):
    async def resolve(self, key: Key, /) -> Any:
        try:
            return await super().resolve(key)
        except DependencyNotFoundError as error:
            raise DependencyNotFoundError(Key(object)) from error


@caught_by()
class KnowsEverything(ReferenceContainer):
    def can_resolve(self, key: Key, /) -> bool:
        return True


@caught_by()
class ForgetsALifetime(ReferenceContainer):
    def lifetime(self, key: Key, /) -> Lifetime:
        return Lifetime.TRANSIENT


@caught_by()
class LooksByCalling(ReferenceContainer):
    def validate(self, keys: Collection[Key], provided: Collection[Key], /) -> Validation:
        for key in keys:
            registration = self.find(key)
            if registration and registration.kind in (Kind.CLASS, Kind.FUNCTION):
                with suppress(TypeError):
                    registration.source()
            if registration and registration.kind is Kind.GENERATOR:
                next(registration.source())
        return super().validate(keys, provided)


@caught_by()
class ValidatesNothing(ReferenceContainer):
    def validate(self, keys: Collection[Key], provided: Collection[Key], /) -> Validation:
        return Validation()


@caught_by()
class ValidatesKeysOnly(ReferenceContainer):
    def validate(self, keys: Collection[Key], provided: Collection[Key], /) -> Validation:
        missing = [key for key in keys if key not in provided and not self.can_resolve(key)]
        return Validation([DependencyNotFoundError(key) for key in missing])


@caught_by()
class TellsTheFirstProblemOnly(ReferenceContainer):
    def validate(self, keys: Collection[Key], provided: Collection[Key], /) -> Validation:
        return Validation(super().validate(keys, provided).errors[:1])


@caught_by()
class ForgetsWhatIsProvided(ReferenceContainer):
    def validate(self, keys: Collection[Key], provided: Collection[Key], /) -> Validation:
        return super().validate(keys, ())


@caught_by()
class TellsNoPath(ReferenceContainer):
    def walk(self, key: Key, path: tuple[Key, ...], provided: Collection[Key]) -> Iterator[ContainerError]:
        for error in super().walk(key, path, provided):
            yield DependencyNotFoundError(error.key) if isinstance(error, DependencyNotFoundError) else error


@caught_by()
class TakesCyclesForMissing(ReferenceContainer):
    def walk(self, key: Key, path: tuple[Key, ...], provided: Collection[Key]) -> Iterator[ContainerError]:
        for error in super().walk(key, path, provided):
            yield DependencyNotFoundError(key, path) if isinstance(error, DependencyCycleError) else error


@caught_by()
class AllowsCaptives(ReferenceContainer):
    def mismatches(self, registration: Registration, needed: Key) -> Iterator[ContainerError]:
        return iter(())


@caught_by()
class BuildsAnyClass(ReferenceContainer):
    def find(self, key: Key) -> Registration | None:
        known = super().find(key)
        if known is None and isinstance(key.hint, type) and key.qualifier is None:
            return Registration(key, key.hint, Kind.CLASS, Lifetime.TRANSIENT)
        return known


@caught_by()
class DropsQualifiers(ReferenceContainer):
    def find(self, key: Key) -> Registration | None:
        return super().find(Key(key.hint))


@caught_by()
class DropsQualifiersOfConstructors(ReferenceContainer):
    def key(self, hint: Any) -> Key:
        return Key(super().key(hint).hint)


@caught_by()
class DoesNotReadItsMarker(ReferenceContainer):
    def qualifier(self, metadata: tuple[object, ...], /) -> Hashable | None:
        return None

    def key(self, hint: Any) -> Key:
        marks = getattr(hint, "__metadata__", ())
        return Key(super().key(hint).hint, super().qualifier(marks))


@caught_by()
class TakesAnyMetadataForAQualifier(ReferenceContainer):
    def qualifier(self, metadata: tuple[object, ...], /) -> Hashable | None:
        return super().qualifier(metadata) or str(metadata[0])


@caught_by()
class TakesGenericFormsForOne(ReferenceContainer):
    def find(self, key: Key) -> Registration | None:
        origin = get_origin(key.hint) or key.hint
        return next((one for known, one in self.registrations.items() if (get_origin(known.hint) or known.hint, known.qualifier) == (origin, key.qualifier)), None)


@caught_by()
class TakesNewTypesForTheirBase(ReferenceContainer):
    def __init__(self, registrations: Sequence[Registration]) -> None:
        super().__init__(registrations)
        self.registrations = {Key(getattr(key.hint, "__supertype__", key.hint), key.qualifier): one for key, one in self.registrations.items()}

    def find(self, key: Key) -> Registration | None:
        return super().find(Key(getattr(key.hint, "__supertype__", key.hint), key.qualifier))


@caught_by()
class RefusesProtocols(ReferenceContainer):
    def find(self, key: Key) -> Registration | None:
        return None if is_protocol(key.hint) else super().find(key)


@caught_by()
class LacksAMethod(ReferenceContainer):
    lifetime = property()  # type: ignore[assignment]


@caught_by()
class PromisesLessThanItRefuses(ReferenceContainer):
    capabilities = Capability.SINGLETON


def cases() -> dict[str, list[dict[str, Any]]]:
    """All cases of the suite, each with the arguments that it is run with."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name in dir(ContainerSuite):
        if name.startswith("test_"):
            marks = [mark.args for mark in getattr(getattr(ContainerSuite, name), "pytestmark", [])]
            found[name] = [{marks[0][0]: value} for value in marks[0][1]] if marks else [{}]
    return found


def failing(container: type[ReferenceContainer]) -> frozenset[str]:
    """The cases that a container fails, without the word that they all begin with."""

    class Suite(TestReferenceContainer):
        def container(self, registrations: Sequence[Registration], provided: Collection[Key]) -> Container:
            return container(registrations)

    return frozenset(
        name.removeprefix("test_")
        for name, calls in cases().items()
        if any(_fails(getattr(Suite(), name), arguments) for arguments in calls)
    )


def _fails(case: Callable[..., None], arguments: dict[str, Any]) -> bool:
    try:
        case(**arguments)
    except (Exception, asyncio.CancelledError, pytest.fail.Exception):
        return True
    return False


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.container.__name__)
def test_a_defect_is_caught_by_the_cases_that_are_about_it(mutant: Mutant) -> None:
    assert failing(mutant.container) == mutant.caught_by


def test_every_case_catches_some_defect() -> None:
    assert {name.removeprefix("test_") for name in cases()} == set().union(*(one.caught_by for one in MUTANTS))
