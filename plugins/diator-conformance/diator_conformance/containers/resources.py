"""Resources for the cases: factories that write down when they open and close."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from diator_conformance.containers.registration import SourceKind
from diator_conformance.containers.services import Session, Transaction

Log = list[str]
BOTH = pytest.mark.parametrize("kind", [SourceKind.GENERATOR, SourceKind.ASYNC_GENERATOR])
"""Runs a case for the two kinds of factories that close what they opened."""


class HandlerError(Exception):
    """What fails the work of a case."""


class ClosingError(Exception):
    """What fails the closing of a resource."""


def well() -> None:
    """Close without an error."""


def badly() -> None:
    """Fail to close, unless the container has just dropped the resource, because then no code could catch the error."""
    if not isinstance(sys.exc_info()[1], GeneratorExit):
        raise ClosingError


def session(
    kind: SourceKind, log: Log, close: Callable[[], None] = well
) -> Callable[[], Iterator[Session]] | Callable[[], AsyncIterator[Session]]:
    """Make a factory of a session."""

    def generator() -> Iterator[Session]:
        log.append("session opened")
        try:
            yield Session()
        finally:
            log.append("session closed")
            close()

    async def async_generator() -> AsyncIterator[Session]:
        log.append("session opened")
        try:
            yield Session()
        finally:
            await asyncio.sleep(0)
            log.append("session closed")
            close()

    return generator if kind is SourceKind.GENERATOR else async_generator


def transaction(
    kind: SourceKind, log: Log, close: Callable[[], None] = well
) -> Callable[[Session], Iterator[Transaction]] | Callable[[Session], AsyncIterator[Transaction]]:
    """Make a factory of a transaction, which needs a session."""

    def generator(session: Session) -> Iterator[Transaction]:
        yield Transaction(session)
        log.append("transaction closed")
        close()

    async def async_generator(session: Session) -> AsyncIterator[Transaction]:
        yield Transaction(session)
        log.append("transaction closed")
        close()

    return generator if kind is SourceKind.GENERATOR else async_generator
