"""Runs the Python blocks of the README and of the documents, each page from top to bottom as one module."""

import sys
from types import ModuleType

from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, SkipParser


def run_block(example: Example) -> None:
    """Run one block in the module of its page."""
    name = "page_" + "".join(letter if letter.isalnum() else "_" for letter in example.path)
    page = example.namespace.setdefault("page", ModuleType(name))
    sys.modules[name] = page  # where dataclasses and hints look for names
    source = "\n" * (example.line + example.parsed.line_offset) + example.parsed
    exec(compile(source, example.path, "exec", dont_inherit=True), vars(page))  # noqa: S102 - our own documents


pytest_collect_file = Sybil(
    parsers=[CodeBlockParser(language="python", evaluator=run_block), SkipParser()],
    patterns=["*.md"],
    excludes=["**/.venv/**"],
).pytest()
