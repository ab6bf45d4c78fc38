"""Base classes of handlers in another module, whose names nobody else imports."""

from __future__ import annotations

from dataclasses import dataclass


class OnlyHere: ...


@dataclass
class DataclassBase:
    base: OnlyHere


class PlainBase:
    def __init__(self, base: OnlyHere) -> None:
        self.base = base
