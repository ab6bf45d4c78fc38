"""``diator outbox`` and ``diator relay``, on a store in a file that outlives the commands."""

import asyncio
import json
import logging
import os
import sys
import urllib.request
from collections.abc import Callable, Coroutine
from pathlib import Path
from signal import SIGTERM
from typing import Any

import pytest

from diator.stores import Store
from tests.cli.prompt import Outcome, run, run_script, write
from tests.cli.workers import running
from tests.stores.shop import Ordered, Shop
from tests.stores.sqlite_store import SQLiteStore

ROOT = Path(__file__).parents[2]
APP = """
from pathlib import Path
from tests.stores.shop import Shop
app = Shop(Path(__file__).parent, relay=False).app
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, APP, "shop")
    return tmp_path


def outbox(folder: Path, command: str, *options: str, text: str | None = None) -> Outcome:
    return run(folder, "outbox", command, "shop:app", *options, text=text)


def with_shop(folder: Path, work: Callable[[Shop], Coroutine[Any, Any, Any]]) -> Any:
    """Do something in another process of the app."""

    async def main() -> Any:
        shop = Shop(folder, relay=False)
        async with shop.app:
            return await work(shop)

    return asyncio.run(main())


def reject(folder: Path, count: int, error: str = "too large") -> list[str]:
    """Have so many events become dead letters of the outbox; return their ids."""

    async def work(shop: Shop) -> list[str]:
        store: Store = shop.store
        for number in range(count):
            await shop.app.publish(Ordered(number))
        held = await store.lease("test", seconds=60, rank=0)
        rows = await store.read(held, 100)
        for row in rows:
            await store.reject(held, row, error)
        await store.release("test")
        return [row.id for row in rows]

    found: list[str] = with_shop(folder, work)
    return found


def publish(folder: Path, count: int) -> None:
    async def work(shop: Shop) -> None:
        for number in range(count):
            await shop.app.publish(Ordered(number))

    with_shop(folder, work)


def status(folder: Path) -> dict[str, Any]:
    done = outbox(folder, "status", "--json")
    assert done.code == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def answer(port: int, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
        found: bytes = response.read()
    return found


def test_tables_are_created_once(folder: Path) -> None:
    done = outbox(folder, "status")
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr.endswith("has no tables of Diator; create them: diator outbox create shop:app\n")
    done = outbox(folder, "create")
    assert (done.code, done.stderr) == (0, "")
    assert "created diator_outbox\n" in done.stdout
    done = outbox(folder, "create")
    assert (done.code, done.stdout, done.stderr) == (0, "Nothing was missing.\n", "")


def test_the_commands_leave_warnings_of_the_database_to_the_start_of_the_app(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    outbox(folder, "create")
    opened = SQLiteStore.open

    async def warning(store: SQLiteStore, app: str, container: Any, /) -> None:
        logging.getLogger("diator.stores").warning("set WAL once")
        await opened(store, app, container)

    monkeypatch.setattr(SQLiteStore, "open", warning)
    assert outbox(folder, "status").code == 0
    assert caplog.text == ""
    with_shop(folder, _nothing)
    assert "set WAL once" in caplog.text


async def _nothing(shop: Shop) -> None:
    pass


def test_the_status_shows_what_waits_and_who_relays(folder: Path) -> None:
    outbox(folder, "create")
    done = outbox(folder, "status")
    assert " ".join(done.stdout.splitlines()[1].split()) == "Partition Relay Waiting"
    assert done.stdout.splitlines()[-4:] == [
        "no events waiting",
        "no events delayed",
        "no dead letters of the outbox",
        "no messages in the inbox",
    ]
    publish(folder, 2)
    reject_one = reject(folder, 1)
    assert len(reject_one) == 3  # those that waited too
    publish(folder, 1)
    last = outbox(folder, "status").stdout.splitlines()[-4:]
    assert last[0].startswith("1 event waiting, the oldest for ")
    assert last[2] == "3 dead letters of the outbox"
    found = status(folder)
    assert (found["app"], found["waiting"], found["delayed"], found["dead_letters"]) == ("shop:app", 1, 0, 3)
    assert 0 <= found["oldest_seconds"] < 60
    assert {one["relay"] for one in found["partitions"]} == {None}


def test_dead_letters_are_listed_with_their_reasons(folder: Path) -> None:
    outbox(folder, "create")
    done = outbox(folder, "dead-letters")
    assert (done.code, done.stdout) == (0, "No dead letters.\n")
    ids = reject(folder, 3, "MessageTooLargeError: it has \x1b[31m 300,000 bytes\nand more")
    done = outbox(folder, "dead-letters")
    assert " ".join(done.stdout.splitlines()[1].split()) == "Message id Topic Key Error Dead-lettered at"
    assert "MessageTooLargeError: it has \\x1b[31m 300,000 bytes " in done.stdout
    assert "and more" not in done.stdout
    done = outbox(folder, "dead-letters", "--limit", "2")
    assert [one in done.stdout for one in ids] == [True, True, False]
    assert done.stderr == "there are more than 2; see them with a higher --limit\n"
    done = outbox(folder, "dead-letters", "--json", "--id", ids[1])
    (letter,) = json.loads(done.stdout)["dead_letters"]
    assert (letter["message_id"], letter["topic"], letter["key"]) == (ids[1], "shop.ordered", "1")
    assert json.loads(letter["body"])["data"] == {"number": 1}
    assert letter["encoding"] == "utf-8"
    done = outbox(folder, "dead-letters", "--id", "elsewhere")
    assert (done.code, done.stderr) == (1, "Error: no dead letter of the outbox has the id 'elsewhere'\n")


def test_dead_letters_are_put_back(folder: Path) -> None:
    outbox(folder, "create")
    ids = reject(folder, 3)
    done = outbox(folder, "replay", "--id", ids[0], "--id", "elsewhere", "--yes")
    assert (done.code, done.stdout) == (1, "Replayed 1 dead letter.\n")
    assert done.stderr == "Error: no dead letter of the outbox has the id 'elsewhere'\n"
    assert (status(folder)["waiting"], status(folder)["dead_letters"]) == (1, 2)
    done = outbox(folder, "replay", "--all", "--yes")
    assert (done.code, done.stdout, done.stderr) == (0, "Replayed 2 dead letters.\n", "")
    assert (status(folder)["waiting"], status(folder)["dead_letters"]) == (3, 0)


def test_dead_letters_are_deleted(folder: Path) -> None:
    outbox(folder, "create")
    ids = reject(folder, 2)
    done = outbox(folder, "purge", "--id", ids[0], "--yes")
    assert (done.code, done.stdout) == (0, "Purged 1 dead letter.\n")
    done = outbox(folder, "purge", "--id", ids[0], "--yes")
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr == f"Error: no dead letter of the outbox has the id {ids[0]!r}\n"
    assert (status(folder)["waiting"], status(folder)["dead_letters"]) == (0, 1)


@pytest.mark.parametrize("command", ["replay", "purge"])
def test_a_command_that_changes_something_wants_to_know_what_and_asks(folder: Path, command: str) -> None:
    outbox(folder, "create")
    ids = reject(folder, 1)
    done = outbox(folder, command, "--yes")
    assert (done.code, done.stderr) == (2, f"Error: select what to {command}: --id ID (repeatable), or --all\n")
    assert outbox(folder, command, "--all", "--id", ids[0], "--yes").code == 2
    done = outbox(folder, command, "--all")
    assert (done.code, done.stderr) == (
        2,
        f"Error: there is no terminal to ask whether to {command}; add --yes\n",
    )
    assert status(folder)["dead_letters"] == 1


@pytest.mark.parametrize("command", ["status", "create", "dead-letters"])
def test_a_database_that_is_away_is_an_error_that_says_what_to_do(tmp_path: Path, command: str) -> None:
    write(tmp_path, APP.replace("Path(__file__).parent", "Path(__file__).parent / 'missing'"), "shop")
    done = outbox(tmp_path, command)
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: StoreUnavailableError: ")
    assert done.stderr.endswith(
        "unable to open database file\n    -> start the database, or correct the app's store=...\n"
    )


def test_dead_letters_are_listed_once_if_others_change_them_meanwhile(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page after one that is gone is the first."""
    outbox(folder, "create")
    ids = reject(folder, 5)
    monkeypatch.setattr("diator.cli.outbox._PAGE", 2)
    page = SQLiteStore.dead_letters

    gone = {ids[1]}

    async def dead_letters(store: SQLiteStore, *, after: str | None = None, limit: int = 100) -> Any:
        if after in gone:
            gone.remove(after)
            after = None
        return await page(store, after=after, limit=limit)

    monkeypatch.setattr(SQLiteStore, "dead_letters", dead_letters)
    letters = json.loads(outbox(folder, "dead-letters", "--json").stdout)["dead_letters"]
    assert not gone
    assert [one["message_id"] for one in letters] == ids


