"""Texts for people use plain words: no actor without a name, one verb for each thing that happens to a message."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WORDS = {
    r"nobody|somebody|whoever": "name the actor: no worker, another process, the worker that holds the lease",
    r"whatever": "name it, or write: any",
    r"anew|once more": "again",
    r"comes? again": "is redelivered",
    r"gives? back|given back|giving back": "release; return",
    r"in silence": "silently",
    r"ridden out|rides? out": "Diator retries until the broker recovers",
    r"for good": "permanently",
    r"parks?|parked|parking": "dead-letter, as a verb",
    r"hand(?:s|ed|ing)? out": "deliver",
    r"takes? down|taken down": "acknowledge; record",
    r"at the start": "at startup",
    r"look(?:s|ed)? through": "inspect",
    r"tells? apart|told apart": "distinguish",
    r"inside of|outside of": "inside; outside",
    r"lets? go of": "release, drop",
    r"out of nowhere": "unexpectedly",
    r"looks? after": "manage",
    r"ways? out": "fix",
    r"stands? alone": "is independent",
    r"see to it|sees to it": "ensure",
}
"""Words that texts do not use, and what to write instead."""

FOUND = {re.compile(rf"\b(?:{words})\b", re.IGNORECASE): instead for words, instead in WORDS.items()}
PAGES = [
    *ROOT.glob("docs/**/*.md"),
    *ROOT.glob("plugins/*/README.md"),
    *ROOT.glob("examples/**/README.md"),
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
]
MODULES = [
    path
    for folder in [
        ROOT / "diator",
        *ROOT.glob("plugins/diator-*/diator_*"),
        ROOT / "plugins" / "servicebus-test-server" / "servicebus_test_server",
    ]
    for path in folder.rglob("*.py")
]


def test_pages_use_plain_words() -> None:
    lines = [(f"{page.relative_to(ROOT)}:{number}", line) for page in PAGES for number, line in numbered(prose(page))]
    assert [problem for place, line in lines for problem in problems(place, line)] == []


def test_texts_in_code_use_plain_words() -> None:
    found = [(f"{module.relative_to(ROOT)}:{line}", text) for module in MODULES for line, text in texts(module)]
    assert [problem for place, text in found for problem in problems(place, text)] == []


def test_no_text_installs_into_the_python_of_the_system() -> None:
    """Many systems refuse it (PEP 668). The tutorial may: it creates and activates an environment first."""
    pages = [(page, page.read_text(encoding="utf-8")) for page in PAGES if page.parent.name != "tutorial"]
    strings = [(module, text) for module in MODULES for _, text in texts(module) if "uv add" not in text]
    bare = re.compile(r"(?<!uv )(?<!bin/)pip install")
    assert [str(path.relative_to(ROOT)) for path, text in [*pages, *strings] if bare.search(text)] == []


@pytest.mark.parametrize("text", ["Nobody reads it.", "the message comes again", "What is done for good"])
def test_words_are_found(text: str) -> None:
    assert len(list(problems("page.md:1", text))) == 1


def problems(place: str, text: str) -> Iterator[str]:
    for pattern, instead in FOUND.items():
        if found := pattern.search(text):
            yield f"{place}: {found[0]!r}; write: {instead}"


def prose(page: Path) -> str:
    """A page without its code, of which only the number of lines stays."""
    blank = re.compile(r"^```.*?^```|<!---.*?-->|`[^`\n]*`", re.MULTILINE | re.DOTALL)
    return blank.sub(lambda found: "\n" * found[0].count("\n"), page.read_text(encoding="utf-8"))


def numbered(text: str) -> Iterator[tuple[int, str]]:
    return enumerate(text.splitlines(), 1)


def texts(module: Path) -> Iterator[tuple[int, str]]:
    """Docstrings, and the texts of errors, logs and help."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value
