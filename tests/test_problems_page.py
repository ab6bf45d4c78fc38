"""docs/reference/problems.md explains every code that a `Problem` can have, and its examples have the problem."""

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import metadata
from pathlib import Path
from types import ModuleType

import pytest

from diator import ConfigurationError, Diator, Problem
from diator.errors import PROBLEMS_PAGE

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reference" / "problems.md").read_text(encoding="utf-8")
ENTRIES = dict(re.findall(r"^### ([\w-]+)\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))
EXAMPLES = [
    (code, example)
    for code, entry in ENTRIES.items()
    for example in re.findall(r"^```py\n(.*?)^```", entry, re.MULTILINE | re.DOTALL)
]

CODE_AT = {"Problem": 0, "problem": 0, "_add": 1, "option_problems": 3, "require": 3}
"""Which argument of what makes problems is the code."""


def codes_in_source() -> set[str]:
    packages = [ROOT / "diator", *(path.parent for path in (ROOT / "plugins").glob("*/*/py.typed"))]
    modules = [path for package in packages for path in package.rglob("*.py")]
    return {code for module in modules for code in codes_in(ast.parse(module.read_text(encoding="utf-8")))}


def codes_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            position = CODE_AT.get(getattr(node.func, "id", getattr(node.func, "attr", "")))
            given = [] if position is None else [*node.args[position : position + 1]]
            given += [keyword.value for keyword in node.keywords if keyword.arg == "code"]
            yield from (one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str))


def test_every_code_in_the_source_has_an_entry_and_every_entry_a_code() -> None:
    assert sorted(ENTRIES) == sorted(codes_in_source() | {"option"})  # the default code of options


def test_codes_are_found_wherever_a_problem_is_made() -> None:
    source = "Problem('a', t, f); record.problem('b', t, f); self._add(r, 'c', t, f); option_problems(w, r, g, 'd')"
    assert set(codes_in(ast.parse(source))) == {"a", "b", "c", "d"}


@pytest.mark.parametrize(("code", "example"), EXAMPLES, ids=[code for code, _ in EXAMPLES])
def test_example_has_the_problem(code: str, example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("shop")
    monkeypatch.setitem(sys.modules, "shop", module)  # where dataclasses and hints look for names
    assert code in {problem.code for problem in problems_of(example, module)}


def problems_of(example: str, module: ModuleType) -> list[Problem]:
    beginning = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0]
    try:
        exec(compile(beginning + example, "shop.py", "exec", dont_inherit=True), vars(module))
        app = vars(module)["app"]
        assert isinstance(app, Diator)
        return app.check()
    except ConfigurationError as error:
        return list(error.problems)


def test_page_is_where_problems_say() -> None:
    urls = dict(url.split(", ") for url in metadata("diator").get_all("Project-URL") or ())
    assert f"{urls['Documentation']}/reference/problems.md" == PROBLEMS_PAGE
    assert Problem("router", "text", "fix").url == f"{PROBLEMS_PAGE}#router"