@pytest.mark.parametrize("command", ["status", "create", "dead-letters"])
def test_an_app_without_a_store_is_told_how_to_get_one(tmp_path: Path, command: str) -> None:
    write(tmp_path, 'app = Diator("shop", broker="memory://")', "shop")
    done = outbox(tmp_path, command)
    assert (done.code, done.stdout) == (1, "")
    assert "error: <Diator 'shop'> has no store, so it has no outbox [no-store]\n    -> pass one:" in done.stderr
    done = run_script(tmp_path, sys.executable, "-m", "diator", "relay", "shop:app")
    assert (done.code, done.stdout) == (1, "")
    assert "[no-store]" in done.stderr


def test_a_relay_publishes_what_others_have_stored(folder: Path) -> None:
    outbox(folder, "create")
    publish(folder, 3)
    environment = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    options = ("--json-logs", "--health", "127.0.0.1:0")
    with running(folder, *options, target="shop:app", command="relay", **environment) as relay:
        relay.wait_for("the relay has started")
        port = json.loads(relay.wait_for("answering probes on"))["port"]
        assert b'{"ready": true, "reasons": []}' in answer(port, "/readyz")
        metrics = answer(port, "/metrics").splitlines()
        assert {b"diator_outbox_up 1.0", b"diator_outbox_dead_letters 0.0"} <= set(metrics)
        assert any(line.startswith(b"diator_outbox_waiting ") for line in metrics)
        for _ in range(200):
            if not status(folder)["waiting"]:
                break
        found = status(folder)
        assert found["waiting"] == 0
        assert len({one["relay"] for one in found["partitions"]} - {None}) == 1
        publish(folder, 2)
        relay.signal(SIGTERM)
        assert relay.ended() == 0
    found = status(folder)
    assert found["waiting"] == 0, "a relay that ends publishes what is there"
    assert {one["relay"] for one in found["partitions"]} == {None}
    assert [one["message"] for one in relay.records()][-1] == "stopped"


def test_missing_tables_are_no_breakdown_of_the_app(folder: Path) -> None:
    done = run_script(folder, sys.executable, "-m", "diator", "relay", "shop:app")
    assert (done.code, done.stdout) == (1, "")
    assert "the store of shop:app can't be used: StoreError:" in done.stderr
    assert "diator outbox create shop:app" in done.stderr
