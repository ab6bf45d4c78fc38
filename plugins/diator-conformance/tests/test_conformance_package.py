"""What the distribution brings, as an author of a plugin meets it: in a process of its own, with nothing configured."""

import subprocess
import sys
from pathlib import Path

SUITE = """
from diator.brokers import Broker, MemoryBroker
from diator_conformance import BrokerSuite, BrokerOptions


class Stuttering(MemoryBroker):
    async def publish(self, messages, /, **options):
        await super().publish([messages[0], *messages], **options)


brokers = {}


class TestBroker(BrokerSuite):
    receive_timeout = 0.2

    def make_broker(self, space: str, wanted: BrokerOptions) -> Broker:
        return brokers.setdefault(space, BROKER(wanted.capacity, wanted.lease))
"""
CASE = "test_other_topics_are_not_heard"


def run(folder: Path, broker: str) -> "subprocess.CompletedProcess[str]":
    (folder / "test_it.py").write_text(SUITE.replace("BROKER", broker))
    options = ["-q", "-p", "no:asyncio", "-p", "no:xdist", "-W", "error", "-k", CASE]
    command = [sys.executable, "-m", "pytest", *options, "test_it.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_suite_runs_with_pytest_alone(tmp_path: Path) -> None:
    done = run(tmp_path, "MemoryBroker")
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_a_failing_case_shows_the_values_that_it_compared(tmp_path: Path) -> None:
    done = run(tmp_path, "Stuttering")
    assert done.returncode == 1, done.stdout
    assert "E       AssertionError: assert {1: " in done.stdout, done.stdout


def test_the_core_needs_neither_pytest_nor_hypothesis() -> None:
    script = """
import importlib, pkgutil, sys
import diator
for found in pkgutil.walk_packages(diator.__path__, "diator."):
    of_extras = found.name.startswith(("diator.cli", "diator.prometheus"))
    if not of_extras and found.name not in ("diator.testing.plugin", "diator.__main__"):
        importlib.import_module(found.name)
print(*sorted({"pytest", "_pytest", "hypothesis"} & {*sys.modules}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
