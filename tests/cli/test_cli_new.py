"""``diator new``: projects that check, pass their tests, and satisfy both type checkers as they are written."""

import asyncio
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from diator.cli.project import BROKERS, CONTAINERS, BrokerName, ContainerName
from tests.cli.prompt import Outcome, run

# Each container and each broker in at least one project.
CHOICES = [(name, [*BROKERS][index % len(BROKERS)]) for index, name in enumerate(get_args(ContainerName))]


def new(folder: Path, *arguments: str) -> Outcome:
    return run(folder, "new", *arguments)


def project(folder: Path, container: str, broker: str) -> tuple[Path, str]:
    """Write a project; give its folder and the name of its package."""
    name = f"{container}-on-{broker}"
    assert new(folder, name, "--container", container, "--broker", broker).code == 0
    return folder / name, name.replace("-", "_")


def test_every_choice_has_a_set_up() -> None:
    assert get_args(ContainerName) == ("none", *CONTAINERS)
    assert get_args(BrokerName) == (*BROKERS,)
    assert {broker for _, broker in CHOICES} == {*BROKERS}


@pytest.mark.parametrize(("container", "broker"), CHOICES)
def test_a_new_project_passes_the_check_and_its_own_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, container: str, broker: str
) -> None:
    folder, package = project(tmp_path, container, broker)
    checked = run(folder, "check", "--strict", f"{package}.app:app")
    assert (checked.code, checked.stdout.splitlines()[-1]) == (0, f"{package}.app:app: no errors, no warnings")
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    spec = importlib.util.spec_from_file_location("tests_of_the_project", folder / "tests" / "test_app.py")
    assert spec is not None
    assert spec.loader is not None
    tests = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tests)
    tests.test_the_app_can_start()
    asyncio.run(tests.test_a_user_who_signs_up_gets_a_mail())


@pytest.mark.parametrize("container", ["none", "punq"])
def test_a_project_in_memory_runs(tmp_path: Path, container: str) -> None:
    folder, package = project(tmp_path, container, "memory")
    done = execute(folder, "-W", "error", "-m", package, "bob", "ann")
    assert done.stdout.splitlines() == [
        "welcome, bob",
        "welcome, ann",
        "mail to bob: thank you for signing up",
        "mail to ann: thank you for signing up",
    ]
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.once
def test_new_projects_satisfy_mypy_and_pyright_both_strict(tmp_path: Path) -> None:
    together = tmp_path / "together"  # one run of each type checker takes all
    together.mkdir()
    for container, broker in CHOICES:
        folder, package = project(tmp_path, container, broker)
        (folder / package).rename(together / package)
        (folder / "tests" / "test_app.py").rename(together / f"test_{package}.py")
    checked = execute(together, "-m", "mypy", "--strict", ".")
    assert checked.returncode == 0, checked.stdout
    (together / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    checked = execute(together, "-m", "pyright", "--pythonpath", sys.executable)
    assert checked.returncode == 0, checked.stdout
    assert checked.stdout.endswith("0 errors, 0 warnings, 0 informations\n"), checked.stdout


@pytest.mark.once
def test_tools_run_in_a_new_project_by_its_own_settings(tmp_path: Path) -> None:
    folder, _ = project(tmp_path, "wireup", "memory")
    tested = execute(folder, "-m", "pytest", "-q", "-W", "error")
    assert "2 passed" in tested.stdout
    checked = execute(folder, "-m", "mypy")
    assert checked.stdout == "Success: no issues found in 6 source files\n"
    pedantic = ["check", "--select", "ALL", "--ignore", "COM812,CPY001,D1,D203,D213,INP001,S101,T201"]
    for command in (pedantic, ["format", "--check"]):
        done = execute(folder, "-m", "ruff", *command, "--isolated", ".")
        assert done.returncode == 0, done.stdout


def test_the_names_of_project_and_package_stand_in_its_files(tmp_path: Path) -> None:
    done = new(tmp_path, "meeting-room", "--broker", "redis", "--container", "dishka")
    written = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert done.stdout.partition("\n\n")[0].splitlines() == written
    folder = tmp_path / "meeting-room"
    settings = (folder / "pyproject.toml").read_text()
    assert 'name = "meeting-room"\n' in settings
    assert 'dependencies = ["diator[cli,dishka,redis]>=0.2,<0.3"]\n' in settings
    assert 'files = ["meeting_room", "tests"]\n' in settings
    assert 'Diator("meeting-room", container=container' in (folder / "meeting_room" / "app.py").read_text()
    assert "uv run diator run meeting_room.app:app" in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "'' can't name a project: expected lower-case letters, digits, and single hyphens.*; write meeting-room"),
        ("1shop", "beginning with a letter; write shop"),
        ("Shop", "write shop"),
        ("Shop2", "write shop2$"),
        ("my shop", "write my-shop"),
        ("a--b", "write a-b"),
        ("../shop", "write shop"),
        ("größe", "write gr-e"),
        ("class", "'class' can't name a project: class is a keyword of Python; write class-app"),
        ("json", "a module of Python's standard library; write json-app"),
        ("redis", "a package that projects use; write redis-app"),
        ("diator-shop", "a package that projects use"),
    ],
)
def test_a_bad_name_is_rejected_with_a_better_one(tmp_path: Path, name: str, said: str) -> None:
    done = new(tmp_path, name)
    assert (done.code, done.stdout) == (2, "")
    assert re.search(said, done.stderr)
    assert not [*tmp_path.iterdir()]


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    assert new(tmp_path, "shop").code == 0
    before = (tmp_path / "shop" / "README.md").stat().st_mtime_ns
    again = new(tmp_path, "shop", "--container", "punq")
    assert (again.code, again.stdout) == (2, "")
    assert again.stderr == "Error: 'shop' is a folder that is not empty; choose another name, or move it away\n"
    assert (tmp_path / "shop" / "README.md").stat().st_mtime_ns == before


def test_a_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "shop").write_text("milk")
    assert "'shop' is a file" in new(tmp_path, "shop").stderr
    assert (tmp_path / "shop").read_text() == "milk"


def test_what_can_not_be_written_is_an_error_without_a_traceback(tmp_path: Path) -> None:
    done = new(tmp_path, "s" * 300)
    assert done.code == 2
    assert "can't be written: File name too long" in done.stderr


def test_an_unknown_choice_is_rejected_with_those_that_exist(tmp_path: Path) -> None:
    done = new(tmp_path, "shop", "--broker", "pigeon")
    assert done.code == 2
    assert "pigeon" in done.stderr
    assert all(name in done.stderr for name in BROKERS)


ASKED = """
import pty, sys
sys.exit(pty.spawn([sys.executable, "-m", "diator", "new", *sys.argv[1:]]) >> 8)
"""


@pytest.mark.once
@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are of Unix")
def test_at_a_terminal_it_asks_for_what_no_option_names(tmp_path: Path) -> None:
    done = execute(tmp_path, "-c", ASKED, "shop", text="pigeon\ndishka\nredis\n")
    assert done.returncode == 0
    assert "'pigeon' is not one of none, punq, dishka" in done.stdout
    assert "diator[cli,dishka,redis]" in (tmp_path / "shop" / "pyproject.toml").read_text()
    done = execute(tmp_path, "-c", ASKED, "other", "--container", "none", "--broker", "memory")
    assert "Container" not in done.stdout
    assert "Broker" not in done.stdout


def execute(folder: Path, *arguments: str, text: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        input=text,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=300,
    )
