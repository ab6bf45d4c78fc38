"""The suite for container plugins is proven with a small container that has every capability."""

import asyncio
import inspect
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from types import TracebackType
from typing import Annotated, Any, NamedTuple, get_args, get_origin

from typing_extensions import Self, get_type_hints

from diator.conformance import ContainerSuite, Kind, Registration
from diator.containers import Capability, Container, Key, Lifetime, Validation
from diator.containers.port import Named
from diator.errors import (
    ContainerError,
    DependencyCycleError,
    DependencyNotFoundError,
    LifetimeMismatchError,
    ScopeClosedError,
)


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
