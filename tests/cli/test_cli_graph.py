"""``diator graph``: the flow of messages as Mermaid text."""

import html
import re
from pathlib import Path

from tests.cli.prompt import run, write

SHAPES = re.compile(r'    (\w+)(\["|\[/"|\(\["|\("|\{\{")(.*?)"[\])}/]+(?:::unhandled)?')
KIND = {'["': "command", '[/"': "query", '("': "handler", '{{"': "event", '(["': "outside"}

BASE = """
app = Diator()
@dataclass
class Join(Command[None]): ...
@dataclass
class Happened(DomainEvent): ...
@dataclass
class Joined(Happened): ...
@dataclass
class JoinedLate(Joined): ...
@dataclass
class Left(Happened): ...
"""


def drawn(folder: Path, source: str) -> str:
    write(folder, source)
    done = run(folder, "graph", "meetings:app")
    assert (done.code, done.stderr) == (0, "")
    return done.stdout


def flow(text: str) -> set[str]:
    """The edges, between labels in place of numbers."""
    labels = {found[1]: found[3] for found in SHAPES.finditer(text)}
    edges = re.findall(r"    (\w+) (-->|-\.->) (\w+)", text)
    return {f"{labels[start]} {arrow} {labels[end]}" for start, arrow, end in edges}


def test_commands_queries_handlers_and_events_are_drawn_in_the_order_of_registration(tmp_path: Path) -> None:
    text = drawn(
        tmp_path,
        """
        app = Diator()
        @dataclass
        class Join(Command[None]): ...
        @dataclass
        class Find(Query[int]): ...
        @dataclass
        class Joined(DomainEvent): ...
        @dataclass
        class Warned(DomainEvent): ...
        @app.command
        async def join(command: Join, publish: Publish[Joined]) -> None: ...
        @app.query
        async def find(query: Find) -> int: ...
        @app.on_event
        async def note(event: Joined, publish: Publish[Warned]) -> None: ...
        @app.on_event
        async def tell(event: Joined | Warned) -> None: ...
        """,
    )
    assert (
        text
        == """\
flowchart LR
    c1["Join"]
    q1[/"Find"/]
    h1("join")
    h2("find")
    h3("note")
    h4("tell")
    e1{{"Joined"}}
    e2{{"Warned"}}
    c1 --> h1
    q1 --> h2
    h1 --> e1
    h3 --> e2
    e1 --> h3
    e1 --> h4
    e2 --> h4
    classDef unhandled stroke-dasharray: 4 4
"""
    )


def test_the_same_app_gives_the_same_text(tmp_path: Path) -> None:
    source = BASE + "@app.command\nasync def join(command: Join, publish: Publish[Left | Joined]) -> None: ...\n"
    assert drawn(tmp_path, source) == drawn(tmp_path, source)


def test_an_event_without_a_handler_is_marked(tmp_path: Path) -> None:
    write(tmp_path, BASE + "@app.command\nasync def join(command: Join, publish: Publish[Joined]) -> None: ...\n")
    text = run(tmp_path, "graph", "meetings:app").stdout
    assert '    e1{{"Joined<br/>no handler"}}:::unhandled\n' in text


def test_an_event_reaches_the_handlers_of_its_base_classes(tmp_path: Path) -> None:
    text = drawn(
        tmp_path,
        BASE
        + """
@app.command
async def join(command: Join, publish: Publish[Joined]) -> None: ...
@app.on_event
async def note(event: Joined) -> None: ...
@app.on_event
async def audit(event: DomainEvent) -> None: ...
""",
    )
    # the base class itself is drawn only where nothing of it is
    assert flow(text) == {"Join --> join", "join --> Joined", "Joined --> note", "Joined --> audit"}


def test_an_event_that_nobody_here_publishes_is_drawn_with_its_handlers(tmp_path: Path) -> None:
    assert flow(drawn(tmp_path, BASE + "@app.on_event\nasync def note(event: Left) -> None: ...\n")) == {
        "Left --> note"
    }


def test_who_publishes_a_base_class_may_publish_its_subclasses(tmp_path: Path) -> None:
    text = drawn(
        tmp_path,
        BASE
        + """
@app.command
async def join(command: Join, publish: Publish[Happened]) -> None: ...
@app.on_event
async def note(event: Joined) -> None: ...
@app.on_event
async def late(event: JoinedLate) -> None: ...
@app.on_event
async def leave(event: Left) -> None: ...
""",
    )
    assert "no handler" not in text  # its subclasses have some
    assert flow(text) == {
        "Join --> join",
        "join --> Happened",
        "Happened -.-> Joined",
        "Joined -.-> JoinedLate",
        "Happened -.-> Left",
        "Joined --> note",
        "JoinedLate --> note",
        "JoinedLate --> late",
        "Left --> leave",
    }


