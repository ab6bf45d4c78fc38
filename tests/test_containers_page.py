"""The page on containers shows what the example does and what the plugins declare.

``python -m tests.test_containers_page`` writes both parts of the page anew.
"""

import importlib.util
import inspect
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diator import Diator
from diator.containers import Capability, Container
from diator.containers.find import find_container

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "containers.md"

ROWS = {
    Capability.SCOPED: "one object for each unit of work",
    Capability.SINGLETON: "one object for the app",
    Capability.ASYNC_FACTORY: "coroutine functions as factories",
    Capability.TEARDOWN: "generators, closed with the unit of work",
    Capability.ASYNC_TEARDOWN: "async generators, closed with the unit of work",
    Capability.TEARDOWN_SEES_ERROR: "what closes sees the error",
    Capability.SINGLETON_TEARDOWN: "singletons are closed with the app",
    Capability.PROVIDED: "`app.using(provide=...)` reaches factories",
    Capability.QUALIFIERS: "two providers of one type",
    Capability.DEEP_VALIDATION: "the start finds what is missing below handlers",
    Capability.CONCURRENT_SCOPE: "built once, whoever asks at a time, in a unit",
    Capability.CONCURRENT_SINGLETON: "built once, whoever asks at a time, in the app",
    Capability.REOPENS: "the app can be started again",
}


def example() -> Any:
    path = ROOT / "examples" / "09_any_container.py"
    spec = importlib.util.spec_from_file_location("any_container", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["any_container"] = module  # where hints are looked up
    spec.loader.exec_module(module)
    return module


EXAMPLE = example()
SET_UPS: dict[str, Callable[[], object]] = EXAMPLE.SET_UPS


def shown_set_ups() -> str:
    blocks: list[str] = []
    for library, make in SET_UPS.items():
        _, _, body = inspect.getsource(make).partition("\n")
        code, _, container = textwrap.dedent(body).rpartition("return ")
        blocks.append(f"**{library}**\n\n```text\n{code}app = make_app({container.rstrip()})\n```\n")
    return "\n".join(blocks)


async def capabilities() -> dict[str, Capability]:
    found: dict[str, Capability] = {}
    for library, make in SET_UPS.items():
        container: Container = find_container(make())
        found[library] = container.capabilities
        await container.aclose()
    return found


def shown_capabilities(found: dict[str, Capability]) -> str:
    lines = [f"| | {' | '.join(found)} |", f"| --- |{' --- |' * len(found)}"]
    for capability, text in ROWS.items():
        lines.append(f"| {text} | {' | '.join('yes' if capability in has else '' for has in found.values())} |")
    return "\n".join(lines) + "\n"


def part(title: str) -> str:
    begin = f"<!-- {title} -->\n"
    return PAGE.read_text().partition(begin)[2].partition("<!-- end -->")[0]


def test_the_page_shows_the_set_ups_of_the_example() -> None:
    assert part("the set-ups of examples/09_any_container.py") == shown_set_ups()


async def test_the_table_shows_what_the_plugins_declare() -> None:
    assert part("the capabilities that the plugins declare") == shown_capabilities(await capabilities())


def test_every_capability_has_a_row() -> None:
    assert set(ROWS) == set(Capability)


@pytest.mark.parametrize("library", SET_UPS)
async def test_the_application_runs_unchanged_on_each_container(
    library: str, capsys: pytest.CaptureFixture[str]
) -> None:
    app: Diator = EXAMPLE.make_app(SET_UPS[library]())
    async with app:
        assert await app.send(EXAMPLE.JoinMeeting(meeting_id=1, user_id=7)) == 1
        assert await app.send(EXAMPLE.JoinMeeting(meeting_id=1, user_id=8)) == 2
    assert capsys.readouterr().out == "user 7 is number 1 in meeting 1\nuser 8 is number 2 in meeting 1\n"


async def write() -> None:
    text = PAGE.read_text()
    for title, new in {
        "the set-ups of examples/09_any_container.py": shown_set_ups(),
        "the capabilities that the plugins declare": shown_capabilities(await capabilities()),
    }.items():
        begin = f"<!-- {title} -->\n"
        text = text.replace(f"{begin}{part(title)}<!-- end -->", f"{begin}{new}<!-- end -->")
    PAGE.write_text(text)


if __name__ == "__main__":
    import asyncio

    asyncio.run(write())
