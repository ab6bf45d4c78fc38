"""``diator subscriptions``: what there is at the broker, what is missing, and creating it."""

import json
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.cli.held import APP, HeldBroker, held
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
    assert lines[0] == ["meetings.note", "note", "joined", "no", "?", "?", "meetings.note"]
    assert lines[1] == ["joined -> meetings.note"]
    assert lines[2][:2] == ["meetings.mail", "mail"]
    assert done.stderr == "some of it does not exist yet; create it with: diator subscriptions apply meetings:app\n"


def test_apply_creates_what_is_missing_once(tmp_path: Path, broker: HeldBroker) -> None:
    done = run(tmp_path, "subscriptions", "apply", "meetings:app")
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "created meetings.note",
        "created joined -> meetings.note",
        "created meetings.mail",
        "created joined -> meetings.mail",
    ]
    again = run(tmp_path, "subscriptions", "apply", "meetings:app")
    assert (again.code, again.stdout) == (0, "Nothing was missing.\n")


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


def test_a_broker_that_is_away_is_an_error(tmp_path: Path, broker: HeldBroker) -> None:
    broker.away = True
    for command in ("list", "apply"):
        done = run(tmp_path, "subscriptions", command, "meetings:app")
        assert (done.code, done.stdout) == (1, "")
        assert done.stderr == "Error: BrokerUnavailableError: connection refused by nowhere:1\n"


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
    assert done.stderr == "Error: BrokerUnavailableError: the broker did not answer within 0.1 s\n"


def test_what_nobody_could_consume_is_not_created(tmp_path: Path, broker: HeldBroker) -> None:
    write(tmp_path, APP + "@app.on_event\nasync def lost(event: Joined, missing: int) -> None: ...\n")
    done = run(tmp_path, "subscriptions", "apply", "meetings:app")
    assert (done.code, done.stdout) == (1, "")
    assert "lost asks for missing: int" in done.stderr
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
