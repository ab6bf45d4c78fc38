"""Proof with real processes that write, relay and handle: they are killed and stopped while orders flow.

Each order has a bill, and each bill a shipment, made by handlers over a broker, which is killed now and then like the
server of the database. Afterwards the tables must agree: nothing lost, nothing that was not committed, nothing twice,
each key in order. ``DIATOR_KILLS`` says how often something is killed or frozen, ``DIATOR_ORDERS`` how many orders
there are at least, of three units of work each; ``DIATOR_SEED`` chooses the moments once more; ``pytest -s`` prints
the counts.
"""

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest
from diator_redis.testing import RedisServer
from diator_sqlalchemy.testing import REQUIRED_VARIABLE, DatabaseServer, MariaDBServer, PostgresServer

from tests.stores.killed_shop import LEASE, database_of, make_app

pytestmark = pytest.mark.once  # it takes long, and depends little on the Python

KILLS = int(os.environ.get("DIATOR_KILLS", "3"))
ORDERS = int(os.environ.get("DIATOR_ORDERS", "0"))
SEED = int(os.environ.get("DIATOR_SEED", "0")) or random.randrange(1, 10**6)
ROLES = ["writes handles", "writes handles", "writes", "handles"]
ROOT = Path(__file__).parents[2]
SETTLED = 120.0
"""Seconds in which at least one order is shipped, on a machine that has much else to do."""


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
                code = self.running[number].wait(SETTLED)  # one that has just been started knows no signals yet
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


def prove(folder: Path, address: str, database: DatabaseServer | None = None) -> None:
    """Disturb all that takes part while orders flow, then compare the tables."""
    say(f"\nDIATOR_SEED={SEED}")
    counts = Counter[str]()
    asyncio.run(database_of(address).create())
    redis = RedisServer(durable=True, auto_aof_rewrite_min_size="1mb")  # or it reads a long file after each kill
    with redis as broker, ExitStack() as stack:
        asyncio.run(create_subscriptions(broker.url, address))
        running = stack.enter_context(processes(folder, broker.url, address))
        ensure_grows(folder, address, 20)
        for kind, action in islice(disturbances(running, broker, database), KILLS):
            action()
            counts[kind] += 1
            ensure_grows(folder, address, ORDERS * counts.total() // KILLS)
        time.sleep(1)
        running.end_writers()
        orders = query(address, "SELECT customer, n FROM orders")
        ensure_grows(folder, address, len(orders))
        time.sleep(2)  # for what comes twice
    say(f"{len(orders)} orders, {3 * len(orders)} units, {dict(counts)}")
    for table in ("bills", "shipments"):
        found = query(address, f"SELECT customer, n FROM {table} ORDER BY id")
        check(table, orders, found)


async def create_subscriptions(broker: str, address: str) -> None:
    """Create them before a process writes: what is published without a subscription is dropped, by design."""
    async with make_app(broker, database_of(address)).operations() as operations:
        await operations.apply()


def disturbances(
    running: Processes, broker: RedisServer, database: DatabaseServer | None
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield what goes wrong next: mostly processes die or freeze, now and then a server."""
    chance = random.Random(SEED)
    for number in count():
        time.sleep(chance.uniform(0.3, 1.5))
        process, away = chance.randrange(len(ROLES)), chance.choice([0.0, 1.0, LEASE * 1.3])
        if number % 5 == 1 and database is not None:
            yield "database killed", partial(take_away, database, away)
        elif number % 5 == 2:
            yield "broker killed", partial(take_away, broker, away)
        elif chance.random() < 0.25:
            yield "process frozen", partial(running.stop, process, away)
        else:
            yield "process killed", partial(running.kill, process)


def take_away(server: RedisServer | DatabaseServer, seconds: float) -> None:
    """Kill a server, and start it again with the data that it has."""
    server.kill()
    time.sleep(seconds)
    server.start()


def count_of(address: str, table: str) -> int:
    found: int = query(address, f"SELECT count(*) FROM {table}")[0][0]
    return found


def ensure_grows(folder: Path, address: str, wanted: int) -> None:
    """Wait until so many shipments are there; fail if for a long time none is added."""
    before, ends = 0, time.monotonic() + SETTLED
    while (shipments := count_of(address, "shipments")) < wanted:
        if shipments > before:
            before, ends = shipments, time.monotonic() + SETTLED
        if time.monotonic() > ends:
            said = [path.read_text()[-4000:] for path in (folder / "log", folder / "errors") if path.exists()]
            say("\n".join(said))
            return  # the comparison says what is missing
        time.sleep(0.5)


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


@pytest.mark.parametrize("driver", ["", "sqlite+aiosqlite:///"], ids=["sqlite3", "aiosqlite"])
def test_processes_that_are_killed_lose_nothing_on_sqlite(driver: str, tmp_path: Path) -> None:
    prove(tmp_path, f"{driver}{tmp_path}/shop.db")


def test_processes_that_are_killed_lose_nothing_on_postgresql(tmp_path: Path) -> None:
    with PostgresServer() as server:
        prove(tmp_path, server.url("asyncpg", "postgres"), server)


def test_processes_that_are_killed_lose_nothing_on_mariadb(tmp_path: Path) -> None:
    if shutil.which("mariadbd") is None and not os.environ.get(REQUIRED_VARIABLE):
        pytest.skip("mariadbd is not installed")
    with MariaDBServer() as server:
        prove(tmp_path, server.url("asyncmy", "mysql"), server)
