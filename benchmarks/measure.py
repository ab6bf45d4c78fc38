"""Measuring: two loops that do comparable work take turns in one process. Needs the standard library alone."""

import gc
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from statistics import median, quantiles
from time import thread_time
from types import CodeType, FrameType
from typing import Any

Loop = Callable[[int], Awaitable[None]]
"""Does its work that many times. Each one is written out, since loops that share code spoil each other's caches."""


@dataclass(frozen=True, slots=True)
class Work:
    """A loop, and what runs in each of its turns: a function and how often."""

    loop: Loop
    runs: Mapping[Callable[..., Any], int]


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure: that many rounds, in each of which either loop runs for ``seconds``."""

    rounds: int
    seconds: float


FULL = Effort(rounds=801, seconds=0.0005)
SHARE = Effort(rounds=161, seconds=0.0005)
"""For one of several processes that measure the same."""
QUICK = Effort(rounds=5, seconds=0.0001)


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times longer one work took than the other: the median over all rounds, and its quartiles."""

    median: float
    low: float
    high: float


async def compare(subject: Work, baseline: Work, effort: Effort) -> Ratio:
    """Measure how many times longer the subject takes than the baseline.

    Raises `RuntimeError` where a loop does not run what it claims.
    """
    for work in (subject, baseline):
        await prove(work)
    turns = [await _turns(work.loop, effort.seconds) for work in (subject, baseline)]
    ratios: list[float] = []
    gc.collect()
    gc.disable()  # as timeit does: a collection belongs to no single turn
    try:
        for number in range(effort.rounds):
            if number % 2:
                second = await _sample(baseline.loop, turns[1])
                first = await _sample(subject.loop, turns[0])
            else:
                first = await _sample(subject.loop, turns[0])
                second = await _sample(baseline.loop, turns[1])
            ratios.append(first / second)
    finally:
        gc.enable()
    low, _, high = quantiles(ratios, n=4)
    return Ratio(median(ratios), low, high)


async def prove(work: Work, turns: int = 3) -> None:
    """Count the calls of a few turns, before anything is timed: a loop that does nothing would win."""
    counts: Counter[CodeType] = Counter()

    def count(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            counts[frame.f_code] += 1

    sys.setprofile(count)
    try:
        await work.loop(turns)
    finally:
        sys.setprofile(None)
    for function, times in work.runs.items():
        got = counts[function.__code__]
        if got != times * turns:
            raise RuntimeError(f"{function.__qualname__} ran {got} times in {turns} turns; expected {times * turns}")


async def _turns(loop: Loop, seconds: float) -> int:
    """How many turns of a loop take about that long."""
    turns = 1
    while (taken := await _sample(loop, turns) * turns) < seconds / 2:
        turns *= 2
    return max(1, round(turns * seconds / taken))


async def _sample(loop: Loop, turns: int) -> float:
    """The seconds that one turn takes."""
    start = thread_time()
    await loop(turns)
    return (thread_time() - start) / turns
