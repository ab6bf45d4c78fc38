"""How an app starts and ends."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

from typing_extensions import Self

from diator._locations import location_of
from diator._misuse import AsyncOnly, ensure_loop, not_running
from diator._parts import Parts
from diator.containers.closing import add_cause
from diator.engine.calls import Call
from diator.engine.check import CheckResult
from diator.engine.dispatch import Dispatch, EventCall, EventKey
from diator.engine.plan import Plan
from diator.errors import ConfigurationError, DiatorError, NotRunningError, Problem
from diator.router import Router


class Lifecycle(AsyncOnly, Router):
    """A router whose handlers run between its start and its end."""

    _how = "async with app"

    def __init__(
        self, name: str | None, parts: Parts, lifespan: Callable[[Any], AbstractAsyncContextManager[object]] | None
    ) -> None:
        super().__init__()
        self.name = name
        self._parts = parts
        self._registry.container = self._parts.container
        self._scopes = self._parts.scopes  # its own, also while a test has exchanged its parts
        self._dispatch: Dispatch | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lifespan = lifespan
        self._lifetime: AbstractAsyncContextManager[object] | None = None
        self._state = "has not been started"
        # What runs is looked up here; empty while the app does not run, so that sending costs no check of that.
        self._calls: dict[type, Call] = {}
        self._event_calls: dict[EventKey, EventCall] = {}

    def __repr__(self) -> str:
        return f"<Diator {self.name!r}>" if self.name else "<Diator>"

    async def __aenter__(self) -> Self:
        """Start: check everything, compile the plans, open the container, enter the lifespan.

        Raises `ConfigurationError` with all problems, `NotRunningError` if the app is running already.
        """
        self._ensure_not_running()
        self._loop = asyncio.get_running_loop()
        try:
            dispatch = self._compiled() if self._dispatch is None or self._dispatch.is_outdated() else self._dispatch
            await self._parts.start(self._scopes, self.name)
        except BaseException:
            self._loop = None
            raise
        self._registry.freeze(f"{self!r} has been started")
        self._use(dispatch)
        if self._lifespan is not None:
            try:
                lifetime = self._lifespan(self)
                self._ensure_lifetime(lifetime)
                await lifetime.__aenter__()
            except BaseException as error:
                await self._end(error)
                raise
            self._lifetime = lifetime
        return self

    def _ensure_lifetime(self, lifetime: object) -> None:
        if not isinstance(lifetime, AbstractAsyncContextManager):
            text = f"lifespan={self._lifespan!r} returned {lifetime!r}; expected an async context manager"
            fix = "decorate it with contextlib.asynccontextmanager"
            raise ConfigurationError([Problem("option", text, fix, location_of(self._lifespan))])

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End: leave the lifespan, take no more messages, wait for the units of work, and close the container.

        A cancel ends the waiting; it is raised when everything is closed. An error of closing becomes a cause of the
        block's own, if that has one. The lifespan sees the error of the block, and can't suppress it.
        """
        ensure_loop(self._loop, f"{self!r} was left")
        lifetime, self._lifetime = self._lifetime, None
        try:
            if lifetime is not None:
                await lifetime.__aexit__(kind, error, traceback)
        except BaseException as raised:
            await self._end(raised)
            if raised is not error:
                raise
        else:
            await self._end(error)

    async def _end(self, error: BaseException | None) -> None:
        self._calls, self._event_calls = {}, {}
        self._state = "has ended"
        try:
            await self._parts.stop(self._scopes)
        except Exception as closing:
            if error is None:
                raise
            add_cause(error, closing)
        finally:
            self._loop = None

    def _running(self) -> Dispatch:
        if self._dispatch is None or not self._loop or self._calls is not self._dispatch.calls:
            raise not_running(self._state)
        ensure_loop(self._loop, f"{self!r} was used")
        return self._dispatch

    def _compiled_call(self, find: Callable[[Dispatch, Any], Plan], sent: object) -> Call:
        try:
            return find(self._running(), sent).call
        except DiatorError as error:
            raise error.with_traceback(None) from None  # where the look-up failed would only confuse the caller

    def _inspected(self) -> CheckResult:
        return self._parts.check(self._registry, self, self.name)

    def _compiled(self) -> Dispatch:
        checked = self._inspected()
        checked.raise_errors()
        return self._parts.compile(checked, self, self.name)

    def _use(self, dispatch: Dispatch) -> None:
        self._dispatch, self._calls, self._event_calls = dispatch, dispatch.calls, dispatch.event_calls

    def _ensure_not_running(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            where = "here" if self._loop is asyncio.get_running_loop() else "in another event loop"
            text = f"{self!r} is running {where} already; an app runs once at a time: enter it once, around everything"
            raise NotRunningError(text)
        if self._state == "has ended" and not self._parts.is_reusable:
            text = f"{self!r} can't be started again: its container was closed when it ended, and can't be reopened"
            raise NotRunningError(f"{text}; create a new app with a new container")
