"""``diator subscriptions``: what there is at the broker, what is missing, and creating it."""

import asyncio
import json
from collections.abc import Generator
from pathlib import Path

import pytest

from diator.brokers import Subscription
from diator.errors import BrokerError, BrokerUnavailableError
from tests.cli.held import APP, MAIL, NOTE, START_IT, TOPIC, HeldBroker, held
from tests.cli.prompt import run, write


@pytest.fixture
def broker(tmp_path: Path) -> Generator[HeldBroker]:
    broker = HeldBroker()
    write(tmp_path, APP)
    with held(broker):
        yield broker


def rows(output: str) -> list[list[str]]:
    return [[cell for cell in line.split("  ") if cell.strip()] for line in output.splitlines()[3:] if line]


def test_what_is_missing_is_listed_and_what_to_do_about_it(tmp_path: Path, broker: HeldBroker) -> None:
    done = run(tmp_path, "subscriptions", "list", "meetings:app")
    assert done.code == 0
    assert done.stdout.splitlines()[1].split("  ")[0] == " Subscription"
    lines = [[cell.strip() for cell in row] for row in rows(done.stdout)]
    assert lines == [
        ["meetings.note", "note", "joined", "no", "?", "?"],
        ["meetings.mail", "mail", "joined", "no", "?", "?"],
    ]
    assert (
        done.stderr
        == "some subscriptions do not exist yet; create them with: diator subscriptions apply meetings:app\n"
    )


def test_what_is_missing_is_listed_by_its_names_at_the_broker_if_asked_for(tmp_path: Path, broker: HeldBroker) -> None:
    done = run(tmp_path, "subscriptions", "list", "meetings:app", "-v")
    lines = [[cell.strip() for cell in row] for row in rows(done.stdout)]
    assert lines[0] == ["meetings.note", "note", "joined", "no", "?", "?", "meetings.note"]
    assert lines[1] == ["joined -> meetings.note"]
    assert lines[2][:2] == ["meetings.mail", "mail"]


def test_a_subscription_that_lacks_a_part_exists_in_part(tmp_path: Path, broker: HeldBroker) -> None:
    run(tmp_path, "subscriptions", "apply", "meetings:app")
    write(tmp_path, APP.replace("@app.on_event\nasync def note(event: Joined)", LEFT, 1))
    done = run(tmp_path, "subscriptions", "list", "meetings:app")
    assert [cell.strip() for cell in rows(done.stdout)[0]][:4] == ["meetings.note", "note", "joined, left", "in part"]


def test_apply_creates_what_is_missing_once(tmp_path: Path, broker: HeldBroker) -> None:
    done = run(tmp_path, "subscriptions", "apply", "meetings:app")
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout == "created subscription meetings.note\ncreated subscription meetings.mail\n"
    again = run(tmp_path, "subscriptions", "apply", "meetings:app")
    assert (again.code, again.stdout) == (0, "Nothing was missing.\n")


def test_apply_names_the_parts_if_asked_for(tmp_path: Path, broker: HeldBroker) -> None:
    done = run(tmp_path, "subscriptions", "apply", "meetings:app", "--verbose")
    assert done.stdout.splitlines() == [
        "created subscription meetings.note",
        "    meetings.note",
        "    joined -> meetings.note",
        "created subscription meetings.mail",
        "    meetings.mail",
        "    joined -> meetings.mail",
    ]


def test_the_list_counts_what_waits_and_what_is_dead(tmp_path: Path, broker: HeldBroker) -> None:
    run(tmp_path, "subscriptions", "apply", "meetings:app")
    broker.park(1, 2)
    done = run(tmp_path, "subscriptions", "list", "meetings:app", "--json")
    assert (done.code, done.stderr) == (0, "")
    note, mail = json.loads(done.stdout)["subscriptions"]
    assert note == {
        "subscription": "meetings.note",
        "handler": "note",
        "topics": ["joined"],
        "exists": True,
        "backlog": 0,
        "dead_letters": 2,
        "missing": [],
    }
    assert (mail["backlog"], mail["dead_letters"]) == (2, 0)


LEFT = """
@contract("left")
@dataclass(frozen=True)
class Left(NotificationEvent):
    number: int
@app.on_event
async def note(event: Joined | Left)"""
WITHOUT_MAIL = APP.replace("@app.on_event\nasync def mail", "async def mail")


def names(broker: HeldBroker) -> set[str]:
    return {status.name for status in asyncio.run(broker.other_subscriptions([]))}


@pytest.fixture
def unused(tmp_path: Path, broker: HeldBroker) -> HeldBroker:
    """The handler ``mail`` has had messages and a dead letter, and was deleted; another app is on the broker."""
    broker.park(1, of=MAIL)
    broker.park(2, of=NOTE)
    asyncio.run(_apply(broker, "meetings.eu.mail", "billing.note"))
    write(tmp_path, WITHOUT_MAIL)
    return broker


def _there_is_a_terminal(_verb: str, *, yes: bool) -> None:
    assert not yes


