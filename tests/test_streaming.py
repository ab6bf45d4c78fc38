"""Streams: the rows of a query, read in a block that is its unit of work."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from diator import (
    CallNext,
    CallNextError,
    Command,
    Context,
    Diator,
    InvalidMessageError,
    NotRunningError,
    Query,
    TimeoutMiddleware,
)
from tests.journal import Journal, Session


@dataclass(frozen=True)
class Rows(Query[int]):
    count: int = 3


@dataclass(frozen=True)
class One(Query[int]):
    pass


@dataclass(frozen=True)
class Go(Command[int]):
    pass


def app_with(journal: Journal) -> Diator:
    app = Diator(container=journal)

    @app.query
    async def rows(query: Rows, session: Session) -> AsyncIterator[int]:
        journal.write("handler begins")
        try:
            for number in range(query.count):
                yield number
        finally:
            journal.write("handler ends")

    @app.query
    async def one(query: One) -> int:
        return 1

    @app.command
    async def go(command: Go) -> int:
        return 1

    return app


async def test_the_block_is_the_unit_of_work() -> None:
    app = app_with(journal := Journal())
    async with app:
        async with app.stream(Rows()) as rows:
            assert journal.lines == ["scope 1 opens"]
            assert [row async for row in rows] == [0, 1, 2]
            journal.write("block ends")
    assert journal.lines[:-1] == ["scope 1 opens", "handler begins", "handler ends", "block ends", "scope 1 closes"]


async def test_leaving_early_ends_the_handler_before_the_scope() -> None:
    app = app_with(journal := Journal())
    async with app:
        async with app.stream(Rows()) as rows:
            async for row in rows:
                if row == 1:
                    break
    assert journal.lines[:-1] == ["scope 1 opens", "handler begins", "handler ends", "scope 1 closes"]


async def test_the_scope_sees_the_error_of_the_block() -> None:
    app = app_with(journal := Journal(swallows=True))
    async with app:
        with pytest.raises(ValueError):
            async with app.stream(Rows()) as rows:
                async for _ in rows:
                    raise ValueError
    assert journal.lines[:-1] == ["scope 1 opens", "handler begins", "handler ends", "scope 1 undone by ValueError"]


async def test_the_scope_sees_an_error_of_the_handler_which_reaches_the_block() -> None:
    app = Diator(container=(journal := Journal()))

    @app.query
    async def rows(query: Rows, session: Session) -> AsyncIterator[int]:
        yield 1
        raise LookupError

    async with app:
        with pytest.raises(LookupError):
            async with app.stream(Rows()) as found:
                async for _ in found:
                    pass
    assert journal.lines[:-1] == ["scope 1 opens", "scope 1 undone by LookupError"]


async def test_a_cancel_inside_the_block_undoes_the_scope() -> None:
    app = app_with(journal := Journal())
    inside = asyncio.Event()

    async def read() -> None:
        async with app.stream(Rows()):
            inside.set()
            await asyncio.sleep(60)

    async with app:
        task = asyncio.ensure_future(read())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert journal.lines[:-1] == ["scope 1 opens", "scope 1 undone by CancelledError"]


async def test_rows_cannot_be_read_after_the_block() -> None:
    app = app_with(Journal())
    async with app:
        async with app.stream(Rows()) as rows:
            pass
        with pytest.raises(NotRunningError, match="after its block had ended"):
            await anext(rows)


async def test_a_stream_can_be_entered_once() -> None:
    app = app_with(Journal())
    async with app:
        stream = app.stream(Rows())
        async with stream:
            pass
        with pytest.raises(NotRunningError, match="entered twice"):
            async with stream:
                pass


async def test_send_of_a_streamed_query_names_stream_and_the_other_way_round() -> None:
    app = app_with(Journal())
    async with app:
        with pytest.raises(InvalidMessageError, match=r"async with app.stream\(Rows"):
            _ = app.send(Rows())
        with pytest.raises(InvalidMessageError, match=r"await app.send\(One"):
            app.stream(One())
        with pytest.raises(InvalidMessageError, match=r"the command Go has one result"):
            app.stream(Go())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # wrong on purpose
        with pytest.raises(InvalidMessageError, match=r"app.stream got the class Rows"):
            app.stream(Rows)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # wrong on purpose


async def test_middlewares_wrap_the_opening_and_may_wrap_the_rows() -> None:
    app = app_with(journal := Journal())

    @app.middleware
    async def double(query: Rows, call_next: CallNext) -> Any:
        rows = await call_next(query)
        return (2 * row async for row in rows)

    @app.middleware(inside=True)
    async def inner(query: Rows, call_next: CallNext, session: Session) -> Any:
        journal.write(f"inner in {session.number}")
        return await call_next(query)

    async with app, app.stream(Rows()) as rows:
        assert [row async for row in rows] == [0, 2, 4]
    assert journal.lines[:2] == ["scope 1 opens", "inner in 1"]


async def test_a_middleware_that_opens_a_stream_twice_is_refused_and_nothing_stays_open() -> None:
    app = app_with(journal := Journal())

    @app.middleware
    async def twice(query: Rows, call_next: CallNext) -> Any:
        await call_next(query)
        return await call_next(query)

    async with app:
        with pytest.raises(CallNextError):
            async with app.stream(Rows()):
                pass
    assert journal.lines[:-1] == ["scope 1 opens", "scope 1 undone by CallNextError"]


async def test_an_error_while_opening_closes_the_scope() -> None:
    app = app_with(journal := Journal())

    @app.middleware
    async def fail(query: Rows, call_next: CallNext) -> Any:
        await call_next(query)
        raise ValueError

    async with app:
        with pytest.raises(ValueError):
            async with app.stream(Rows()):
                pass
    assert journal.lines[:-1] == ["scope 1 opens", "scope 1 undone by ValueError"]


async def test_a_class_handler_may_stream_and_needs_no_container() -> None:
    app = Diator()

    @app.query
    class RowsHandler:
        async def handle(self, query: Rows) -> AsyncIterator[int]:
            for number in range(query.count):
                yield number

    async with app, app.stream(Rows(2)) as rows:
        assert [row async for row in rows] == [0, 1]


async def test_rows_may_come_from_an_iterator_that_has_nothing_to_close() -> None:
    app = Diator(container=(journal := Journal()))

    class Numbers:
        def __init__(self) -> None:
            self.left = [1, 2]

        def __aiter__(self) -> "Numbers":
            return self

        async def __anext__(self) -> int:
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop()

    @app.query
    def rows(query: Rows, session: Session) -> AsyncIterator[int]:
        return Numbers()

    async with app:
        async with app.stream(Rows()) as found:
            assert [row async for row in found] == [2, 1]
    assert journal.lines[:-1] == ["scope 1 opens", "scope 1 closes"]


async def test_the_handler_of_a_stream_has_the_context_at_every_row() -> None:
    app = Diator()

    @app.query
    async def rows(query: Rows, context: Context, here: Diator) -> AsyncIterator[int]:
        for _ in range(query.count):
            yield await here.send(One())
        seen.append(context.message_id)

    @app.query
    async def one(query: One, context: Context) -> int:
        seen.append(context.causation_id)
        return 1

    seen: list[str | None] = []
    async with app, app.using(correlation_id="c").stream(Rows(2)) as found:
        async for _ in found:
            await asyncio.sleep(0)
    assert len(set(seen)) == 1


@pytest.mark.parametrize("slow_row", [1, 3])
async def test_a_timeout_limits_a_stream_until_its_last_row(slow_row: int) -> None:
    @dataclass(frozen=True)
    class Count(Query[int]): ...

    app, closed = Diator(), list[str]()

    async def count(query: Count) -> AsyncIterator[int]:
        try:
            for row in range(1, 5):
                if row == slow_row:
                    await asyncio.sleep(30)
                yield row
        finally:
            closed.append("rows")

    app.add_query(count, Count)
    app.add_middleware(TimeoutMiddleware(0.2))
    read: list[int] = []
    async with app:
        with pytest.raises(TimeoutError, match=r"Count was cancelled: it took longer than 0\.2 s"):
            async with app.stream(Count()) as rows:
                async for row in rows:
                    read.append(row)  # noqa: PERF401 - the rows before the failure count
        assert closed == ["rows"]
    assert read == list(range(1, slow_row))
