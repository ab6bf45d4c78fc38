"""Rows of a stream with something around them: what a middleware or a hook makes of those that a handler gives."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

Step = Callable[[], Awaitable[Any]]
"""Makes the next row, or closes the rows. ``Any``: rows of all types meet here."""
Around = Callable[[Step], Awaitable[Any]]


Ended = Callable[..., None]
"""Called once with the error, if there is one, and with ``left=True`` where no more rows are taken."""


class WrappedRows:
    """Rows, each of which is made by way of ``around_row``, and which are closed by way of ``around_close``."""

    def __init__(
        self,
        rows: AsyncIterator[Any],
        around_row: Around | None = None,
        around_close: Around | None = None,
        ended: Ended | None = None,
    ) -> None:
        self._rows = rows
        self._around_row = around_row or _call
        self._around_close = around_close or _call
        self._ended = ended

    def __aiter__(self) -> "WrappedRows":
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._around_row(self._rows.__anext__)
        except StopAsyncIteration:
            self._end(None)
            raise
        except BaseException as error:
            self._end(error)
            raise

    async def aclose(self) -> None:
        """Take no more rows."""
        close: Step | None = getattr(self._rows, "aclose", None)
        try:
            if close is not None:
                await self._around_close(close)
        except BaseException as error:
            self._end(error)
            raise
        self._end(None, left=True)

    def _end(self, error: BaseException | None, *, left: bool = False) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(error, left=left)


def _call(step: Step) -> Awaitable[Any]:
    return step()
