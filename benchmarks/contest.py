"""Diator against something else over a server: who is measured against whom, in rounds, and what came of it."""

import argparse
import asyncio
import gc
import json
import os
import platform
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from math import isnan, nan
from pathlib import Path
from statistics import median, quantiles

from benchmarks.race import CACHE, Peer
from benchmarks.redis.message import Spent
from benchmarks.report import table

Measure = Callable[[str, int], Spent]
"""Gives what one message takes, at a server and with so many messages."""
_HEAD = ("what", "against", "limit", "measured", "", "Diator", "the other", "in processor time")


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


def run(measure: Callable[[str, int], Awaitable[Spent]]) -> Measure:
    """Measure in an event loop of its own."""

    async def work(url: str, count: int) -> Spent:
        return await measure(url, count)

    return lambda url, count: asyncio.run(work(url, count))


def peer(library: str, driver: str, *beside: str) -> Measure:
    """Measure a library in an environment and a process of its own."""
    made = Peer(library, driver, beside)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def measure(url: str, count: int) -> Spent:
        command = [str(made.python()), "-m", f"benchmarks.peers.drive_{driver}", url, str(count)]
        printed = subprocess.run(
            command, check=True, cwd=CACHE, env=environment, stdout=subprocess.PIPE, text=True, timeout=120
        ).stdout
        seconds: float = json.loads(printed)
        return Spent(seconds, nan)

    return measure


def options_of(module: str, what: str | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=what)
    parser.add_argument("--quick", action="store_true", help="run everything briefly, judge nothing, write nothing")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="measure only rows that have this text, write nothing"
    )
    return parser.parse_args()


def compete(matches: Sequence[Match], url: str, options: argparse.Namespace, rounds: int, quick_count: int) -> None:
    """Measure them, by turns, so that none has a bad minute alone."""
    for number in range(1 if options.quick else rounds):
        for match in matches:
            if number < match.rounds:
                _play(match, url, number, quick_count if options.quick else 0)


def _play(match: Match, url: str, number: int, quick_count: int) -> None:
    """Measure both sides once, who comes first by turns."""
    sides = [(match.ours, match.count), (match.theirs, match.their_count or match.count)]
    spent: dict[int, Spent] = {}
    for side in (0, 1) if number % 2 else (1, 0):
        measure, count = sides[side]
        gc.collect()
        spent[side] = measure(url, quick_count or count)
    match.spent.append((spent[0], spent[1]))
    print(f"round {number + 1}: {match.what} / {match.against}: {match.ratios[-1]:.2f}", file=sys.stderr)


def conclude(matches: Sequence[Match], head: str, options: argparse.Namespace, results: Path) -> int:
    """Print what came of it below a head, and write it; return the status to end with."""
    missed = [match for match in matches if match.missed]
    verdict = "Not judged." if options.quick else "\n".join(map(_told, missed)) or "Every target is met."
    rows = table(_HEAD, [match.cells(judged=not options.quick) for match in matches])
    text = f"{head}\n\n{rows}\n\n## Verdict\n\n{verdict}\n"
    print(text)
    if options.quick:
        return 0
    if not options.only:
        results.write_text(text)
    return 1 if missed else 0


def system() -> str:
    """Name the Python and the system."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{python} ({platform.system()} {platform.machine()})"


def _told(match: Match) -> str:
    return f"- missed: {match.what}: {match.ratio:.2f}, {match.limit_in_words}"
