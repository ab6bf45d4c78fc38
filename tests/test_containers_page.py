"""The page on containers shows what the example does and what the suites prove.

``python -m tests.test_containers_page`` writes both parts of the page again.
"""

import importlib.util
import inspect
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diator_conformance import ContainerSuite, Feature

from diator import Diator

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "containers.md"

ROWS = {
    Feature.SCOPED: "one object for each unit of work",
    Feature.SINGLETON: "one object for the app",
    Feature.ASYNC_FACTORY: "coroutine functions as factories",
    Feature.TEARDOWN: "generators, closed with the unit of work",
    Feature.ASYNC_TEARDOWN: "async generators, closed with the unit of work",
    Feature.TEARDOWN_SEES_ERROR: "resources see the error when they close",
    Feature.SINGLETON_TEARDOWN: "singletons are closed with the app",
    Feature.PROVIDED_VALUES: "`app.using(provide=...)` reaches factories",
    Feature.QUALIFIERS: "two providers of one type",
    Feature.DEEP_VALIDATION: "startup finds missing providers below handlers",
    Feature.REUSABLE: "the app can be started again",
}


def module(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where hints are looked up
    spec.loader.exec_module(module)
    return module


EXAMPLE = module("any_container", ROOT / "examples" / "09_any_container.py")
SET_UPS: dict[str, Callable[[], object]] = EXAMPLE.SET_UPS


def shown_set_ups() -> str:
    blocks: list[str] = []
    for library, make in SET_UPS.items():
        _, _, body = inspect.getsource(make).partition("\n")
        code, _, container = textwrap.dedent(body).rpartition("return ")
        blocks.append(f"**{library}**\n\n```text\n{code}app = make_app({container.rstrip()})\n```\n")
    return "\n".join(blocks)


def features(library: str) -> Feature:
    """What the library can do, as its plugin's suite says."""
    name = f"test_{library}_conformance"
    tests = module(name, ROOT / "plugins" / f"diator-{library}" / "tests" / f"{name}.py")
    classes: list[Any] = [one for name in dir(tests) if isinstance(one := getattr(tests, name), type)]
    (suite,) = (one for one in classes if issubclass(one, ContainerSuite) and one is not ContainerSuite)
    found: Feature = suite().features
    return found


def shown_features() -> str:
    lines = [f"| | {' | '.join(SET_UPS)} |", f"| --- |{' --- |' * len(SET_UPS)}"]
    found = [features(library) for library in SET_UPS]
    for feature, text in ROWS.items():
        lines.append(f"| {text} | {' | '.join('yes' if feature in has else '' for has in found)} |")
    return "\n".join(lines) + "\n"


def part(title: str) -> str:
    begin = f"<!-- {title} -->\n"
    return PAGE.read_text().partition(begin)[2].partition("<!-- end -->")[0]


def test_the_page_shows_the_set_ups_of_the_example() -> None:
    assert part("the set-ups of examples/09_any_container.py") == shown_set_ups()


def test_the_table_shows_what_the_suites_prove() -> None:
    assert part("the features that the suites prove") == shown_features()


def test_every_feature_has_a_row() -> None:
    assert set(ROWS) == set(Feature)


@pytest.mark.parametrize("library", SET_UPS)
async def test_the_application_runs_unchanged_on_each_container(
    library: str, capsys: pytest.CaptureFixture[str]
) -> None:
    app: Diator = EXAMPLE.make_app(SET_UPS[library]())
    async with app:
        assert await app.send(EXAMPLE.JoinMeeting(meeting_id=1, user_id=7)) == 1
        assert await app.send(EXAMPLE.JoinMeeting(meeting_id=1, user_id=8)) == 2
    assert capsys.readouterr().out == "user 7 is number 1 in meeting 1\nuser 8 is number 2 in meeting 1\n"


def write() -> None:
    text = PAGE.read_text()
    for title, new in {
        "the set-ups of examples/09_any_container.py": shown_set_ups(),
        "the features that the suites prove": shown_features(),
    }.items():
        begin = f"<!-- {title} -->\n"
        text = text.replace(f"{begin}{part(title)}<!-- end -->", f"{begin}{new}<!-- end -->")
    PAGE.write_text(text)


if __name__ == "__main__":
    write()
