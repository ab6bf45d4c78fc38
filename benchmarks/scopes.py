"""What a scope costs through each plugin, against the library's own way: the works are in `benchmarks.containers`."""

import importlib
from collections.abc import AsyncIterator, Callable, Coroutine
from itertools import repeat
from typing import Any

from benchmarks.measure import Effort, Work, compare
from benchmarks.report import Row

LIBRARIES = ("dishka", "di", "rodi", "svcs", "wireup")
WORKS = {"chain": "three objects", "resource": "three, one of them to close"}

Run = Callable[[], Coroutine[Any, Any, object]]


async def rows(effort: Effort) -> AsyncIterator[Row]:
    """Measure every library, with each work that it offers."""
    for library in LIBRARIES:
        module = importlib.import_module(f"benchmarks.containers.{library}")
        await module.setup()
        for name, text in WORKS.items():
            if hasattr(module, f"native_{name}"):
                through, itself = getattr(module, f"plugin_{name}"), getattr(module, f"native_{name}")
                ratio = await compare(await _work(through), await _work(itself), effort)
                yield Row(f"a scope of {library}, {text}", f"{library} itself", ratio, limit=1.5)


async def _work(run: Run) -> Work:
    async def loop(times: int) -> None:
        for _ in repeat(None, times):
            await run()

    loop.__code__ = loop.__code__.replace()  # loops that share code spoil each other's caches
    made = await run()
    return Work(loop, {run: 1, type(made).__init__: 1})
