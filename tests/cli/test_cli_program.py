"""The program as its users start it."""

import json
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.cli.prompt import run, run_script, write

APP = """
app = Diator()
@dataclass
class Join(Command[None]): ...
@app.command
async def join(command: Join) -> None: ...
"""

SCRIPT = str(Path(sys.executable).parent / ("diator.exe" if sys.platform == "win32" else "diator"))


@pytest.mark.parametrize("command", [[SCRIPT], [sys.executable, "-m", "diator"]], ids=["script", "module"])
def test_the_script_and_the_module_find_apps_in_the_current_directory(tmp_path: Path, command: list[str]) -> None:
    write(tmp_path, APP)
    assert shutil.which(command[0])
    done = run_script(tmp_path, *command, "check", "meetings:app")
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout.endswith("meetings:app: no errors, no warnings\n")


def test_it_prints_its_version(tmp_path: Path) -> None:
    done = run_script(tmp_path, SCRIPT, "--version")
    assert (done.code, done.stdout) == (0, f"diator {version('diator')}\n")


def test_exit_codes_reach_the_shell(tmp_path: Path) -> None:
    write(tmp_path, "app = Diator(container=3)\n")
    assert run_script(tmp_path, SCRIPT, "check", "meetings:app").code == 1
    assert run_script(tmp_path, SCRIPT, "check", "elsewhere:app").code == 2


def test_piped_output_has_no_color_codes_and_does_not_depend_on_the_width(tmp_path: Path) -> None:
    write(tmp_path, APP)
    narrow = run_script(tmp_path, SCRIPT, "show", "meetings:app", COLUMNS="20", TERM="xterm-256color")
    wide = run_script(tmp_path, SCRIPT, "show", "meetings:app", COLUMNS="200", TERM="dumb")
    assert "\x1b" not in narrow.stdout
    assert narrow == wide
    assert "meetings.py:7" in narrow.stdout


def test_json_is_json_whatever_the_encoding_of_the_terminal(tmp_path: Path) -> None:
    write(tmp_path, APP.replace("Join", "Größe"))
    done = run_script(tmp_path, SCRIPT, "show", "meetings:app", "--json", PYTHONIOENCODING="ascii")
    assert json.loads(done.stdout)["commands"][0]["message"] == "meetings.Größe"


def test_names_that_the_encoding_of_a_pipe_lacks_are_written_all_the_same(tmp_path: Path) -> None:
    write(tmp_path, APP.replace("Join", "会议"))
    done = run_script(tmp_path, SCRIPT, "show", "meetings:app", PYTHONIOENCODING="cp1252")
    assert (done.code, done.stderr) == (0, "")
    assert r"\u4f1a\u8bae -> None" in done.stdout
    drawn = run_script(tmp_path, SCRIPT, "graph", "meetings:app", PYTHONIOENCODING="cp1252")
    assert '    c1["#20250;#35758;"]' in drawn.stdout


@pytest.mark.parametrize("library", ["typer", "rich"])
def test_without_its_libraries_the_program_says_what_to_install(tmp_path: Path, library: str) -> None:
    code = f"import sys; sys.modules[{library!r}] = None; from diator.cli import main; main()"
    done = run_script(tmp_path, sys.executable, "-c", code)
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr == (
        f'The command line of Diator needs {library}. Install it with:\n\n    pip install "diator[cli]"\n'
        '\nor, in a project of uv:\n\n    uv add "diator[cli]"\n'
    )


def test_importing_diator_loads_nothing_of_the_command_line(tmp_path: Path) -> None:
    code = "import sys, diator; print([name for name in ('typer', 'rich', 'diator.cli') if name in sys.modules])"
    assert run_script(tmp_path, sys.executable, "-c", code).stdout == "[]\n"


def test_help_names_every_command(tmp_path: Path) -> None:
    done = run(tmp_path, "--help")
    assert done.code == 0
    assert all(command in done.stdout for command in ("check", "show", "graph", "run", "subscriptions", "dead-letters"))


def test_a_forgotten_app_is_a_usage_error(tmp_path: Path) -> None:
    done = run(tmp_path, "check")
    assert done.code == 2
    assert "MODULE:APP" in done.stderr
