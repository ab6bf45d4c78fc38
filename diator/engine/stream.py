"""Streams: the rows of a query, read inside a block that is its unit of work."""

from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from diator._keys import Key
from diator._misuse import AsyncOnly
from diator._shielding import shielded
from diator.containers.closing import add_cause
from diator.containers.port import Scope
from diator.context import Context, child_context, current_context
from diator.engine.plan import Plan
from diator.engine.resources import ContainerScopes, close_after
from diator.engine.unit import StreamUnit
from diator.errors import CallNextError, NotRunningError
from diator.messages import Query

R_co = TypeVar("R_co", covariant=True)


class Rows(Generic[R_co]):
    """The rows of a streaming query, one at a time."""

    __slots__ = ("_context", "_open", "_source", "_unit")

    def __init__(self, source: AsyncIterator[R_co], context: Context | None, unit: StreamUnit | None) -> None:
        self._source = source
        self._context = context
        self._unit = unit
        self._open = True

    def __aiter__(self) -> "Rows[R_co]":
        return self

    async def __anext__(self) -> R_co:
        if not self._open:
            raise NotRunningError("a row was read after its block had ended; read inside `async with app.stream(...)`")
        with _In(self._context):
            try:
                return await anext(self._source)
            except StopAsyncIteration:
                raise
            except BaseException as error:
                if self._unit is not None and self._unit.failure is None:
                    self._unit.failure = error  # also where the block goes on without it
                raise

    async def aclose(self) -> None:
        """Stop reading rows."""
        self._open = False
        with _In(self._context):
            await close_rows(self._source)


class _In:
    """Sets the context for a while: rows are asked for from where another one may stand.

    No generator: `contextlib` sets the traceback of what passes through one, which not every error allows.
    """

    __slots__ = ("_context", "_token")

    def __init__(self, context: Context | None) -> None:
        self._context = context

    def __enter__(self) -> None:
        if self._context is not None:
            self._token = current_context.set(self._context)

    def __exit__(self, *error: object) -> None:
        if self._context is not None:
            current_context.reset(self._token)


async def close_rows(rows: object) -> None:
    """Close an async generator; any other iterator has nothing to close."""
    close = getattr(rows, "aclose", None)
    if close is not None:
        await close()


_OPEN_FIRST = """a stream was {what}; its rows are read inside a block, which is their unit of work:

    async with app.stream(query) as rows:
        async for row in rows:
            ...
"""


class Stream(AsyncOnly, Generic[R_co]):
    """A running streaming query: ``async with app.stream(query) as rows``."""

    _how = "async with app.stream(query) as rows"

    __slots__ = ("_context", "_headers", "_plan", "_provided", "_query", "_resources", "_rows", "_scope", "_unit")

    def __init__(
        self,
        plan: Plan,
        query: Query[R_co],
        resources: ContainerScopes,
        provided: Mapping[Key, object],
        headers: tuple[Mapping[str, str] | None, str | None],
    ) -> None:
        self._plan = plan
        self._query = query
        self._resources = resources
        self._provided = provided
        self._headers = headers
        self._context: Context | None = None
        self._unit: StreamUnit | None = None
        self._scope: Scope | None = None
        self._rows: Rows[R_co] | None = None

    if not TYPE_CHECKING:

        def __aiter__(self) -> NoReturn:
            raise TypeError(_OPEN_FIRST.format(what="read without being opened"))

        def __await__(self) -> NoReturn:
            raise TypeError(_OPEN_FIRST.format(what="awaited"))

    async def __aenter__(self) -> Rows[R_co]:
        if self._unit is not None:
            raise NotRunningError("a stream was entered twice; call app.stream(...) for each block")
        self._context = child_context(*self._headers) if self._plan.needs.context or any(self._headers) else None
        try:
            with _In(self._context):
                source = await self._plan.wrap(self._open, self._provided)(self._query)
        except BaseException as error:
            await shielded(self._close(error), error)
            raise
        self._rows = Rows(source, self._context, self._unit)
        return self._rows

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await shielded(self._close(error), error)

    async def _open(self, query: Any) -> Any:
        """Open the scope and call the handler: what the middlewares wrap."""
        if self._unit is not None:
            raise CallNextError("call_next was called a second time for a stream, which can be opened once")
        assert self._plan.work is not None
        self._scope = self._resources.scope_for(bool(self._plan.needs.keys), self._provided)
        self._resources.enter()
        try:
            resolve = self._resources.resolve if self._scope is None else (await self._scope.__aenter__()).resolve
        except BaseException:
            self._resources.leave()
            raise
        self._unit = StreamUnit().begin(resolve, self._provided)
        return await self._plan.work(query, self._unit)

    async def _close(self, error: BaseException | None) -> None:
        """Close the rows, then the scope, which sees the error of the block, or of closing the rows."""
        try:
            await self._close_rows()
        except BaseException as closing:
            if error is None or not issubclass(type(closing), Exception):
                await self._leave(closing)
                raise
            add_cause(error, closing)
        await self._leave(error)

    async def _close_rows(self) -> None:
        try:
            if self._rows is not None:
                await self._rows.aclose()
        finally:
            if self._unit is not None:
                with _In(self._context):
                    await close_rows(getattr(self._unit, "rows", None))

    async def _leave(self, error: BaseException | None) -> None:
        unit, scope, self._scope = self._unit, self._scope, None
        if unit is None:
            return
        failure, unit.failure = unit.failure if error is None else error, None
        try:
            if scope is not None and failure is None:
                await scope.__aexit__(None, None, None)
            elif scope is not None and failure is not None:
                await close_after(scope, failure)
        finally:
            self._resources.leave()
            del error, failure  # an error must not hold the frames that hold it
