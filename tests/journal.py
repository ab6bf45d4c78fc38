"""A container that keeps a journal of its scopes, and can be told to misbehave."""

import asyncio
from collections.abc import Collection, Hashable, Mapping
from types import TracebackType
from typing import Any

from diator import DependencyNotFoundError
from diator.containers import ContainerCapability, Key, Lifetime, ValidationResult


class Session:
    """The one thing that the container gives: one for each scope."""

    def __init__(self, number: int) -> None:
        self.number = number


class Journal:
    """Gives a `Session` for each scope and writes down when scopes open and close, and with which error."""

    capabilities = ContainerCapability.SCOPED | ContainerCapability.REUSABLE

    def __init__(
        self,
        *,
        opening_fails: BaseException | None = None,
        closing_fails: BaseException | None = None,
        swallows: bool = False,
        closing_waits: bool = False,
    ) -> None:
        self.lines: list[str] = []
        self.opening_fails = opening_fails
        self.closing_fails = closing_fails
        self.swallows = swallows
        self.closing_waits = closing_waits
        self.closing = asyncio.Event()
        self.may_close = asyncio.Event()
        self.scopes = 0

    def write(self, line: str) -> None:
        self.lines.append(line)

    def qualifier(self, metadata: tuple[object, ...], /) -> Hashable | None:
        return None

    def can_resolve(self, key: Key, /) -> bool:
        return key == Key(Session)

    def lifetime(self, key: Key, /) -> Lifetime:
        return Lifetime.SCOPED

    def validate(self, keys: Collection[Key], provided: Collection[Key], /) -> ValidationResult:
        return ValidationResult()

    def scope(self, provided: Mapping[Key, object], /) -> "_Scope":
        self.scopes += 1
        return _Scope(self, self.scopes)

    async def aclose(self) -> None:
        self.write("container closed")


class _Scope:
    def __init__(self, journal: Journal, number: int) -> None:
        self.journal = journal
        self.session = Session(number)

    async def resolve(self, key: Key, /) -> Any:
        if key != Key(Session):
            raise DependencyNotFoundError(key)
        await asyncio.sleep(0)
        return self.session

    async def __aenter__(self) -> "_Scope":
        if self.journal.opening_fails:
            raise self.journal.opening_fails
        self.journal.write(f"scope {self.session.number} opens")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self.journal.closing.set()
        if self.journal.closing_waits:
            await self.journal.may_close.wait()
        how = "closes" if error is None else f"undone by {type(error).__name__}"
        self.journal.write(f"scope {self.session.number} {how}")
        if self.journal.closing_fails:
            raise self.journal.closing_fails
        return self.journal.swallows
