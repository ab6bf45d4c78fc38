"""``diator show``: the pipeline of every message, as tables and as JSON."""

import json
from pathlib import Path
from typing import Any

from tests.cli.prompt import run, write

APP = """
import dishka

class Api: ...
class Session: ...
class User: ...
class Clock: ...

provider = dishka.Provider()
provider.provide(Api, scope=dishka.Scope.APP)
provider.provide(Session, scope=dishka.Scope.REQUEST)
app = Diator(container=dishka.make_async_container(provider))
app.provides(User)

@dataclass
class Joined(DomainEvent): ...
@dataclass
class Warned(DomainEvent): ...
@dataclass
class Join(Command[int]): ...
@dataclass
class Rows(Query[str]): ...

@app.middleware(inside=True)
async def in_transaction(message: Command[Any], call_next: CallNext, session: Session) -> Any: ...
@app.middleware
async def logged(message: Message, call_next: CallNext) -> Any: ...

@app.command(timeout=2.5)
async def join(
    command: Join, api: Api, user: User, context: Context, publish: Publish[Joined | Warned], clock: Clock | None = None
) -> int: ...
@app.query
async def rows(query: Rows) -> AsyncIterator[str]: yield ""
@app.on_event(thread=True)
def tell(event: Joined) -> None: ...
@app.on_event
async def note(event: Joined, session: Session) -> None: ...
"""


def shown(folder: Path, source: str) -> dict[str, Any]:
    write(folder, source)
    done = run(folder, "show", "meetings:app", "--json")
    assert done.code == 0
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def rows_of(output: str) -> list[list[str]]:
    """The cells of a table, without what is only layout."""
    return [
        [cell.strip() for cell in line.split("  ") if cell.strip()] for line in output.splitlines() if line.strip(" ─")
    ]


def test_a_command_is_shown_as_the_steps_of_its_pipeline_from_the_outside_in(tmp_path: Path) -> None:
    write(tmp_path, APP)
    done = run(tmp_path, "show", "meetings:app")
    assert done.code == 0
    assert rows_of(done.stdout)[:15] == [
        ["Commands", "Step", "Component", "Dependencies", "Location"],
        ["Join -> int", "sender", "app.using", "brings User"],
        ["middleware", "logged", "meetings.py:28"],
        ["timeout", "2.5 s"],
        ["unit of work", "scope of DishkaContainer"],
        ["middleware", "in_transaction", "session: Session (container, scoped)", "meetings.py:26"],
        ["handler", "join", "api: Api (container, singleton)", "meetings.py:31"],
        ["user: User (sender)"],
        ["context: Context (diator)"],
        ["publish: Publish[Joined | Warned] (diator)"],
        ["clock: Clock | None (default)"],
        ["event", "Joined", "for tell, note"],
        ["event", "Warned", "no handler"],
        ["Queries", "Step", "Component", "Dependencies", "Location"],
        ["Rows yields str", "middleware", "logged", "meetings.py:28"],
    ]


def test_an_event_is_shown_with_who_publishes_it_and_what_runs_for_it(tmp_path: Path) -> None:
    write(tmp_path, APP)
    rows = rows_of(run(tmp_path, "show", "meetings:app").stdout)
    assert rows[rows.index(["Events", "Step", "Component", "Dependencies", "Location"]) + 1 :] == [
        ["Joined", "published", "domain event", "by join"],
        ["middleware", "logged", "meetings.py:28"],
        ["handler", "tell (thread)", "meetings.py:37"],
        ["handler", "note", "session: Session (container, scoped)", "meetings.py:39"],
        ["Warned", "published", "domain event", "by join"],
        ["middleware", "logged", "meetings.py:28"],
        ["handler", "none"],
    ]