async def _apply(broker: HeldBroker, *subscriptions: str) -> None:
    await broker.connect()
    await broker.apply([Subscription(name, (TOPIC,)) for name in subscriptions], [TOPIC])
    await broker.aclose()


def test_list_shows_subscriptions_of_the_app_that_no_handler_uses(tmp_path: Path, unused: HeldBroker) -> None:
    done = run(tmp_path, "subscriptions", "list", "meetings:app")
    assert done.code == 0
    lines = [[cell.strip() for cell in row] for row in rows(done.stdout)]
    assert [row[0] for row in lines] == ["meetings.note", "meetings.mail"]
    assert lines[1][1:] == ["(none)", "yes", "1", "1"]
    how = "diator subscriptions remove meetings:app meetings.mail"
    assert done.stderr == (f"no handler of the app uses 1 subscription; if no other app does, remove it with: {how}\n")
    document = json.loads(run(tmp_path, "subscriptions", "list", "meetings:app", "--json").stdout)
    assert [one["subscription"] for one in document["subscriptions"]] == ["meetings.note"]
    assert document["others"] == [{"subscription": "meetings.mail", "backlog": 1, "dead_letters": 1}]


def test_list_all_shows_those_of_other_apps_too(tmp_path: Path, unused: HeldBroker) -> None:
    """One whose name has more dots may be of an app whose name has one."""
    document = json.loads(run(tmp_path, "subscriptions", "list", "meetings:app", "--all", "--json").stdout)
    assert {one["subscription"] for one in document["others"]} == {"meetings.mail", "meetings.eu.mail", "billing.note"}
    done = run(tmp_path, "subscriptions", "list", "meetings:app", "--all")
    how = "diator subscriptions remove meetings:app NAME, and --all where NAME does not begin with the name of this app"
    assert how in done.stderr
    for name in ("meetings.mail", "meetings.eu.mail"):
        run(tmp_path, "subscriptions", "remove", "meetings:app", name, "--all", "--yes", "--force")
    done = run(tmp_path, "subscriptions", "list", "meetings:app", "--all")
    assert done.stderr.endswith("remove it with: diator subscriptions remove meetings:app billing.note --all\n")


def test_remove_needs_force_while_something_waits(tmp_path: Path, unused: HeldBroker) -> None:
    done = run(tmp_path, "subscriptions", "remove", "meetings:app", "meetings.mail", "--yes")
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr == ("Error: meetings.mail has 1 message and 1 dead letter; to delete them too, add --force\n")
    assert "meetings.mail" in names(unused)
    done = run(tmp_path, "subscriptions", "remove", "meetings:app", "billing.note", "--yes", "--all")
    assert (done.code, done.stdout) == (0, "Removed billing.note.\n")  # nothing waits in it


def test_remove_deletes_a_subscription_and_no_other(tmp_path: Path, unused: HeldBroker) -> None:
    before = names(unused)
    done = run(tmp_path, "subscriptions", "remove", "meetings:app", "meetings.mail", "--yes", "--force")
    assert (done.code, done.stdout, done.stderr) == (0, "Removed meetings.mail.\n", "")
    assert names(unused) == before - {"meetings.mail"}
    again = run(tmp_path, "subscriptions", "remove", "meetings:app", "meetings.mail", "--yes")
    assert (again.code, again.stdout) == (1, "")
    assert "the broker has no subscription 'meetings.mail'" in again.stderr


