"""A plugin for pytest with the fixtures ``record`` and ``testing``.

Activate it in the ``conftest.py`` at the root of the tests::

    pytest_plugins = ["diator.testing.plugin"]

The report of a failed test shows its record.
"""

from collections.abc import Generator, Mapping
from typing import Any, Literal

import pytest

from diator.app import Diator
from diator.testing.faults import Faults
from diator.testing.recording import Record, Recording
from diator.testing.recording import record as record_app
from diator.testing.session import Session, session
from diator.testing.unsettled import UnsettledError


class Recorder:
    """The type of the fixture ``record``: call it like `diator.testing.record`."""

    __test__ = False

    def __init__(self) -> None:
        self.records: list[Record] = []
        """The records of this test."""

    def __call__(self, app: Diator, *, replace: Mapping[Any, object] | None = None) -> Record:
        """Record what an app does; see `diator.testing.record`."""
        # Any: a key of `replace` is a hint (see Router.provides).
        self.records.append(made := record_app(app, replace=replace))
        return made


class Tester:
    """The type of the fixture ``testing``: ``testing(app)`` works like ``app.testing()``."""

    __test__ = False  # the name looks like a test class to pytest

    def __init__(self) -> None:
        self.sessions: list[Session] = []
        """The sessions of this test."""

    def __call__(
        self,
        app: Diator,
        *,
        broker: object | None = None,
        container: object | None = None,
        replace: Mapping[Any, object] | None = None,
        delays: bool = False,
        faults: Faults | None = None,
        store: Literal["keep"] | None = None,
    ) -> Session:
        """Test an app with a worker; see ``app.testing``."""
        # Any: a key of `replace` is a hint (see Router.provides).
        made = session(
            app, broker=broker, container=container, replace=replace, delays=delays, faults=faults, store=store
        )
        self.sessions.append(made)
        return made


@pytest.fixture
def record() -> Recorder:
    """`diator.testing.record`; the report of a failed test shows the record."""
    return Recorder()


@pytest.fixture
def testing() -> Tester:
    """``app.testing``; the report of a failed test shows what happened."""
    return Tester()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: "pytest.CallInfo[None]"
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the records of a test that has failed, unless its error shows them already."""
    report = yield
    if report.failed:
        error = call.excinfo.value if call.excinfo else None
        made = _made(getattr(item, "funcargs", {}))
        report.sections.extend((repr(seen), str(seen)) for seen in made if not _is_told(seen, error))
    return report


def _made(fixtures: Mapping[str, object]) -> list[Recording]:
    recorder, tester = fixtures.get("record"), fixtures.get("testing")
    return [
        *(recorder.records if isinstance(recorder, Recorder) else ()),
        *(tester.sessions if isinstance(tester, Tester) else ()),
    ]


def _is_told(seen: Recording, error: BaseException | None) -> bool:
    return str(seen) in str(error) or (isinstance(error, UnsettledError) and error.seen is seen)
