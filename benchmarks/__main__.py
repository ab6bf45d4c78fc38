"""Measures everything, prints the tables and writes RESULTS.md; ends with 1 where a target is missed."""

import argparse
import asyncio
import platform
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks import dispatch, events, injection, scopes, startup
from benchmarks.measure import FULL, QUICK, Effort
from benchmarks.race import faster, race, standings
from benchmarks.report import Row, costs

RESULTS = Path(__file__).with_name("RESULTS.md")
PAGE = Path(__file__).parent.parent / "docs" / "explanation" / "performance.md"
TEXT = """\
# Results

Written by `python -m benchmarks`, on {python} ({system}). The [README](README.md) says how each figure comes about.

## What Diator costs

Times the work named under "against": the median, and in brackets the quartiles.

{costs}

## Against other libraries

Times a direct `await handler(message)` in the same process; in brackets, times Diator.

{standings}

## Verdict

{verdict}
"""


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="run everything briefly, judge nothing, write nothing")
    quick: bool = parser.parse_args().quick
    if sys.hexversion < 0x030B0000:
        print("The targets and the libraries that are raced are for Python 3.11 and newer; nothing was measured.")
        return 0 if quick else 2
    rows = list(_told(asyncio.run(_in_process(QUICK if quick else FULL))))
    rows += _told(startup.rows(processes=2 if quick else 40))
    results = race(quick)
    tables = {"costs": costs(rows), "standings": standings(results)}
    missed = [f"- missed: {text}" for text in (*_missed(rows), *faster(results))]
    text = TEXT.format(
        python=f"{platform.python_implementation()} {platform.python_version()}",
        system=f"{platform.system()} {platform.machine()}",
        **tables,
        verdict="Not judged." if quick else "\n".join(missed) or "Every target is met.",
    )
    print(text)
    if quick:
        return 0
    RESULTS.write_text(text)
    for name, table in tables.items():
        _put_on_page(name, table)
    return 1 if missed else 0


async def _in_process(effort: Effort) -> list[Row]:
    kinds = (dispatch.rows(effort), injection.rows(effort), scopes.rows(effort), events.rows(effort))
    return [row for rows in kinds async for row in rows]


def _told(rows: Iterable[Row]) -> Iterator[Row]:
    for row in rows:
        print("  ".join(row.cells), file=sys.stderr)
        yield row


def _put_on_page(name: str, table: str) -> None:
    """Replace one table of the page for users."""
    head, mark, rest = PAGE.read_text().partition(f"<!-- written by python -m benchmarks: {name} -->\n")
    _, end, tail = rest.partition("<!-- end -->")
    PAGE.write_text(f"{head}{mark}\n{table}\n\n{end}{tail}")


def _missed(rows: list[Row]) -> Iterator[str]:
    for row in rows:
        if row.missed:
            yield f"{row.what}: {row.value:.2f}{row.unit}, at most {row.limit:g}{row.unit}"


if __name__ == "__main__":
    sys.exit(main())
