"""Proof with real processes: workers are killed, frozen and cut off, and the server is killed, while messages flow.

The processes run `nats_shop.py`. Afterwards their notes are compared with what was promised. ``DIATOR_KILLS`` says how
many faults there are, ``DIATOR_SEED`` which workers they meet.
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

import pytest
from diator_nats.testing import NatsServer, Proxy

from diator import PublishError
from diator.brokers import DeadLetter, Subscription, Topic, dead_letters_of

pytestmark = pytest.mark.once  # it takes long, and depends little on the Python

KILLS = int(os.environ.get("DIATOR_KILLS", "4"))
SEED = int(os.environ.get("DIATOR_SEED", "7"))
BETWEEN = 40
"""So many messages are published before each fault."""
CUSTOMERS = 12
PATIENCE = 120.0
LEASE = 2.0
HELD = 2 * (5 + 100)
"""So many messages a worker may have, of both handlers, that are delivered again after a fault."""
FOLDER = Path(__file__).parent
SUBSCRIPTIONS = [Subscription("shop.mail", ()), Subscription("shop.book", ())]
FAULTS = ("kill", "freeze", "cut", "server")


class Note(NamedTuple):
    at: int
    handler: str
    number: int
    customer: int
    how: str


class Shop:
    """The server, the workers, and what is published."""

    def __init__(self, folder: Path, server: NatsServer, proxy: Proxy) -> None:
        self.folder, self.server, self.proxy = folder, server, proxy
        self.environment = {
            **os.environ,
            "SHOP_NATS": proxy.url,
            "SHOP_NOTES": str(folder),
            "PYTHONPATH": str(FOLDER),
        }
        self.workers: list[subprocess.Popen[bytes]] = []
        self.starts = 0
        self.numbers = itertools.count()
        self.confirmed: set[int] = set()
        self.doubtful: set[int] = set()

    def start_worker(self) -> "subprocess.Popen[bytes]":
        run = "import sys; from diator.cli import main; sys.argv[1:] = ['run', 'nats_shop:app']; main()"
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
            while self.started() < self.starts:  # noqa: ASYNC110 - the processes say so in a file
                await asyncio.sleep(0.1)
            worker.kill()
            worker.wait()
            self.workers[at] = self.start_worker()
        elif kind == "freeze":
            worker.send_signal(signal.SIGSTOP)
            await asyncio.sleep(LEASE * 2.5)
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


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with NatsServer() as server, Proxy(server.port) as proxy:
        found = Shop(tmp_path, server, proxy)
        yield found
        for process in found.workers:
            process.kill()
            process.wait()


def load(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import the app here too, to publish, over a connection that is not cut."""
    monkeypatch.setenv("SHOP_NATS", shop.server.url)
    monkeypatch.setenv("SHOP_NOTES", str(shop.folder))
    spec = importlib.util.spec_from_file_location("nats_shop", FOLDER / "nats_shop.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "nats_shop", module)
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
        await module.BROKER.apply(
            [one._replace(topics=(_topic(),), ordered=one.name == "shop.book") for one in SUBSCRIPTIONS]
        )
        shop.workers += [shop.start_worker() for _ in range(3)]
        await until(lambda: shop.started() == 3, lambda: "no worker starts")
        for at in range(KILLS):
            kind = FAULTS[at % len(FAULTS)]
            await asyncio.gather(shop.publish(module), shop.fault(kind, dice.randrange(3)))
            faults[kind] += 1
        await until(lambda: not shop.missing(), lambda: sorted(shop.missing())[:20])
        letters = await dead_letters(shop, module)
        await until(lambda: shop.started() == shop.starts, lambda: "a worker does not start")
        for process in shop.workers:
            process.send_signal(signal.SIGTERM)
        assert await asyncio.gather(*(asyncio.to_thread(process.wait, 60) for process in shop.workers)) == [0, 0, 0]
        statuses = await module.BROKER.status([one._replace(ordered=one.name == "shop.book") for one in SUBSCRIPTIONS])
        assert [status.backlog for status in statuses] == [0, 0], "something is stranded"
    compare(shop, letters, faults)


def _topic() -> Any:

    return Topic("shop.sold", True, ("shop.sold",))


async def dead_letters(shop: Shop, module: Any) -> list[DeadLetter]:
    """Wait until each event that can't be handled is a dead letter, while the workers still run."""
    wanted = sum(n % 50 == 7 for n in shop.confirmed)
    end = time.monotonic() + PATIENCE
    while True:
        found = [one for subscription in SUBSCRIPTIONS async for one in dead_letters_of(module.BROKER, subscription)]
        if len(found) >= 2 * wanted:
            return found
        assert time.monotonic() < end, f"there are {len(found)} dead letters; expected {2 * wanted}"
        await asyncio.sleep(0.2)


def compare(shop: Shop, letters: list[DeadLetter], faults: "Counter[str]") -> None:
    notes = shop.notes()
    began = Counter((note.handler, note.number) for note in notes if note.how == "began")
    tries = {n: 3 if n % 50 == 7 else 2 if n % 20 == 3 else 1 for _, n in began}
    again = sum(max(0, count - tries[n]) for (_, n), count in began.items())
    sys.stdout.write(
        f"{dict(faults)}: {len(shop.confirmed)} events confirmed, {len(shop.doubtful)} in doubt; "
        f"{sum(began.values())} runs, {again} of them again; {len(letters)} dead letters\n"
    )
    assert again <= sum(faults.values()) * HELD
    first: dict[int, list[int]] = defaultdict(list)
    for note in notes:
        if note.handler == "book" and note.how == "ended" and note.number not in first[note.customer]:
            first[note.customer].append(note.number)
    out_of_order = [(was, n) for numbers in first.values() for was, n in itertools.pairwise(numbers) if was > n]
    assert not out_of_order
    dead = Counter((one.subscription, json.loads(one.body)["data"]["number"]) for one in letters)
    assert max(dead.values(), default=0) <= 1
    assert {n for _, n in dead} <= {n for n in shop.confirmed | shop.doubtful if n % 50 == 7}
    assert {one.failure.error for one in letters} <= {"builtins.ValueError: there is no such customer"}
    assert {one.failure.reason for one in letters} <= {"exhausted after 3 attempts"}
