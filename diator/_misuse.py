"""First mistakes for which Python's own error is no help: errors that say what to write instead.

The methods are hidden from type checkers, which flag such a use by themselves.
"""

import asyncio
from typing import TYPE_CHECKING, ClassVar, NoReturn

from diator.errors import NotRunningError


class AsyncOnly:
    """A base class of objects that are entered with ``async with`` only."""

    __slots__ = ()

    _how: ClassVar[str]
    """The correct use, such as "async with app.stream(query) as rows"."""

    if not TYPE_CHECKING:

        def __enter__(self) -> NoReturn:
            raise TypeError(f"{type(self).__name__} was entered with a plain `with`; write: {self._how}")

        def __exit__(self, *_: object) -> None:
            """Exist, because Python looks it up before it enters."""


_START = """the app {state}; use it inside its `async with` block, for example in the lifespan of a web application:

    @asynccontextmanager
    async def lifespan(web):
        async with app:
            yield
"""


def not_running(state: str) -> NotRunningError:
    """The error for an app that is used before its start or after its end; ``state`` says which."""
    return NotRunningError(_START.format(state=state))


def ensure_loop(own: asyncio.AbstractEventLoop | None, what: str) -> None:
    """Raise `NotRunningError` in another event loop than the one that the app was entered in, if it was.

    Where no loop runs, a coroutine may be made for the loop of the app.
    """
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        return
    if own is not None and running is not own:
        raise NotRunningError(other_loop(what))


def other_loop(what: str) -> str:
    """Return the text of the error for use in another event loop, such as the loop of another thread."""
    return (
        f"{what} in another event loop than the one that the app was entered in; await it there, or from another "
        "thread: asyncio.run_coroutine_threadsafe(app.send(...), loop).result()"
    )


MEANT = {
    "run": "use the app inside `async with app`, in a function that asyncio.run(main()) runs; "
    "for a worker: diator run module:app",
    "start": "write: async with app",
    "stop": "leave the block of `async with app`",
    "close": "leave the block of `async with app`",
    "aclose": "leave the block of `async with app`",
    "execute": "write: await app.send(...)",
    "dispatch": "write: await app.send(...)",
    "handle": "write: await app.send(...)",
    "ask": "write: await app.send(...)",
    "emit": "write: await app.publish(...)",
    "event": "write: @app.on_event",
    "event_handler": "write: @app.on_event",
    "handler": "write: @app.command, @app.query or @app.on_event",
    "subscribe": "write: @app.on_event",
    "register": "write: @app.command, @app.query or @app.on_event, or app.include(router)",
    "include_router": "write: app.include(router)",
    "add_event": "write: app.add_event_handler(...)",
}
"""Names that other frameworks use, each with its counterpart in Diator."""


class _Missing:
    """A name that a class does not have; its error says more than Python's own."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, owner: object, cls: type) -> NoReturn:
        who = f"type object {cls.__name__!r}" if owner is None else f"{cls.__name__!r} object"
        text = f"{who} has no attribute {self._name!r}; {MEANT[self._name]}"
        # without `obj`, or the interpreter adds its own guess, such as "Did you mean: 'events'?"
        raise AttributeError(text, name=self._name)


class NamedOtherwise:
    """A base of apps and routers: for these names of other frameworks the error says what to write instead.

    No ``__getattr__``: with one, the interpreter looks up every attribute the slow way, those that exist too, and
    ``app.send`` takes half as long again.
    """

    if not TYPE_CHECKING:
        vars().update({name: _Missing(name) for name in MEANT})

        def __dir__(self) -> list[str]:
            return [name for name in super().__dir__() if name not in MEANT or hasattr(self, name)]
