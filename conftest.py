"""Runs the Python blocks of the README and of the documents, and spreads the whole suite over processes.

The blocks of a page run from top to bottom as one module. The suite runs in two processes for each core; tests that are
named on the command line run in one, where ``-s`` and a debugger work.
"""

import asyncio
import os
import sys
from importlib import import_module
from types import ModuleType

import pytest
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, SkipParser
from xdist.remote import Producer  # type: ignore[import-untyped]  # pytest-xdist has no types
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]  # pytest-xdist has no types

if loop := os.environ.get("DIATOR_TEST_LOOP"):  # such as uvloop: the module of another event loop
    asyncio.set_event_loop_policy(import_module(loop).EventLoopPolicy())


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
    excludes=["**/.venv/**", "**/docs/tutorial/*.md"],  # the tutorial's files: tests/test_tutorial.py
).pytest()


class ByTest(LoadScopeScheduling):  # type: ignore[misc]  # as above
    """Gives each test to the process that is free next, and the blocks of a page to one: later ones use earlier ones.

    That is what marks of the group ``loadgroup`` are for, which pytest-xdist 3.8 does not see with pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        page, _, _ = nodeid.partition("::")
        return page if page.endswith(".md") else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByTest:
    """Return what spreads the tests."""
    return ByTest(config, log)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return the number of processes: two for each core, since tests mostly wait, and one if tests are named."""
    is_whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return 2 * (os.cpu_count() or 1) if is_whole else 0
