"""From ``module:app`` to the app: what is accepted, and what each mistake is told."""

import sys
from pathlib import Path

import pytest

from tests.cli.prompt import run, write

APP = """
app = Diator()
other = 3
class Settings:
    app = Diator()
"""

NOTHING = """\
warning: the app has no handlers [no-handlers]
    -> import the modules that register them, and include their routers
what each [code] means: https://github.com/akhundMurad/diator/tree/main/docs/reference/problems.md
checked no requests, no events, no handlers, no subscriptions, no middlewares
meetings:make: no errors, 1 warning
"""


def refusal(folder: Path, target: str, command: str = "check") -> str:
    done = run(folder, command, target)
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: ")
    return done.stderr


@pytest.mark.parametrize("target", ["meetings:app", "meetings:Settings.app", "meetings:make", "meetings:make_with"])
def test_an_app_a_dotted_name_and_a_function_that_makes_one_are_accepted(tmp_path: Path, target: str) -> None:
    write(tmp_path, APP + "def make(): return Diator()\ndef make_with(name='x', *more): return Diator(name)\n")
    assert run(tmp_path, "check", target).code == 0


def test_a_module_in_a_package_below_the_current_directory_is_found(tmp_path: Path) -> None:
    (tmp_path / "company").mkdir()
    write(tmp_path / "company", APP)
    assert run(tmp_path, "check", "company.meetings:app").code == 0


@pytest.mark.parametrize("command", ["check", "show", "graph"])
def test_every_command_refuses_what_it_cannot_load(tmp_path: Path, command: str) -> None:
    assert "no module named 'nowhere'" in refusal(tmp_path, "nowhere:app", command)


def test_without_a_colon_the_form_is_shown(tmp_path: Path) -> None:
    assert "does not say which app; write MODULE:APP, for example meetings:app" in refusal(tmp_path, "meetings")
    assert "for example meetings.app:app" in refusal(tmp_path, "meetings.app")
    write(tmp_path, APP)
    assert "for example meetings:app" in refusal(tmp_path, "meetings.app")


@pytest.mark.parametrize("target", [":app", "meetings:", "a..b:app", ".a:app", "meetings:a..b", ":"])
def test_an_empty_part_is_refused(tmp_path: Path, target: str) -> None:
    assert "write it like meetings.application:app" in refusal(tmp_path, target)


@pytest.mark.parametrize("target", ["company/meetings.py:app", "company/meetings.py", "company/meetings:app"])
def test_a_file_is_answered_with_its_module(tmp_path: Path, target: str) -> None:
    assert "names a file; expected a module; write company.meetings:app" in refusal(tmp_path, target)


def test_a_missing_module_is_answered_with_close_names(tmp_path: Path) -> None:
    write(tmp_path, APP)
    text = refusal(tmp_path, "meeting:app")
    assert f"no module named 'meeting', neither in {tmp_path} nor installed; did you mean 'meetings'?" in text


def test_a_missing_module_of_a_package_is_answered_with_close_names(tmp_path: Path) -> None:
    (tmp_path / "company").mkdir()
    (tmp_path / "company" / "__init__.py").touch()
    write(tmp_path / "company", APP)
    assert "did you mean 'company.meetings'?" in refusal(tmp_path, "company.meetngs:app")


def test_a_missing_module_without_close_names_is_answered_with_the_next_step(tmp_path: Path) -> None:
    assert "run the command in the folder that holds it" in refusal(tmp_path, "elsewhere:app")


def test_a_missing_attribute_is_answered_with_close_names(tmp_path: Path) -> None:
    write(tmp_path, APP)
    text = refusal(tmp_path, "meetings:ap")
    assert "'meetings:ap': module 'meetings' has no 'ap'; did you mean 'app'?" in text
    assert f"(meetings is {tmp_path}/meetings.py)" in text


def test_a_missing_attribute_is_answered_with_close_names_where_no_app_is_there(tmp_path: Path) -> None:
    write(tmp_path, "def make_app(): return Diator()\n")
    assert "module 'meetings' has no 'makeapp'; did you mean 'make_app'?" in refusal(tmp_path, "meetings:makeapp")


def test_a_missing_attribute_is_answered_with_the_apps_that_are_there(tmp_path: Path) -> None:
    write(tmp_path, "conference = Diator()\n")
    assert "did you mean 'conference'?" in refusal(tmp_path, "meetings:app")


def test_a_missing_attribute_of_an_attribute_names_what_lacks_it(tmp_path: Path) -> None:
    write(tmp_path, APP)
    assert "<class 'meetings.Settings'> has no 'xyz'" in refusal(tmp_path, "meetings:Settings.xyz")


