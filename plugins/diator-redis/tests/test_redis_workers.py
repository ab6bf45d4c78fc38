"""Proof with real worker processes: they are killed, stopped and cut off while thousands of messages flow.

The processes run `redis_shop.py` and note what they do; afterwards the notes are compared with what was promised. Each
test prints what it counted (``pytest -s``). ``DIATOR_KILLS`` says how often workers are killed and how often all else
happens; ``DIATOR_SEED`` chooses the moments once more.
"""

import asyncio
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Collection, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from diator_redis import RedisBroker
from diator_redis.testing import Proxy, RedisServer
from redis.asyncio import Redis

from diator.brokers import DeadLetter, Subscription, Topic, dead_letters_of

pytestmark = pytest.mark.once  # it takes long, and depends little on the Python

KILLS = int(os.environ.get("DIATOR_KILLS", "3"))
SEED = int(os.environ.get("DIATOR_SEED", "0")) or random.randrange(1, 10**6)
TIMES = max(1, KILLS // 20)
"""How often everything else is repeated."""
LEASE = 2.0
CONCURRENCY = 10
PREFETCH = 100
"""So many messages a worker takes ahead of handling them, at most."""
FLUSHED = 0.05
"""For so many seconds outcomes wait at most, to go together."""
SLOW = 1.0
"""What an overloaded machine may add to that."""
POISON = 40
"""The number of the message that may kill its workers."""
NOTHING: Mapping[str, str] = {}
PATIENCE = 60.0

PLACED, SHIPPED = Topic("shop.placed", ("shop.placed",)), Topic("shop.shipped", ("shop.shipped",))
BALANCE = Topic("shop.balance", ("shop.balance",))
ORDERED = "shop.project"
SUBSCRIPTIONS = (
    Subscription("shop.ship", (PLACED,)),
    Subscription("shop.notify", (SHIPPED,)),
    Subscription("shop.bill", (PLACED,)),
    Subscription(ORDERED, (BALANCE,), ordered=True),
)
ACCOUNTS = 30
ALWAYS_KILLING = [(("shop.bill",), 3), ((ORDERED,), 3), *([(("shop.bill", ORDERED), 5)] if TIMES > 1 else [])]
"""Where, and how many deliveries are allowed. With two at a time those of each count for what is with the other."""


def expected_dead_letter(subscription: str, n: int) -> tuple[str, int] | None:
    """How the dead letter of a message must begin, and how often it was tried; None where it must be none."""
    if subscription == "shop.bill" and n % 200 == 11:
        return "exhausted after 3 attempts", 3
    if subscription == "shop.bill" and n % 200 == 13:
        return "rejected: there is no such customer", 1
    if subscription == ORDERED and n % 300 == 23:
        return "exhausted after 3 attempts", 3
    return None


def tries_of(subscription: str, n: int) -> int:
    """How often a message is tried where no process dies."""
    if subscription == "shop.bill" and n % 100 == 7:
        return 3
    if subscription == ORDERED and n % 100 == 17:
        return 2
    dead = expected_dead_letter(subscription, n)
    return dead[1] if dead else 1


# What the processes have noted.


@dataclass(eq=False)
class Run:
    """One call of a handler."""

    worker: int
    subscription: str
    message: str
    n: int
    attempt: int
    began: float
    ended: float | None = None
    how: str = "cut off"
    outcome: str | None = None
    """What the broker has taken down; None where the worker never learned of it."""
    lost: bool = False

    @property
    def is_done(self) -> bool:
        """Whether later messages of its key may be handled: it succeeded, or becomes a dead letter."""
        return self.how == "ended" or (self.how == "failed" and self.attempt == 3)


class Evidence:
    """Everything that was noted, in the order of time."""

    def __init__(self, folder: Path) -> None:
        self.runs: list[Run] = []
        self.sent = 0
        self.bodies: dict[str, str] = {}
        self.unpublished = 0
        self.unexplained: Counter[int] = Counter()
        """How often a message was settled that had been delivered so many times without an outcome."""
        for path in folder.glob("*.notes"):
            self._read(int(path.stem), path.read_text())
        self.runs.sort(key=lambda run: run.began)
        self.by_message: dict[tuple[str, str], list[Run]] = defaultdict(list)
        self.by_number: dict[tuple[str, int], list[Run]] = defaultdict(list)
        self.by_account: dict[int, list[Run]] = defaultdict(list)
        for run in self.runs:
            self.by_message[run.subscription, run.message].append(run)
            self.by_number[run.subscription, run.n].append(run)
            if run.subscription == ORDERED:
                self.by_account[run.n % ACCOUNTS].append(run)

    def _read(self, worker: int, text: str) -> None:
        running: dict[tuple[str, ...], list[Run]] = defaultdict(list)
        unsettled: dict[tuple[str, ...], list[Run]] = defaultdict(list)
        for line in text.splitlines():
            stamp, what, *words = line.split()
            seconds, which = int(stamp) / 1e9, tuple(words[:3])
            if what == "began":
                run = Run(worker, words[0], words[1], int(words[3]), int(words[2]), seconds)
                running[which].append(run)
                self.runs.append(run)
            elif what in {"ended", "failed", "cancelled"}:
                run = running[which].pop(0)
                run.ended, run.how = seconds, what
                unsettled[which].append(run)
            elif what == "settled":
                self.unexplained[int(words[5])] += 1
                if unsettled[which]:  # else it was given back before it ran
                    run = unsettled[which].pop(0)
                    run.outcome, run.lost = words[3], words[4] == "1"
            elif what == "published":
                self.bodies[words[1]] = words[2]
            elif what == "sent":
                self.sent = int(words[0])
            elif what == "unpublished":
                self.unpublished += int(words[0]) + int(words[1])


class Left(NamedTuple):
    """What the death of one worker left behind in one subscription."""

    in_flight: int
    unflushed: int
    """Runs with an outcome, of which the worker had not heard yet that the broker knows."""
    age: float
    """How long the oldest of these had waited, in seconds."""
    duplicates: int


KILLED, LOST, UNEXPLAINED = "its worker was killed", "its lease was lost", "unexplained"
COPY = "a follow-up that was published twice"


@dataclass
class Report:
    """What was found, and how it compares with what was promised."""

    title: str
    evidence: Evidence
    letters: Mapping[str, list[DeadLetter]]
    deaths: Mapping[int, float]
    """When workers were killed."""
    poisoned: Collection[str] = ()
    """Subscriptions in which one message kills its workers."""
    cuts: int = 0
    """How often it may have been unknown whether something was published."""
    missing: list[str] = field(default_factory=list[str])
    duplicates: Counter[str] = field(default_factory=Counter[str])
    """By their causes."""
    unexplained: list[str] = field(default_factory=list[str])
    early: list[str] = field(default_factory=list[str])
    """Runs that began before an earlier message of their key was done."""
    torn: list[str] = field(default_factory=list[str])
    """What a dead worker did of a key and was done again, though something later was not."""
    overlaps: list[tuple[Run, Run]] = field(default_factory=list[tuple[Run, Run]])
    left: list[Left] = field(default_factory=list[Left])
    lost: Counter[tuple[int, str]] = field(default_factory=Counter[tuple[int, str]])
    """Duplicates after a lost lease, by worker and subscription."""
    wrong_letters: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self._repeated: set[Run] = set()
        self._find_duplicates()
        self._find_missing()
        self._look_at_order()
        self._look_at_deaths()
        self._look_at_letters()

    def _find_duplicates(self) -> None:
        for (subscription, message), runs in self.evidence.by_message.items():
            for run in runs:
                cause = self._cause(run, is_last=run is runs[-1])
                if cause is not None:
                    self._repeated.add(run)
                    self.duplicates[cause] += 1
                if cause == LOST:
                    self.lost[run.worker, subscription] += 1
                if cause == UNEXPLAINED:
                    self.unexplained.append(f"{run} of {runs}")
            final = [run for run in runs if run.outcome in {"Ack", "MoveToDeadLetters"} and not run.lost]
            if len(final) > 1:
                self.duplicates[COPY] += len(final) - 1
            if len(final) > self._copies(subscription, runs[0].n):
                self.unexplained.append(f"{subscription} {message} was settled for good {len(final)} times: {runs}")

    def _cause(self, run: Run, *, is_last: bool) -> str | None:
        """Why a run was one too many; None where it was not."""
        if run.lost or run.outcome == "Release":  # what it published could not be sent before its lease had run out
            return LOST
        if run.outcome in {"Ack", "MoveToDeadLetters", "RetryAfter"}:
            return None
        if run.outcome is None and run.worker in self.deaths:
            return None if is_last else KILLED  # nobody ran it again where the outcome had reached the broker
        return UNEXPLAINED

    def _copies(self, subscription: str, n: int) -> int:
        """How often a message may have been published with one id: a follow-up by each run, and again after cuts."""
        return len(self.evidence.by_number["shop.ship", n]) + self.cuts if subscription == "shop.notify" else 1

    def _find_missing(self) -> None:
        dead = {name: {number_in(letter) for letter in letters} for name, letters in self.letters.items()}
        for subscription in SUBSCRIPTIONS:
            for n in range(self.evidence.sent):
                runs = self.evidence.by_number.get((subscription.name, n), [])
                if n not in dead[subscription.name] and not any(run.how == "ended" for run in runs):
                    self.missing.append(f"{subscription.name} {n}")

    def _look_at_order(self) -> None:
        for runs in self.evidence.by_account.values():
            began: dict[int, float] = {}
            done: dict[int, float] = {}
            for run in runs:
                began.setdefault(run.n, run.began)
                if run.is_done and run.ended is not None:
                    done[run.n] = min(done.get(run.n, run.ended), run.ended)
                elif run.n == POISON and ORDERED in self.poisoned:
                    done[run.n] = self.deaths[run.worker]
            before = 0.0
            for n in sorted(began):
                if began[n] < before:
                    self.early.append(f"{n} began {before - began[n]:.3f} s before all earlier ones were done")
                before = max(before, done.get(n, float("inf")))
            self._find_overlaps(runs)

    def _find_overlaps(self, runs: list[Run]) -> None:
        for run, following in pairwise(runs):
            if following.began < self._end(run):
                self.overlaps.append((run, following))

    def _end(self, run: Run) -> float:
        return run.ended if run.ended is not None else self.deaths.get(run.worker, float("inf"))

    def _look_at_deaths(self) -> None:
        of: dict[tuple[int, str], list[Run]] = defaultdict(list)
        for run in self.evidence.runs:
            of[run.worker, run.subscription].append(run)
        for worker, died in self.deaths.items():
            for subscription in SUBSCRIPTIONS:
                runs = [run for run in of[worker, subscription.name] if run.outcome is None]
                ends = [run.ended for run in runs if run.ended is not None]
                again = sum(run in self._repeated for run in runs)
                self.left.append(Left(len(runs) - len(ends), len(ends), died - min(ends, default=died), again))
            self._look_for_tears(of[worker, ORDERED])

    def _look_for_tears(self, runs: list[Run]) -> None:
        """What a worker did last of a key may be done again, but nothing before something that is not."""
        repeated: dict[int, Run] = {}
        for run in runs:
            account = run.n % ACCOUNTS
            if run in self._repeated and not run.lost:
                repeated[account] = run
            elif account in repeated and run.outcome != "RetryAfter":
                self.torn.append(f"{repeated[account]} was done again, but not {run}")

    def _look_at_letters(self) -> None:
        for subscription, letters in self.letters.items():
            numbers = Counter(number_in(letter) for letter in letters)
            expected = {n for n in range(self.evidence.sent) if expected_dead_letter(subscription, n)}
            if subscription in self.poisoned:
                expected.add(POISON)
            wrong = [f"{subscription}: no dead letter of {n}" for n in expected - numbers.keys()]
            wrong += [f"{subscription}: {letter}" for letter in letters if number_in(letter) not in expected]
            if not self.evidence.unpublished:
                wrong += [f"{subscription}: {count} of {n}" for n, count in numbers.items() if count > 1]
            for letter in letters:
                wrong += [f"{subscription}: {what}: {letter}" for what in self._faults(letter)]
            self.wrong_letters += wrong

    def _faults(self, letter: DeadLetter) -> Iterator[str]:
        """What is wrong with a dead letter."""
        n, why = number_in(letter), letter.failure
        if n == POISON:
            if "without an outcome" not in why.reason:
                yield "not said to have been without an outcome"
        elif expected := expected_dead_letter(letter.subscription, n):
            if not why.reason.startswith(expected[0]) or why.attempts != expected[1]:
                yield f"{expected} was expected"
            if "Error: the " not in (why.error or "") and "Reject: there is" not in (why.error or ""):
                yield "no error"
            if "Traceback" not in (why.traceback or ""):
                yield "no traceback"
        body = self.evidence.bodies.get(json.loads(letter.body)["id"])
        if body is None and not self.evidence.unpublished:
            yield "it was never published"
        if body is not None and body != sha256(letter.body).hexdigest():
            yield "other bytes than were published"

    def __str__(self) -> str:
        evidence, letters = self.evidence, sum(map(len, self.letters.values()))
        lines = [
            f"{self.title} (seed {SEED})",
            f"published {evidence.sent * 2} and {evidence.sent} follow-ups, sent again {evidence.unpublished}",
            f"runs of handlers {len(evidence.runs)}, lost messages {len(self.missing)}",
            f"dead letters {letters}, missing or wrong {len(self.wrong_letters)}",
            f"out of order {len(self.early)}, torn {len(self.torn)}, a key twice at a time {len(self.overlaps)}",
            f"duplicates {sum(self.duplicates.values())}: {dict(self.duplicates)}",
            f"settled after so many deliveries without an outcome: {dict(sorted(evidence.unexplained.items()))}",
        ]
        if self.left:
            most = Left(*(max(column) for column in zip(*self.left, strict=True)))
            hit = sum(any(left[:2]) for left in self.left)
            mean = sum(left.duplicates for left in self.left) / len(self.left)
            lines += [
                f"workers killed {len(self.deaths)}; {hit} of {len(self.left)} subscriptions had something under way",
                "what a worker left in a subscription, at most:",
                f"  in flight {most.in_flight} (bound {CONCURRENCY})",
                f"  unflushed {most.unflushed}, for {most.age * 1000:.0f} ms (bound 50 ms and the call)",
                f"  duplicates {most.duplicates} (bound {PREFETCH} and the unflushed), {mean:.2f} on average",
            ]
        if self.lost:
            lines.append(
                f"duplicates of one worker and subscription after lost leases, at most {max(self.lost.values())}"
            )
        return "\n  ".join(lines)

    def check(self) -> None:
        """See that all promises were kept that hold whatever happens."""
        tell(f"\n{self}")
        for wrong in self.wrong_letters:
            tell(f"  {wrong}")
        assert not self.missing
        assert not self.unexplained
        assert not self.early
        assert not self.torn
        assert not self.wrong_letters
        for left in self.left:
            assert left.in_flight <= CONCURRENCY
            assert left.duplicates <= PREFETCH + left.unflushed
            assert left.unflushed <= PREFETCH
            assert left.age <= FLUSHED + SLOW
        # One that is stopped while an answer is on its way to it begins with messages that are another's by then.
        both_leased = [pair for pair in self.overlaps if not any(run.lost for run in pair)]
        assert not both_leased, "one key ran twice at a time under a lease"


def tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def number_in(letter: DeadLetter) -> int:
    number: int = json.loads(letter.body)["data"]["n"]
    return number


# The processes.


class Shop:
    """A Redis server, the processes that work with it, and what they have noted."""

    def __init__(
        self, folder: Path, server: RedisServer, url: str, *, lease: float, environment: Mapping[str, str]
    ) -> None:
        self.folder, self.server = folder, server
        self.poisoned = environment.get("SHOP_POISONED", "").split()
        settings = f"?lease={lease:g}&timeout=1&max_length=1000"
        self._direct = server.url + settings
        self._environment = {
            **os.environ,
            "SHOP_NOTES": str(folder),
            "SHOP_BROKER": url + settings,
            **environment,
        }
        self.workers: list[subprocess.Popen[bytes]] = []
        self.deaths: dict[int, float] = {}
        self._all: list[subprocess.Popen[bytes]] = []
        self._publisher: subprocess.Popen[bytes] | None = None
        asyncio.run(self._apply())

    async def _apply(self) -> None:
        broker = RedisBroker.from_url(self._direct)
        await broker.connect()
        await broker.apply(SUBSCRIPTIONS)
        await broker.aclose()

    # Starting.

    def hire(self) -> subprocess.Popen[bytes]:
        """Start a worker."""
        if importlib.util.find_spec("typer"):
            command = ["-m", "diator", "run", "redis_shop:app", "--log-level", "warning"]
        else:
            command = ["redis_shop.py", "work"]
        worker = self._start(command)
        self.workers.append(worker)
        return worker

    def publish(self, *, pause: float = 0.9, most: int = 1_000_000) -> None:
        """Start to publish."""
        self._publisher = self._start(["redis_shop.py", "publish", str(pause), str(most)])

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=Path(__file__).parent,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._all.append(process)
        return process

    # Ending.

    def kill(self, worker: subprocess.Popen[bytes]) -> None:
        worker.kill()
        worker.wait(PATIENCE)
        self._note_death(worker)

    def _note_death(self, worker: subprocess.Popen[bytes]) -> None:
        self.deaths[worker.pid] = time.monotonic()
        self.workers.remove(worker)

    def dismiss(self, worker: subprocess.Popen[bytes]) -> None:
        """Let a worker leave."""
        worker.terminate()
        code = worker.wait(PATIENCE)
        notes = self.folder / f"{worker.pid}.notes"
        has_begun = notes.exists() and notes.read_text()
        assert code == 0 or (code == -signal.SIGTERM and not has_begun), self.log()
        self.workers.remove(worker)

    def replace_dead(self) -> None:
        """Start workers in the place of those that died by a message."""
        for worker in list(self.workers):
            code = worker.poll()
            if code is not None:
                assert code == -signal.SIGKILL, self.log()
                assert self.poisoned, self.log()
                self._note_death(worker)
                self.hire()

    def end_publishing(self) -> None:
        """Let the publisher finish its batch, and end."""
        assert self._publisher is not None
        self._publisher.terminate()
        assert self._publisher.wait(PATIENCE) == 0, self.log()

    def drain(self) -> None:
        """Wait until everything is published, and nothing is left to be handled."""
        assert self._publisher is not None
        least, ends = sys.maxsize, time.monotonic() + PATIENCE
        while (is_publishing := self._publisher.poll() is None) or least:
            left = sum(asyncio.run(self._waiting()))
            if not is_publishing and left < least:
                least, ends = left, time.monotonic() + PATIENCE
            assert time.monotonic() < ends, f"still there: {left}; {self.log()}"
            self.replace_dead()
            time.sleep(0.1)
        assert self._publisher.returncode == 0, self.log()

    async def _waiting(self) -> list[int]:
        broker = RedisBroker.from_url(self._direct)
        await broker.connect()
        try:
            return [status.backlog or 0 for status in await broker.status(SUBSCRIPTIONS)]
        finally:
            await broker.aclose()

    def close(self) -> None:
        for process in self._all:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE)

    # Looking.

    def until(self, what: str, *, of: subprocess.Popen[bytes], count: int = 1) -> None:
        """Wait until a process has noted something so many times."""
        path = self.folder / f"{of.pid}.notes"
        ends = time.monotonic() + PATIENCE
        while not path.exists() or path.read_text().count(f" {what} ") < count:
            assert time.monotonic() < ends, self.log()
            time.sleep(0.02)

    def log(self) -> str:
        """The last that the processes had to say."""
        return (self.folder / "log").read_text()[-5000:]

    def report(self, title: str, *, cuts: int = 0) -> Report:
        """Let all workers leave, see that nothing is left, and tell what happened."""
        for worker in list(self.workers):
            self.dismiss(worker)
        letters = asyncio.run(self._leftovers_and_letters())
        log = (self.folder / "log").read_text()
        for words in ("restarting it", "never retrieved", "never awaited", "broken down", "Unclosed"):
            assert words not in log, log[max(0, log.index(words) - 3000) :][:6000]
        return Report(title, Evidence(self.folder), letters, self.deaths, self.poisoned, cuts)

    async def _leftovers_and_letters(self) -> Mapping[str, list[DeadLetter]]:
        client: Any = Redis(port=self.server.port, decode_responses=True)
        async with client:
            left = [text async for text in leftovers(client)]
        assert not left
        broker = RedisBroker.from_url(self._direct)
        await broker.connect()
        try:
            letters: dict[str, list[DeadLetter]] = {}
            for subscription in SUBSCRIPTIONS:
                letters[subscription.name] = [letter async for letter in dead_letters_of(broker, subscription)]
            return letters
        finally:
            await broker.aclose()


