"""The plugin on the page for authors of broker plugins passes the suite as the page says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from diator.brokers.find import GROUP
from diator.brokers.port import BrokerCapability

PAGE = Path(__file__).parents[2] / "docs" / "plugin-authors" / "writing-a-broker-plugin.md"

SHORTER = """
TestFileBroker.max_examples = 4
TestFileBroker.lives = 2
TestFileBroker.message_count = 500
TestFileBroker.quiet_period = 0.05
TestFileBroker.retry_delay = 0.1
"""
"""The page tells how long the whole suite takes; this shows in less time that nothing has gone wrong since."""


def blocks(language: str) -> list[str]:
    """The code blocks of the page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.once  # takes long, and depends little on the Python
def test_the_plugin_of_the_page_passes_the_suite(tmp_path: Path) -> None:
    plugin_and_suite = [block for block in blocks("python") if "Diator(" not in block]
    (tmp_path / "test_page.py").write_text("\n".join([*plugin_and_suite, SHORTER]), encoding="utf-8")
    halves = [run_suite(tmp_path, chosen) for chosen in (LONG, f"not ({LONG})")]
    told = [half.communicate()[0] for half in halves]
    assert [half.returncode for half in halves] == [0, 0], "\n".join(told)
    skipped = [reason for text in told for reason in re.findall(r"^SKIPPED \[\d+\] \S+: (.*)$", text, re.MULTILINE)]
    undeclared = (BrokerCapability.BACKPRESSURE, BrokerCapability.DUPLICATE_DETECTION, BrokerCapability.SCHEDULES)
    assert sorted(skipped) == sorted(
        [
            "the author has written no cut_connections",
            "the broker does not list subscriptions (ManagesSubscriptions)",
            *(f"the broker does not declare {one!r}" for one in undeclared),
        ]
    )


LONG = "program or crowd or lease or outage or away or dead_letter"
"""Cases that take as long as all others together, and run beside them, since most of the time is spent waiting."""


def run_suite(folder: Path, chosen: str) -> "subprocess.Popen[str]":
    options = ["-q", "-rs", "-W", "error", "-o", "xfail_strict=true", "-p", "no:asyncio", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, "-k", chosen, "test_page.py"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_every_capability_is_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert [one.name for one in BrokerCapability if f"| `{one.name}` |" not in page] == []


def test_the_entry_point_of_the_page_is_in_the_group_that_is_searched() -> None:
    (skeleton,) = blocks("toml")
    assert f'[project.entry-points."{GROUP}"]' in skeleton
