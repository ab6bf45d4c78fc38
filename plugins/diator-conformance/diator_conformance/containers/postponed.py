"""Services whose hints are text until they are read."""

from __future__ import annotations


class Letter:
    """Needs a class that stands below it."""

    def __init__(self, stamp: Stamp) -> None:
        self.stamp = stamp


class Stamp:
    """Needs nothing."""
