"""Proof with real processes: the server is one, and workers are killed in the middle of handlers.

The processes run `servicebus_shop.py`, without any haste of the SDK. Afterwards their notes are compared with what was
promised. ``DIATOR_KILLS`` says how often a worker is killed.
"""

import asyncio
import importlib.util
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from diator import Diator
from diator.delivery.operations import OpenedDeadLetter

pytestmark = pytest.mark.once  # it takes long, and depends little on the Python

KILLS = int(os.environ.get("DIATOR_KILLS", "2"))
COUNT = 300
CUSTOMERS = 12
UNSETTLED = 5 + 25
"""So many messages of one handler a worker may have begun and not settled: five run, and some are done for 0.1 s."""
OPEN_TIMEOUT = 60.0
FOLDER = Path(__file__).parent
ENTITIES = [
    "--queue=shop.mail,lock=2,max-delivery=1000",
    "--queue=shop.mail.retry,duplicates=600,forward=shop.mail",
    "--queue=shop.book,lock=2,max-delivery=1000,sessions",
    "--topic=shop.sold,duplicates=600",
    "--topic=shop.sold/shop.mail,forward=shop.mail",
    "--topic=shop.sold/shop.book,forward=shop.book",
]

if os.environ.get("DIATOR_TEST_SERVICEBUS"):
    pytest.skip("these processes have a server of their own", allow_module_level=True)


class Note(NamedTuple):
    at: float
    handler: str
    number: int
    customer: int
    how: str


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of all processes, with a server that runs."""
    command = [sys.executable, "-m", "servicebus_test_server", "--port", "0", *ENTITIES]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    string = server.stdout.readline().strip()
    yield {**os.environ, "SHOP_SERVICEBUS": string, "SHOP_NOTES": str(tmp_path), "PYTHONPATH": str(FOLDER)}
    server.send_signal(signal.SIGTERM)
    assert server.wait(10) == 0
    server.stdout.close()


def worker(environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    run = "import sys; from diator.cli import main; sys.argv[1:] = ['run', 'servicebus_shop:app']; main()"
    shown = Path(environment["SHOP_NOTES"], f"{next(_numbers)}.out")
    with shown.open("w") as out:
        command = [sys.executable, "-c", run, str(shown)]
        return subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.DEVNULL)


_numbers = itertools.count()


def has_started(process: "subprocess.Popen[bytes]") -> bool:
    """Whether a worker has printed what it consumes. A signal that comes earlier ends it while it imports."""
    assert isinstance(process.args, list)
    return Path(str(process.args[-1])).stat().st_size > 0


def notes(folder: Path) -> list[Note]:
    lines = [line for path in folder.glob("*.notes") for line in path.read_text().splitlines(keepends=True)]
    return sorted(Note(*json.loads(line)) for line in lines if line.endswith("\n"))


def expected() -> set[int]:
    return {number for number in range(COUNT) if number % 50 != 7}


def is_done(folder: Path) -> bool:
    ended = {(note.handler, note.number) for note in notes(folder) if note.how == "ended"}
    return len(ended) == 2 * len(expected())


async def all_letters(app: Diator) -> list[OpenedDeadLetter]:
    """Wait until each event that can't be handled is a dead letter, while the workers still run.

    Their notes don't tell: a worker that was killed in the middle of an attempt has begun it and not failed.
    """
    end = time.monotonic() + OPEN_TIMEOUT
    while True:
        async with app.operations() as operations:
            letters = [letter async for letter in operations.dead_letters()]
        if len(letters) >= 2 * (COUNT // 50):
            return letters
        assert time.monotonic() < end, f"dead letters are missing: {letters}"
        await asyncio.sleep(0.1)


def load(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import the app here too, to publish."""
    monkeypatch.setenv("SHOP_SERVICEBUS", environment["SHOP_SERVICEBUS"])
    spec = importlib.util.spec_from_file_location("servicebus_shop", FOLDER / "servicebus_shop.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "servicebus_shop", module)
    spec.loader.exec_module(module)
    return module


async def test_killed_workers_lose_nothing(
    shop: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each event is handled by both handlers, in order by key where that was asked for, or is a dead letter."""
    module = load(shop, monkeypatch)
    workers = [worker(shop), worker(shop)]
    try:
        async with module.app:
            for first in range(0, COUNT, 30):
                events = [module.Sold(at, at % CUSTOMERS) for at in range(first, first + 30)]
                await module.app.publish(*events)
            await kill_now_and_then(workers, shop, tmp_path)
            await until(lambda: is_done(tmp_path))
            letters = await all_letters(module.app)
            await until(lambda: all(has_started(process) for process in workers))
            for process in workers:
                process.send_signal(signal.SIGTERM)
            codes = await asyncio.gather(*(asyncio.to_thread(process.wait, 30) for process in workers))
            assert codes == [0, 0]
    finally:
        for process in workers:
            process.kill()
            process.wait()
    compare(notes(tmp_path), letters)


async def kill_now_and_then(
    workers: "list[subprocess.Popen[bytes]]", environment: dict[str, str], folder: Path
) -> None:
    dice = random.Random(3)
    for _ in range(KILLS):
        before = len(notes(folder))
        await until(lambda before=before: len(notes(folder)) > before + 20 or is_done(folder))
        at = dice.randrange(len(workers))
        workers[at].kill()
        workers[at].wait()
        workers[at] = worker(environment)


def compare(found: list[Note], letters: list[OpenedDeadLetter]) -> None:
    began = Counter((note.handler, note.number) for note in found if note.how == "began")
    tries = {number: 3 if number % 50 == 7 else 1 for number in range(COUNT)}
    again = sum(max(0, count - tries[number]) for (_, number), count in began.items())
    sys.stdout.write(f"{KILLS} kills: {sum(began.values())} runs of {2 * COUNT} messages, {again} of them again\n")
    assert again <= KILLS * 2 * UNSETTLED, "so many were with those who were killed"
    for handler in ("mail", "book"):
        ended = {note.number for note in found if note.handler == handler and note.how == "ended"}
        assert ended == expected()
    first: dict[int, list[int]] = defaultdict(list)
    for note in found:
        if note.handler == "book" and note.how == "ended" and note.number not in first[note.customer]:
            first[note.customer].append(note.number)
    assert all(numbers == sorted(numbers) for numbers in first.values())
    dead = sorted(
        (letter.config.name, int(letter.dead.body.split(b'"number":')[1].split(b",")[0])) for letter in letters
    )
    assert dead == sorted((name, number) for name in ("shop.book", "shop.mail") for number in range(7, COUNT, 50))
    assert {letter.dead.failure.reason for letter in letters} == {"exhausted after 3 attempts"}
    assert {letter.dead.failure.error for letter in letters} == {"builtins.ValueError: there is no such customer"}
    assert all("Traceback" in (letter.dead.failure.traceback or "") for letter in letters)


async def until(check: Any) -> None:
    end = time.monotonic() + OPEN_TIMEOUT
    while not check():
        assert time.monotonic() < end, "it does not go on"
        await asyncio.sleep(0.1)
