"""The suite for container plugins is proven with a small container that has every capability."""

import asyncio
import inspect
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from functools import partial
from itertools import product
from types import TracebackType
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar, get_args, get_origin

import pytest
from diator_conformance import (
    CannotExpressError,
    ContainerSuite,
    Feature,
    RefusedByLibraryError,
    Registration,
    SourceKind,
)
from diator_conformance.containers.resources import HandlerError
from typing_extensions import Self, get_type_hints, is_protocol

from diator import Named
from diator.containers import Container, ContainerCapability, Key, Lifetime, ValidationResult, close_in_reverse
from diator.errors import (
    ContainerError,
    DependencyCycleError,
    DependencyNotFoundError,
    LifetimeMismatchError,
    ScopeClosedError,
    UnsupportedRegistrationError,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Marker:
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
        return await self.close(error)

    async def close(self, error: BaseException | None) -> bool | None:
        await close_in_reverse(exits_of(self.shelf), leave, error)
        return None

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
        if registration.kind is SourceKind.VALUE:
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
            case SourceKind.COROUTINE:
                return await registration.source(**arguments)
            case SourceKind.GENERATOR:
                return stack.enter_context(contextmanager(registration.source)(**arguments))
            case SourceKind.ASYNC_GENERATOR:
                return await stack.enter_async_context(asynccontextmanager(registration.source)(**arguments))
            case _:
                return registration.source(**arguments)


def exits_of(shelf: Shelf) -> Any:
    return vars(shelf.stack)["_exit_callbacks"]


async def leave(opened: tuple[bool, Callable[..., Any]], error: BaseException | None) -> None:
    is_sync, leave = opened
    left = leave(*_triple(error))
    if not is_sync:
        await left


def _triple(error: BaseException | None) -> tuple[Any, Any, Any]:
    return (None, None, None) if error is None else (type(error), error, error.__traceback__)


class ReferenceContainer:
    """Every capability of the port, in as few lines as tell how."""

    capabilities = ~ContainerCapability(0)
    scope_class = ReferenceScope

    def __init__(self, registrations: Sequence[Registration]) -> None:
        self.registrations = {one.key: one for one in registrations}
        self.shelf = Shelf()
        self.ambient: list[ReferenceScope] = []

    def find(self, key: Key) -> Registration | None:
        return self.registrations.get(key)

    def needs(self, registration: Registration) -> list[Need]:
        source: Any = registration.source
        function = source.__init__ if registration.kind is SourceKind.CLASS else source
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

    def validate(self, keys: Collection[Key], provided: Collection[Key], /) -> ValidationResult:
        return ValidationResult(errors=[error for key in keys for error in self.walk(key, (), provided)])

    def walk(self, key: Key, path: tuple[Key, ...], provided: Collection[Key]) -> Iterator[ContainerError]:
        registration = self.find(key)
        if key in provided:
            return
        if key in path:
            yield DependencyCycleError((*path, key))
        elif registration is None:
            yield DependencyNotFoundError(key, path)
        elif registration.kind is not SourceKind.VALUE:
            for need in self.needs(registration):
                yield from self.mismatches(registration, need.key)
                if not need.optional or self.can_resolve(need.key):
                    yield from self.walk(need.key, (*path, key), provided)

    def factory_of(self, key: Key, /) -> object | None:
        return None

    def reaches(self, keys: Collection[Key], target: Key, /) -> bool:
        return any(key == target or self.reaches(self.below(key), target) for key in keys)

    def below(self, key: Key) -> list[Key]:
        registration = self.find(key)
        needs = [] if registration is None or registration.kind is SourceKind.VALUE else self.needs(registration)
        return [need.key for need in needs if not need.optional or self.can_resolve(need.key)]

    def mismatches(self, registration: Registration, needed: Key) -> Iterator[ContainerError]:
        other = self.find(needed)
        if other and registration.lifetime is Lifetime.SINGLETON and other.lifetime is Lifetime.SCOPED:
            yield LifetimeMismatchError(registration.key, needed)

    def scope(self, provided: Mapping[Key, object], /) -> ReferenceScope:
        return self.scope_class(self, provided)

    async def aclose(self) -> None:
        shelf, self.shelf = self.shelf, Shelf()
        await close_in_reverse(exits_of(shelf), leave, None)


class ImmediateContainer(ReferenceContainer):
    """The same, and resolves without awaiting what it can."""

    def immediate(self, key: Key, /) -> Callable[[Any], Any] | None:
        def resolve(scope: ReferenceScope) -> Any:
            steps = scope.resolve(key)
            try:
                steps.send(None)
            except StopIteration as end:
                return end.value
            raise AssertionError("a sync factory was awaited")

        return None if self.must_await(key) else resolve

    def must_await(self, key: Key) -> bool:
        registration = self.find(key)
        if registration is None or registration.kind is SourceKind.VALUE:
            return False
        if registration.kind in (SourceKind.COROUTINE, SourceKind.ASYNC_GENERATOR):
            return True
        return any(self.must_await(need.key) for need in self.needs(registration))


class TestReferenceContainer(ContainerSuite):
    """Every case, nothing overridden, nothing that can't be expressed."""

    def container(self, registrations: Sequence[Registration], provided: Collection[Key]) -> Container:
        return ReferenceContainer(registrations)

    def marker(self, name: str) -> object:
        return Marker(name)


class TestImmediateContainer(ContainerSuite):
    """Every case, with a container that has the optional part of the port."""

    def container(self, registrations: Sequence[Registration], provided: Collection[Key]) -> Container:
        return ImmediateContainer(registrations)

    def marker(self, name: str) -> object:
        return Marker(name)


class Mutant(NamedTuple):
    """A container with one defect, and the cases that must catch it."""

    container: type[ReferenceContainer]
    caught_by: frozenset[str]
    and_more: bool
    """Whether it breaks so much that other cases fail with them."""


MUTANTS: list[Mutant] = []


def caught_by(*cases: str, and_more: bool = False) -> Callable[[type[T]], type[T]]:
    """Say which cases must catch the defect of a container, or of a scope in an otherwise right container."""

    def add(defective: type[T]) -> type[T]:
        container: Any = defective
        if issubclass(defective, ReferenceScope):
            container = type(defective.__name__, (ReferenceContainer,), {"scope_class": defective})
        MUTANTS.append(Mutant(container, frozenset(cases), and_more))
        return defective

    return add


@caught_by(
    "a_scoped_object_is_one_inside_and_another_outside",
    "a_nested_scope_is_independent",
    "a_resource_is_closed_with_its_scope",
    and_more=True,
)
class ScopedObjectsAreShared(ReferenceScope):
    def shelf_of(self, registration: Registration) -> Shelf | None:
        return None if registration.lifetime is Lifetime.TRANSIENT else self.container.shelf


@caught_by("a_transient_is_new_each_time")
class TransientsAreKept(ReferenceScope):
    def shelf_of(self, registration: Registration) -> Shelf | None:
        return super().shelf_of(registration) or self.shelf


@caught_by(
    "a_nested_scope_is_independent",
    "a_scoped_object_is_one_inside_and_another_outside",
    "a_scoped_object_is_shared_by_all_that_need_it",
    "an_outer_scope_works_while_an_inner_one_is_open",
    "resolves_in_a_child_task",
)
class ScopedObjectsAreNotKept(ReferenceScope):
    def shelf_of(self, registration: Registration) -> Shelf | None:
        return self.container.shelf if registration.lifetime is Lifetime.SINGLETON else None


@caught_by(
    "a_singleton_is_built_once_for_scopes_that_run_together",
    "a_singleton_outlives_scopes",
    "a_singleton_resource_is_closed_by_aclose_and_only_once",
    "singletons_see_what_has_failed_to_close_before_them",
)
class SingletonsAreScoped(ReferenceScope):
    def shelf_of(self, registration: Registration) -> Shelf | None:
        return None if registration.lifetime is Lifetime.TRANSIENT else self.shelf


@caught_by("a_singleton_is_built_once_for_scopes_that_run_together")
class SingletonsHaveNoLock(ReferenceScope):
    async def give(self, key: Key) -> Any:
        self.container.shelf.locks.clear()
        return await super().give(key)


@caught_by(
    "a_singleton_resource_is_closed_by_aclose_and_only_once",
    "singletons_see_what_has_failed_to_close_before_them",
)
class AcloseForgetsToClose(ReferenceContainer):
    async def aclose(self) -> None:
        self.shelf = Shelf()


@caught_by(
    "a_singleton_resource_is_closed_by_aclose_and_only_once",
    "aclose_of_an_unused_container_does_nothing",
    "an_app_runs_again_in_another_loop_only_with_a_container_that_reopens",
)
class AcloseWorksOnce(ReferenceContainer):
    closed = False

    async def aclose(self) -> None:
        if self.closed:
            raise RuntimeError("closed already")
        self.closed = True
        await super().aclose()


@caught_by("aclose_of_an_unused_container_does_nothing", and_more=True)
class AcloseBuildsWhatNobodyAskedFor(ReferenceContainer):
    async def aclose(self) -> None:
        async with self.scope({}) as scope:
            for key in self.registrations:
                with suppress(Exception):
                    await scope.resolve(key)
        await super().aclose()


class ImmediateDefect(ImmediateContainer):
    """Resolves without awaiting in a way of its own."""

    def immediate(self, key: Key, /) -> Callable[[Any], Any] | None:
        right = super().immediate(key)
        return None if right is None else partial(self.resolved, right)

    def resolved(self, right: Callable[[Any], Any], scope: ReferenceScope) -> Any:
        raise NotImplementedError


@caught_by(
    "immediate_shares_objects_with_resolve",
    "immediate_raises_after_the_scope_has_closed",
    "resources_opened_immediately_close_in_reverse",
    and_more=True,
)
class ImmediateOpensAScopeOfItsOwn(ImmediateDefect):
    def resolved(self, right: Callable[[Any], Any], scope: ReferenceScope) -> Any:
        return right(self.scope(scope.provided))


@caught_by("a_resource_opened_immediately_closes_after_an_error", and_more=True)
class ImmediateLeavesResourcesOpenAfterAnError(ImmediateDefect):
    class Forgetful(ReferenceScope):
        async def close(self, error: BaseException | None) -> bool | None:
            return None if error else await super().close(error)

    def resolved(self, right: Callable[[Any], Any], scope: ReferenceScope) -> Any:
        scope.__class__ = self.Forgetful
        return right(scope)


@caught_by("immediate_raises_after_the_scope_has_closed")
class ImmediateForgetsThatTheScopeHasClosed(ImmediateDefect):
    def resolved(self, right: Callable[[Any], Any], scope: ReferenceScope) -> Any:
        left, scope.left = scope.left, False
        try:
            return right(scope)
        finally:
            scope.left = left


@caught_by("immediate_returns_provided_values", "what_a_sender_provides_reaches_factories", and_more=True)
class ImmediateForgetsProvidedValues(ImmediateDefect):
    def resolved(self, right: Callable[[Any], Any], scope: ReferenceScope) -> Any:
        provided, scope.provided = scope.provided, {}
        try:
            return right(scope)
        finally:
            scope.provided = provided


@caught_by("immediate_serves_a_reopened_container")
class ImmediateKeepsSingletons(ImmediateContainer):
    def immediate(self, key: Key, /) -> Callable[[Any], Any] | None:
        kept: list[Any] = []
        right = super().immediate(key)
        if right is None or self.find(key) is None or self.lifetime(key) is not Lifetime.SINGLETON:
            return right

        def resolve(scope: ReferenceScope) -> Any:
            if not kept or scope.left:
                kept.append(right(scope))
            return kept[0]

        return resolve


@caught_by("immediate_serves_a_reopened_container")
class ImmediateBuildsAtStartup(ImmediateContainer):
    def immediate(self, key: Key, /) -> Callable[[Any], Any] | None:
        right = super().immediate(key)
        if right is not None and self.find(key) is not None and self.lifetime(key) is Lifetime.SINGLETON:
            with suppress(Exception):
                right(self.scope({}))
        return right


@caught_by("immediate_raises_what_a_factory_raises")
class ImmediateWrapsErrors(ImmediateDefect):
    def resolved(self, right: Callable[[Any], Any], scope: ReferenceScope) -> Any:
        try:
            return right(scope)
        except HandlerError as error:
            raise ContainerError("a factory failed") from error


@caught_by("immediate_raises_for_what_is_missing")
class ImmediateReturnsNoneForWhatIsMissing(ImmediateDefect):
    def resolved(self, right: Callable[[Any], Any], scope: ReferenceScope) -> Any:
        try:
            return right(scope)
        except DependencyNotFoundError:
            return None


@caught_by("what_has_to_be_awaited_is_not_immediate", and_more=True)
class ImmediateReturnsCoroutines(ImmediateContainer):
    def must_await(self, key: Key) -> bool:
        return False


@caught_by("immediate_tells_qualifiers_apart", and_more=True)
class ImmediateDropsQualifiers(ImmediateContainer):
    def immediate(self, key: Key, /) -> Callable[[Any], Any] | None:
        return super().immediate(Key(key.hint))


@caught_by("a_reopened_container_builds_its_singletons_anew")
class SingletonsSurviveAclose(ReferenceContainer):
    async def aclose(self) -> None:
        kept = self.shelf.objects
        await super().aclose()
        self.shelf.objects = kept


@caught_by("two_containers_are_independent")
class ContainersShareSingletons(ReferenceContainer):
    shared = Shelf()

    def __init__(self, registrations: Sequence[Registration]) -> None:
        super().__init__(registrations)
        self.shelf = self.shared
        self.shelf.objects.clear()

    async def aclose(self) -> None:
        await self.shelf.stack.aclose()
        self.shelf.objects.clear()


@caught_by("looking_runs_no_factory", "two_containers_are_independent", and_more=True)
class RegistrationsAreGlobal(ReferenceContainer):
    everything: ClassVar[dict[Key, Registration]] = {}

    def __init__(self, registrations: Sequence[Registration]) -> None:
        super().__init__(registrations)
        if not registrations:
            self.everything.clear()
        self.everything.update(self.registrations)
        self.registrations = self.everything


@caught_by("a_container_is_made_and_checked_outside_of_any_loop", and_more=True)
class NeedsARunningLoop(ReferenceContainer):
    def __init__(self, registrations: Sequence[Registration]) -> None:
        super().__init__(registrations)
        if registrations:
            asyncio.get_running_loop()


@caught_by("an_app_runs_again_in_another_loop_only_with_a_container_that_reopens")
class BelongsToItsFirstLoop(ReferenceContainer):
    loop: asyncio.AbstractEventLoop | None = None

    def scope(self, provided: Mapping[Key, object], /) -> ReferenceScope:
        self.loop = self.loop or asyncio.get_running_loop()
        if self.loop is not asyncio.get_running_loop():
            raise RuntimeError("bound to another loop")
        return super().scope(provided)


@caught_by("a_provided_value_reaches_factories", "an_outer_scope_works_while_an_inner_one_is_open")
class LastScopeAnswersForAll(ReferenceScope):
    async def __aenter__(self) -> Self:
        self.container.ambient.append(self)
        return self

    async def close(self, error: BaseException | None) -> bool | None:
        self.container.ambient.remove(self)
        return await super().close(error)

    async def give(self, key: Key) -> Any:
        return await ReferenceScope.give(self.container.ambient[-1], key)


@caught_by(
    "a_nested_scope_is_independent",
    "a_provided_value_reaches_factories",
    "an_outer_scope_works_while_an_inner_one_is_open",
    "scopes_that_overlap_are_isolated",
)
class NestedScopesJoinTheOuterOne(ReferenceScope):
    async def __aenter__(self) -> Self:
        if self.container.ambient:
            self.shelf = self.container.ambient[-1].shelf
        self.container.ambient.append(self)
        return self

    async def close(self, error: BaseException | None) -> bool | None:
        self.container.ambient.remove(self)
        return await super().close(error)


@caught_by("a_scope_may_be_left_in_another_task")
class BelongsToItsTask(ReferenceScope):
    async def __aenter__(self) -> Self:
        self.task = asyncio.current_task()
        return self

    async def close(self, error: BaseException | None) -> bool | None:
        if self.task is not asyncio.current_task():
            raise RuntimeError("left in another task")
        return await super().close(error)


@caught_by(
    "a_scope_may_be_left_in_another_task",
    "resolves_in_a_child_task",
)
class ResolvesInItsTaskOnly(ReferenceScope):
    async def __aenter__(self) -> Self:
        self.task = asyncio.current_task()
        return self

    async def give(self, key: Key) -> Any:
        if self.task is not asyncio.current_task():
            raise RuntimeError("resolved in another task")
        return await super().give(key)


@caught_by("a_chain_is_built_from_the_hints_of_constructors", and_more=True)
class InjectsOneLevelOnly(ReferenceScope):
    async def build(self, registration: Registration, stack: AsyncExitStack) -> Any:
        built = await super().build(registration, stack)
        for need in getattr(built, "__dict__", {}).values():
            getattr(need, "__dict__", {}).clear()
        return built


@caught_by("a_class_may_need_what_a_coroutine_function_makes", "a_coroutine_function_is_a_factory")
class CoroutinesAreNotAwaited(ReferenceScope):
    async def build(self, registration: Registration, stack: AsyncExitStack) -> Any:
        if registration.kind is not SourceKind.COROUTINE:
            return await super().build(registration, stack)
        registration.source().close()
        return registration.source


@caught_by("a_function_is_a_factory", "falsy_values_and_none_are_values")
class FunctionsAreNotCalled(ReferenceScope):
    async def build(self, registration: Registration, stack: AsyncExitStack) -> Any:
        if registration.kind is SourceKind.FUNCTION:
            return registration.source
        return await super().build(registration, stack)


@caught_by("a_registered_service_wins_over_a_default", "a_value_is_given_as_it_is")
class ValuesAreCopied(ReferenceScope):
    async def give(self, key: Key) -> Any:
        given = await super().give(key)
        registration = self.container.find(key)
        return copy(given) if registration and registration.kind is SourceKind.VALUE else given


@caught_by("falsy_values_and_none_are_values")
class FalsyIsMissing(ReferenceScope):
    async def give(self, key: Key) -> Any:
        given = await super().give(key)
        if not given:
            raise DependencyNotFoundError(key)
        return given


@caught_by("a_default_stands_in_where_nothing_is_registered", "a_service_that_gets_along_without_another_is_fine")
class DefaultsAreIgnored(ReferenceContainer):
    def needs(self, registration: Registration) -> list[Need]:
        return [need._replace(optional=False) for need in super().needs(registration)]


@caught_by("a_registered_service_wins_over_a_default")
class DefaultsAlwaysWin(ReferenceContainer):
    def needs(self, registration: Registration) -> list[Need]:
        return [need for need in super().needs(registration) if not need.optional]


@caught_by(
    "a_provided_value_never_reaches_a_later_scope",
    "a_provided_value_reaches_factories",
    "what_a_sender_provides_reaches_factories",
)
class ProvidedValuesStayOutside(ReferenceScope):
    async def build(self, registration: Registration, stack: AsyncExitStack) -> Any:
        inner = ReferenceScope(self.container, {})
        inner.shelf = self.shelf
        return await inner.build(registration, stack)


@caught_by("a_provided_value_never_reaches_a_later_scope", "a_provided_value_reaches_factories")
class ProvidedValuesReachLaterScopes(ReferenceContainer):
    first: Mapping[Key, object] | None = None

    def scope(self, provided: Mapping[Key, object], /) -> ReferenceScope:
        self.first = self.first or provided
        return super().scope(self.first)


@caught_by("hints_that_are_text_are_read")
class TextIsNoHint(ReferenceContainer):
    def needs(self, registration: Registration) -> list[Need]:
        init: Any = registration.source.__init__ if registration.kind is SourceKind.CLASS else None
        raw = getattr(init, "__annotations__", {})
        if "stamp" in raw:
            return [Need("stamp", Key(raw["stamp"]), optional=False)]
        return super().needs(registration)


@caught_by(
    "a_group_that_holds_the_error_does_not_lead_back_to_it",
    "a_cancellation_that_closing_raises_is_a_failure",
    "a_resource_that_raises_another_error_replaces_none",
    "a_resource_that_swallows_a_failure_to_close_does_not_undo_it",
    "a_resource_that_swallows_the_error_hides_it_from_no_other",
    "resources_close_in_reverse_order",
    "resources_close_under_a_cancel_that_is_repeated",
    "what_closes_after_a_failure_sees_it",
)
class ClosesInOpeningOrder(ReferenceScope):
    async def close(self, error: BaseException | None) -> bool | None:
        callbacks: Any = vars(self.shelf.stack)["_exit_callbacks"]
        callbacks.reverse()
        return await super().close(error)


@caught_by(
    "a_resource_is_closed_with_its_scope",
    "a_cancelled_handler_has_its_resources_closed_and_they_may_await",
    and_more=True,
)
class ClosesSyncResourcesOnly(ReferenceScope):
    async def build(self, registration: Registration, stack: AsyncExitStack) -> Any:
        forgotten = registration.kind is SourceKind.ASYNC_GENERATOR
        return await super().build(registration, AsyncExitStack() if forgotten else stack)


@caught_by("a_resource_is_closed_with_its_scope", "resources_close_in_reverse_order", and_more=True)
class ClosesAsyncResourcesOnly(ReferenceScope):
    async def build(self, registration: Registration, stack: AsyncExitStack) -> Any:
        forgotten = registration.kind is SourceKind.GENERATOR
        return await super().build(registration, AsyncExitStack() if forgotten else stack)


@caught_by("a_resource_that_nobody_asked_for_is_not_opened")
class OpensEverything(ReferenceScope):
    async def __aenter__(self) -> Self:
        for key in self.container.registrations:
            with suppress(Exception):
                await self.give(key)
        return self


@caught_by(
    "a_group_that_holds_the_error_does_not_lead_back_to_it",
    "a_resource_sees_the_error",
    "a_resource_that_raises_another_error_replaces_none",
    "a_resource_that_swallows_the_error_hides_it_from_no_other",
    "the_error_is_thrown_into_the_resource",
)
class HidesTheError(ReferenceScope):
    async def close(self, error: BaseException | None) -> bool | None:
        return await super().close(None)


@caught_by("the_error_is_thrown_into_the_resource")
class SendsTheError(ReferenceScope):
    async def build(self, registration: Registration, stack: AsyncExitStack) -> Any:
        is_resource = registration.kind in (SourceKind.GENERATOR, SourceKind.ASYNC_GENERATOR)
        if not is_resource or registration.lifetime is Lifetime.SINGLETON:
            return await super().build(registration, stack)
        needs = self.container.needs(registration)
        generator = registration.source(**{need.name: await self.give(need.key) for need in needs})
        is_async = registration.kind is SourceKind.ASYNC_GENERATOR

        async def close(kind: object, error: object, traceback: object) -> None:
            with suppress(StopIteration, StopAsyncIteration):
                await generator.asend(error) if is_async else generator.send(error)

        stack.push_async_exit(close)
        return await anext(generator) if is_async else next(generator)


@caught_by("a_factory_that_fails_has_what_it_needed_closed", "an_error_closes_resources_and_goes_on")
class SwallowsTheError(ReferenceScope):
    async def close(self, error: BaseException | None) -> bool | None:
        await super().close(error)
        return True


@caught_by(
    "a_group_that_holds_the_error_does_not_lead_back_to_it",
    "a_resource_that_raises_another_error_replaces_none",
    "a_resource_that_swallows_a_failure_to_close_does_not_undo_it",
    "an_error_of_closing_fails_the_command",
    "an_error_of_closing_is_raised_and_the_others_close",
    "an_error_of_the_handler_wins_over_one_of_closing",
    "several_that_fail_to_close_are_all_reported",
    "what_closes_after_a_failure_sees_it",
)
class SwallowsErrorsOfClosing(ReferenceScope):
    async def close(self, error: BaseException | None) -> bool | None:
        try:
            return await super().close(error)
        except Exception:  # noqa: BLE001 - the defect
            return None


@caught_by(
    "a_group_that_holds_the_error_does_not_lead_back_to_it",
    "a_cancellation_that_closing_raises_is_a_failure",
    "a_resource_that_raises_another_error_replaces_none",
    "a_resource_that_swallows_a_failure_to_close_does_not_undo_it",
    "an_error_of_closing_is_raised_and_the_others_close",
    "several_that_fail_to_close_are_all_reported",
    "what_closes_after_a_failure_sees_it",
)
class StopsClosingAtTheFirstError(ReferenceScope):
    async def close(self, error: BaseException | None) -> bool | None:
        self.left = True
        callbacks: Any = vars(self.shelf.stack)["_exit_callbacks"]
        handled = False
        while callbacks:
            is_sync, callback = callbacks.pop()
            try:
                handled = callback(*_triple(error)) if is_sync else await callback(*_triple(error))
            except BaseException:
                callbacks.clear()
                raise
        return handled


@caught_by("an_error_closes_resources_and_goes_on", and_more=True)
class DoesNotCloseAfterAnError(ReferenceScope):
    async def close(self, error: BaseException | None) -> bool | None:
        if isinstance(error, Exception):
            self.shelf.stack.pop_all()
        return await super().close(error)


@caught_by(
    "a_cancelled_handler_has_its_resources_closed_and_they_may_await",
    "resources_close_under_a_cancel_that_is_repeated",
)
class DoesNotCloseAfterACancellation(ReferenceScope):
    async def close(self, error: BaseException | None) -> bool | None:
        if isinstance(error, asyncio.CancelledError):
            self.shelf.stack.pop_all()
        return await super().close(error)


@caught_by("a_cancellation_that_closing_raises_is_a_failure")
class IgnoresACancellationOfClosing(ReferenceScope):
    async def close(self, error: BaseException | None) -> bool | None:
        try:
            return await super().close(error)
        except asyncio.CancelledError:
            return None


@caught_by(
    "a_cancellation_that_closing_raises_is_a_failure",
    "a_resource_that_swallows_a_failure_to_close_does_not_undo_it",
    "a_resource_that_swallows_the_error_hides_it_from_no_other",
)
class ClosesAsNestedBlocksWould(ReferenceScope):
    async def close(self, error: BaseException | None) -> bool | None:
        return await self.shelf.stack.__aexit__(*_triple(error))


@caught_by(
    "a_cancellation_that_closing_raises_is_a_failure",
    "a_resource_that_swallows_a_failure_to_close_does_not_undo_it",
    "what_closes_after_a_failure_sees_it",
)
class TellsOfTheErrorOfTheHandlerOnly(ReferenceScope):
    async def close(self, error: BaseException | None) -> bool | None:
        async def close(opened: tuple[bool, Callable[..., Any]], _: BaseException | None) -> None:
            await leave(opened, error)

        await close_in_reverse(exits_of(self.shelf), close, error)
        return None


# Before Python 3.11 the cases make do with causes in place of groups.
@caught_by("several_that_fail_to_close_are_all_reported", and_more=sys.version_info < (3, 11))
class ReportsOneErrorOfClosing(ReferenceScope):
    async def close(self, error: BaseException | None) -> bool | None:
        try:
            return await super().close(error)
        except Exception as closing:
            closing.__cause__ = None
            raise


@caught_by("singletons_see_what_has_failed_to_close_before_them")
class SingletonsCloseEachForItself(ReferenceContainer):
    async def aclose(self) -> None:
        shelf, self.shelf = self.shelf, Shelf()
        failures: list[Exception] = []
        while exits_of(shelf):
            try:
                await leave(exits_of(shelf).pop(), None)
            except Exception as failure:  # noqa: BLE001 - the defect
                failures.append(failure)
        if failures:
            raise failures[0]


@caught_by(
    "a_cancellation_of_closing_wins",
    "resources_close_under_a_cancel_that_is_repeated",
    and_more=True,
)
class ClosesInATaskThatIsCancelled(ReferenceScope):
    async def close(self, error: BaseException | None) -> bool | None:
        closing = asyncio.ensure_future(super().close(error))
        asyncio.get_running_loop().call_later(0.002, closing.cancel)
        return await closing


@caught_by(
    "a_factory_that_fails_has_what_it_needed_closed",
    "a_resource_cannot_swallow_an_error",
    "a_resource_sees_the_error",
    "an_error_closes_resources_and_goes_on",
    "the_error_is_thrown_into_the_resource",
)
class CancelsWhatFailed(ReferenceScope):
    async def close(self, error: BaseException | None) -> bool | None:
        await super().close(error)
        if isinstance(error, Exception):
            raise asyncio.CancelledError
        return None


@caught_by("a_factory_that_fails_has_what_it_needed_closed")
class ForgetsResourcesOfWhatCouldNotBeBuilt(ReferenceScope):
    async def build(self, registration: Registration, stack: AsyncExitStack) -> Any:
        try:
            return await super().build(registration, stack)
        except BaseException:
            stack.pop_all()
            raise


@caught_by("a_scope_that_was_left_gives_nothing")
class ResolvesAfterItsEnd(ReferenceScope):
    async def resolve(self, key: Key, /) -> Any:
        return await self.give(key)


@caught_by("a_factory_that_fails_has_what_it_needed_closed", "what_a_constructor_raises_passes_unchanged")
class WrapsErrorsOfConstructors(ReferenceScope):
    async def resolve(self, key: Key, /) -> Any:
        try:
            return await super().resolve(key)
        except (HandlerError, LookupError, TypeError, ValueError) as error:
            if isinstance(error, ContainerError):
                raise
            raise ContainerError(str(key)) from error


@caught_by("what_a_constructor_raises_passes_unchanged")
class TakesErrorsOfConstructorsForMissingKeys(ReferenceScope):
    async def resolve(self, key: Key, /) -> Any:
        try:
            return await super().resolve(key)
        except (LookupError, RecursionError) as error:
            if isinstance(error, ContainerError):
                raise
            raise DependencyNotFoundError(key) from error


@caught_by("a_missing_provider_is_an_error_with_its_key", "a_qualifier_tells_two_providers_apart")
class MissingKeysGiveNone(ReferenceScope):
    async def resolve(self, key: Key, /) -> Any:
        return await super().resolve(key) if self.container.find(key) or key in self.provided else None


@caught_by("a_missing_provider_is_an_error_with_its_key", "a_qualifier_tells_two_providers_apart")
class MissingKeysAreLibraryErrors(ReferenceScope):
    async def resolve(self, key: Key, /) -> Any:
        try:
            return await super().resolve(key)
        except DependencyNotFoundError as error:
            raise KeyError(key) from error


@caught_by("a_missing_provider_is_an_error_with_its_key", "a_qualifier_tells_two_providers_apart")
class MissingKeysHaveOtherNames(ReferenceScope):
    async def resolve(self, key: Key, /) -> Any:
        try:
            return await super().resolve(key)
        except DependencyNotFoundError as error:
            raise DependencyNotFoundError(Key(object)) from error


@caught_by("looking_runs_no_factory", "two_containers_are_independent", and_more=True)
class KnowsEverything(ReferenceContainer):
    def can_resolve(self, key: Key, /) -> bool:
        return True


@caught_by("looking_runs_no_factory", "the_lifetime_of_a_key_is_told")
class ForgetsALifetime(ReferenceContainer):
    def lifetime(self, key: Key, /) -> Lifetime:
        return Lifetime.TRANSIENT


@caught_by(
    "a_group_that_holds_the_error_does_not_lead_back_to_it",
    "a_resource_that_raises_another_error_replaces_none",
    "looking_opens_no_resource",
    "looking_runs_no_factory",
)
class LooksByCalling(ReferenceContainer):
    def validate(self, keys: Collection[Key], provided: Collection[Key], /) -> ValidationResult:
        for key in keys:
            registration = self.find(key)
            if registration and registration.kind in (SourceKind.CLASS, SourceKind.FUNCTION):
                with suppress(TypeError):
                    registration.source()
            if registration and registration.kind is SourceKind.GENERATOR:
                next(registration.source())
        return super().validate(keys, provided)


@caught_by("finds_that_a_key_is_missing", "finds_all_keys_that_are_missing", and_more=True)
class ValidatesNothing(ReferenceContainer):
    def validate(self, keys: Collection[Key], provided: Collection[Key], /) -> ValidationResult:
        return ValidationResult()


@caught_by(
    "a_class_that_is_not_registered_is_not_built_in_silence",
    "finds_a_cycle",
    "finds_an_object_that_would_outlive_what_it_holds",
    "finds_what_is_missing_further_below",
    "finds_what_is_missing_further_below_for_every_key",
    "finds_what_needs_a_value_that_senders_bring",
)
class ValidatesKeysOnly(ReferenceContainer):
    def validate(self, keys: Collection[Key], provided: Collection[Key], /) -> ValidationResult:
        missing = [key for key in keys if key not in provided and not self.can_resolve(key)]
        return ValidationResult([DependencyNotFoundError(key) for key in missing])


@caught_by("finds_what_needs_a_value_that_senders_bring")
class RemembersWhatWasOnceProvided(ReferenceContainer):
    def __init__(self, registrations: Sequence[Registration]) -> None:
        super().__init__(registrations)
        self.brought: set[Key] = set()

    def validate(self, keys: Collection[Key], provided: Collection[Key], /) -> ValidationResult:
        self.brought.update(provided)
        return super().validate(keys, self.brought)


@caught_by(
    "finds_all_keys_that_are_missing",
    "finds_what_is_missing_further_below_for_every_key",
    "finds_what_needs_a_value_that_senders_bring",
)
class TellsTheFirstProblemOnly(ReferenceContainer):
    def validate(self, keys: Collection[Key], provided: Collection[Key], /) -> ValidationResult:
        return ValidationResult(super().validate(keys, provided).errors[:1])


@caught_by(
    "a_provided_value_reaches_factories",
    "finds_what_needs_a_value_that_senders_bring",
    "what_a_sender_provides_reaches_factories",
    "what_senders_provide_is_not_missing",
)
class ForgetsWhatIsProvided(ReferenceContainer):
    def validate(self, keys: Collection[Key], provided: Collection[Key], /) -> ValidationResult:
        return super().validate(keys, ())


@caught_by(
    "finds_what_is_missing_further_below",
    "finds_what_is_missing_further_below_for_every_key",
    "finds_what_needs_a_value_that_senders_bring",
)
class TellsNoPath(ReferenceContainer):
    def walk(self, key: Key, path: tuple[Key, ...], provided: Collection[Key]) -> Iterator[ContainerError]:
        for error in super().walk(key, path, provided):
            yield DependencyNotFoundError(error.key) if isinstance(error, DependencyNotFoundError) else error


@caught_by("finds_a_cycle")
class TakesCyclesForMissing(ReferenceContainer):
    def walk(self, key: Key, path: tuple[Key, ...], provided: Collection[Key]) -> Iterator[ContainerError]:
        for error in super().walk(key, path, provided):
            yield DependencyNotFoundError(key, path) if isinstance(error, DependencyCycleError) else error


@caught_by("finds_an_object_that_would_outlive_what_it_holds")
class AllowsCaptives(ReferenceContainer):
    def mismatches(self, registration: Registration, needed: Key) -> Iterator[ContainerError]:
        return iter(())


@caught_by("a_class_that_is_not_registered_is_not_built_in_silence", and_more=True)
class BuildsAnyClass(ReferenceContainer):
    def find(self, key: Key) -> Registration | None:
        known = super().find(key)
        if known is None and isinstance(key.hint, type) and key.qualifier is None:
            return Registration(key, key.hint, SourceKind.CLASS, Lifetime.TRANSIENT)
        return known


@caught_by(
    "a_constructor_qualifies_what_it_needs",
    "a_handler_qualifies_with_named_and_with_the_marker_of_the_library",
    "a_qualifier_tells_two_providers_apart",
)
class DropsQualifiers(ReferenceContainer):
    def find(self, key: Key) -> Registration | None:
        return super().find(Key(key.hint))


@caught_by("a_constructor_qualifies_what_it_needs")
class DropsQualifiersOfConstructors(ReferenceContainer):
    def key(self, hint: Any) -> Key:
        return Key(super().key(hint).hint)


@caught_by(
    "a_handler_qualifies_with_named_and_with_the_marker_of_the_library",
    "what_senders_bring_is_qualified_as_in_a_handler",
)
class DoesNotReadItsMarker(ReferenceContainer):
    def qualifier(self, metadata: tuple[object, ...], /) -> Hashable | None:
        return None

    def key(self, hint: Any) -> Key:
        marks = getattr(hint, "__metadata__", ())
        return Key(super().key(hint).hint, super().qualifier(marks))


@caught_by("a_handler_qualifies_with_named_and_with_the_marker_of_the_library")
class TakesAnyMetadataForAQualifier(ReferenceContainer):
    def qualifier(self, metadata: tuple[object, ...], /) -> Hashable | None:
        return next((mark.name for mark in metadata if isinstance(mark, (Marker, Named))), str(metadata[0]))


def _open(key: Key) -> Key:
    return key._replace(hint=get_origin(key.hint) or key.hint)


@caught_by("closed_forms_of_a_generic_class_are_keys_of_their_own")
class TakesGenericFormsForOne(ReferenceContainer):
    def find(self, key: Key) -> Registration | None:
        open_forms = {_open(known): one for known, one in self.registrations.items()}
        return open_forms.get(_open(key))


def _base(key: Key) -> Key:
    return key._replace(hint=getattr(key.hint, "__supertype__", key.hint))


@caught_by("a_new_type_is_a_key")
class TakesNewTypesForTheirBase(ReferenceContainer):
    def __init__(self, registrations: Sequence[Registration]) -> None:
        super().__init__(registrations)
        self.registrations = {_base(key): one for key, one in self.registrations.items()}

    def find(self, key: Key) -> Registration | None:
        return super().find(_base(key))


@caught_by("a_protocol_is_a_key")
class RefusesProtocols(ReferenceContainer):
    def find(self, key: Key) -> Registration | None:
        return None if is_protocol(key.hint) else super().find(key)


@caught_by("a_group_that_holds_the_error_does_not_lead_back_to_it", and_more=True)
class ErrorsOfClosingLeadBack(ReferenceScope):
    async def close(self, error: BaseException | None) -> bool | None:
        try:
            return await super().close(error)
        except BaseException as closing:
            if error is not None and closing is not error:
                error.__cause__ = closing
            raise


@caught_by(
    "has_the_shape_of_the_port", "the_lifetime_of_a_key_is_told", "a_container_serves_a_whole_app", and_more=True
)
class LacksAMethod(ReferenceContainer):
    lifetime = None  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType] - counts as not there


