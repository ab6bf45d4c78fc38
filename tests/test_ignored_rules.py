"""Each comment that ignores a rule of a linter or type checker says why, on its line or on the line above."""

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]
IGNORES = re.compile(r"#\s*(?:noqa(?::\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*)?|(?:type|pyright):\s*ignore(?:\[[^]]*\])?)")
FOLDERS = ("diator", "plugins", "tests", "benchmarks", "examples", "website")
NEEDED = ROOT / "tests" / "typing"
"""Where each line has to be flagged by the type checkers: that is the reason of every comment."""


def test_each_ignored_rule_has_a_reason() -> None:
    files = [ROOT / "conftest.py", *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))]
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in files
        if NEEDED not in path.parents
        for line in without_reason(path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a = 1  # noqa: E501\n", [1]),
        ("a = 1  # noqa: E501, B008\n", [1]),
        ("a = 1  # type: ignore[misc]  # pyright: ignore\n", [1]),
        ("a = 1  # type: ignore[misc]  # pyright: ignore  # as its library does\n", []),
        ("a = 1  # noqa: E501 - an address\n", []),
        ("# An address.\na = 1  # noqa: E501\nb = 1  # noqa: E501\n", []),
        ("# An address.\na = 1\nb = 1  # noqa: E501\n", [3]),
        ('a = "# noqa: E501"\n', []),
    ],
)
def test_a_reason_stands_on_the_line_or_above(text: str, lines: list[int]) -> None:
    assert list(without_reason(text)) == lines


def without_reason(source: str) -> Iterator[int]:
    """Give the lines that ignore a rule without a reason; the lines below one that has it may share it."""
    if not any(map(is_bare, source.splitlines())):
        return  # to split all files into tokens takes seconds
    explained = -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        line, text = token.start[0], token.string
        if is_bare(text) and explained != line - 1:
            yield line
        elif IGNORES.search(text) or token.line.strip() == text:
            explained = line


def is_bare(text: str) -> bool:
    """Whether a text ignores a rule, and says nothing else after that."""
    found = IGNORES.search(text)
    return found is not None and re.search(r"\w{2}", IGNORES.sub("", text[found.start() :])) is None