_STATE = ("queue", "free", "delayed", "leases", "holders", "in-flight", "counts", "retries")


async def leftovers(client: Any) -> AsyncIterator[str]:
    """Look into Redis for what nobody will ever handle."""
    for name in await client.keys("*"):
        if await client.type(name) != "stream":
            kinds = [f"}}:{one}" for one in _STATE]
            if any(kind in name for kind in kinds):
                yield f"{name} is not empty"
        elif not name.endswith("}:dead-letters"):
            for group in await client.xinfo_groups(name):
                if group["pending"]:
                    yield f"{name}: {group}"
            if name.endswith("}:redelivery") and await client.xlen(name):
                yield f"{name} holds messages"


@contextmanager
def shop(
    folder: Path,
    *,
    lease: float = LEASE,
    durable: bool = False,
    through: bool = False,
    environment: Mapping[str, str] = NOTHING,
) -> Generator[tuple[Shop, Proxy]]:
    """Open a shop, whose processes reach Redis ``through`` a proxy if wanted."""
    with RedisServer(durable=durable) as server, Proxy(server.port) as proxy:
        one = Shop(folder, server, proxy.url if through else server.url, lease=lease, environment=environment)
        try:
            yield one, proxy
        finally:
            one.close()


# What they go through.


def test_workers_that_are_killed(tmp_path: Path) -> None:
    """SIGKILL at random moments, again and again: one worker of two, now and then both."""
    chance = random.Random(SEED)
    with shop(tmp_path) as (one, _):
        workers = [one.hire(), one.hire()]
        one.publish()
        for worker in workers:
            one.until("settled", of=worker)
        while len(one.deaths) < KILLS:
            locations = (0, 1) if chance.random() < 0.1 else (chance.randrange(2),)
            if chance.random() < 0.5:  # where the machine is busy, few workers would live to see a message
                one.until("began", of=workers[locations[0]])
            time.sleep(chance.uniform(0.2, 2.0))
            for location in locations:
                one.kill(workers[location])
                workers[location] = one.hire()
        one.end_publishing()
        one.drain()
        report = one.report(f"{len(one.deaths)} workers killed")
    report.check()
    assert not report.overlaps
    assert set(report.duplicates) <= {KILLED, COPY}