def test_what_is_no_app_is_refused(tmp_path: Path) -> None:
    write(tmp_path, APP)
    assert "'meetings:other' is 3, which is not a Diator" in refusal(tmp_path, "meetings:other")


def test_a_class_is_not_taken_for_a_function_that_makes_an_app(tmp_path: Path) -> None:
    write(tmp_path, APP)
    assert "which is not a Diator; name an app" in refusal(tmp_path, "meetings:Diator")


def test_a_router_is_refused_by_its_name(tmp_path: Path) -> None:
    write(tmp_path, "router = Router()\n")
    assert "'meetings:router' is a router; name the app that includes it" in refusal(tmp_path, "meetings:router")


def test_a_function_that_gives_something_else_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "def make(): return 3\n")
    assert "'meetings:make' gave 3, which is not a Diator" in refusal(tmp_path, "meetings:make")


def test_a_function_that_needs_arguments_is_refused_uncalled(tmp_path: Path) -> None:
    write(tmp_path, "def make(settings): raise AssertionError\n")
    text = refusal(tmp_path, "meetings:make")
    assert "can't be called without arguments (missing a required argument: 'settings')" in text


def test_an_async_function_is_refused_uncalled(tmp_path: Path) -> None:
    write(tmp_path, "async def make(): return Diator()\n")
    assert "is an async function" in refusal(tmp_path, "meetings:make")


def test_what_the_module_raises_is_shown_from_its_own_line_on(tmp_path: Path) -> None:
    write(tmp_path, "def connect(): raise RuntimeError('no database')\nconnect()\n")
    text = refusal(tmp_path, "meetings:app")
    assert "'meetings:app' could not be loaded:\n\nTraceback (most recent call last):\n" in text
    assert f'File "{tmp_path / "meetings.py"}", line 5, in <module>' in text
    assert text.rstrip().endswith("RuntimeError: no database")
    assert "load.py" not in text
    assert "importlib" not in text


def test_a_syntax_error_in_the_module_is_shown_with_its_line(tmp_path: Path) -> None:
    write(tmp_path, "app = = 3\n")
    text = refusal(tmp_path, "meetings:app")
    assert f'File "{tmp_path / "meetings.py"}", line 4' in text
    assert "SyntaxError" in text


def test_a_module_that_the_module_lacks_is_not_mistaken_for_the_module(tmp_path: Path) -> None:
    write(tmp_path, "import a_library_that_is_not_here\n")
    text = refusal(tmp_path, "meetings:app")
    assert "ModuleNotFoundError: No module named 'a_library_that_is_not_here'" in text


def test_what_the_function_raises_is_shown(tmp_path: Path) -> None:
    write(tmp_path, "def make(): raise RuntimeError('no settings')\n")
    text = refusal(tmp_path, "meetings:make")
    assert "'meetings:make' raised:" in text
    assert "RuntimeError: no settings" in text


def test_a_module_that_ends_the_program_is_told_so(tmp_path: Path) -> None:
    write(tmp_path, "import sys\nsys.exit('usage: meetings FILE')\n")
    text = refusal(tmp_path, "meetings:app")
    assert "it ended the program (SystemExit: usage: meetings FILE)" in text


def test_a_property_that_raises_is_shown_and_not_a_crash(tmp_path: Path) -> None:
    write(tmp_path, "def __getattr__(name): raise KeyError(name)\n")
    assert "KeyError: 'app'" in refusal(tmp_path, "meetings:app")


@pytest.mark.parametrize("command", ["show", "graph"])
def test_a_handler_of_no_message_is_told_with_its_place_and_remedy(tmp_path: Path, command: str) -> None:
    write(tmp_path, "app = Diator()\n@app.command\nasync def join(command: int) -> None: ...\n")
    text = refusal(tmp_path, "meetings:app", command)
    assert "takes command: int, which is not a message [message-kind]" in text
    assert f"at {tmp_path / 'meetings.py'}:5" in text


def test_what_the_module_prints_does_not_mix_with_the_output(tmp_path: Path) -> None:
    write(tmp_path, "print('hello')\ndef make():\n    print('making')\n    return Diator()\n")
    done = run(tmp_path, "check", "meetings:make")
    assert (done.code, done.stdout) == (0, NOTHING)
    assert done.stderr == "hello\nmaking\n"


def test_the_current_directory_comes_before_what_is_installed(tmp_path: Path) -> None:
    write(tmp_path, APP, name="wave")
    assert "wave" not in sys.modules
    assert run(tmp_path, "check", "wave:app").code == 0