def test_json_has_the_keys_that_the_documents_promise(tmp_path: Path) -> None:
    found = shown(tmp_path, APP)
    assert set(found) == {
        "app",
        "container",
        "broker",
        "store",
        "commands",
        "queries",
        "events",
        "unresolved_handlers",
        "problems",
    }
    assert found["app"] == "meetings:app"
    assert found["container"] == "DishkaContainer"
    assert found["problems"] == {"errors": 0, "warnings": 1}
    assert found["unresolved_handlers"] == []
    command = found["commands"][0]
    handler = command.pop("handler")
    logged, in_transaction = command.pop("middlewares")
    assert command == {
        "message": "meetings.Join",
        "result": "int",
        "streams": False,
        "scope": True,
        "required_values": ["User"],
    }
    assert logged == {
        "name": "meetings.logged",
        "file": "meetings.py",
        "line": 28,
        "position": "outside",
        "dependencies": [],
    }
    assert (in_transaction["name"], in_transaction["position"]) == ("meetings.in_transaction", "inside")
    dependencies = handler.pop("dependencies")
    assert handler == {
        "name": "meetings.join",
        "file": "meetings.py",
        "line": 31,
        "call_kind": "async",
        "timeout": 2.5,
        "from_container": False,
        "publishes": ["meetings.Joined", "meetings.Warned"],
    }
    assert dependencies[0] == {
        "parameter": "api",
        "type": "Api",
        "qualifier": None,
        "source": "container",
        "lifetime": "singleton",
    }
    assert [(d["parameter"], d["source"], d["lifetime"]) for d in dependencies[1:]] == [
        ("user", "sender", None),
        ("context", "diator", None),
        ("publish", "diator", None),
        ("clock", "default", None),
    ]


def test_json_tells_of_an_event_who_publishes_and_who_handles_it(tmp_path: Path) -> None:
    joined, warned = shown(tmp_path, APP)["events"]
    handlers = joined.pop("handlers")
    middlewares = joined.pop("middlewares")
    assert joined == {
        "event": "meetings.Joined",
        "kind": "domain",
        "published_by": ["meetings.join"],
        "declared": False,
        "subclasses": [],
        "contract": None,
        "subscriptions": [],
        "handled": True,
    }
    assert [(handler["name"], handler["call_kind"]) for handler in handlers] == [
        ("meetings.tell", "thread"),
        ("meetings.note", "async"),
    ]
    # around an event handler, everything runs inside the unit of work of the command
    assert [(layer["name"], layer["position"]) for layer in middlewares] == [("meetings.logged", "inside")]
    assert (warned["handlers"], warned["handled"]) == ([], False)


def test_json_tells_that_a_query_streams(tmp_path: Path) -> None:
    query = shown(tmp_path, APP)["queries"][0]
    assert (query["message"], query["result"], query["streams"]) == ("meetings.Rows", "str", True)
    assert query["handler"]["call_kind"] == "async generator"
    assert query["scope"] is False


def test_the_scope_of_a_command_is_told_where_only_what_follows_it_needs_one(tmp_path: Path) -> None:
    without = APP.replace("call_next: CallNext, session: Session", "call_next: CallNext").replace(
        "command: Join, api: Api, user: User,", "command: Join,"
    )
    assert shown(tmp_path, without)["commands"][0]["scope"] is True  # `note`, for Joined, asks for the session


def test_a_handler_class_says_whether_the_container_gives_it(tmp_path: Path) -> None:
    found = shown(
        tmp_path,
        """
        import punq
        class Api: ...
        @dataclass
        class Join(Command[None]): ...
        @dataclass
        class Leave(Command[None]): ...
        class JoinHandler:
            def __init__(self, api: Api) -> None: ...
            async def handle(self, command: Join, publish: Publish[DomainEvent]) -> None: ...
        class LeaveHandler:
            def __init__(self, api: Api) -> None: ...
            async def handle(self, command: Leave) -> None: ...
        container = punq.Container()
        container.register(Api)
        container.register(LeaveHandler)
        app = Diator(container=container)
        app.add_command(JoinHandler)
        app.add_command(LeaveHandler)
        """,
    )
    join, leave = (command["handler"] for command in found["commands"])
    assert (join["from_container"], [d["parameter"] for d in join["dependencies"]]) == (False, ["api", "publish"])
    assert (leave["from_container"], leave["dependencies"]) == (True, [])
    assert "itself (container)" in run(tmp_path, "show", "meetings:app").stdout


def test_a_qualifier_is_told_of_what_the_container_gives_and_of_what_it_lacks(tmp_path: Path) -> None:
    found = shown(
        tmp_path,
        """
        class Api: ...
        @dataclass
        class Join(Command[None]): ...
        app = Diator()
        app.provides(Annotated[Api, Named("inner")])
        @app.command
        async def join(
            command: Join, inner: Annotated[Api, Named("inner")], outer: Annotated[Api, Named("outer")]
        ) -> None: ...
        """,
    )
    inner, outer = found["commands"][0]["handler"]["dependencies"]
    assert (inner["type"], inner["qualifier"], inner["source"]) == ("Api", "inner", "sender")
    assert (outer["type"], outer["qualifier"], outer["source"]) == ("Api", "outer", "missing")
    assert "inner: Api named inner (sender)" in run(tmp_path, "show", "meetings:app").stdout


