"""Cases: what Diator guarantees around any container when something fails, shown with a whole app."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from diator.app import Diator
from diator.containers import Key
from diator.containers.port import Container
from diator_conformance.containers.bench import ContainerSuiteBase, case
from diator_conformance.containers.registration import SourceKind
from diator_conformance.containers.resources import BOTH, HandlerError, badly, session
from diator_conformance.containers.services import Config, Database, Session, Work

Body = Callable[[Session], object]


def app_of(container: Container, body: Body) -> Diator:
    """Make an app whose only handler has a session, and does this."""
    app = Diator(container=container)

    @app.command(Work)
    async def work(_: Work, session: Session) -> object:
        result = body(session)
        if isinstance(result, asyncio.Event):
            await result.wait()
        return result

    return app


async def first_of(event: asyncio.Event, task: "asyncio.Task[object]") -> None:
    """Wait for the event, or for the end of a task that should have caused it."""
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait([waiting, task], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


class Failures(ContainerSuiteBase):
    """What Diator guarantees around any container when something fails, shown with a whole app."""

    @BOTH
    @case()
    async def test_a_resource_cannot_swallow_an_error(self, kind: SourceKind) -> None:
        """The sender of a command sees its failure, even if a resource suppresses or replaces the error."""

        def generator() -> Iterator[Session]:
            try:
                yield Session()
            except HandlerError:
                return

        async def async_generator() -> AsyncIterator[Session]:
            try:
                yield Session()
            except HandlerError:
                return

        container = self.build(self.register(Session, generator if kind is SourceKind.GENERATOR else async_generator))
        error = HandlerError()
        async with app_of(container, _raising(error)) as app:
            with pytest.raises(HandlerError) as raised:
                await app.send(Work())
        assert raised.value is error

    @BOTH
    @case()
    async def test_an_error_of_the_handler_wins_over_one_of_closing(self, kind: SourceKind) -> None:
        """The sender gets the error of the handler, with the one of closing among its causes."""
        container = self.build(self.register(Session, session(kind, [], badly)))
        error = HandlerError()
        async with app_of(container, _raising(error)) as app:
            with pytest.raises(HandlerError) as raised:
                await app.send(Work())
        assert raised.value is error
        assert error.__cause__ is not None

    @BOTH
    @case()
    async def test_an_error_of_closing_fails_the_command(self, kind: SourceKind) -> None:
        """A command whose work could not be closed, a commit for example, has not succeeded."""
        container = self.build(self.register(Session, session(kind, [], badly)))
        async with app_of(container, lambda _: "done") as app:
            with pytest.raises(Exception) as raised:  # noqa: PT011 - a library may wrap it, in a group for example
                await app.send(Work())
        assert "ClosingError" in repr(raised.value) + repr(raised.value.__cause__)

    @case()
    async def test_a_cancelled_handler_has_its_resources_closed_and_they_may_await(self) -> None:
        """Closing runs to its end, awaits included, before the sender sees the cancellation."""
        log: list[str] = []

        async def session() -> AsyncIterator[Session]:
            try:
                yield Session()
            finally:
                await asyncio.sleep(0.001)
                log.append("closed")

        container = self.build(self.register(Session, session))
        started = asyncio.Event()

        def wait_for_ever(_: Session) -> object:
            started.set()
            return asyncio.Event()

        async with app_of(container, wait_for_ever) as app:
            task = asyncio.create_task(app.send(Work()))
            await first_of(started, task)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert log == ["closed"]

    @case()
    async def test_a_cancellation_of_closing_wins(self) -> None:
        """If a command is cancelled while it closes, the caller gets the cancellation, not the handler's error."""
        log: list[str] = []
        closing, may_close = asyncio.Event(), asyncio.Event()

        async def session() -> AsyncIterator[Session]:
            try:
                yield Session()
            finally:
                closing.set()
                await may_close.wait()
                log.append("closed")

        container = self.build(self.register(Session, session))
        async with app_of(container, _raising(HandlerError())) as app:
            task = asyncio.create_task(app.send(Work()))
            await first_of(closing, task)
            task.cancel()
            asyncio.get_running_loop().call_later(0.01, may_close.set)
            with pytest.raises(asyncio.CancelledError):
                await task
        assert log == ["closed"]

    @pytest.mark.parametrize(
        "error", [ValueError(), LookupError(), TypeError(), RecursionError(), ImportError()], ids=repr
    )
    @case()
    async def test_what_a_constructor_raises_passes_unchanged(self, error: Exception) -> None:
        """Errors of the user's code are never treated as the library's, even from deeper levels."""

        class Broken(Config):
            def __init__(self) -> None:
                raise error

        container = self.build(self.register(Config, Broken), self.register(Database))
        async with container.scope({}) as scope:
            for key in (Key(Config), Key(Database)):
                with pytest.raises(type(error)) as raised:
                    await scope.resolve(key)
                assert raised.value is error


def _raising(error: Exception) -> Body:
    def body(_: Session) -> object:
        raise error

    return body
