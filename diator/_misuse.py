"""What a first try gets wrong in ways that Python itself tells badly: what to write instead.

The methods are hidden from type checkers, which flag such a use by themselves.
"""

import asyncio
from typing import TYPE_CHECKING, ClassVar, NoReturn

from diator.errors import NotRunningError


class AsyncOnly:
    """A base of what is entered with ``async with``, and with nothing else."""

    __slots__ = ()

    _how: ClassVar[str]
    """How it is written, as in "async with app.stream(query) as rows"."""

    if not TYPE_CHECKING:

        def __enter__(self) -> NoReturn:
            raise TypeError(f"{type(self).__name__} was entered with a plain `with`; write: {self._how}")

        def __exit__(self, *_: object) -> None:
            """Be here, so that Python looks for nothing else before it enters."""


def ensure_loop(own: asyncio.AbstractEventLoop | None, what: str) -> None:
    """Raise `NotRunningError` in another event loop than the one that the app was entered in, if it was."""
    if own is not None and asyncio.get_running_loop() is not own:
        raise NotRunningError(other_loop(what))


def other_loop(what: str) -> str:
    """Return what is wrong with the use from another event loop, such as that of another thread."""
    return (
        f"{what} in another event loop than the one that the app was entered in; await it there, or from another "
        "thread: asyncio.run_coroutine_threadsafe(app.send(...), loop).result()"
    )


MEANT = {
    "run": "put what runs the app into `async with app`, and run that with asyncio.run(main()); "
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
"""What other frameworks call it, and what it is here."""


class _Missing:
    """A name that a class does not have; its error says more than Python's own."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, owner: object, cls: type) -> NoReturn:
        who = f"type object {cls.__name__!r}" if owner is None else f"{cls.__name__!r} object"
        text = f"{who} has no attribute {self._name!r}; {MEANT[self._name]}"
        raise AttributeError(text, name=self._name, obj=cls if owner is None else owner)


class NamedOtherwise:
    """A base of apps and routers: for these names of other frameworks the error says what to write instead.

    No ``__getattr__``: with one, the interpreter looks up every attribute the slow way, those that exist too, and
    ``app.send`` takes half as long again.
    """

    if not TYPE_CHECKING:
        vars().update({name: _Missing(name) for name in MEANT})

        def __dir__(self) -> list[str]:
            return [name for name in super().__dir__() if name not in MEANT or hasattr(self, name)]
