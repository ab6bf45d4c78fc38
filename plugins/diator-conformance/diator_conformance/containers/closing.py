"""Cases: a unit of work takes effect as a whole or not at all, also where something fails to close, three deep."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import contextmanager
from importlib import import_module
from itertools import pairwise
from typing import Any

import pytest

from diator.app import Diator
from diator.containers import Key
from diator.containers.port import Container, Lifetime
from diator_conformance.containers.bench import ContainerSuiteBase, case
from diator_conformance.containers.failures import first_of
from diator_conformance.containers.registration import Feature, Registration, SourceKind
from diator_conformance.containers.resources import BOTH, HandlerError
from diator_conformance.containers.services import Inner, Middle, Outer, Rows, Work

LEVELS = ("inner", "middle", "outer")
"""In the order of closing."""
EACH = pytest.mark.parametrize("level", LEVELS)

Close = Callable[[BaseException | None], None]


class OwnError(Exception):
    """What a resource raises as it closes, with its name."""


def again(error: BaseException | None) -> None:
    """Close as a resource should: what it was told of goes on."""
    if error is not None:
        raise error


def swallowing(_: BaseException | None) -> None:
    """Close, and hide the error."""


class Nested:
    """Three resources that need each other; each writes down whether it commits or rolls back, and then closes."""

    def __init__(self, kind: SourceKind, **closes: Close) -> None:
        self.log: list[str] = []
        self._kind = kind
        self._closes = closes

    def registrations(self, bench: ContainerSuiteBase, lifetime: Lifetime | None = None) -> list[Registration]:
        """What the container is made with."""
        factories = self._sync() if self._kind is SourceKind.GENERATOR else self._async()
        hints = (Outer, Middle, Inner)
        return [bench.register(hint, one, lifetime=lifetime) for hint, one in zip(hints, factories, strict=True)]

    @contextmanager
    def _open(self, name: str) -> Generator[list[BaseException | None], None, None]:
        told: list[BaseException | None] = []
        try:
            yield told
        except GeneratorExit:
            raise  # the container has just forgotten the resource
        except BaseException as thrown:  # noqa: BLE001 - whatever is thrown
            told = [thrown]
        error = told[0] if told else None
        self.log.append(f"{name} commits" if error is None else f"{name} rolls back")
        self._closes.get(name, again)(error)

    def _sync(self) -> tuple[Callable[..., object], ...]:
        def outer() -> Generator[Outer, BaseException | None, None]:
            with self._open("outer") as told:
                told.append((yield Outer()))

        def middle(outer: Outer) -> Generator[Middle, BaseException | None, None]:
            with self._open("middle") as told:
                told.append((yield Middle(outer)))

        def inner(middle: Middle) -> Generator[Inner, BaseException | None, None]:
            with self._open("inner") as told:
                told.append((yield Inner(middle)))

        return outer, middle, inner

    def _async(self) -> tuple[Callable[..., object], ...]:
        async def outer() -> AsyncGenerator[Outer, BaseException | None]:
            with self._open("outer") as told:
                told.append((yield Outer()))

        async def middle(outer: Outer) -> AsyncGenerator[Middle, BaseException | None]:
            with self._open("middle") as told:
                told.append((yield Middle(outer)))

        async def inner(middle: Middle) -> AsyncGenerator[Inner, BaseException | None]:
            with self._open("inner") as told:
                told.append((yield Inner(middle)))

        return outer, middle, inner


def raising(name: str) -> Close:
    """Close with an error, with or without an earlier one."""

    def close(_: BaseException | None) -> None:
        raise OwnError(name)

    return close


def _chain(_: str, errors: list[BaseException]) -> BaseException:
    """Stand in for a group, which Python does not have until 3.11: each error is the cause of the one before."""
    for one, other in pairwise(errors):
        one.__cause__ = other
    return errors[0]


# Any: Python has no such class until 3.11.
GROUP: Any = getattr(import_module("builtins"), "BaseExceptionGroup", _chain)


def group_of(error: BaseException | None) -> None:
    """Close with a group that holds the error, as a task group makes it."""
    raise GROUP("closing", [OwnError("closing"), error or KeyError("another")])


def group_in_a_group(error: BaseException | None) -> None:
    """Close with a group that holds another one, which holds the error."""
    inner = GROUP("inner", [KeyError("another"), error or KeyError("one more")])
    raise GROUP("closing", [inner, OwnError("closing")])


def group_among_causes(error: BaseException | None) -> None:
    """Close with an error whose cause is a group that holds the error."""
    raise OwnError("closing") from GROUP("cause", [KeyError("another"), error or KeyError("one more")])


async def _left(container: Container, error: Exception | None = None) -> BaseException | None:
    """Open all three, and leave their scope; give what it raised."""
    try:
        async with container.scope({}) as scope:
            await scope.resolve(Key(Inner))
            again(error)
    except BaseException as raised:  # noqa: BLE001 - a cancellation, too
        return raised
    return None


def errors_in(error: BaseException | None) -> list[BaseException]:
    """An error, what it groups, and what led to it; fails where they lead back to each other."""
    found: list[BaseException] = []

    def visit(one: BaseException | None, above: tuple[int, ...]) -> None:
        if one is None:
            return
        assert id(one) not in above, f"what led to {error!r} goes in a circle"
        found.append(one)
        grouped: tuple[BaseException, ...] = getattr(one, "exceptions", ())
        for other in (*grouped, one.__cause__, one.__context__):
            visit(other, (*above, id(one)))

    visit(error, ())
    return found


def _own(error: BaseException | None) -> set[str]:
    return {str(one) for one in errors_in(error) if isinstance(one, OwnError)}


class Closing(ContainerSuiteBase):
    """A unit of work takes effect as a whole or not at all, also where something fails to close."""

    @BOTH
    @EACH
    @case(Feature.TEARDOWN_SEES_ERROR)
    async def test_what_closes_after_a_failure_sees_it(self, level: str, kind: SourceKind) -> None:
        """None commits when one that closed before it has failed to; the failure is raised."""
        nested = Nested(kind, **{level: raising(level)})
        raised = await _left(self.build(*nested.registrations(self)))
        at = LEVELS.index(level)
        after = [f"{name} rolls back" for name in LEVELS[at + 1 :]]
        assert nested.log == [*(f"{name} commits" for name in LEVELS[: at + 1]), *after]
        assert _own(raised) == {level}

    @BOTH
    @EACH
    @case(Feature.TEARDOWN_SEES_ERROR)
    async def test_a_resource_that_swallows_the_error_hides_it_from_no_other(
        self, level: str, kind: SourceKind
    ) -> None:
        """Those that close after it roll back all the same, when the handler has failed."""
        nested = Nested(kind, **{level: swallowing})
        await _left(self.build(*nested.registrations(self)), HandlerError())
        assert nested.log == [f"{name} rolls back" for name in LEVELS]

    @BOTH
    @case(Feature.TEARDOWN_SEES_ERROR)
    async def test_a_resource_that_swallows_a_failure_to_close_does_not_undo_it(self, kind: SourceKind) -> None:
        """The outer one rolls back, and the error of the inner one is raised, even if the middle one hides it."""
        nested = Nested(kind, inner=raising("inner"), middle=swallowing)
        raised = await _left(self.build(*nested.registrations(self)))
        assert nested.log == ["inner commits", "middle rolls back", "outer rolls back"]
        assert _own(raised) == {"inner"}

    @BOTH
    @EACH
    @case(Feature.TEARDOWN_SEES_ERROR)
    async def test_a_resource_that_raises_another_error_replaces_none(self, level: str, kind: SourceKind) -> None:
        """The sender gets the error of the handler, with that of closing among its causes; all roll back."""
        nested = Nested(kind, **{level: raising(level)})
        error = HandlerError()
        async with _app(self.build(*nested.registrations(self)), error) as app:
            with pytest.raises(HandlerError) as caught:
                await app.send(Work())
        assert caught.value is error
        assert _own(error) == {level}
        assert nested.log == [f"{name} rolls back" for name in LEVELS]

    @pytest.mark.parametrize("verb", ["send", "stream"])
    @pytest.mark.parametrize("close", [group_of, group_in_a_group, group_among_causes])
    @BOTH
    @case(Feature.TEARDOWN_SEES_ERROR)
    async def test_a_group_that_holds_the_error_does_not_lead_back_to_it(
        self, kind: SourceKind, close: Close, verb: str
    ) -> None:
        """The sender gets the error of the handler; what else failed is among its causes, and they form no circle."""
        nested = Nested(kind, inner=close)
        error = HandlerError()
        async with _app(self.build(*nested.registrations(self)), error) as app:
            with pytest.raises(HandlerError) as caught:
                await (app.send(Work()) if verb == "send" else _read(app))
        assert caught.value is error
        assert _own(error) == {"closing"}
        assert nested.log == [f"{name} rolls back" for name in LEVELS]

    @BOTH
    @case()
    async def test_several_that_fail_to_close_are_all_reported(self, kind: SourceKind) -> None:
        """No error of closing is lost, and what led to them goes in no circle."""
        nested = Nested(kind, inner=raising("inner"), middle=raising("middle"), outer=raising("outer"))
        assert _own(await _left(self.build(*nested.registrations(self)))) == set(LEVELS)
        assert len(nested.log) == 3

    @BOTH
    @case(Feature.TEARDOWN_SEES_ERROR)
    async def test_a_cancellation_that_closing_raises_is_a_failure(self, kind: SourceKind) -> None:
        """What closes after it rolls back, and the sender gets the cancellation."""

        def cancelled(_: BaseException | None) -> None:
            raise asyncio.CancelledError

        nested = Nested(kind, inner=cancelled, middle=raising("middle"))
        raised = await _left(self.build(*nested.registrations(self)))
        assert isinstance(raised, asyncio.CancelledError)
        assert nested.log == ["inner commits", "middle rolls back", "outer rolls back"]
        assert _own(raised) == {"middle"}

    @BOTH
    @case(Feature.TEARDOWN_SEES_ERROR)
    async def test_singletons_see_what_has_failed_to_close_before_them(self, kind: SourceKind) -> None:
        """What holds in a scope holds in ``aclose``."""
        nested = Nested(kind, inner=raising("inner"))
        container = self.build(*nested.registrations(self, Lifetime.SINGLETON))
        async with container.scope({}) as scope:
            await scope.resolve(Key(Inner))
        with pytest.raises(Exception) as raised:  # noqa: PT011 - a library may wrap it, in a group for example
            await container.aclose()
        assert nested.log == ["inner commits", "middle rolls back", "outer rolls back"]
        assert _own(raised.value) == {"inner"}

    @pytest.mark.parametrize("during", ["handler", "closing"])
    @case()
    async def test_resources_close_under_a_cancel_that_is_repeated(self, during: str) -> None:
        """Cancelled at each await, as the cancel scopes of web frameworks do, all resources still close."""
        log: list[str] = []
        reached = {"handler": asyncio.Event(), "closing": asyncio.Event()}

        async def close(name: str) -> None:
            reached["closing"].set()
            for _ in range(3):
                await asyncio.sleep(0.001)
            log.append(name)

        async def outer() -> AsyncGenerator[Outer, None]:
            try:
                yield Outer()
            finally:
                await close("outer")

        async def inner(outer: Outer) -> AsyncGenerator[Inner, None]:
            try:
                yield Inner(Middle(outer))
            finally:
                await close("inner")

        app = Diator(container=self.build(self.register(Outer, outer), self.register(Inner, inner)))

        @app.command(Work)
        async def work(_: Work, _inner: Inner) -> object:
            reached["handler"].set()
            return await asyncio.Event().wait() if during == "handler" else None

        async with app:
            task = asyncio.create_task(app.send(Work()))
            await first_of(reached[during], task)
            while not task.done():
                task.cancel()
                await asyncio.sleep(0)
            assert task.cancelled()
        assert log == ["inner", "outer"]


def _app(container: Container, error: Exception) -> Diator:
    app = Diator(container=container)

    @app.command(Work)
    async def work(_: Work, _inner: Inner) -> object:
        raise error

    @app.query(Rows)
    async def rows(_: Rows, _inner: Inner) -> AsyncIterator[object]:
        yield None
        raise error

    return app


async def _read(app: Diator) -> None:
    async with app.stream(Rows()) as rows:
        async for _ in rows:
            pass
