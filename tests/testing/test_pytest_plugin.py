"""The plugin for pytest, in a pytest of its own: nothing of it is active in this one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

APP = """
from dataclasses import dataclass

from diator import Command, Diator, DomainEvent, NotificationEvent, Publish, Reject

app = Diator("meetings")
sending = Diator("sending", broker="memory://")


@dataclass
class Join(Command[None]):
    user: int


@dataclass
class Joined(DomainEvent):
    user: int


@app.command
async def join(command: Join, publish: Publish[Joined]) -> None:
    publish(Joined(command.user))


@app.on_event
async def count(event: Joined) -> None: ...


@dataclass
class Left(NotificationEvent):
    user: int


@sending.on_event
async def refuse(event: Left) -> None:
    if event.user > 60:
        raise Reject("unknown")
"""

TESTS = """
from asyncio import run

from diator.testing.plugin import Recorder, Tester
from meetings import Join, Joined, Left, app, sending


def test_passes(record: Recorder):
    async def main():
        async with record(app) as seen:
            await app.send(Join(1))
        seen.published.one(Joined)

    run(main())


def test_fails_by_itself(record):
    async def main():
        async with record(app) as seen:
            await app.send(Join(22))
        assert seen.published == [Joined(23)]

    run(main())


def test_fails_by_an_assertion_of_the_record(record):
    async def main():
        async with record(app) as seen:
            await app.send(Join(44))
        seen.published.none(Joined)

    run(main())


def test_fails_by_itself_in_a_session(testing):
    async def main():
        async with testing(sending) as session:
            await session.publish(Left(55))
            await session.settled()
        assert session.handled == [Left(56)]

    run(main())


def test_fails_since_it_does_not_settle(testing):
    async def main():
        async with testing(sending) as session:
            await session.publish(Left(66))
            await session.settled()

    run(main())
"""


def run_pytest(folder: Path, *arguments: str) -> str:
    (folder / "meetings.py").write_text(APP)
    (folder / "test_meetings.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments, str(folder)]
    env = {name: value for name, value in os.environ.items() if name != "CI"}  # there pytest repeats whole errors
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False, env=env).stdout


@pytest.mark.once
def test_a_test_that_fails_shows_its_record_once_whatever_has_failed_it(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["diator.testing.plugin"]\n')
    output = run_pytest(tmp_path)
    assert "4 failed, 1 passed" in output
    assert "PytestCollectionWarning" not in output
    assert "<Record of <Diator 'meetings'>: 4 entries>" in output
    section = "\n  sent Join(user=22)\n    handled by join\n      published Joined(user=22)\n        handled by count\n"
    assert output.count(section) == 1
    assert output.count("published Joined(user=44)") == 1
    assert "expected no Joined to be published, found 1; what happened:" in output
    assert "Join(user=1)" not in output
    assert "<Session of <Diator 'sending'>: 2 entries>" in output
    assert output.count("\n  published Left(user=55)\n    handled by refuse\n") == 1
    assert output.count("  published Left(user=66)\n") == 1
    assert "diator.testing.UnsettledError: refuse has failed permanently on Left(user=66): rejected: unknown" in output


@pytest.mark.once
def test_the_plugin_is_active_only_where_it_is_named(tmp_path: Path) -> None:
    assert "fixture 'record' not found" in run_pytest(tmp_path)
    assert "4 failed, 1 passed" in run_pytest(tmp_path, "-p", "diator.testing.plugin")
