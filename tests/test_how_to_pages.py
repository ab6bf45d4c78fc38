"""The how-to pages: what is not Python in them is checked here; their Python blocks run as all do."""

import configparser
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from diator.cli.program import program

PAGES = sorted((Path(__file__).parents[1] / "docs" / "how-to").glob("*.md"))
DEPLOY = next(page for page in PAGES if page.name == "deploy-workers.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_on_a_page_are_those_of_the_command_line(page: Path) -> None:
    for words in commands(page.read_text()):
        assert problem_of(words) is None, " ".join(words)


def test_units_and_manifests_give_more_time_to_end_than_handlers_have() -> None:
    (unit,) = blocks(DEPLOY, "ini")
    service = read_unit(unit)["Service"]
    assert grace_of(service["ExecStart"].split()) < int(service["TimeoutStopSec"])

    deployment, job, scaled = (yaml.safe_load(block) for block in blocks(DEPLOY, "yaml"))
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert grace_of(container["command"]) < pod["terminationGracePeriodSeconds"]
    assert deployment["spec"]["selector"]["matchLabels"] == deployment["spec"]["template"]["metadata"]["labels"]
    for probe in ("livenessProbe", "readinessProbe"):
        assert container[probe]["timeoutSeconds"] > 3  # what a readiness check may take
        assert container[probe]["httpGet"]["port"] == container["ports"][0]["name"]
    port = str(container["ports"][0]["containerPort"])
    assert container["command"][container["command"].index("--health") + 1] == port
    assert job["kind"] == "Job"
    assert scaled["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]


def read_unit(text: str) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[method-assign, assignment]  # names of systemd have capitals
    unit.read_string(text)
    return unit


def grace_of(words: list[str]) -> float:
    return float(words[words.index("--grace") + 1])


def commands(text: str) -> Iterator[list[str]]:
    """Each call of `diator` on a page: at a prompt, in a unit, as a list in a manifest, or quoted in a sentence."""
    for line in re.findall(r"(?:^\$ (?:uv run )?|^ExecStart=\S*/|`)diator ([^`\n]*)", text, re.MULTILINE):
        yield line.partition("#")[0].split()
    for listed in re.findall(r"command: (\[diator, .*\])$", text, re.MULTILINE):
        yield yaml.safe_load(listed)[1:]


def problem_of(words: list[str]) -> str | None:
    """What is wrong with a command: one that does not exist, or an option that it does not have."""
    command: Any = typer.main.get_command(program)
    while words and hasattr(command, "commands"):
        if words[0] not in command.commands:
            return f"there is no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    unknown = [word for word in words if word.startswith("-") and word not in known | {"--help"}]
    return f"there is no option {unknown}" if unknown else None


def test_a_command_that_does_not_exist_is_found() -> None:
    (run,) = commands("text\n\n$ diator run shop:app --forever\n")
    assert problem_of(run) == "there is no option ['--forever']"
    assert problem_of(["walk", "shop:app"]) == "there is no command walk"