def test_remove_asks_first(tmp_path: Path, unused: HeldBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(tmp_path, "subscriptions", "remove", "meetings:app", "meetings.mail")
    assert done.code == 2
    assert "add --yes" in done.stderr
    monkeypatch.setattr("diator.cli.subscriptions.ensure_can_ask", _there_is_a_terminal)
    done = run(tmp_path, "subscriptions", "remove", "meetings:app", "meetings.mail", "--force", text="n\n")
    assert done.code == 1
    assert "Remove meetings.mail with its messages (1) and dead letters (1)? [y/N]" in done.stdout
    assert "meetings.mail" in names(unused)
    assert run(tmp_path, "subscriptions", "remove", "meetings:app", "meetings.mail", "--force", text="y\n").code == 0
    assert "meetings.mail" not in names(unused)


def test_remove_refuses_what_a_handler_uses(tmp_path: Path, unused: HeldBroker) -> None:
    for options in ([], ["--all"]):
        done = run(tmp_path, "subscriptions", "remove", "meetings:app", "meetings.note", "--yes", *options)
        assert (done.code, done.stdout) == (1, "")
        assert "meetings.py:10: error: subscription 'meetings.note' is used by handler note" in done.stderr
    assert "meetings.note" in names(unused)


def test_remove_refuses_what_may_be_of_another_app(tmp_path: Path, unused: HeldBroker) -> None:
    for name in ("billing.note", "meetings.eu.mail"):
        done = run(tmp_path, "subscriptions", "remove", "meetings:app", name, "--yes")
        assert (done.code, done.stdout) == (1, "")
        assert "is not named after the app" in done.stderr
        assert name in names(unused)
    assert run(tmp_path, "subscriptions", "remove", "meetings:app", "billing.note", "--yes", "--all").code == 0
    assert "billing.note" not in names(unused)


def test_remove_refuses_an_app_with_errors(tmp_path: Path, unused: HeldBroker) -> None:
    """Not all its handlers are known, so what seems unused may be used."""
    write(tmp_path, WITHOUT_MAIL + "@app.on_event\nasync def lost(event: Joined, missing: int) -> None: ...\n")
    done = run(tmp_path, "subscriptions", "remove", "meetings:app", "meetings.mail", "--yes")
    assert (done.code, done.stdout) == (1, "")
    assert "meetings.mail" in names(unused)


def test_a_broker_that_does_not_list_shows_those_of_the_app(tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        from diator.brokers import MemoryBroker
        class Forwards:
            def __init__(self, broker):
                for name in dir(broker):
                    if not name.startswith("_") and "subscription" not in name:
                        setattr(self, name, getattr(broker, name))
        app = Diator("meetings", broker=Forwards(MemoryBroker()))
        """,
    )
    done = run(tmp_path, "subscriptions", "list", "meetings:app")
    assert (done.code, done.stderr) == (0, "")
    for command in (("list", "--all"), ("remove", "meetings.mail", "--yes")):
        done = run(tmp_path, "subscriptions", command[0], "meetings:app", *command[1:])
        assert (done.code, done.stdout) == (1, "")
        assert done.stderr == "Error: BrokerError: Forwards can neither list nor remove subscriptions\n"


def test_a_broker_without_the_right_to_list_shows_those_of_the_app(tmp_path: Path, broker: HeldBroker) -> None:
    for error in (BrokerUnavailableError("it takes too long"), BrokerError("no right to list")):
        broker.failing["other_subscriptions"] = error
        done = run(tmp_path, "subscriptions", "list", "meetings:app")
        assert done.code == 0
        assert [row[0].strip() for row in rows(done.stdout)] == ["meetings.note", "meetings.mail"]
    assert "subscriptions that no handler uses are not shown: no right to list" in done.stderr
    done = run(tmp_path, "subscriptions", "list", "meetings:app", "--all")
    assert (done.code, done.stdout, done.stderr) == (1, "", "Error: BrokerError: no right to list\n")


def test_a_broker_that_is_away_is_an_error(tmp_path: Path, broker: HeldBroker) -> None:
    broker.away = True
    for command in ("list", "apply"):
        done = run(tmp_path, "subscriptions", command, "meetings:app")
        assert (done.code, done.stdout) == (1, "")
        assert done.stderr == f"Error: BrokerUnavailableError: connection refused by nowhere:1\n{START_IT}\n"


def test_a_broker_that_does_not_answer_is_an_error(tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        import asyncio
        from diator.brokers import MemoryBroker
        class Mute(MemoryBroker):
            async def status(self, subscriptions, /):
                await asyncio.sleep(60)
        app = Diator("meetings", broker=Mute(), publish_timeout=0.1)
        """,
    )
    done = run(tmp_path, "subscriptions", "list", "meetings:app")
    assert done.code == 1
    assert done.stderr == f"Error: BrokerUnavailableError: the broker did not answer within 0.1 s\n{START_IT}\n"


def test_what_nobody_could_consume_is_not_created(tmp_path: Path, broker: HeldBroker) -> None:
    write(tmp_path, APP + "@app.on_event\nasync def lost(event: Joined, missing: int) -> None: ...\n")
    done = run(tmp_path, "subscriptions", "apply", "meetings:app")
    assert (done.code, done.stdout) == (1, "")
    assert "lost needs missing: int" in done.stderr
    assert run(tmp_path, "subscriptions", "list", "meetings:app").code == 0


def test_an_app_without_handlers_of_brokered_events_has_none(tmp_path: Path) -> None:
    write(tmp_path, 'app = Diator("meetings", broker="memory://")\n')
    done = run(tmp_path, "subscriptions", "list", "meetings:app")
    assert (done.code, done.stdout) == (0, "The app has no subscriptions.\n")


def test_the_container_is_not_opened(tmp_path: Path, broker: HeldBroker) -> None:
    write(
        tmp_path,
        APP.replace("broker=broker)", "broker=broker, container=Watched())").replace(
            "app =",
            """
from diator.containers import ContainerCapability, ValidationResult
class Watched:
    capabilities = ContainerCapability(0)
    def qualifier(self, metadata, /): return None
    def can_resolve(self, key, /): return False
    def lifetime(self, key, /): return None
    def validate(self, keys, provided, /): return ValidationResult()
    def scope(self, provided, /): raise AssertionError
    async def aclose(self): raise AssertionError
app =""",
        ),
    )
    assert run(tmp_path, "subscriptions", "apply", "meetings:app").code == 0
