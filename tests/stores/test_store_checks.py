"""What ``diator check`` and ``diator show`` say of an app with a store."""

import json
from pathlib import Path

from tests.cli.prompt import run, write

APP = """
import dishka
from tests.stores.sqlite_store import SQLiteSession, SQLiteStore

class Orders:
    def __init__(self, session: SQLiteSession) -> None: ...
provider = dishka.Provider(scope=dishka.Scope.REQUEST)
provider.provide(lambda: SQLiteStore("x.db").connect(), provides=SQLiteSession)
provider.provide(Orders)
app = Diator("meetings", broker="memory://", container=dishka.make_async_container(provider), store=SQLiteStore("x.db"))

@dataclass
class UserJoined(NotificationEvent): ...
@dataclass
class Join(Command[None]): ...
@app.command
async def join(command: Join, publish: Publish[UserJoined]) -> None: ...
@app.on_event
async def bill(event: UserJoined, orders: Orders) -> None: ...
@app.on_event
async def mail(event: UserJoined) -> None: ...
@app.on_event(once=False)
async def log(event: UserJoined) -> None: ...
"""


def test_check_names_the_handlers_without_an_inbox_that_do_not_say_so(tmp_path: Path) -> None:
    write(tmp_path, APP)
    done = run(tmp_path, "check", "meetings:app")
    assert done.code == 0
    assert "without an inbox: meetings.mail\n    -> they don't use the session of the store: once=True" in done.stdout
    found = json.loads(run(tmp_path, "check", "meetings:app", "--json").stdout)
    assert found["without_inbox"] == ["meetings.mail"]


def test_show_tells_the_store_and_which_handlers_have_an_inbox(tmp_path: Path) -> None:
    write(tmp_path, APP)
    assert "once: the inbox knows what was handled" in run(tmp_path, "show", "meetings:app").stdout
    found = json.loads(run(tmp_path, "show", "meetings:app", "--json").stdout)
    assert found["store"] == "SQLiteStore"
    assert found["commands"][0]["scope"] is True
    (joined,) = found["events"]
    subscriptions = {one["name"]: (one["once"], one["scope"]) for one in joined["subscriptions"]}
    assert subscriptions == {
        "meetings.bill": (True, True),
        "meetings.mail": (False, False),
        "meetings.log": (False, False),
    }


def test_an_app_without_a_name_is_a_problem(tmp_path: Path) -> None:
    write(tmp_path, APP.replace('Diator("meetings", ', "Diator("))
    done = run(tmp_path, "check", "meetings:app")
    assert done.code == 1
    assert "the app has a store but no name, which identifies it in the tables [unnamed-app]" in done.stdout
