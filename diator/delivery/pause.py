"""The pause: consumers receive nothing while a readiness check fails that says so."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress

from diator.readiness import ReadinessCheck, failures

logger = logging.getLogger("diator")

_INTERVAL = 1.0
"""Seconds between two runs of the checks."""


class Pause:
    """Whether the consumers of one worker may receive. Without checks they always may."""

    def __init__(self, checks: Sequence[ReadinessCheck], stopping: asyncio.Event) -> None:
        self._checks = list(checks)
        self._stopping = stopping
        self._passing = asyncio.Event()
        self.halted = asyncio.Event()
        """Set when the worker is paused next, or stops; each pause has an event of its own."""
        self._failing: list[str] = []
        if not checks:
            self._passing.set()

    @property
    def is_active(self) -> bool:
        """Whether the last look found a check that fails."""
        return bool(self._failing)

    def stop(self) -> None:
        """Note that the worker stops."""
        self.halted.set()
        self._passing.set()

    async def wait(self) -> None:
        """Wait until consumers may receive, or the worker stops."""
        await self._passing.wait()

    async def run(self) -> None:
        """Run the checks until the worker stops."""
        while self._checks and not self._stopping.is_set():
            failing = await failures(self._checks)
            if self._stopping.is_set():
                return
            if failing and failing != self._failing:
                logger.warning("the worker pauses: %s", "; ".join(failing))
            elif self._failing and not failing:
                logger.warning("the readiness checks pass again; the worker continues")
            self._failing = failing
            if failing:
                self._passing.clear()
                self.halted.set()
            elif not self._passing.is_set():
                self.halted = asyncio.Event()
                self._passing.set()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _INTERVAL)
