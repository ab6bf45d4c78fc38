"""The rows of the result, as a table for people."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.measure import Ratio


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was measured. Without a limit it is told and not judged."""

    what: str
    against: str
    got: Ratio | float
    unit: str = ""
    limit: float | None = None

    @property
    def value(self) -> float:
        """The number that is judged."""
        return self.got.median if isinstance(self.got, Ratio) else self.got

    @property
    def missed(self) -> bool:
        """Whether it is over its limit."""
        return self.limit is not None and self.value > self.limit

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as text."""
        got = f"{self.value:.2f}{self.unit}"
        if isinstance(self.got, Ratio):
            got += f" ({self.got.low:.2f} to {self.got.high:.2f})"
        verdict = "" if self.limit is None else "**missed**" if self.missed else "met"
        limit = "" if self.limit is None else f"{self.limit:g}{self.unit}"
        return self.what, self.against, limit, got, verdict


def costs(rows: Iterable[Row]) -> str:
    """The table of what Diator costs."""
    head = ("what", "against", "at most", "measured", "")
    return table(head, [row.cells for row in rows])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table that is aligned for reading as plain text too."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    lines.insert(1, ["-" * width for width in widths])
    cells = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
