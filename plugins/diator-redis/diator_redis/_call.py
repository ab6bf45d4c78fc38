"""One call of ``publish``, while its messages are on their way."""

import asyncio
from collections.abc import Sequence

from diator.brokers.envelope import Outgoing
from diator.errors import NotPublishedError
from diator_redis._errors import translate


class Call:
    """Messages on their way, and what became of them."""

    __slots__ = (
        "cancelled",
        "cause",
        "deadline",
        "done",
        "ended",
        "messages",
        "started",
        "timeout",
        "unknown",
        "unsent",
    )

    def __init__(self, messages: Sequence[Outgoing], timeout: float) -> None:
        self.messages = messages
        self.timeout = timeout
        self.deadline = 0.0
        self.unsent: list[Outgoing] = []
        self.unknown: list[Outgoing] = []
        self.cause: BaseException | None = None
        self.cancelled: asyncio.CancelledError | None = None
        self.done: asyncio.Future[None] | None = None
        self.started = False
        self.ended = False

    def fail(self, message: Outgoing, cause: BaseException, *, sent: bool) -> None:
        (self.unknown if sent else self.unsent).append(message)
        self.cause = self.cause or cause

    async def wait(self) -> None:
        """Wait for the end; a cancel is kept for later."""
        loop = asyncio.get_running_loop()
        while not self.ended:
            self.done = loop.create_future()
            try:
                await self.done
            except asyncio.CancelledError as error:
                self.cancelled = error

    def end(self) -> None:
        """Tell the caller."""
        self.ended = True
        if self.done is not None and not self.done.done():
            self.done.set_result(None)

    def give_up(self, cause: BaseException) -> None:
        """Tell the caller now, whatever becomes of it later."""
        if not self.ended:
            (self.unknown if self.started else self.unsent).extend(self.messages)
            self.cause = cause
            self.end()

    def tell(self) -> None:
        """Raise what is to be raised: a cancel waits until it is known what became of the messages."""
        failure = self._failure()
        if self.cancelled is not None:
            raise self.cancelled from failure
        if failure is not None:
            raise failure from failure.__cause__

    def _failure(self) -> NotPublishedError | None:
        if self.cause is None:
            return None
        failure = NotPublishedError(self.unsent, self.unknown)
        failure.__cause__ = translate(self.cause)
        if failure.__cause__ is not self.cause:
            failure.__cause__.__cause__ = self.cause
        return failure