def test_an_app_with_problems_is_shown_as_far_as_it_goes(tmp_path: Path) -> None:
    source = """
        app = Diator()
        @dataclass
        class Join(Command[None]): ...
        @app.command
        async def join(command: Join, api: "Api", other: int) -> None: ...
        @app.on_event
        async def lost(event: "Nowhere") -> None: ...
        """
    found = shown(tmp_path, source)
    assert found["problems"] == {"errors": 3, "warnings": 0}
    assert [(d["type"], d["source"]) for d in found["commands"][0]["handler"]["dependencies"]] == [
        ("Api", "missing"),
        ("int", "missing"),
    ]
    assert [handler["name"] for handler in found["unresolved_handlers"]] == ["meetings.lost"]
    done = run(tmp_path, "show", "meetings:app")
    assert ["?", "handler", "lost", "meetings.py:9"] in rows_of(done.stdout)
    assert done.stderr == "3 problems; see: diator check meetings:app\n"


def test_names_are_shown_with_their_module_only_where_they_are_ambiguous(tmp_path: Path) -> None:
    write(tmp_path, "@dataclass\nclass Join(Command[None]): ...\nasync def join(command: Join) -> None: ...\n", "sales")
    write(
        tmp_path,
        """
        import sales
        app = Diator()
        @dataclass
        class Join(Command[None]): ...
        app.add_command(sales.join)
        @app.command
        async def enter(command: Join) -> None: ...
        """,
    )
    output = run(tmp_path, "show", "meetings:app").stdout
    assert ["meetings.Join -> None", "handler", "enter", "meetings.py:9"] in rows_of(output)
    assert ["sales.Join -> None", "handler", "join", "sales.py:6"] in rows_of(output)


