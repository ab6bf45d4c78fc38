"""Proof with real processes that write, relay and handle: they are killed and stopped while orders flow.

Each order has a bill, and each bill a shipment, made by handlers over a broker. Afterwards the tables must agree:
nothing lost, nothing that was not committed, nothing twice, each key in order. ``DIATOR_KILLS`` says how often a
process is killed or stopped, ``DIATOR_SEED`` chooses the moments once more; ``pytest -s`` prints what was counted.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from diator_redis.testing import RedisServer
from diator_sqlalchemy.testing import PostgresServer

from tests.stores.killed_shop import LEASE, database_of

pytestmark = pytest.mark.once  # it takes long, and depends little on the Python

KILLS = int(os.environ.get("DIATOR_KILLS", "3"))
SEED = int(os.environ.get("DIATOR_SEED", "0")) or random.randrange(1, 10**6)
ROLES = ["writes handles", "writes handles", "writes", "handles"]
ROOT = Path(__file__).parents[2]
SETTLED = 120.0
"""Seconds within which all is handled when nothing is killed any more, on a machine that has much else to do."""


class Processes:
    """The processes of the app; one that is killed is started again."""

    def __init__(self, folder: Path, broker: str, database: str) -> None:
        self._arguments = [broker, database]
        self._environment = {**os.environ, "SHOP_LOG": str(folder / "log"), "PYTHONPATH": str(ROOT)}
        self._folder = folder
        self.running = [self._start(role) for role in ROLES]

    def _start(self, role: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "tests.stores.killed_shop", *self._arguments, role]
        with (self._folder / "errors").open("ab") as errors:
            return subprocess.Popen(command, env=self._environment, stderr=errors, cwd=ROOT)

    def kill(self, number: int) -> None:
        self.running[number].kill()
        self.running[number].wait()
        self.running[number] = self._start(ROLES[number])

    def stop(self, number: int, seconds: float) -> None:
        """Freeze a process, such as for longer than its leases last."""
        self.running[number].send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.running[number].send_signal(signal.SIGCONT)

    def end_writers(self) -> None:
        """End those that write, which leave what is stored to the others."""
        for number, role in enumerate(ROLES):
            if "writes" in role:
                self.running[number].terminate()
                code = self.running[number].wait(60)  # one that has just been started knows no signals yet
                assert code in (0, -signal.SIGTERM), (self._folder / "errors").read_text()[-3000:]
                self.running[number] = self._start("handles")

    def close(self) -> None:
        for one in self.running:
            one.kill()
            one.wait()


@contextmanager
def processes(folder: Path, broker: str, database: str) -> Generator[Processes]:
    found = Processes(folder, broker, database)
    try:
        yield found
    finally:
        found.close()


def query(address: str, sql: str) -> Sequence[Any]:
    found: Sequence[Any] = asyncio.run(database_of(address).query(sql))
    return found


def prove(folder: Path, address: str, disturb: Callable[[random.Random], None] = lambda _: None) -> None:
    say(f"\nDIATOR_SEED={SEED}")
    chance, counts = random.Random(SEED), Counter[str]()
    asyncio.run(database_of(address).create())
    with RedisServer() as server, processes(folder, server.url, address) as running:
        wait_for(lambda: query(address, "SELECT count(*) FROM shipments")[0][0] > 20, SETTLED)
        for number in range(KILLS):
            time.sleep(chance.uniform(0.3, 1.5))
            which = chance.randrange(len(ROLES))
            if chance.random() < 0.25:
                running.stop(which, chance.choice([0.5, LEASE * 1.3]))
                counts["stopped"] += 1
            else:
                running.kill(which)
                counts["killed"] += 1
            if number % 5 == 1:
                disturb(chance)
        time.sleep(1)
        running.end_writers()
        orders = query(address, "SELECT key, n FROM orders")

        def is_settled() -> bool:
            return bool(query(address, f"SELECT count(*) >= {len(orders)} FROM shipments")[0][0])

        if not wait_for(is_settled, SETTLED):
            say((folder / "log").read_text()[-4000:] + (folder / "errors").read_text()[-2000:])
        time.sleep(2)  # for what comes twice
    say(f"{len(orders)} orders, {dict(counts)}")
    for table in ("bills", "shipments"):
        found = query(address, f"SELECT key, n FROM {table} ORDER BY id")
        check(table, orders, found)


def check(table: str, orders: Sequence[tuple[int, int]], found: Sequence[tuple[int, int]]) -> None:
    """Compare what handlers have done with what was committed."""
    wanted, made = set(orders), Counter(found)
    assert not wanted - made.keys(), f"lost: {sorted(wanted - made.keys())[:10]} of {table}"
    assert not made.keys() - wanted, f"never committed: {sorted(made.keys() - wanted)[:10]} of {table}"
    twice = [one for one, times in made.items() if times > 1]
    assert not twice, f"twice: {twice[:10]} of {table}"
    by_key = defaultdict[int, list[int]](list)
    for key, n in found:
        by_key[key].append(n)
    for key, numbers in by_key.items():
        assert numbers == sorted(numbers), f"out of order: key {key} of {table}: {numbers}"


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def wait_for(met: Callable[[], bool], seconds: float) -> bool:
    ends = time.monotonic() + seconds
    while not met():
        if time.monotonic() > ends:
            return False
        time.sleep(0.2)
    return True


def test_processes_that_are_killed_lose_nothing_on_sqlite(tmp_path: Path) -> None:
    prove(tmp_path, str(tmp_path / "shop.db"))


def test_processes_that_are_killed_lose_nothing_on_postgresql(tmp_path: Path) -> None:
    with PostgresServer() as server:
        # The server is killed, too: it finds again what it has committed.
        prove(tmp_path, server.url("asyncpg", "postgres"), lambda _: server.restart())
