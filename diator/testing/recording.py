"""`record`: an app recorded during a block, and the record itself."""

from collections.abc import Mapping
from contextlib import AsyncExitStack, ExitStack
from itertools import chain
from types import TracebackType
from typing import Any

from typing_extensions import Self

from diator._inspection import is_running
from diator.app import Diator
from diator.messages import Event, Message, Request
from diator.testing.attach import attached
from diator.testing.entries import Entry, tree
from diator.testing.messages import Messages
from diator.testing.watch import RecordingHooks

# Any: a key of `replace` is a hint, such as Annotated[Repo, Named("x")] (see Router.provides).


def record(app: Diator, *, replace: Mapping[Any, object] | None = None) -> "Record":
    """Record what an app does during a block.

    ``async with record(app) as seen`` starts the app, or records a running one. A plain ``with`` never starts it, for
    example because the lifespan of a web application does. After the block, the app is the same as before.

    ``replace`` maps dependencies of handlers and middlewares to the objects that they receive instead, with any
    container: ``replace={MeetingApi: FakeMeetingApi()}``. It does not replace objects inside the container.

    An app with a broker still uses it, and handlers of a worker are recorded, too; to wait for a worker, use
    ``app.testing()``. If a worker was started before the block, the runs of its handlers are recorded, but not the
    events that they publish.

    Entering it raises `~diator.ConfigurationError` for a replacement that no handler needs, and if the app is
    misconfigured.
    """
    if not isinstance(app, Diator):  # pyright: ignore[reportUnnecessaryIsInstance]  # tests are seldom type-checked
        raise TypeError(f"record got {app!r}; expected an app, a Diator: include a router in one")
    return Record(app, replacements("record", replace))


def replacements(who: str, replace: Mapping[Any, object] | None) -> Mapping[Any, object]:
    """Give what is to be replaced. Raises `TypeError` for what is no mapping."""
    if not isinstance(replace, (Mapping, type(None))):  # pyright: ignore[reportUnnecessaryIsInstance]  # as above
        raise TypeError(f"{who} got replace={replace!r}; expected a mapping: replace={{MeetingApi: FakeMeetingApi()}}")
    return replace or {}


def _stayed(entry: Entry) -> bool:
    """Whether it is an event for the broker that did not leave."""
    return entry.kind == "published" and (not entry.done or entry.error is not None)


class Recording:
    """Everything that an app has sent, published and handled in a block; prints as a tree."""

    def __init__(self, app: Diator, watcher: RecordingHooks) -> None:
        self._app = app
        self.recorder = watcher
        """The hooks that record; sessions that share a broker share them."""
        watcher.apps.append(app)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries, in the order in which they began."""
        return tuple(self.recorder.entries)

    @property
    def sent(self) -> Messages[Request[Any]]:
        """Commands and queries that were sent or streamed, by the test or by handlers."""
        return self._messages("sent")

    @property
    def published(self) -> Messages[Event]:
        """Events that handlers published, or that were published with ``app.publish``.

        A brokered event is included when the broker has stored it.
        """
        return self._messages("published")

    @property
    def handled(self) -> Messages[Message]:
        """Messages that handlers received: once for each handler and, for brokered events, for each attempt."""
        return self._messages("handled")

    @property
    def dead_letters(self) -> Messages[Event]:
        """Brokered events that have failed permanently, once for each handler."""
        return self._messages("dead-lettered")

    def _messages(self, what: Any) -> Messages[Any]:
        # Any: which messages these are follows from what was done with them.
        entries = self.entries
        handlers = [
            handler
            for app in self.recorder.apps
            for handler in (*app.requests.values(), *chain.from_iterable(app.events.values()))
        ]
        return Messages(what, [e for e in entries if e.kind == what and not _stayed(e)], entries, handlers)

    def __str__(self) -> str:
        return tree(self.entries)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._app!r}: {len(self.entries)} entries>"


class Record(Recording):
    """What an app does while it is recorded. Created by `record`."""

    def __init__(self, app: Diator, replace: Mapping[Any, object]) -> None:
        super().__init__(app, RecordingHooks())
        self._replace = replace
        self._attached: ExitStack | None = None
        self._stack = AsyncExitStack()

    def __enter__(self) -> Self:
        attachment = attached(self._app, self.recorder, self._replace)
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
