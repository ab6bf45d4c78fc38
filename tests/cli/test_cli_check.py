"""``diator check``: every problem, with its place and its remedy, and an exit code for CI."""

import json
from pathlib import Path

from tests.cli.prompt import run, write

CLEAN = """
@dataclass
class Join(Command[None]): ...
app = Diator()
@app.command
async def join(command: Join) -> None: ...
"""

MISSING = """
class Api: ...
@dataclass
class Join(Command[None]): ...
app = Diator()
@app.command
async def join(command: Join, api: Api) -> None: ...
"""

INSTALL = 'install one and pass it: pip install "diator[punq]", then Diator(container=punq.Container())'

UNHANDLED = """
@dataclass
class Joined(DomainEvent): ...
@dataclass
class Join(Command[None]): ...
app = Diator()
@app.command
async def join(command: Join, publish: Publish[Joined]) -> None: ...
"""


def test_an_app_without_problems_passes(tmp_path: Path) -> None:
    write(tmp_path, CLEAN)
    done = run(tmp_path, "check", "meetings:app")
    assert (done.code, done.stdout, done.stderr) == (0, "meetings:app: no errors, no warnings\n", "")


def test_an_error_is_told_with_its_place_and_its_remedy_and_fails_the_check(tmp_path: Path) -> None:
    write(tmp_path, MISSING)
    done = run(tmp_path, "check", "meetings:app")
    assert done.code == 1
    assert done.stdout == (
        "meetings.py:8: error: join asks for api: Api, but the app has no container [missing-dependency]\n"
        f"    -> {INSTALL}\n"
        "meetings:app: 1 error, no warnings\n"
    )


def test_every_problem_is_told_not_just_the_first(tmp_path: Path) -> None:
    write(
        tmp_path,
        MISSING
        + """
@dataclass
class Leave(Command[None]): ...
@app.command
async def leave(command: Leave, why: "Nowhere") -> None: ...
""",
    )
    done = run(tmp_path, "check", "meetings:app")
    assert "[missing-dependency]" in done.stdout
    assert "[unresolved-hint]" in done.stdout
    assert done.stdout.endswith("meetings:app: 2 errors, no warnings\n")


def test_a_warning_alone_does_not_fail_the_check(tmp_path: Path) -> None:
    write(tmp_path, UNHANDLED)
    done = run(tmp_path, "check", "meetings:app")
    assert done.code == 0
    assert done.stdout.startswith("meetings.py:9: warning: Joined, published by join, has no handler [unhandled-event]")
    assert done.stdout.endswith("meetings:app: no errors, 1 warning\n")


def test_a_strict_check_fails_for_a_warning(tmp_path: Path) -> None:
    write(tmp_path, UNHANDLED)
    assert run(tmp_path, "check", "--strict", "meetings:app").code == 1


def test_a_strict_check_passes_without_warnings(tmp_path: Path) -> None:
    write(tmp_path, CLEAN)
    assert run(tmp_path, "check", "--strict", "meetings:app").code == 0


def test_what_a_registration_raises_is_told_in_the_same_form(tmp_path: Path) -> None:
    write(tmp_path, CLEAN + "async def again(command: Join) -> None: ...\napp.add_command(again)\n")
    done = run(tmp_path, "check", "meetings:app")
    assert done.code == 1
    assert done.stdout.startswith("meetings.py:10: error: command Join has a second handler, again; the first is join")
    assert done.stdout.endswith("1 error; correct this first, the rest of the app has not been checked yet\n")


def test_json_holds_every_problem_field_by_field(tmp_path: Path) -> None:
    write(tmp_path, MISSING)
    done = run(tmp_path, "check", "meetings:app", "--json")
    assert done.code == 1
    assert json.loads(done.stdout) == {
        "app": "meetings:app",
        "complete": True,
        "problems": [
            {
                "severity": "error",
                "code": "missing-dependency",
                "text": "join asks for api: Api, but the app has no container",
                "remedy": INSTALL,
                "file": "meetings.py",
                "line": 8,
            }
        ],
    }


def test_json_says_when_the_app_was_not_looked_at_to_the_end(tmp_path: Path) -> None:
    write(tmp_path, CLEAN + "@app.command\nasync def again(command: Join) -> None: ...\n")
    found = json.loads(run(tmp_path, "check", "meetings:app", "--json").stdout)
    assert found["complete"] is False
    assert [problem["code"] for problem in found["problems"]] == ["duplicate-handler"]


def test_a_problem_without_a_place_is_told_without_one(tmp_path: Path) -> None:
    write(tmp_path, "app = Diator(container=object())\n")
    done = run(tmp_path, "check", "meetings:app")
    assert done.code == 1
    assert done.stdout.startswith("error: no container plugin for <object object")
    found = json.loads(run(tmp_path, "check", "meetings:app", "--json").stdout)
    assert (found["problems"][0]["file"], found["problems"][0]["line"]) == (None, None)


def test_no_handler_and_no_factory_runs(tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        import punq
        class Api:
            def __init__(self): raise AssertionError("built")
        @dataclass
        class Join(Command[None]): ...
        container = punq.Container()
        container.register(Api)
        app = Diator(container=container)
        @app.command
        async def join(command: Join, api: Api) -> None: raise AssertionError("run")
        """,
    )
    assert run(tmp_path, "check", "meetings:app").code == 0