def cases() -> dict[str, list[dict[str, Any]]]:
    """All cases of the suite, each with the arguments that it is run with."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name in dir(ContainerSuite):
        if name.startswith("test_"):
            own = getattr(getattr(ContainerSuite, name), "pytestmark", [])
            marks = [mark.args for mark in own if mark.name == "parametrize"]
            names = [mark[0] for mark in marks]
            found[name] = [dict(zip(names, values, strict=True)) for values in product(*(mark[1] for mark in marks))]
    return found


def failing(container: type[ReferenceContainer]) -> frozenset[str]:
    """The cases that a container fails, without the word that they all begin with."""

    class Suite(TestReferenceContainer):
        case_timeout = 1.0

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
    except (Exception, asyncio.CancelledError, pytest.fail.Exception):  # noqa: BLE001 - a defect fails in any way
        return True
    return False


@caught_by("tells_whether_a_key_is_below_others", "tells_whether_a_value_that_senders_bring_is_below_others")
class ReachesOneLevelOnly(ReferenceContainer):
    def reaches(self, keys: Collection[Key], target: Key, /) -> bool:
        return any(target in (key, *self.below(key)) for key in keys)


@caught_by("tells_whether_a_key_is_below_others", "tells_whether_a_value_that_senders_bring_is_below_others")
class ReachesEverything(ReferenceContainer):
    def reaches(self, keys: Collection[Key], target: Key, /) -> bool:
        return True


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.container.__name__)
def test_a_defect_is_caught_by_the_cases_that_are_about_it(mutant: Mutant) -> None:
    caught = failing(mutant.container)
    assert mutant.caught_by <= caught if mutant.and_more else mutant.caught_by == caught


def test_every_case_catches_some_defect() -> None:
    assert {name.removeprefix("test_") for name in cases()} == set().union(*(one.caught_by for one in MUTANTS))


class LesserContainer(ReferenceContainer):
    """Declares little, and does what it is told to do about the rest."""

    capabilities = ContainerCapability.DEEP_VALIDATION
    refuses = True

    def validate(self, keys: Collection[Key], provided: Collection[Key], /) -> ValidationResult:
        unable = [key for key in keys if (one := self.find(key)) and one.needs & LesserSuite().lacks]
        if self.refuses and unable:
            return ValidationResult([UnsupportedRegistrationError(key, "unable", "use another") for key in unable])
        return super().validate(keys, provided)


class LesserSuite(ContainerSuite):
    lacks = ~(Feature.SINGLETON | Feature.DEEP_VALIDATION)
    made: type[ReferenceContainer] = LesserContainer

    def container(self, registrations: Sequence[Registration], provided: Collection[Key]) -> Container:
        return self.made(registrations)


class SilentContainer(LesserContainer):
    refuses = False


class SilentSuite(LesserSuite):
    made = SilentContainer


class InexpressibleSuite(LesserSuite):
    def container(self, registrations: Sequence[Registration], provided: Collection[Key]) -> Container:
        if registrations:
            raise CannotExpressError("no way to write it")
        return super().container(registrations, provided)


class StrictLibrarySuite(LesserSuite):
    def container(self, registrations: Sequence[Registration], provided: Collection[Key]) -> Container:
        if registrations:
            raise RefusedByLibraryError("the library said no")
        return super().container(registrations, provided)


def test_a_case_that_the_plugin_cannot_do_passes_if_it_is_refused() -> None:
    LesserSuite().test_a_coroutine_function_is_a_factory()


def test_a_case_that_the_plugin_cannot_do_fails_if_it_is_not_refused() -> None:
    with pytest.raises(AssertionError, match="the library lacks ASYNC_FACTORY, so validate\\(\\) must refuse Config"):
        SilentSuite().test_a_coroutine_function_is_a_factory()


def test_a_case_that_the_library_cannot_express_shows_with_the_reason() -> None:
    with pytest.raises(pytest.xfail.Exception, match="without ASYNC_FACTORY: no way to write it"):
        InexpressibleSuite().test_a_coroutine_function_is_a_factory()


def test_what_is_declared_must_be_possible_to_express() -> None:
    with pytest.raises(pytest.fail.Exception, match="lists nothing that this case needs as lacking"):
        InexpressibleSuite().test_a_singleton_outlives_scopes()


def test_a_library_with_scopes_may_have_no_transients() -> None:
    class ScopedSuite(InexpressibleSuite):
        lacks = ~Feature.SCOPED
        made = ReferenceContainer

    with pytest.raises(pytest.xfail.Exception, match="without transient objects: no way to write it"):
        ScopedSuite().test_a_transient_is_new_each_time()


def test_a_refusal_of_the_library_is_one_too() -> None:
    StrictLibrarySuite().test_a_coroutine_function_is_a_factory()
    StrictLibrarySuite().test_finds_a_cycle()


def test_a_refusal_of_what_is_declared_fails_the_case() -> None:
    with pytest.raises(RefusedByLibraryError):
        StrictLibrarySuite().test_a_singleton_outlives_scopes()


def test_what_cannot_be_looked_into_must_be_a_warning() -> None:
    class Shallow(ValidatesKeysOnly):
        capabilities = ~ContainerCapability.DEEP_VALIDATION

    class ShallowSuite(LesserSuite):
        lacks = Feature(0)
        made = Shallow

    with pytest.raises(AssertionError, match="is a warning"):
        ShallowSuite().test_finds_a_cycle()


def test_a_case_that_waits_for_ever_fails() -> None:
    class Stuck(ReferenceScope):
        async def resolve(self, key: Key, /) -> Any:
            await asyncio.Event().wait()

    class StuckSuite(TestReferenceContainer):
        case_timeout = 0.01

        def container(self, registrations: Sequence[Registration], provided: Collection[Key]) -> Container:
            stuck = ReferenceContainer(registrations)
            stuck.scope_class = Stuck
            return stuck

    with pytest.raises(asyncio.TimeoutError):
        StuckSuite().test_a_function_is_a_factory()


def test_a_case_is_overridden_only_with_a_reason() -> None:
    def replacement(suite: object) -> None: ...

    with pytest.raises(TypeError, match="test_finds_a_cycle replaces a case"):
        type("Silent", (TestReferenceContainer,), {"test_finds_a_cycle": replacement})
    explained = pytest.mark.xfail(reason="the library finds it later")(replacement)
    reasonable = type("Reasonable", (TestReferenceContainer,), {"test_finds_a_cycle": explained})
    assert issubclass(reasonable, ContainerSuite)


def test_the_hook_must_be_written() -> None:
    class EmptySuite(ContainerSuite): ...

    with pytest.raises(NotImplementedError, match=r"EmptySuite\.container: it makes"):
        EmptySuite().container((), ())