def test_redis_that_is_killed_or_silent(tmp_path: Path) -> None:
    """SIGKILL of the server, which keeps an append-only file, or SIGSTOP; for less, and for more, than a lease.

    The workers wait for one second for an answer.
    """
    chance = random.Random(SEED)
    some = (("kill", 0.1), ("pause", LEASE * 1.5))
    outages = (*some, ("kill", LEASE * 1.5), ("pause", 0.5)) * TIMES if TIMES > 1 else some
    with shop(tmp_path, durable=True) as (one, _):
        workers = [one.hire(), one.hire()]
        one.publish()
        for worker in workers:
            one.until("settled", of=worker)
        for what, seconds in outages:
            time.sleep(chance.uniform(0.5, 1.0))
            server = one.server
            (server.kill if what == "kill" else server.pause)()
            time.sleep(seconds)
            (server.start if what == "kill" else server.resume)()
        time.sleep(1.0)
        one.end_publishing()
        one.drain()
        report = one.report(f"Redis killed and started again, or silent, {len(outages)} times", cuts=4 * len(outages))
    report.check()
    check_after_lost_leases(report, outages=len(outages))


def test_connections_that_are_cut(tmp_path: Path) -> None:
    """All connections of workers and of the publisher are cut at once, between commands and within them."""
    chance = random.Random(SEED)
    with shop(tmp_path, through=True) as (one, proxy):
        workers = [one.hire(), one.hire()]
        one.publish()
        for worker in workers:
            one.until("settled", of=worker)
        for _ in range(TIMES * 8):
            time.sleep(chance.uniform(0.2, 0.8))
            proxy.cut()
            time.sleep(chance.uniform(0.1, 0.3))
            proxy.cut_after(chance.randrange(1, 20_000))
        one.end_publishing()
        one.drain()
        report = one.report(f"connections cut {TIMES * 16} times", cuts=TIMES * 16)
    report.check()
    check_after_lost_leases(report, outages=TIMES * 16)