def test_a_handler_whose_events_have_no_hint_may_publish_any_event(tmp_path: Path) -> None:
    text = drawn(
        tmp_path,
        BASE
        + """
@app.command
class JoinHandler:
    @property
    def events(self): return []
    async def handle(self, command: Join) -> None: ...
@app.on_event
async def note(event: Joined) -> None: ...
@app.on_event
async def leave(event: Left) -> None: ...
""",
    )
    assert flow(text) == {
        "Join --> JoinHandler",
        "JoinHandler --> any event",
        "any event -.-> Joined",
        "any event -.-> Left",
        "Joined --> note",
        "Left --> leave",
    }


def test_events_published_from_outside_any_handler_come_from_the_app(tmp_path: Path) -> None:
    text = drawn(
        tmp_path,
        BASE + "app.publishes(Left)\n@app.on_event\nasync def leave(event: Left) -> None: ...\n",
    )
    assert flow(text) == {"app.publish --> Left", "Left --> leave"}


def test_two_handlers_of_one_name_stay_two(tmp_path: Path) -> None:
    text = drawn(
        tmp_path,
        BASE
        + """
def make(cls):
    async def handle(event) -> None: ...
    app.add_event_handler(handle, cls)
make(Joined)
make(Left)
""",
    )
    assert [found[1] for found in SHAPES.finditer(text) if KIND[found[2]] == "handler"] == ["h1", "h2"]


def test_words_of_mermaid_are_names_like_any_other(tmp_path: Path) -> None:
    text = drawn(
        tmp_path,
        """
        app = Diator()
        @dataclass
        class end(Command[None]): ...
        @app.command
        async def subgraph(command: end) -> None: ...
        """,
    )
    assert {'    c1["end"]', '    h1("subgraph")', "    c1 --> h1"} < set(text.splitlines())


def test_any_name_survives_as_a_label(tmp_path: Path) -> None:
    name = "We\"ird<b>#`x`\n&amp;; %%{} \\ --> 'ü' | $1"
    text = drawn(
        tmp_path,
        f"""
        app = Diator()
        Weird = type({name!r}, (Command,), {{}})
        app.add_command(lambda command: None, Weird)
        """,
    )
    label = next(found[3] for found in SHAPES.finditer(text) if KIND[found[2]] == "command")
    assert not re.search(r"[\"<>`&\n{}%\\]", label)
    assert label.isascii()
    # Mermaid reads #60; as HTML reads &#60;
    assert html.unescape(re.sub(r"#(\d+);", r"&#\1;", label)) == name


def test_a_generic_message_is_drawn_as_its_handler_names_it(tmp_path: Path) -> None:
    text = drawn(
        tmp_path,
        """
        T = TypeVar("T")
        @dataclass
        class GetById(Query[T], Generic[T]): ...
        class Meeting: ...
        app = Diator()
        @app.query
        async def get(query: GetById[Meeting]) -> Meeting: ...
        """,
    )
    assert '    q1[/"GetById[Meeting]"/]' in text


def test_an_app_with_problems_is_drawn_as_far_as_it_goes(tmp_path: Path) -> None:
    text = drawn(
        tmp_path,
        BASE
        + """
@app.command
async def join(command: Join, api: int, publish: Publish[Left]) -> None: ...
@app.on_event
async def lost(event: "Nowhere") -> None: ...
""",
    )
    assert '    h1("join")' in text
    assert "lost" not in text


def test_an_empty_app_is_an_empty_flowchart(tmp_path: Path) -> None:
    assert drawn(tmp_path, "app = Diator()\n").startswith("flowchart LR\n    classDef")


BROKERED = """
app = Diator("meetings", broker="memory://")
@dataclass
class Join(Command[None]): ...
@contract("user-joined", topic="users")
@dataclass
class Joined(NotificationEvent): ...
@contract("user-left", topic="users")
@dataclass
class Left(NotificationEvent): ...
@dataclass
class Closed(ECSTEvent): ...
@app.command
async def join(command: Join, publish: Publish[Joined | Closed]) -> None: ...
@app.on_event(subscription="a|b")
async def note(event: Joined | Left) -> None: ...
"""


def test_events_over_the_broker_go_by_their_topic_and_on_by_subscriptions(tmp_path: Path) -> None:
    lines = drawn(tmp_path, BROKERED).splitlines()
    assert lines[4:] == [
        '    e1{{"Joined"}}',
        '    e2{{"Closed"}}',
        '    e3{{"Left"}}',
        '    t1[("users")]',
        '    t2[("Closed")]',
        "    c1 --> h1",
        "    h1 --> e1",
        "    h1 --> e2",
        "    e1 --> t1",
        "    e2 --> t2",
        "    e3 --> t1",
        '    t1 -->|"a#124;b"| h2',
        "    classDef unhandled stroke-dasharray: 4 4",
    ]


def test_events_over_the_broker_are_drawn_without_one_too(tmp_path: Path) -> None:
    lines = drawn(tmp_path, BROKERED.replace(', broker="memory://"', "")).splitlines()
    assert [line.strip() for line in lines if "-->" in line][3:] == [
        "e1 --> t1",
        "t1 --> h2",
        "e2 --> t2",
        "e3 --> t1",
        "t1 --> h2",
    ]
