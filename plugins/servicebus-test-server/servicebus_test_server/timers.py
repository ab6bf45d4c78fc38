"""Deadlines in order of time."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Generic, TypeVar

T = TypeVar("T")


class Timers(Generic[T]):
    """Things that become due. Settled ones stay in; the caller that takes one out checks whether it still matters."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, T]] = []
        self._count = 0

    def add(self, due: int, item: T) -> None:
        """Add a thing that is due at a time in ms since 1970."""
        self._count += 1
        heappush(self._heap, (due, self._count, item))

    def due(self, now: int) -> Iterator[T]:
        """Take out what is due."""
        while self._heap and self._heap[0][0] <= now:
            yield heappop(self._heap)[2]