def check_after_lost_leases(report: Report, *, outages: int) -> None:
    """Where the broker was away, what a worker had may have been given to another, or have run out."""
    assert set(report.duplicates) <= {LOST, COPY}
    assert max(report.lost.values(), default=0) <= outages * 2 * PREFETCH
    assert not [run for run in report.evidence.runs if run.outcome is None or run.how in {"cut off", "cancelled"}]


def test_a_worker_that_is_stopped_past_its_lease(tmp_path: Path) -> None:
    """It wakes up when another has its messages, and goes on with what it had: nothing of that counts."""
    with shop(tmp_path) as (one, _):
        sleeper, other = one.hire(), one.hire()
        one.publish()
        for worker in (sleeper, other):
            one.until("settled", of=worker, count=200)
        sleeper.send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        time.sleep(LEASE * 2)
        woke = time.monotonic()
        sleeper.send_signal(signal.SIGCONT)
        time.sleep(2.0)
        one.end_publishing()
        one.drain()
        report = one.report("a worker stopped past its lease")
    report.check()
    assert set(report.duplicates) <= {LOST, COPY}
    assert {worker for worker, _ in report.lost} <= {sleeper.pid}
    assert max(report.lost.values(), default=0) <= PREFETCH + CONCURRENCY
    slept = [run for run in report.evidence.runs if run.worker == sleeper.pid and run.began < stopped]
    interrupted = [run for run in slept if run.ended is None or run.ended > woke]
    tell(
        f"  running when it was stopped {len(interrupted)}, of these fenced off {sum(run.lost for run in interrupted)}"
    )
    assert all(run.lost for run in interrupted)


