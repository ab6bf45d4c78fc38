"""docs/reference/command-line.md shows what the commands really print."""

import dataclasses
import re
import shlex
from pathlib import Path
from signal import SIGTERM
from typing import Any

import pytest

from diator.cli.description import (
    ContractDescription,
    DependencyDescription,
    Description,
    EventDescription,
    HandlerDescription,
    MiddlewareDescription,
    RequestDescription,
    RetryPolicy,
    SubscriptionDescription,
)
from tests.cli.prompt import run
from tests.cli.workers import running

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "command-line.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [text.partition("\n") for language, text in BLOCKS if language == "console"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the modules of the page; the first line of each names its file."""
    for language, text in BLOCKS:
        if language == "python":
            (tmp_path / text.splitlines()[0].removeprefix("# ")).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(("command", "shown"), [(line, text) for line, _, text in COMMANDS])
def test_a_command_prints_what_the_page_shows(folder: Path, command: str, shown: str) -> None:
    assert run(folder, *shlex.split(command.removeprefix("$ diator "))).stdout.strip("\n") == shown.strip("\n")


def test_the_page_draws_the_graphs_that_it_shows_as_text(folder: Path) -> None:
    drawn = [text for language, text in BLOCKS if language == "mermaid"]
    assert drawn == [run(folder, "graph", f"{module}:app").stdout for module in ("meetings", "orders")]


def test_the_page_shows_the_table_that_a_worker_prints(folder: Path) -> None:
    with running(folder, target="orders:app") as worker:
        worker.wait_for("consuming")
        worker.signal(SIGTERM)
        assert worker.ended() == 0
    (table,) = [text for language, text in BLOCKS if language == "text" and text.startswith(" Subscription ")]
    assert "\n".join(worker.out).strip("\n") == table.strip("\n")


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("the document", Description),
        ("request", RequestDescription),
        ("event", EventDescription),
        ("handler", HandlerDescription),
        ("middleware", MiddlewareDescription),
        ("dependency", DependencyDescription),
        ("contract", ContractDescription),
        ("subscription", SubscriptionDescription),
        ("retry", RetryPolicy),
    ],
)
def test_the_page_names_every_field_of_the_json(name: str, record: Any) -> None:
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| {name} |"))
    expected = {field.name for field in dataclasses.fields(record)} - {"names"}
    assert expected <= set(re.findall(r"`(\w+)`", row))
