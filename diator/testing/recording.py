"""`record`: an app recorded while a block lasts."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, AsyncExitStack
from itertools import chain
from types import TracebackType
from typing import Any

from typing_extensions import Self

from diator.app import Diator
from diator.messages import Event, Message, Request
from diator.testing.attach import attached, is_running
from diator.testing.entries import Entry, tree
from diator.testing.messages import Messages
from diator.testing.watch import Watcher


def record(app: Diator, *, replace: Mapping[Any, object] | None = None) -> "Record":
    """Record what an app does while a block lasts.

    ``async with record(app) as seen`` starts the app, or records one that runs. A plain ``with`` leaves starting to
    someone else, such as the lifespan of a web application. Either way the app is afterwards as it was before.

    ``replace`` maps what handlers and middlewares ask for to the object that they get in its place, whatever the
    container: ``replace={MeetingApi: FakeMeetingApi()}``. What the container builds by itself still gets what the
    container has.

    Entering raises `~diator.ConfigurationError` for a replacement that nobody asks for, and for what is wrong with the
    app.
    """
    # Any: a key of `replace` is a hint, such as Annotated[Repo, Named("x")] (see Router.provides).
    if not isinstance(app, Diator):  # pyright: ignore[reportUnnecessaryIsInstance]  # tests are seldom type-checked
        raise TypeError(f"record got {app!r}; expected an app, a Diator: include a router in one")
    if not isinstance(replace, (Mapping, type(None))):  # pyright: ignore[reportUnnecessaryIsInstance]  # as above
        raise TypeError(f"record got replace={replace!r}; expected a mapping: replace={{MeetingApi: FakeMeetingApi()}}")
    return Record(app, replace or {})


class Record:
    """Everything that an app has sent, published and handled while it was recorded; prints as a tree."""

    def __init__(self, app: Diator, replace: Mapping[Any, object]) -> None:
        self._app = app
        self._replace = replace
        self._watcher = Watcher()
        self._attached: AbstractContextManager[None] | None = None
        self._stack = AsyncExitStack()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Everything, in the order in which it began."""
        return tuple(self._watcher.entries)

    @property
    def sent(self) -> Messages[Request[Any]]:
        """Commands and queries that were sent or streamed, by the test or by handlers."""
        return self._messages("sent")

    @property
    def published(self) -> Messages[Event]:
        """Events that handlers raised, or that were published with ``app.publish``."""
        return self._messages("published")

    @property
    def handled(self) -> Messages[Message]:
        """Messages that handlers were called with, once for each handler."""
        return self._messages("handled")

    def _messages(self, what: Any) -> Messages[Any]:
        # Any: which messages these are follows from what was done with them.
        entries = self.entries
        handlers = (*self._app.requests.values(), *chain.from_iterable(self._app.events.values()))
        return Messages(what, [entry for entry in entries if entry.what == what], entries, handlers)

    def __str__(self) -> str:
        return tree(self.entries)

    def __repr__(self) -> str:
        return f"<Record of {self._app!r}: {len(self._watcher.entries)} entries>"

    def __enter__(self) -> Self:
        attachment = attached(self._app, self._watcher, self._replace)
        attachment.__enter__()
        self._attached = attachment
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._attached is not None
        self._attached.__exit__(kind, error, traceback)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.enter_context(self)
            if not is_running(self._app):
                await stack.enter_async_context(self._app)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, traceback)
