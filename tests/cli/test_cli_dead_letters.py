"""``diator dead-letters``: read, replayed and purged, over a broker that keeps its state between commands."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from diator import Diator, NotificationEvent, Retry, contract
from diator.brokers import MemoryBroker, MoveToDeadLetters
from diator.errors import PROBLEMS_PAGE, BrokerError, BrokerUnavailableError, Problem
from tests.cli.held import APP, MAIL, NOTE, START_IT, HeldBroker, held
from tests.cli.prompt import Outcome, run, write


@pytest.fixture
def broker(tmp_path: Path) -> Generator[HeldBroker]:
    broker = HeldBroker()
    write(tmp_path, APP)
    with held(broker):
        yield broker


def letters(folder: Path, command: str, *options: str) -> Outcome:
    return run(folder, "dead-letters", command, "meetings:app", *options)


def listed(folder: Path, *options: str, code: int = 0) -> list[dict[str, Any]]:
    done = letters(folder, "list", "--json", *options)
    assert done.code == code, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["dead_letters"]
    return found


def message_ids(folder: Path, *options: str) -> list[str]:
    return [letter["message_id"] for letter in listed(folder, *options)]


# list


def test_without_dead_letters_the_list_says_so(tmp_path: Path, broker: HeldBroker) -> None:
    run(tmp_path, "subscriptions", "apply", "meetings:app")
    done = letters(tmp_path, "list")
    assert (done.code, done.stdout, done.stderr) == (0, "No dead letters.\n", "")


def test_where_nothing_fits_the_list_does_not_say_that_there_is_nothing(tmp_path: Path, broker: HeldBroker) -> None:
    broker.park(1)
    broker.park(2, of=MAIL)
    done = letters(tmp_path, "list", "--error", "zzz")
    assert (done.code, done.stdout, done.stderr) == (0, "No dead letter matches.\n", "")
    done = letters(tmp_path, "list", "--id", "99")
    assert (done.code, done.stdout) == (1, "No dead letter matches.\n")
    assert done.stderr == "Error: no matching dead letter has the id '99'\n"
    assert listed(tmp_path, "--message-id", "elsewhere", code=1) == []


def test_a_subscription_that_the_broker_does_not_have_is_told(tmp_path: Path, broker: HeldBroker) -> None:
    told = "create it with: diator subscriptions apply meetings:app\n"
    for command in (("list",), ("replay", "--yes")):
        done = letters(tmp_path, *command)
        assert (done.code, done.stderr) == (0, f"the broker has no meetings.note, meetings.mail; {told}")
    broker.park(1)
    assert letters(tmp_path, "list").stderr == f"the broker has no meetings.mail; {told}"
    assert letters(tmp_path, "list", "-s", "meetings.note").stderr == ""


def test_the_list_is_a_table_of_all_subscriptions(tmp_path: Path, broker: HeldBroker) -> None:
    (one,) = broker.park(1)
    broker.park(2, of=MAIL, why=MoveToDeadLetters("rejected: spam", None, None, 1))
    lines = letters(tmp_path, "list").stdout.splitlines()
    assert " ".join(lines[1].split()) == "Id Subscription Event Message id Reason Error Attempts Dead-lettered at"
    cells = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines[3:] if line]
    error = "builtins.ValueError: no such meeting"
    assert cells[0][:7] == [one, "meetings.note", "joined", "event-1", "exhausted after 5 attempts", error, "5"]
    assert cells[-1][1:5] == ["meetings.mail", "joined", "event-2", "rejected: spam"]


def test_json_has_what_the_table_has(tmp_path: Path, broker: HeldBroker) -> None:
    (one,) = broker.park(1)
    (found,) = listed(tmp_path)
    assert found.pop("dead_lettered_at").endswith("+00:00")
    assert found == {
        "id": one,
        "subscription": "meetings.note",
        "event": "joined",
        "message_id": "event-1",
        "reason": "exhausted after 5 attempts",
        "error": "builtins.ValueError: no such meeting",
        "attempts": 5,
    }


def test_filters_choose_and_all_must_fit(tmp_path: Path, broker: HeldBroker) -> None:
    one, two = broker.park(1, 2)
    broker.park(3, why=MoveToDeadLetters("undecodable: it is not a CloudEvent", None, None, 0))
    broker.park(4, of=MAIL, why=MoveToDeadLetters("exhausted", "asyncpg.DeadlockError: a\nb", None, 3))
    broker.ages = {one: timedelta(hours=3)}
    assert message_ids(tmp_path, "--subscription", "meetings.mail") == ["event-4"]
    assert message_ids(tmp_path, "-s", "meetings.mail", "-s", "meetings.note") == [f"event-{n}" for n in (4, 1, 2, 3)]
    assert message_ids(tmp_path, "--message-id", "event-2") == ["event-2"]
    assert message_ids(tmp_path, "--message-id", "event-2", "--message-id", "event-4") == ["event-2", "event-4"]
    assert message_ids(tmp_path, "-s", "meetings.note", "--id", two) == ["event-2"]
    assert message_ids(tmp_path, "--older-than", "2h") == ["event-1"]
    assert message_ids(tmp_path, "--newer-than", "2h", "-s", "meetings.note") == ["event-2", "event-3"]
    assert message_ids(tmp_path, "--older-than", "2h30m", "--newer-than", "1d") == ["event-1"]
    assert message_ids(tmp_path, "--error", "deadlockerror") == ["event-4"]
    assert message_ids(tmp_path, "--error", "no such meeting") == ["event-1", "event-2"]
    assert message_ids(tmp_path, "--error", "CloudEvent") == ["event-3"]
    assert listed(tmp_path, "--error", "no such meeting", "--message-id", "event-4", code=1) == []
    assert message_ids(tmp_path, "--limit", "2") == ["event-1", "event-2"]
    assert letters(tmp_path, "list", "--limit", "2").stderr == "there are more than 2; see them with a higher --limit\n"
    assert letters(tmp_path, "list", "--limit", "4").stderr == ""


@pytest.mark.parametrize("text", ["2", "h", "2x", "-2h", "2h 3m", "99999999999w"])
def test_what_is_no_age_is_a_usage_error(tmp_path: Path, broker: HeldBroker, text: str) -> None:
    done = letters(tmp_path, "list", f"--older-than={text}")
    assert done.code == 2
    assert "--older-than" in done.stderr


def test_an_unknown_subscription_suggests_close_names(tmp_path: Path, broker: HeldBroker) -> None:
    done = letters(tmp_path, "list", "--subscription", "meetings.nite")
    assert (done.code, done.stdout) == (1, "")
    assert "there is no subscription 'meetings.nite'" in done.stderr
    assert "did you mean 'meetings.note'" in done.stderr
    far = letters(tmp_path, "replay", "--yes", "-s", "xyz").stderr
    assert "there are: meetings.note, meetings.mail" in far


def test_what_an_attacker_wrote_reaches_no_terminal_as_a_command(tmp_path: Path, broker: HeldBroker) -> None:
    (one,) = broker.park(1, why=MoveToDeadLetters("exhausted", "x.E: \x1b[2J\x9b31m\x07", "in\x1b]0;title\x07", 1))
    broker.changes = {one: {"headers": {"x\x1b[1m": "\x1b[0m"}, "body": b"\x1b[31m"}}
    for command in ("list", "show"):
        done = letters(tmp_path, command)
        assert not set(done.stdout) & set("\x1b\x9b\x07")
        assert r"\x1b[2J\x9b31m\x07" in done.stdout


# show


def test_show_tells_everything(tmp_path: Path, broker: HeldBroker) -> None:
    (one,) = broker.park(7)
    broker.changes = {one: {"headers": {"content-type": "application/json"}}}
    done = letters(tmp_path, "show", "--id", one)
    assert (done.code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"dead letter {one} of meetings.note"
    assert "    event:       joined" in lines
    assert "    message id:  event-7" in lines
    assert "    attempts:    5" in lines
    assert "    deliveries:  1" in lines
    assert lines[lines.index("    traceback:") + 2] == "        ValueError: no"
    assert lines[lines.index("    headers:") + 1] == "        content-type: application/json"
    body = "\n".join(lines[lines.index("    body:") + 1 :])
    assert json.loads(body)["data"] == {"number": 7}
    assert '            "number": 7' in body


@pytest.mark.parametrize(
    ("body", "shown"), [(b"\xff\x00", r"b'\xff\x00'"), (b"", "b''"), (b'{"a": 1', "b'{\"a\": 1'"), (b"[1.50]", "1.50")]
)
def test_show_writes_a_body_that_is_no_json_as_its_bytes(
    tmp_path: Path, broker: HeldBroker, body: bytes, shown: str
) -> None:
    (one,) = broker.park(7)
    broker.changes = {one: {"body": body}}
    done = letters(tmp_path, "show")
    assert done.code == 0
    assert shown in done.stdout
    assert "    message id:  ?" in done.stdout


def test_show_gives_json_for_tools(tmp_path: Path, broker: HeldBroker) -> None:
    _, two = broker.park(1, 2)
    broker.changes = {two: {"body": b"\xff\x00"}}
    first, second = json.loads(letters(tmp_path, "show", "--json").stdout)["dead_letters"]
    assert json.loads(first["body"])["id"] == "event-1"
    assert (first["encoding"], first["topic"], first["traceback"]) == (
        "utf-8",
        "joined",
        "Traceback ...\nValueError: no",
    )
    assert (second["encoding"], second["body"], second["message_id"]) == ("base64", "/wA=", None)


def test_show_of_what_is_not_there_fails(tmp_path: Path, broker: HeldBroker) -> None:
    run(tmp_path, "subscriptions", "apply", "meetings:app")
    done = letters(tmp_path, "show", "--message-id", "event-1")
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr == "Error: no matching dead letter has the message id 'event-1'\n"
    assert letters(tmp_path, "show").stderr == "Error: no dead letter matches\n"


# replay and purge


@contract("joined")
@dataclass
class Joined(NotificationEvent):
    number: int


def test_what_failed_is_replayed_to_its_own_handler_only(tmp_path: Path) -> None:
    broker = MemoryBroker()
    app = Diator("meetings", broker=broker, retry=Retry(attempts=1))
    ran: list[str] = []
    mended: list[bool] = []

    @app.on_event
    async def note(event: Joined) -> None:
        ran.append("note")
        if not mended:
            raise ValueError("no such meeting")

    @app.on_event
    async def mail(event: Joined) -> None:
        ran.append("mail")

    async def work(*events: Joined) -> None:
        async with app, app.worker():
            if events:
                await app.publish(*events)
            await asyncio.sleep(0.2)

    write(tmp_path, APP)
    with held(broker):
        asyncio.run(work(Joined(1)))
        assert sorted(ran) == ["mail", "note"]
        (letter,) = listed(tmp_path)
        assert (letter["subscription"], letter["error"]) == ("meetings.note", "builtins.ValueError: no such meeting")
        done = letters(tmp_path, "replay", "--message-id", letter["message_id"], "--yes")
        assert (done.code, done.stdout, done.stderr) == (0, "Replayed 1 dead letter of meetings.note.\n", "")
        mended.append(True)
        asyncio.run(work())
        assert ran[2:] == ["note"]
        assert listed(tmp_path) == []


def test_purge_deletes_what_fits_and_nothing_else(tmp_path: Path, broker: HeldBroker) -> None:
    one, two = broker.park(1, 2)
    broker.park(3, of=MAIL)
    done = letters(tmp_path, "purge", "-s", "meetings.note", "--id", one, "--yes")
    assert (done.code, done.stdout, done.stderr) == (0, "Purged 1 dead letter of meetings.note.\n", "")
    assert broker.parked() == [two]
    assert len(broker.parked(MAIL)) == 1


@pytest.mark.parametrize("command", ["replay", "purge"])
def test_a_dry_run_lists_and_touches_nothing(tmp_path: Path, broker: HeldBroker, command: str) -> None:
    broker.park(1, 2)
    broker.park(3, of=MAIL)
    done = letters(tmp_path, command, "--dry-run")
    assert done.code == 0
    assert "event-1" in done.stdout
    would = f"Would {command} 3 dead letters of meetings.note (2), meetings.mail (1)."
    assert done.stdout.splitlines()[-1] == would
    assert broker.tried == []


@pytest.mark.parametrize("command", ["replay", "purge"])
def test_without_a_terminal_to_ask_nothing_is_touched(tmp_path: Path, broker: HeldBroker, command: str) -> None:
    broker.park(1)
    done = letters(tmp_path, command)
    assert (done.code, done.stdout) == (2, "")
    text = f"there is no terminal to ask whether to {command}; add --yes, or look first with --dry-run"
    assert done.stderr == f"Error: {text}\n"
    assert broker.tried == []


PTY = """
import pty, sys
sys.exit(pty.spawn([sys.executable, "-m", "diator", *sys.argv[1:]]) >> 8)
"""


@pytest.mark.once
@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are of Unix")
@pytest.mark.parametrize(("answer", "code", "said"), [("y", 0, "Purged 1 dead letter"), ("n", 1, "Aborted")])
def test_at_a_terminal_it_asks_first(tmp_path: Path, answer: str, code: int, said: str) -> None:
    held_by_the_app = APP.replace(
        "from held import broker", "from tests.cli.held import HeldBroker; broker = HeldBroker()"
    )
    write(tmp_path, held_by_the_app + "broker.park(1)\n")
    done = subprocess.run(
        [sys.executable, "-c", PTY, "dead-letters", "purge", "meetings:app"],
        cwd=tmp_path,
        input=f"{answer}\n",
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert "Purge 1 dead letter of meetings.note? [y/N]:" in done.stdout
    assert "event-1" in done.stdout
    assert said in done.stdout
    assert done.returncode == code


def test_one_that_fails_does_not_keep_the_others(tmp_path: Path, broker: HeldBroker) -> None:
    one, two, three, four = broker.park(1, 2, 3, 4)
    broker.failing = {two: BrokerError("it is\x1b locked")}
    broker.gone = {three}
    done = letters(tmp_path, "replay", "--yes")
    assert (done.code, done.stdout) == (1, "Replayed 2 dead letters of meetings.note.\n")
    assert done.stderr.splitlines() == [
        f"meetings.note: {three} had been removed already",
        f"meetings.note: {two} was not replayed: BrokerError: it is\\x1b locked",
    ]
    assert broker.tried == [one, two, three, four]
    assert broker.parked() == [two, three]


def test_a_broker_that_goes_away_is_not_asked_for_each_of_many(tmp_path: Path, broker: HeldBroker) -> None:
    ids = broker.park(*range(6))
    broker.failing = dict.fromkeys(ids[1:], BrokerUnavailableError("connection lost"))
    done = letters(tmp_path, "purge", "--yes")
    assert (done.code, done.stdout) == (1, "Purged 1 dead letter of meetings.note.\n")
    assert "The broker is unavailable, so 2 dead letters of meetings.note were not tried." in done.stderr
    assert broker.tried == ids[:4]


def test_an_id_that_is_missing_is_told_and_the_others_are_replayed(tmp_path: Path, broker: HeldBroker) -> None:
    one, _ = broker.park(1, 2)
    done = letters(tmp_path, "replay", "--yes", "--id", one, "--id", "nowhere")
    assert (done.code, done.stdout) == (1, "Replayed 1 dead letter of meetings.note.\n")
    assert done.stderr == "Error: no matching dead letter has the id 'nowhere'\n"


def test_an_id_that_several_subscriptions_have_is_refused(tmp_path: Path, broker: HeldBroker) -> None:
    (one,) = broker.park(1)
    assert broker.park(1, of=MAIL) == [one]  # they are counted for each
    done = letters(tmp_path, "purge", "--yes", "--id", one)
    assert (done.code, broker.tried) == (1, [])
    which = f"the id '{one}' is one of meetings.note and of meetings.mail; say which: --subscription meetings.note"
    assert done.stderr == f"Error: {which}\n"
    assert letters(tmp_path, "purge", "--yes", "--id", one, "-s", "meetings.mail").code == 0
    assert (broker.parked(), broker.parked(MAIL)) == ([one], [])


def test_nothing_that_fits_is_no_failure(tmp_path: Path, broker: HeldBroker) -> None:
    done = letters(tmp_path, "replay", "--yes", "--older-than", "1w")
    assert (done.code, done.stdout) == (0, "No dead letter matches.\n")


def test_a_broker_that_is_away_is_an_error(tmp_path: Path, broker: HeldBroker) -> None:
    broker.away = True
    done = letters(tmp_path, "list")
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr == f"Error: BrokerUnavailableError: connection refused by nowhere:1\n{START_IT}\n"


def test_what_a_broker_says_of_the_app_names_it(tmp_path: Path, broker: HeldBroker) -> None:
    broker.failing = {"connect": BrokerError("the queue is missing: run `diator-x plan module:app`")}
    done = letters(tmp_path, "list")
    assert done.stderr == "Error: BrokerError: the queue is missing: run `diator-x plan meetings:app`\n"


@pytest.mark.parametrize(
    "command", [("dead-letters", "list"), ("subscriptions", "list"), ("subscriptions", "apply")], ids=" ".join
)
def test_what_connecting_lacks_is_told_as_a_problem(
    tmp_path: Path, broker: HeldBroker, command: tuple[str, str]
) -> None:
    broker.unfit = Problem("broker", "the broker needs a library", "install it")
    done = run(tmp_path, *command, "meetings:app")
    assert (done.code, done.stdout) == (1, "")
    problem = "error: the broker needs a library [broker]\n    -> install it\n"
    assert done.stderr == f"{problem}what each [code] means: {PROBLEMS_PAGE}\n"


def test_an_app_without_a_broker_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "app = Diator()\n")
    done = letters(tmp_path, "list")
    assert done.code == 1
    assert "<Diator> has no message broker" in done.stderr


def test_a_broker_that_keeps_none_says_so(tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        from diator.brokers import BrokerCapability, MemoryBroker
        class Lossy(MemoryBroker):
            capabilities = BrokerCapability.CONSUMER_GROUPS
        app = Diator("meetings", broker=Lossy())
        """,
    )
    done = letters(tmp_path, "list")
    assert done.code == 1
    assert (
        done.stderr
        == "Error: BrokerError: Lossy keeps no dead letters: messages that fail permanently are only logged\n"
    )


def test_an_app_with_errors_is_listed_and_nothing_of_it_is_changed(tmp_path: Path, broker: HeldBroker) -> None:
    write(tmp_path, APP + "@app.on_event\nasync def lost(event: Joined, missing: int) -> None: ...\n")
    broker.park(1)
    done = letters(tmp_path, "list")
    assert (done.code, "event-1" in done.stdout) == (0, True)
    assert done.stderr.startswith("1 problem; see: diator check meetings:app\n")
    refused = letters(tmp_path, "replay", "--yes")
    assert (refused.code, broker.tried) == (1, [])
    assert "lost needs missing: int" in refused.stderr


def test_note_and_mail_are_what_the_app_calls_them(tmp_path: Path, broker: HeldBroker) -> None:
    done = run(tmp_path, "subscriptions", "list", "meetings:app", "--json")
    names = [one["subscription"] for one in json.loads(done.stdout)["subscriptions"]]
    assert names == [NOTE.name, MAIL.name]
