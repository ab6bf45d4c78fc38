"""A container that holds finished objects, each under its key."""

from collections.abc import AsyncGenerator, Collection, Hashable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from diator.containers import ContainerCapability, Key, Lifetime, ValidationResult


class Given:
    """Gives what it was made with; it is the resolver of its one, endless scope too."""

    capabilities = ContainerCapability.REUSABLE

    def __init__(self, held: Mapping[Key, object]) -> None:
        self.held = held

    def qualifier(self, metadata: tuple[object, ...], /) -> Hashable | None:
        return next((mark for mark in metadata if isinstance(mark, str)), None)

    def can_resolve(self, key: Key, /) -> bool:
        return key in self.held

    def lifetime(self, key: Key, /) -> Lifetime:
        return Lifetime.SINGLETON

    def validate(self, keys: Collection[Key], provided: Collection[Key], /) -> ValidationResult:
        return ValidationResult()

    @asynccontextmanager
    async def scope(self, provided: Mapping[Key, object], /) -> AsyncGenerator["Given", None]:
        yield self

    async def resolve(self, key: Key, /) -> Any:
        return self.held[key]

    async def aclose(self) -> None: ...
