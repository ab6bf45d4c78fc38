"""What a mutation is: a bug that is put in on purpose, to see whether the tests find it."""

from pathlib import Path
from typing import NamedTuple


class Mutation(NamedTuple):
    """One bug, and the tests that should notice it."""

    name: str
    breaks: str
    """What is wrong with it in place."""
    file: str
    old: str
    """Text that stands in the file exactly once."""
    new: str
    tests: tuple[str, ...]
    """What pytest is given."""

    def applied(self, root: Path) -> str:
        """Give the text of the file with the bug in it. Raises `ValueError` where the old text is not there once."""
        text = (root / self.file).read_text(encoding="utf-8")
        if (count := text.count(self.old)) != 1:
            raise ValueError(
                f"mutation {self.name!r}: its old text is {count} times in {self.file}, and should be there once; make "
                f"the same mistake in what the code says now:\n{self.old}"
            )
        return text.replace(self.old, self.new)