def test_workers_that_join_and_leave(tmp_path: Path) -> None:
    """With SIGTERM nothing is done twice, and nothing counts as an attempt."""
    leaves: list[float] = []
    with shop(tmp_path, lease=20.0) as (one, _):
        workers = [one.hire()]
        one.publish()
        one.until("settled", of=workers[0])
        for _ in range(TIMES * 2):
            workers.append(one.hire())
            one.until("settled", of=workers[1], count=30)
            began = time.monotonic()
            one.dismiss(workers.pop(0))
            leaves.append(time.monotonic() - began)
        one.end_publishing()
        one.drain()
        report = one.report(f"{len(leaves)} workers joined and left")
    report.check()
    tell(f"  leaving took at most {max(leaves):.1f} s")
    assert not report.duplicates
    assert not report.overlaps
    for (subscription, _), runs in report.evidence.by_message.items():
        attempts = [run.attempt for run in runs]
        assert attempts == list(range(1, tries_of(subscription, runs[0].n) + 1)), runs
        assert {run.how for run in runs} <= {"ended", "failed"}


@pytest.mark.parametrize(("poisoned", "allowed"), ALWAYS_KILLING)
def test_messages_that_kill_their_workers(poisoned: tuple[str, ...], allowed: int, tmp_path: Path) -> None:
    """They become dead letters, and nothing else does, whatever was with them in the workers that died."""
    environment = {"SHOP_POISONED": " ".join(poisoned), "SHOP_MAX_DELIVERIES": str(allowed)}
    with shop(tmp_path, lease=1.0, environment=environment) as (one, _):
        one.hire()
        one.hire()
        one.publish(most=300)
        one.drain()
        report = one.report(f"a message in {' and in '.join(poisoned)} that kills its worker")
    report.check()
    for subscription in poisoned:
        runs = report.evidence.by_number[subscription, POISON]
        assert len(runs) == allowed if len(poisoned) == 1 else 0 < len(runs) <= allowed
