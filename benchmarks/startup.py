"""What it costs to import Diator and to start a large app; each sample is a fresh process."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles

from benchmarks.measure import Ratio
from benchmarks.report import Row

ROOT = Path(__file__).resolve().parent.parent
TIMED = "from time import process_time as clock; start = clock(); {imports}; print(clock() - start)"
FLOOR = "import typing_extensions, asyncio"
LOADED = "import sys; before = set(sys.modules); import diator; print(*sorted(sys.modules.keys() - before))"


def rows(processes: int) -> Iterator[Row]:
    """Measure every row of this module; imports in that many pairs of processes."""
    yield Row("import diator", FLOOR, _imports(FLOOR, processes), limit=1.3)
    with_codec = f"{FLOOR}, msgspec"
    yield Row("import diator", with_codec, _imports(with_codec, processes))
    loaded = _optional()
    what = f"packages loaded by import diator ({', '.join(loaded)})" if loaded else "packages loaded by import diator"
    yield Row(what, "typing_extensions and the standard library", float(len(loaded)), limit=0)
    started = [_large_app("time") for _ in range(max(1, processes // 8))]
    yield Row("register, check and start 1,000 handlers", "defining them", median(started), " s", limit=0.3)
    memory = _large_app("memory") / 2**20
    yield Row("memory that these 1,000 handlers keep", "defining them", memory, " MiB", limit=4)


def _imports(floor: str, processes: int) -> Ratio:
    """How many times longer the import statement takes. The start of Python itself is in neither."""
    commands = [TIMED.format(imports=imports) for imports in ("import diator", floor)]
    for command in commands:  # once, so that the byte code is there, as it is for users
        _python("-c", command)
    ratios: list[float] = []
    for number in range(processes):
        first, second = (float(_python("-c", command)) for command in commands[:: -1 if number % 2 else 1])
        ratios.append(second / first if number % 2 else first / second)
    low, _, high = quantiles(ratios, n=4)
    return Ratio(median(ratios), low, high)


def _optional() -> list[str]:
    """Packages that `import diator` loads, and that are neither it nor what it depends on."""
    packages = {module.partition(".")[0] for module in _python("-c", LOADED).split()}
    return sorted(packages - sys.stdlib_module_names - {"diator", "typing_extensions"})


def _large_app(what: str) -> float:
    measured: float = json.loads(_python("-m", "benchmarks.large_app", what))
    return measured


def _python(*arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, *arguments], check=True, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    )
    return done.stdout
