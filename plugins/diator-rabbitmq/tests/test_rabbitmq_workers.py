"""Proof with real processes: workers are killed, frozen and cut off, and the server is killed, while messages flow.

The processes run `rabbitmq_shop.py`. Afterwards their notes are compared with what was promised. ``DIATOR_KILLS`` says
how many faults there are, ``DIATOR_SEED`` which workers they meet.
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import aiormq
import pytest
from diator_rabbitmq.testing import MISSING, Proxy, RabbitServer, is_missing

from diator import PublishError
from diator.brokers import DeadLetter, Subscription, Topic, dead_letters_of

pytestmark = [pytest.mark.skipif(is_missing(), reason=MISSING), pytest.mark.once]

KILLS = int(os.environ.get("DIATOR_KILLS", "4"))
SEED = int(os.environ.get("DIATOR_SEED", "7"))
BETWEEN = 40
"""So many messages are published before each fault."""
CUSTOMERS = 12
PATIENCE = 120.0
FROZEN = 8.0
"""Seconds: longer than three heartbeats, after which the server has given away what a worker had."""
HELD = 2 * (5 + 100)
"""So many messages a worker may have, of both handlers, that are delivered again after a fault."""
FOLDER = Path(__file__).parent
TOPIC = Topic("shop.sold", True, ("shop.sold",))
SUBSCRIPTIONS = [Subscription("shop.mail", (TOPIC,)), Subscription("shop.book", (TOPIC,), ordered=True)]
QUEUES = ["diator:queue:shop.mail", *(f"diator:part{number}:shop.book" for number in range(8))]
NOTES = [f"diator:notes{number}:shop.book" for number in range(8)]
FAULTS = ("kill", "freeze", "cut", "server")


class Note(NamedTuple):
    at: int
    handler: str
    number: int
    customer: int
    how: str


class Shop:
    """The server, the workers, and what is published."""

    def __init__(self, folder: Path, server: RabbitServer, proxy: Proxy) -> None:
        self.folder, self.server, self.proxy = folder, server, proxy
        self.environment = {
            **os.environ,
            "SHOP_RABBITMQ": proxy.url,
            "SHOP_NOTES": str(folder),
            "PYTHONPATH": str(FOLDER),
        }
        self.workers: list[subprocess.Popen[bytes]] = []
        self.starts = 0
        self.numbers = itertools.count()
        self.confirmed: set[int] = set()
        self.doubtful: set[int] = set()

    def start_worker(self) -> "subprocess.Popen[bytes]":
        run = "import sys; from diator.cli import main; sys.argv[1:] = ['run', 'rabbitmq_shop:app']; main()"
        self.starts += 1
        log = (self.folder / "log").open("ab")
        process = subprocess.Popen([sys.executable, "-c", run], env=self.environment, stdout=log, stderr=log)
        log.close()
        return process

    async def publish(self, module: Any) -> None:
        for number in itertools.islice(self.numbers, BETWEEN):
            while True:  # one after the other, so that the order of a key is known
                try:
                    await module.app.publish(module.Sold(number, number % CUSTOMERS))
                except PublishError as error:
                    if error.unknown:
                        self.doubtful.add(number)
                        break
                    await asyncio.sleep(0.05)
                else:
                    self.confirmed.add(number)
                    break

    async def fault(self, kind: str, at: int) -> None:
        worker = self.workers[at]
        if kind == "kill":
            await until(lambda: self.started() == self.starts, lambda: "a worker does not start")
            worker.kill()
            worker.wait()
            self.workers[at] = self.start_worker()
        elif kind == "freeze":
            worker.send_signal(signal.SIGSTOP)
            await asyncio.sleep(FROZEN)
            worker.send_signal(signal.SIGCONT)
        elif kind == "cut":
            self.proxy.cut()
        else:
            self.server.kill()
            await asyncio.sleep(0.3)
            await asyncio.to_thread(self.server.start)

    def started(self) -> int:
        return (self.folder / "log").read_text(errors="replace").count("the worker has started")

    def notes(self) -> list[Note]:
        lines = [line for path in self.folder.glob("*.notes") for line in path.read_text().splitlines(keepends=True)]
        words = [line.split() for line in lines if line.endswith("\n")]
        return sorted(Note(int(at), handler, int(n), int(customer), how) for at, handler, n, customer, how in words)

    def missing(self) -> set[tuple[str, int]]:
        ended = {(note.handler, note.number) for note in self.notes() if note.how == "ended"}
        return {(name, n) for name in ("mail", "book") for n in self.confirmed if n % 50 != 7} - ended

    async def sizes(self, queues: list[str]) -> list[int]:
        """Ask the server how many messages each queue has, as no worker is there any more."""
        connect: Any = aiormq.connect
        connection = await connect(self.server.url)
        channel = await connection.channel()
        found = [(await channel.queue_declare(name, passive=True)).message_count for name in queues]
        await connection.close()
        return found


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with RabbitServer() as server, Proxy(server.port) as proxy:
        found = Shop(tmp_path, server, proxy)
        yield found
        for process in found.workers:
            process.kill()
            process.wait()


def load(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import the app here too, to publish."""
    monkeypatch.setenv("SHOP_RABBITMQ", shop.proxy.url)
    monkeypatch.setenv("SHOP_NOTES", str(shop.folder))
    spec = importlib.util.spec_from_file_location("rabbitmq_shop", FOLDER / "rabbitmq_shop.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "rabbitmq_shop", module)
    spec.loader.exec_module(module)
    return module


async def until(check: Callable[[], bool], what: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not check():
        assert time.monotonic() < end, f"it does not go on: {what()}"
        await asyncio.sleep(0.2)


async def test_no_fault_loses_or_reorders_events(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each confirmed event is handled by both handlers, in order by key, or is a dead letter."""
    module, dice, faults = load(shop, monkeypatch), random.Random(SEED), Counter[str]()
    async with module.app:
        await module.BROKER.apply(SUBSCRIPTIONS)
        shop.workers += [shop.start_worker() for _ in range(3)]
        await until(lambda: shop.started() == 3, lambda: "no worker starts")
        for at in range(KILLS):
            kind = FAULTS[at % len(FAULTS)]
            await asyncio.gather(shop.publish(module), shop.fault(kind, dice.randrange(3)))
            faults[kind] += 1
        await all_handled(shop)
        letters = await dead_letters(shop, module)
        await until(lambda: shop.started() == shop.starts, lambda: "a worker does not start")
        for process in shop.workers:
            process.send_signal(signal.SIGTERM)
        assert await asyncio.gather(*(asyncio.to_thread(process.wait, 60) for process in shop.workers)) == [0, 0, 0]
    assert await shop.sizes(QUEUES) == [0] * len(QUEUES), "something is stranded"
    assert max(await shop.sizes(NOTES)) < 10, "notes of what is done pile up"
    compare(shop, letters, faults)


async def all_handled(shop: Shop) -> None:
    """Wait until all was handled, as long as something is."""
    left, since = -1, 0.0
    while missing := shop.missing():
        if len(missing) != left:
            left, since = len(missing), time.monotonic()
        assert time.monotonic() < since + PATIENCE, f"it does not go on: {left} are left, {sorted(missing)[:20]}"
        await asyncio.sleep(0.2)


async def dead_letters(shop: Shop, module: Any) -> list[DeadLetter]:
    """Wait until each event that can't be handled is a dead letter, while the workers still run."""
    wanted = {(one.name, n) for one in SUBSCRIPTIONS for n in shop.confirmed if n % 50 == 7}
    end = time.monotonic() + PATIENCE
    while True:
        found = [one for subscription in SUBSCRIPTIONS async for one in dead_letters_of(module.BROKER, subscription)]
        missing = wanted - {(one.subscription, number_of(one)) for one in found}
        if not missing:
            return found
        assert time.monotonic() < end, f"these are no dead letters: {missing}"
        await asyncio.sleep(0.2)


def number_of(letter: DeadLetter) -> int:
    return int(json.loads(letter.body)["data"]["number"])


def compare(shop: Shop, letters: list[DeadLetter], faults: "Counter[str]") -> None:
    notes = shop.notes()
    began = Counter((note.handler, note.number) for note in notes if note.how == "began")
    tries = {n: 3 if n % 50 == 7 else 2 if n % 20 == 3 else 1 for _, n in began}
    again = sum(max(0, count - tries[n]) for (_, n), count in began.items())
    dead = Counter((one.subscription, number_of(one)) for one in letters)
    sys.stdout.write(
        f"{dict(faults)}: {len(shop.confirmed)} events confirmed, {len(shop.doubtful)} in doubt; "
        f"{sum(began.values())} runs, {again} of them again; {len(letters)} dead letters, "
        f"{len(letters) - len(dead)} of them again\n"
    )
    assert again <= sum(faults.values()) * HELD
    first: dict[int, list[int]] = defaultdict(list)
    for note in notes:
        if note.handler == "book" and note.how == "ended" and note.number not in first[note.customer]:
            first[note.customer].append(note.number)
    out_of_order = [(was, n) for numbers in first.values() for was, n in itertools.pairwise(numbers) if was > n]
    assert not out_of_order
    assert len(letters) - len(dead) <= sum(faults.values())  # a letter is stored before its message is acknowledged
    assert {n for _, n in dead} <= {n for n in shop.confirmed | shop.doubtful if n % 50 == 7}
    assert {one.failure.error for one in letters} <= {"builtins.ValueError: there is no such customer"}
    assert {one.failure.reason for one in letters} <= {"exhausted after 3 attempts"}
