"""Who is measured against whom, and what is wanted."""

import asyncio
import json
import os
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from math import isnan, nan
from statistics import median, quantiles

from benchmarks.race import CACHE, Peer
from benchmarks.redis import ours, raw
from benchmarks.redis.message import Spent

Measure = Callable[[str, int], Spent]
"""Gives what one message takes, at a server and with so many messages."""


@dataclass
class Match:
    """One thing that two do."""

    what: str
    against: str
    ours: Measure
    theirs: Measure
    limit: float | None
    """Of the ratio of messages a second at least, of that of latencies at most."""
    count: int = 20_000
    their_count: int = 0
    is_latency: bool = False
    rounds: int = 9
    spent: list[tuple[Spent, Spent]] = field(default_factory=list[tuple[Spent, Spent]])
    """What both took, in each round."""

    @property
    def ratios(self) -> list[float]:
        return [self._ratio(us.seconds, them.seconds) for us, them in self.spent]

    @property
    def ratio(self) -> float:
        """What is judged."""
        return median(self.ratios)

    @property
    def missed(self) -> bool:
        if self.limit is None:
            return False
        return self.ratio > self.limit if self.is_latency else self.ratio < self.limit

    @property
    def limit_in_words(self) -> str:
        if self.limit is None:
            return ""
        return f"at {'most' if self.is_latency else 'least'} {self.limit:g}"

    def cells(self, judged: bool) -> tuple[str, ...]:
        """The row as text."""
        ratios = sorted(self.ratios)
        low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
        verdict = "" if self.limit is None or not judged else "**missed**" if self.missed else "met"
        measured = f"{self.ratio:.2f} ({low:.2f} to {high:.2f})"
        ours, theirs = (self._shown([spent[side].seconds for spent in self.spent]) for side in (0, 1))
        return self.what, self.against, self.limit_in_words, measured, verdict, ours, theirs, self._processor

    def _ratio(self, ours: float, theirs: float) -> float:
        return ours / theirs if self.is_latency else theirs / ours

    @property
    def _processor(self) -> str:
        ratio = median([self._ratio(us.processor, them.processor) for us, them in self.spent])
        return "" if isnan(ratio) else f"{ratio:.2f}"

    def _shown(self, times: list[float]) -> str:
        seconds = median(times)
        return f"{seconds * 1e6:,.0f} us" if self.is_latency else f"{1 / seconds:,.0f}/s"


def _run(measure: Callable[[str, int], Awaitable[Spent]]) -> Measure:
    async def work(url: str, count: int) -> Spent:
        return await measure(url, count)

    return lambda url, count: asyncio.run(work(url, count))


def _peer(library: str, driver: str, *beside: str) -> Measure:
    """Measure a library in an environment and a process of its own."""
    peer = Peer(library, driver, (*beside, "redis==8.1.0", "hiredis==3.5.0"))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def measure(url: str, count: int) -> Spent:
        command = [str(peer.python()), "-m", f"benchmarks.peers.drive_{driver}", url, str(count)]
        printed = subprocess.run(
            command, check=True, cwd=CACHE, env=environment, stdout=subprocess.PIPE, text=True, timeout=120
        ).stdout
        seconds: float = json.loads(printed)
        return Spent(seconds, nan)

    return measure


_ONE_XADD = "XADD one by one"
_READ_100 = "XREADGROUP of 100, one XACK for all"

MATCHES = (
    Match(
        "publish batches of 100",
        "pipelines of 100 XADD",
        _run(ours.publish_batches),
        _run(raw.publish_batches),
        limit=0.75,
    ),
    Match(
        "publish from 100 tasks, each call confirmed",
        _ONE_XADD,
        _run(ours.publish_at_the_same_time),
        _run(raw.publish_one_by_one),
        limit=4,
        count=10_000,
        their_count=5_000,
    ),
    Match(
        "one publish alone, latency",
        "XADD",
        _run(ours.publish_alone),
        _run(raw.publish_alone),
        limit=1.2,
        count=3_000,
        is_latency=True,
    ),
    Match("handle, one at a time", _READ_100, _run(ours.consume), _run(raw.consume), limit=0.45),
    Match(
        "handle, one at a time",
        f"{_READ_100}, without time-outs",
        _run(ours.consume),
        _run(raw.consume_without_timeouts),
        limit=None,
    ),
    Match(
        "handle ordered by key, ten at a time, a scope of dishka with a resource for each",
        f"{_READ_100}, neither keys nor scopes",
        _run(ours.consume_ordered),
        _run(raw.consume),
        limit=0.2,
    ),
    Match("publish and handle at the same time", "both at the same time", _run(ours.both), _run(raw.both), limit=0.45),
    Match(
        "publish to handler, one in flight, latency",
        "XADD to XREADGROUP that waits",
        _run(ours.one_in_flight),
        _run(raw.one_in_flight),
        limit=1.6,
        count=2_000,
        is_latency=True,
    ),
    Match(
        "publish to Pub/Sub",
        "PUBLISH one by one",
        _run(ours.publish_to_channel),
        _run(raw.publish_to_channel),
        limit=0.8,
        count=5_000,
    ),
    Match(
        "publish to Pub/Sub",
        "diator 0.1.2",
        _run(ours.publish_to_channel),
        _peer("diator==0.1.2", "redis_diator_0_1"),
        limit=None,
        count=5_000,
        their_count=2_000,
        rounds=5,
    ),
    Match(
        "handle, one at a time",
        "FastStream 0.7.8, a stream subscriber",
        _run(ours.consume),
        _peer("faststream[redis]==0.7.8", "redis_faststream"),
        limit=10,
        their_count=2_000,
        rounds=5,
    ),
    Match(
        "handle, one at a time",
        "taskiq 0.13.0, RedisStreamBroker of taskiq-redis 1.2.4",
        _run(ours.consume),
        _peer("taskiq-redis==1.2.4", "redis_taskiq", "taskiq==0.13.0"),
        limit=10,
        their_count=2_000,
        rounds=5,
    ),
    Match(
        "handle, one at a time",
        "dramatiq 2.2.1, eight threads",
        _run(ours.consume),
        _peer("dramatiq[redis]==2.2.1", "redis_dramatiq"),
        limit=10,
        their_count=2_000,
        rounds=5,
    ),
)
