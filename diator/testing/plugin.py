"""A plugin for pytest: the fixture ``record``. Active only where it is named.

In the ``conftest.py`` at the root of the tests::

    pytest_plugins = ["diator.testing.plugin"]

A test that fails shows what it has recorded.
"""

from collections.abc import Generator, Mapping
from typing import Any

import pytest

from diator.app import Diator
from diator.testing.recording import Record
from diator.testing.recording import record as record_app


class Recorder:
    """The type of the fixture ``record``: call it like `diator.testing.record`."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        """Those that this test has made."""

    def __call__(self, app: Diator, *, replace: Mapping[Any, object] | None = None) -> Record:
        """Record what an app does; see `diator.testing.record`."""
        # Any: a key of `replace` is a hint (see Router.provides).
        self.records.append(made := record_app(app, replace=replace))
        return made


@pytest.fixture
def record() -> Recorder:
    """`diator.testing.record`, with what was recorded in the report of a test that fails."""
    return Recorder()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: "pytest.CallInfo[None]"
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the records of a test that has failed, unless its error shows them already."""
    report = yield
    recorder = getattr(item, "funcargs", {}).get("record")
    if report.failed and isinstance(recorder, Recorder):
        told = str(call.excinfo.value) if call.excinfo else ""
        report.sections.extend((repr(made), str(made)) for made in recorder.records if str(made) not in told)
    return report
