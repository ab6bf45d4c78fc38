"""The two type checkers accept all of ``typing/good.py``, and flag every misuse in ``typing/bad.py``."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "typing"
ROOT = HERE.parent.parent
IGNORES = {
    "mypy": re.compile(r"  # type: ignore\[[a-z, -]+\]"),
    "pyright": re.compile(r"  # pyright: ignore\[[A-Za-z, ]+\]"),
}
PYRIGHT = {
    "typeCheckingMode": "strict",
    "pythonVersion": "3.10",
    "reportUnnecessaryTypeIgnoreComment": True,
    "enableTypeIgnoreComments": False,  # those speak to mypy
    "extraPaths": [str(ROOT)],
}

Errors = set[tuple[str, int]]


def mypy(folder: Path) -> Errors:
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--no-error-summary", "--hide-error-context"]
    names = sorted(path.name for path in folder.glob("*.py"))
    out = run(folder, "mypy", *options, *names)
    return {(match[1], int(match[2])) for match in re.finditer(r"^(\w+\.py):(\d+): error", out, re.MULTILINE)}


def pyright(folder: Path) -> Errors:
    (folder / "pyrightconfig.json").write_text(json.dumps(PYRIGHT))
    report = json.loads(run(folder, "pyright", "--outputjson", "--pythonpath", sys.executable))
    assert report["summary"]["filesAnalyzed"] == len(list(folder.glob("*.py")))
    return {
        (Path(found["file"]).name, found["range"]["start"]["line"] + 1)
        for found in report["generalDiagnostics"]
        if found["severity"] == "error"
    }


def run(folder: Path, module: str, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *options], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def without_ignores(source: str) -> str:
    for ignore in IGNORES.values():
        source = ignore.sub("", source)
    return source


@pytest.mark.once
@pytest.mark.parametrize("checker", [mypy, pyright])
def test_each_misuse_is_flagged_and_nothing_else_is(checker: Callable[[Path], Errors], tmp_path: Path) -> None:
    """``good.py`` and ``bad.py`` have no errors as they stand; without its ignores, ``bad.py`` has exactly those."""
    bad = (HERE / "bad.py").read_text()
    (tmp_path / "good.py").write_text((HERE / "good.py").read_text())
    (tmp_path / "bad.py").write_text(bad)
    (tmp_path / "bare.py").write_text(without_ignores(bad))
    ignore = IGNORES[checker.__name__]
    marked = {("bare.py", number) for number, line in enumerate(bad.splitlines(), 1) if ignore.search(line)}
    assert len(marked) > 50
    assert checker(tmp_path) == marked


def test_both_checkers_are_asked_for_each_misuse() -> None:
    """A misuse of a decorated class may be flagged at the decorator by one checker, and at the class by the other."""
    blocks = re.split(r"\n\n+", (HERE / "bad.py").read_text())
    for block in blocks:
        mypys, pyrights = (len(ignore.findall(block)) for ignore in IGNORES.values())
        assert mypys == pyrights, block
