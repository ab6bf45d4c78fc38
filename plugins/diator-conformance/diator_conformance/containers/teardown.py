"""Cases: resources close with their scope, in the right order, and know how it ended."""

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import suppress

import pytest

from diator.containers import Key
from diator.errors import ScopeClosedError
from diator_conformance.containers.bench import ContainerSuiteBase, case
from diator_conformance.containers.registration import Feature, SourceKind
from diator_conformance.containers.resources import BOTH, HandlerError, Log, badly, session, transaction
from diator_conformance.containers.services import Accounts, Session, Transaction


class Teardown(ContainerSuiteBase):
    """Resources close with their scope, in the right order, and know how it ended."""

    @BOTH
    @case()
    async def test_a_resource_is_closed_with_its_scope(self, kind: SourceKind) -> None:
        """It is open as long as the scope, and closed afterwards."""
        log: Log = []
        container = self.build(self.register(Session, session(kind, log)))
        async with container.scope({}) as scope:
            assert isinstance(await scope.resolve(Key(Session)), Session)
            assert log == ["session opened"]
        assert log == ["session opened", "session closed"]

    @BOTH
    @case()
    async def test_resources_close_in_reverse_order(self, kind: SourceKind) -> None:
        """The resource that was opened last is closed first, every time."""
        log: Log = []
        container = self.build(
            self.register(Session, session(kind, log)), self.register(Transaction, transaction(kind, log))
        )
        for _ in range(20):  # an order that is left to chance would pass now and then
            log.clear()
            async with container.scope({}) as scope:
                await scope.resolve(Key(Transaction))
            assert log == ["session opened", "transaction closed", "session closed"]

    @BOTH
    @case()
    async def test_a_resource_that_nobody_asked_for_is_not_opened(self, kind: SourceKind) -> None:
        """Entering and leaving a scope opens nothing."""
        log: Log = []
        container = self.build(self.register(Session, session(kind, log)), self.register(Accounts))
        async with container.scope({}):
            pass
        assert log == []

    @BOTH
    @case()
    async def test_an_error_closes_resources_and_goes_on(self, kind: SourceKind) -> None:
        """If a block fails, its resources are closed; the error leaves the scope unchanged."""
        log: Log = []
        container = self.build(self.register(Session, session(kind, log)))
        error = HandlerError()
        raised: BaseException | None = None
        try:
            async with container.scope({}) as scope:
                await scope.resolve(Key(Session))
                raise error
        except HandlerError as caught:
            raised = caught
        assert raised is error
        assert log == ["session opened", "session closed"]

    @BOTH
    @case(Feature.TEARDOWN_SEES_ERROR)
    async def test_a_resource_sees_the_error(self, kind: SourceKind) -> None:
        """Thrown at the ``yield`` or sent to it, what failed the scope is known to what closes the resource."""
        seen: list[object] = []

        def generator() -> Generator[Session, object, None]:
            try:
                seen.append((yield Session()))
            except HandlerError as error:
                seen.append(error)
                raise

        async def async_generator() -> AsyncGenerator[Session, object]:
            try:
                seen.append((yield Session()))
            except HandlerError as error:
                seen.append(error)
                raise

        container = self.build(self.register(Session, generator if kind is SourceKind.GENERATOR else async_generator))
        async with container.scope({}) as scope:
            await scope.resolve(Key(Session))
        assert seen == [None]
        error = HandlerError()
        with suppress(HandlerError):
            async with container.scope({}) as scope:
                await scope.resolve(Key(Session))
                raise error
        assert seen == [None, error]

    @BOTH
    @case(Feature.TEARDOWN_SEES_ERROR)
    async def test_the_error_is_thrown_into_the_resource(self, kind: SourceKind) -> None:
        """``try: yield ... except: roll back`` works; a library that sends the error instead documents that."""
        log: Log = []

        def generator() -> Iterator[Session]:
            try:
                yield Session()
                log.append("committed")
            except HandlerError:
                log.append("rolled back")
                raise

        async def async_generator() -> AsyncIterator[Session]:
            try:
                yield Session()
                log.append("committed")
            except HandlerError:
                log.append("rolled back")
                raise

        container = self.build(self.register(Session, generator if kind is SourceKind.GENERATOR else async_generator))
        with suppress(HandlerError):
            async with container.scope({}) as scope:
                await scope.resolve(Key(Session))
                raise HandlerError
        assert log == ["rolled back"]

    @BOTH
    @case()
    async def test_an_error_of_closing_is_raised_and_the_others_close(self, kind: SourceKind) -> None:
        """One resource that fails to close does not keep the others open, and is not forgotten."""
        log: Log = []
        container = self.build(
            self.register(Session, session(kind, log)), self.register(Transaction, transaction(kind, log, badly))
        )
        raised: BaseException | None = None
        try:
            async with container.scope({}) as scope:
                await scope.resolve(Key(Transaction))
        except Exception as error:  # noqa: BLE001 - a library may wrap it, in a group for example
            raised = error
        assert "ClosingError" in _names(raised)
        assert "session closed" in log

    @BOTH
    @case()
    async def test_a_factory_that_fails_has_what_it_needed_closed(self, kind: SourceKind) -> None:
        """The dependencies of an object that cannot be built are closed with the scope."""
        log: Log = []

        class Broken(Accounts):
            def __init__(self, session: Session) -> None:
                super().__init__(session)
                raise HandlerError

        container = self.build(self.register(Session, session(kind, log)), self.register(Accounts, Broken))
        with pytest.raises(HandlerError):
            async with container.scope({}) as scope:
                await scope.resolve(Key(Accounts))
        assert log == ["session opened", "session closed"]

    @case()
    async def test_a_scope_that_was_left_gives_nothing(self) -> None:
        """A resolver that is used after its scope raises an error, and opens no resource."""
        container = self.build(self.register(Session))
        async with container.scope({}) as scope:
            await scope.resolve(Key(Session))
        with pytest.raises(ScopeClosedError, match="Session"):
            await scope.resolve(Key(Session))


def _names(error: BaseException | None) -> set[str]:
    """The classes of an error, of what it groups, and of what led to it."""
    if error is None:
        return set()
    grouped: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    found = {type(error).__name__}
    for other in (*grouped, error.__cause__, error.__context__):
        found |= _names(other)
    return found
