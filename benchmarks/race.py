"""The race: Diator and its peers do the same work, each library in an environment and a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.peers.driver import WORKS
from benchmarks.report import table

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diator-benchmarks"
DISHKA = "dishka==1.10.1"
US = "diator"


@dataclass(frozen=True, slots=True)
class Peer:
    """A library, its driver in ``benchmarks/peers``, and what its environment needs beside it."""

    library: str
    driver: str
    beside: tuple[str, ...] = (DISHKA,)
    not_equal: Mapping[str, str] = field(default_factory=dict[str, str])
    """Works that it does under other conditions, which is told and not judged."""

    @property
    def name(self) -> str:
        """As the table shows it."""
        return self.library.replace("==", " ")

    def python(self) -> Path:
        """The Python of its environment, made on first use and kept in the user's cache."""
        name = "-".join([self.driver, f"{sys.version_info.major}.{sys.version_info.minor}"])
        home = CACHE / name.replace("/", "-")
        python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        wanted = "\n".join([sys.version, str(ROOT), self.library, *self.beside])
        made_for = home / "made-for.txt"
        if not made_for.exists() or made_for.read_text() != wanted:
            uv = os.environ.get("UV", "uv")
            subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, home], check=True)
            packages = [self.library, *self.beside]
            subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *packages], check=True)
            # At the end of the path, behind the installed packages: one of them is called diator too.
            site = subprocess.run([python, "-c", SITE], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
            Path(site, "benchmarks.pth").write_text(f"{ROOT}\n")
            made_for.write_text(wanted)
        return python


SITE = "import sysconfig; print(sysconfig.get_path('purelib'))"
PEERS = (
    Peer("diator==0.1.2", "diator_0_1", ("rodi==2.1.0", DISHKA)),
    Peer("python-cqrs==5.3.0", "python_cqrs"),
    Peer("mediatr==1.3.2", "mediatr", not_equal={"injected": "with dishka's synchronous container, it takes no other"}),
    Peer("kerux==0.1.1", "kerux"),
    Peer("meator==2.0.1", "meator", ()),
    Peer("mediary==0.4.0", "mediary"),
    Peer("lato==0.13.0", "lato"),
)

PROCESSES = 5
Times = Mapping[str, float | None]
"""For each work, how many direct calls it takes; none where the library does not offer it."""


def race(quick: bool) -> dict[str, Times]:
    """Run every driver, in several processes for each work, and take the median of each."""
    drivers = {US: (Path(sys.executable), US), **{peer.name: (peer.python(), peer.driver) for peer in PEERS}}
    laps: dict[tuple[str, str], list[float]] = {}
    for lap in range(1 if quick else PROCESSES):
        print(f"race, lap {lap + 1}", file=sys.stderr)
        for work in WORKS:  # the libraries take turns, so that none has a bad minute alone
            for library, (python, driver) in drivers.items():
                measured = _measure(python, driver, work, quick)
                laps.setdefault((library, work), []).extend([] if measured is None else [measured])
    return {
        library: {work: median(times) if (times := laps[library, work]) else None for work in WORKS}
        for library in drivers
    }


def faster(results: Mapping[str, Times]) -> list[str]:
    """Say which peer is faster than Diator, and where."""
    ours = results[US]
    return [
        f"{WORKS[work]}: {peer.name} is faster ({theirs:.2f} against {own:.2f})"
        for peer in PEERS
        for work, theirs in results[peer.name].items()
        if work not in peer.not_equal and (own := ours[work]) and theirs and theirs < own
    ]


def standings(results: Mapping[str, Times]) -> str:
    """The table of the race."""
    ours = results[US]
    lines = [
        (library, *(_cell(times[work], own if library != US else None) for work, own in ours.items()))
        for library, times in results.items()
    ]
    notes = [
        f"Not judged: {peer.name}, {WORKS[work]}, {why}." for peer in PEERS for work, why in peer.not_equal.items()
    ]
    return "\n\n".join([table(("library", *WORKS.values()), lines), *notes])


def _cell(time: float | None, ours: float | None) -> str:
    if time is None:
        return "not offered"
    return _short(time) + (f" ({_short(time / ours)} x)" if ours else "")


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 10 else f"{number:.2f}"


def _measure(python: Path, driver: str, work: str, quick: bool) -> float | None:
    command: list[str | Path] = [python, "-m", f"benchmarks.peers.drive_{driver}", work, "quick" if quick else "full"]
    # Not in the repository: `-m` puts the current directory first, where diator is.
    cwd = ROOT if driver == US else CACHE
    printed = subprocess.run(command, check=True, cwd=cwd, stdout=subprocess.PIPE, text=True).stdout
    measured: float | None = json.loads(printed)
    return measured