def test_square_brackets_in_types_are_text_and_not_markup(tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        app = Diator()
        @dataclass
        class Find(Query[dict[str, list[bool]] | None]): ...
        @app.query
        async def find(query: Find, style: "list[bold]" = ()) -> dict[str, list[bool]] | None: ...
        class bold: ...
        """,
    )
    output = run(tmp_path, "show", "meetings:app").stdout
    assert "Find -> dict[str, list[bool]] | None" in output
    assert "style: list[bold] (default)" in output


def test_an_empty_app_says_so(tmp_path: Path) -> None:
    write(tmp_path, "app = Diator()\n")
    assert run(tmp_path, "show", "meetings:app").stdout == "The app has no handlers.\n"


def test_no_line_ends_in_spaces_and_none_is_folded_when_piped(tmp_path: Path) -> None:
    long_name = "a_handler_with_a_name_that_goes_on" * 4
    write(
        tmp_path,
        f"""
        app = Diator()
        @dataclass
        class Join(Command[None]): ...
        @app.command
        async def {long_name}(command: Join, x: int = 3, y: int = 4) -> None: ...
        """,
    )
    output = run(tmp_path, "show", "meetings:app").stdout
    assert long_name in output
    assert all(line == line.rstrip() for line in output.splitlines())


def test_a_partial_a_method_and_an_object_are_named_after_what_was_written(tmp_path: Path) -> None:
    found = shown(
        tmp_path,
        """
        import functools
        @dataclass
        class Join(Command[None]): ...
        @dataclass
        class Leave(Command[None]): ...
        async def join(word: str, command: Join) -> None: ...
        class Service:
            async def leave(self, command: Leave) -> None: ...
        app = Diator()
        app.add_middleware(LoggingMiddleware())
        app.add_command(functools.partial(join, "hello"))
        app.add_command(Service().leave)
        """,
    )
    assert [command["handler"]["name"] for command in found["commands"]] == ["meetings.join", "meetings.Service.leave"]
    assert found["commands"][0]["middlewares"][0]["name"] == "diator.middleware.LoggingMiddleware"


BROKERED = """
import dishka

class Session: ...
provider = dishka.Provider()
provider.provide(Session, scope=dishka.Scope.REQUEST)
app = Diator("meetings", broker="memory://", container=dishka.make_async_container(provider))

@contract("meetings.user-joined", version=2, key="meeting_id", aliases=("joined",))
@dataclass
class UserJoined(NotificationEvent):
    meeting_id: int
@dataclass
class MeetingChanged(ECSTEvent):
    title: str
@dataclass
class Join(Command[None]): ...
@app.middleware(inside=True)
async def commit(message: Message, call_next: CallNext, session: Session) -> Any: ...
@app.middleware
async def timed(message: Event, call_next: CallNext) -> Any: ...
@app.command
async def join(command: Join, publish: Publish[UserJoined | MeetingChanged]) -> None: ...
@app.on_event(subscription="mail", concurrency=2, timeout=5, retry=Retry(attempts=3, delay=2, never=[ValueError]))
async def send_mail(event: UserJoined, session: Session) -> None: ...
@app.on_event(ordered=False)
async def count(event: UserJoined) -> None: ...
"""


def test_an_event_over_the_broker_is_shown_with_each_subscription_and_its_pipeline(tmp_path: Path) -> None:
    write(tmp_path, BROKERED)
    done = run(tmp_path, "show", "meetings:app")
    assert (done.code, done.stderr) == (0, "")
    rows = rows_of(done.stdout)
    assert ["event", "UserJoined", "over meetings.user-joined for send_mail, count"] in rows
    assert ["event", "MeetingChanged", "over MeetingChanged"] in rows
    assert rows[rows.index(["Events", "Step", "Component", "Dependencies", "Location"]) + 1 :] == [
        ["UserJoined", "published", "notification event", "by join"],
        ["wire name", "meetings.user-joined", "version 2, key meeting_id, formerly joined"],
        ["topic", "meetings.user-joined"],
        ["subscription", "mail", "3 attempts, after 2 s, then x2, up to 300 s"],
        ["2 at a time, in order by key"],
        ["middleware", "timed", "meetings.py:22"],
        ["timeout", "5 s"],
        ["unit of work", "scope of DishkaContainer"],
        ["middleware", "commit", "session: Session (container, scoped)", "meetings.py:20"],
        ["handler", "send_mail", "session: Session (container, scoped)", "meetings.py:26"],
        ["subscription", "meetings.count", "5 attempts, after 1 s, then x2, up to 300 s"],
        ["10 at a time"],
        ["middleware", "timed", "meetings.py:22"],
        ["timeout", "300 s"],
        ["unit of work", "scope of DishkaContainer"],
        ["middleware", "commit", "session: Session (container, scoped)", "meetings.py:20"],
        ["handler", "count", "meetings.py:28"],
        ["MeetingChanged", "published", "ECST event", "by join"],
        ["wire name", "MeetingChanged", "version 1"],
        ["topic", "MeetingChanged"],
        ["handler", "none here"],
    ]


def test_json_tells_how_an_event_over_the_broker_is_known_and_consumed(tmp_path: Path) -> None:
    found = shown(tmp_path, BROKERED)
    assert found["broker"] == "MemoryBroker"
    joined, changed = found["events"]
    assert joined["contract"] == {
        "name": "meetings.user-joined",
        "topic": "meetings.user-joined",
        "version": 2,
        "key": "meeting_id",
        "aliases": ["joined"],
    }
    mail, count = joined["subscriptions"]
    assert mail == {
        "name": "mail",
        "handler": "meetings.send_mail",
        "topics": ["meetings.user-joined", "joined"],
        "ordered": True,
        "delivery": "at-least-once",
        "concurrency": 2,
        "timeout": 5,
        "retry": {
            "attempts": 3,
            "delay": 2,
            "factor": 2.0,
            "max_delay": 300.0,
            "jitter": 0.1,
            "never": ["ValueError"],
        },
        "scope": True,
        "once": False,
    }
    assert (count["name"], count["ordered"], count["timeout"]) == ("meetings.count", False, 300.0)
    assert (joined["handled"], changed["handled"], changed["subscriptions"]) == (True, False, [])
    assert [(layer["name"], layer["position"]) for layer in joined["middlewares"]] == [
        ("meetings.timed", "outside"),
        ("meetings.commit", "inside"),
    ]


def test_events_for_a_broker_are_shown_without_one_too(tmp_path: Path) -> None:
    found = shown(tmp_path, BROKERED.replace(', broker="memory://"', ""))
    joined = found["events"][0]
    assert (found["broker"], joined["contract"]["topic"], joined["subscriptions"]) == (None, "meetings.user-joined", [])
    assert [handler["name"] for handler in joined["handlers"]] == ["meetings.send_mail", "meetings.count"]
    assert ["topic", "meetings.user-joined"] in rows_of(run(tmp_path, "show", "meetings:app").stdout)
