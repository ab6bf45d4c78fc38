"""The watchdog: names the handler that blocks the event loop, since leases can't be renewed meanwhile."""

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from types import CodeType, FrameType
from typing import Any

from diator._locations import written

logger = logging.getLogger("diator")

_PATIENCE = 1.0
"""Seconds that the event loop may stand still before a warning."""
_BEAT = 0.25


class Watchdog:
    """A thread that watches the event loop in which it is started."""

    def __init__(self, handlers: Iterable[tuple[str, Any]]) -> None:
        self._names = {code: name for name, target in handlers for code in _codes(target)}
        self._beat = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._ended = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._watched = threading.get_ident()
        self._thread = threading.Thread(target=self._watch, name="diator watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._tick()
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer."""
        self._ended.set()
        if self._timer is not None:
            self._timer.cancel()
        self._thread.join()

    def _tick(self) -> None:
        self._beat = time.monotonic()
        self._timer = self._loop.call_later(_BEAT, self._tick)

    def _watch(self) -> None:
        told: tuple[float, str | None] = (0.0, None)
        while not self._ended.wait(_BEAT):
            beat = self._beat
            if time.monotonic() - beat > _PATIENCE + _BEAT:
                frame = sys._current_frames().get(self._watched)  # pyright: ignore[reportPrivateUsage]  # its only name
                name = self._name(frame)
                if told != (beat, name):
                    told = (beat, name)
                    self._tell(name, frame)
                del frame  # it would keep alive what the handler holds

    def _tell(self, name: str | None, frame: FrameType | None) -> None:
        where = "".join(traceback.format_stack(frame, limit=12)) if frame else "(unknown)"
        logger.warning(
            "%s blocks the event loop for over %.1f s: until it ends, no other message is handled and no lease is "
            "renewed; await the slow call, or register the handler with thread=True; it blocks here:\n%s",
            name or "something",
            _PATIENCE,
            where,
        )

    def _name(self, frame: FrameType | None) -> str | None:
        while frame is not None:
            if frame.f_code in self._names:
                return self._names[frame.f_code]
            frame = frame.f_back
        return None


def _codes(target: Any) -> Iterable[CodeType]:
    function = written(getattr(target, "handle", target) if isinstance(target, type) else target)
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    return () if code is None else (code,)
