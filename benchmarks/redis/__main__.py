"""Measures Diator over Redis, prints a table and writes RESULTS-redis.md; ends with 1 where a target is missed."""

import argparse
import gc
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from diator_redis.testing import RedisServer
from redis import Redis

from benchmarks.redis.matches import MATCHES, Match
from benchmarks.redis.message import Spent
from benchmarks.report import table

RESULTS = Path(__file__).parent.parent / "RESULTS-redis.md"
ROUNDS = 9
TEXT = """\
# Results over Redis

Written by `python -m benchmarks.redis`, on {python} ({system}), Redis {server}, {packages}. The
[README](README.md#over-redis) says how each figure comes about.

{table}

## Verdict

{verdict}
"""
HEAD = ("what", "against", "limit", "measured", "", "Diator", "the other", "in processor time")


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.redis", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="run everything briefly, judge nothing, write nothing")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="measure only rows that have this text, write nothing"
    )
    options = parser.parse_args()
    if sys.hexversion < 0x030B0000:
        print("The targets and the libraries that are raced are for Python 3.11 and newer; nothing was measured.")
        return 0 if options.quick else 2
    matches = [match for match in MATCHES if options.only in f"{match.what} / {match.against}"]
    with RedisServer() as server:
        for number in range(1 if options.quick else ROUNDS):
            for match in matches:  # they take turns, so that none has a bad minute alone
                if number < match.rounds:
                    _play(match, server.url, number, options.quick)
        client: Any = Redis(port=server.port)
        version_of_server: str = client.info("server")["redis_version"]
    missed = [match for match in matches if match.missed]
    text = TEXT.format(
        python=f"{platform.python_implementation()} {platform.python_version()}",
        system=f"{platform.system()} {platform.machine()}",
        server=version_of_server,
        packages=", ".join(f"{name} {version(name)}" for name in ("redis", "hiredis")),
        table=table(HEAD, [match.cells(judged=not options.quick) for match in matches]),
        verdict="Not judged." if options.quick else "\n".join(map(_told, missed)) or "Every target is met.",
    )
    print(text)
    if options.quick:
        return 0
    if not options.only:
        RESULTS.write_text(text)
    return 1 if missed else 0


def _play(match: Match, url: str, number: int, quick: bool) -> None:
    """Measure both sides once, who comes first by turns."""
    sides = [(match.ours, match.count), (match.theirs, match.their_count or match.count)]
    spent: dict[int, Spent] = {}
    for side in (0, 1) if number % 2 else (1, 0):
        measure, count = sides[side]
        gc.collect()
        spent[side] = measure(url, 200 if quick else count)
    match.spent.append((spent[0], spent[1]))
    print(f"round {number + 1}: {match.what} / {match.against}: {match.ratios[-1]:.2f}", file=sys.stderr)


def _told(match: Match) -> str:
    return f"- missed: {match.what}: {match.ratio:.2f}, {match.limit_in_words}"


if __name__ == "__main__":
    sys.exit(main())
