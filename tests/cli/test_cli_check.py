"""``diator check``: every problem, with its place and its fix, and an exit code for CI."""

import json
import re
from pathlib import Path

from diator.errors import PROBLEMS_PAGE
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

INSTALL = 'pass one: Diator(container=punq.Container()); install punq: uv add "diator[punq]"'

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
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout == (
        "checked 1 request, no events, 1 handler, no subscriptions, no middlewares\n"
        "meetings:app: no errors, no warnings\n"
    )


def test_an_error_is_told_with_its_place_and_its_remedy_and_fails_the_check(tmp_path: Path) -> None:
    write(tmp_path, MISSING)
    done = run(tmp_path, "check", "meetings:app")
    assert done.code == 1
    assert done.stdout == (
        "meetings.py:8: error: join needs api: Api, but the app has no container [missing-dependency]\n"
        f"    -> {INSTALL}\n"
        f"what each [code] means: {PROBLEMS_PAGE}\n"
        "checked 1 request, no events, 1 handler, no subscriptions, no middlewares\n"
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
    write(tmp_path, CLEAN + "router = Router()\napp.include(router)\napp.include(router)\n")
    done = run(tmp_path, "check", "meetings:app")
    assert done.code == 1
    assert done.stdout.startswith("meetings.py:11: error: a router can't be included here: it was included at")
    assert done.stdout.endswith("1 error; correct this first, the rest of the app has not been checked yet\n")


def test_a_wrong_address_is_told_with_the_line_of_the_app(tmp_path: Path) -> None:
    write(tmp_path, CLEAN + "other = Diator(\n    'other', broker='memory://?leese=3'\n)\n")
    done = run(tmp_path, "check", "meetings:app")
    assert done.code == 1
    line = (tmp_path / "meetings.py").read_text().splitlines().index("other = Diator(") + 1
    assert done.stdout.startswith(
        f"meetings.py:{line}: error: the broker's address has an unknown setting 'leese' [broker-url]\n"
        "    -> did you mean 'lease'?\n"
    )


def test_mistakes_of_several_handlers_are_told_together(tmp_path: Path) -> None:
    write(
        tmp_path, CLEAN + "@app.command\nasync def again(command: Join) -> int: ...\n@app.query\ndef no(n: int): ...\n"
    )
    done = run(tmp_path, "check", "meetings:app")
    assert done.code == 1
    assert [line.rpartition("[")[2] for line in done.stdout.splitlines() if "error: " in line] == [
        "return-type]",
        "duplicate-handler]",
        "message-kind]",
    ]
    assert done.stdout.endswith("meetings:app: 3 errors, no warnings\n")


def test_what_was_checked_is_counted(tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        @dataclass
        class Join(Command[None]): ...
        @dataclass
        class Joined(DomainEvent): ...
        @dataclass
        class Told(NotificationEvent): ...
        app = Diator("meetings", broker="memory://")
        router = Router()
        app.publishes(Told)
        @app.command
        async def join(command: Join, publish: Publish[Joined]) -> None: ...
        @router.on_event
        async def joined(event: Joined) -> None: ...
        @router.on_event
        async def told(event: Told) -> None: ...
        @router.middleware
        async def around(message: Message, call_next: CallNext): return await call_next(message)
        app.include(router)
        """,
    )
    done = run(tmp_path, "check", "meetings:app")
    assert "checked 1 request, 2 events, 3 handlers, 1 subscription, 1 middleware\n" in done.stdout
    counted = json.loads(run(tmp_path, "check", "meetings:app", "--json").stdout)["checked"]
    assert counted == {"requests": 1, "events": 2, "handlers": 3, "subscriptions": 1, "middlewares": 1}


def test_an_app_without_handlers_is_a_warning(tmp_path: Path) -> None:
    write(tmp_path, "app = Diator()\n")
    done = run(tmp_path, "check", "meetings:app")
    assert done.code == 0
    assert "warning: the app has no handlers [no-handlers]" in done.stdout
    assert run(tmp_path, "check", "--strict", "meetings:app").code == 1


def test_routers_that_were_never_included_are_named_with_their_place(tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        @dataclass
        class Pay(Command[None]): ...
        outer, inner, empty, forgotten = Router(), Router(), Router(), Router()
        @inner.command
        async def pay(command: Pay) -> None: ...
        outer.include(inner)
        """,
        name="billing",
    )
    write(tmp_path, CLEAN + "import billing\nfrom billing import outer\nrouter = Router()\napp.include(router)\n")
    done = run(tmp_path, "check", "meetings:app")
    assert done.code == 0
    where = r"billing\.py:[78]"  # the line of the decorator, or on Python 3.10 of the function below it
    warning = rf"{where}: warning: router billing\.outer, with 1 handler and no middlewares, was never included"
    assert re.search(warning, done.stdout)
    assert "app.include(outer)" in done.stdout
    assert "inner" not in done.stdout
    assert "meetings.router" not in done.stdout
    assert done.stdout.count("never included") == 3


def test_objects_that_answer_to_everything_are_no_routers(tmp_path: Path) -> None:
    write(
        tmp_path,
        CLEAN
        + """
class Odd:
    def __getattr__(self, name): raise RuntimeError(name)
    @property
    def __class__(self): raise RuntimeError("no")
    __hash__ = None
odd = Odd()
""",
    )
    assert run(tmp_path, "check", "meetings:app").stdout.endswith("meetings:app: no errors, no warnings\n")


def test_json_holds_every_problem_field_by_field(tmp_path: Path) -> None:
    write(tmp_path, MISSING)
    done = run(tmp_path, "check", "meetings:app", "--json")
    assert done.code == 1
    assert json.loads(done.stdout) == {
        "app": "meetings:app",
        "complete": True,
        "checked": {"requests": 1, "events": 0, "handlers": 1, "subscriptions": 0, "middlewares": 0},
        "problems": [
            {
                "severity": "error",
                "code": "missing-dependency",
                "url": f"{PROBLEMS_PAGE}#missing-dependency",
                "text": "join needs api: Api, but the app has no container",
                "fix": INSTALL,
                "file": "meetings.py",
                "line": 8,
            }
        ],
        "without_inbox": [],
    }


def test_json_says_when_the_app_was_not_looked_at_to_the_end(tmp_path: Path) -> None:
    write(tmp_path, CLEAN + "app.include(app)\n")
    found = json.loads(run(tmp_path, "check", "meetings:app", "--json").stdout)
    assert (found["complete"], found["checked"]) == (False, None)
    assert [problem["code"] for problem in found["problems"]] == ["router"]


def test_a_problem_without_a_place_is_told_without_one(tmp_path: Path) -> None:
    write(tmp_path, "app = Diator()\n")
    done = run(tmp_path, "check", "--strict", "meetings:app")
    assert done.code == 1
    assert done.stdout.startswith("warning: the app has no handlers [no-handlers]\n")
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
