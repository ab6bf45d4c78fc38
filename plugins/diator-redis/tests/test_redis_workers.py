"""Proof with real worker processes: they are killed, stopped and cut off while thousands of messages flow.

The processes run `redis_shop.py` and note what they do; afterwards the notes are compared with what was promised. Each test
prints what it counted (``pytest -s``). The environment variable ``DIATOR_KILLS`` says how often workers are killed.
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
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from redis.asyncio import Redis

from diator.brokers import DeadLetter, Subscription, Topic
from diator_redis import RedisBroker
from diator_redis.testing import Proxy, RedisServer

KILLS = int(os.environ.get("DIATOR_KILLS", "6"))
SEED = int(os.environ.get("DIATOR_SEED", "0")) or random.randrange(1, 10**6)
LEASE = 2.0
CONCURRENCY = 10
PREFETCH = 100
"""So many messages a worker takes ahead of handling them, at most."""
FLUSHED = 0.05
"""Outcomes wait so many seconds to go together."""

PLACED, SHIPPED = Topic("shop.placed", False, ("shop.placed",)), Topic("shop.shipped", False, ("shop.shipped",))
BALANCE = Topic("shop.balance", True, ("shop.balance",))
SUBSCRIPTIONS = (
    Subscription("shop.ship", (PLACED,)),
    Subscription("shop.notify", (SHIPPED,)),
    Subscription("shop.bill", (PLACED,)),
    Subscription("shop.project", (BALANCE,), ordered=True),
)
ACCOUNTS = 30


# What the processes have noted.


@dataclass
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
    def is_over(self) -> bool:
        """Whether later messages of its key may be handled: it succeeded, or will become a dead letter."""
        return self.how == "ended" or (self.how == "failed" and self.attempt == 3)


class Kill(NamedTuple):
    """What the death of one worker left behind in one subscription."""

    in_flight: int
    unflushed: int
    """Runs that were over, of which the worker had not heard yet that the broker knows."""
    age: float
    """How old the oldest of these was, in seconds."""
    duplicates: int


@dataclass
class Evidence:
    """Everything that was noted, in the order of time."""

    runs: list[Run] = field(default_factory=list[Run])
    sent: int = 0
    bodies: dict[str, str] = field(default_factory=dict[str, str])
    resent: int = 0

    @classmethod
    def read(cls, folder: Path) -> "Evidence":
        found = cls()
        for path in folder.glob("*.notes"):
            found._read(int(path.stem), path.read_text())
        found.runs.sort(key=lambda run: run.began)
        return found

    def _read(self, worker: int, text: str) -> None:
        latest: dict[tuple[str, str], Run] = {}
        for line in text.splitlines():
            stamp, what, *words = line.split()
            seconds = int(stamp) / 1e9
            if what == "began":
                subscription, message, n, attempt = words
                run = latest[subscription, message] = Run(
                    worker, subscription, message, int(n), int(attempt), seconds
                )
                self.runs.append(run)
            elif what in {"ended", "failed", "cancelled"}:
                run = latest[words[0], words[1]]
                run.ended, run.how = seconds, what
            elif what == "settled":
                found = latest.get((words[0], words[1]))
                if found is not None and found.outcome is None:
                    found.outcome, found.lost = words[2], words[3] == "1"
            elif what == "published":
                self.bodies[words[1]] = words[2]
            elif what == "sent":
                self.sent = int(words[0])
            elif what == "unpublished":
                self.resent += int(words[0]) + int(words[1])

    def by_message(self) -> Mapping[tuple[str, str], list[Run]]:
        """The runs of each message in each subscription."""
        found: dict[tuple[str, str], list[Run]] = defaultdict(list)
        for run in self.runs:
            found[run.subscription, run.message].append(run)
        return found

    def by_key(self) -> Mapping[int, list[Run]]:
        """The runs of each key in the ordered subscription."""
        found: dict[int, list[Run]] = defaultdict(list)
        for run in self.runs:
            if run.subscription == "shop.project":
                found[run.n % ACCOUNTS].append(run)
        return found
