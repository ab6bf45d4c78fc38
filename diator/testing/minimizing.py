"""`minimize` runs a test repeatedly to find the fewest faults that break it."""

import logging
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from inspect import iscoroutinefunction
from typing import NamedTuple

from diator.engine.registrations import name_of
from diator.options import COUNT, Rule, is_a, require
from diator.testing.faults import Faults, collecting, plan_text

Test = Callable[[Faults], Awaitable[object]]


async def minimize(test: Test, *, faults: Faults | None = None, runs: int = 100) -> None:
    """Run an async test with faults repeatedly, and fail with the fewest that break it.

    The test receives a `Faults`, and passes it on: ``app.testing(faults=faults)``. It runs once without faults, then
    with those of ``faults`` and of the following seeds, in half of the ``runs``. When it has failed, it runs with fewer
    and fewer faults. It must start from the same state each time, such as an empty database. If the test never fails,
    this is printed.

    Raises `AssertionError` from the error of the last run, with the plan that repeats it. Also raises it if the test
    fails without faults, if no faults were injected, and if the test does not fail again with the same faults.
    """
    __tracebackhide__ = True
    given = Faults() if faults is None else faults
    require("minimize", _RULES, {"test": test, "faults": given, "runs": runs})
    trials = _Trials(test, runs)
    with _quiet():
        await trials.ensure_passes_alone()
        found = await trials.search(given)
        if found is None:
            return
        plan = await trials.shrink(found)
    await trials.fail_with(plan, found)


_RULES = {
    "test": Rule(iscoroutinefunction, "an async function that takes a Faults"),
    "faults": Rule(is_a(Faults), "an instance of diator.testing.Faults"),
    "runs": COUNT,
}


class _Run(NamedTuple):
    """One run of the test."""

    faults: Faults
    error: BaseException | None
    injected: dict[str, str]
    """The lines of the faults, each with how a plan shows it."""


class _Trials:
    """Runs of one test, and how many there were."""

    def __init__(self, test: Test, limit: int) -> None:
        self._test = test
        self._limit = limit
        self._name = name_of(test)
        self._count = 0

    async def run(self, faults: Faults) -> _Run:
        """Run the test once."""
        self._count += 1
        injected: dict[str, str] = {}
        token = collecting.set(injected)
        try:
            await self._test(faults)
        except BaseException as error:
            if not _is_failure(error):
                raise
            return _Run(faults, error, injected)
        finally:
            collecting.reset(token)
        return _Run(faults, None, injected)

    async def ensure_passes_alone(self) -> None:
        """Raise `AssertionError` if the test fails without faults."""
        run = await self.run(Faults(plan=()))
        if run.error is not None:
            raise AssertionError(f"{self._name} fails without any fault; fix that first") from run.error

    async def search(self, faults: Faults) -> _Run | None:
        """Run with seed after seed until the test fails. Raises `AssertionError` if no fault was injected."""
        seeds = [faults.seed] if faults.plan is not None else range(faults.seed, faults.seed + max(1, self._limit // 2))
        total = 0
        for seed in seeds:
            run = await self.run(replace(faults, seed=seed))
            total += len(run.injected)
            if run.error is not None:
                return run
        if not total:
            raise AssertionError(
                f"no fault was injected in {len(seeds)} runs of {self._name}, so they show nothing: does it pass on "
                f"what it gets, app.testing(faults=faults), and wait for brokered events with session.settled()?"
            )
        print(f"{self._name} passed {len(seeds)} runs with {total} faults, from {faults!r} on")  # noqa: T201 - pytest captures it
        return None

    async def shrink(self, found: _Run) -> Sequence[str]:
        """Take out faults, many at first, as long as the test still fails."""
        plan = tuple(found.injected)
        if not await self._fails(plan):
            raise AssertionError(self._not_repeatable(found)) from found.error
        size = len(plan)
        while size > 1:
            size = (size + 1) // 2
            plan = await self._without(plan, size)
        return plan

    async def _without(self, plan: tuple[str, ...], size: int) -> tuple[str, ...]:
        """Take out pieces of a size; single ones until all are needed."""
        place, changed = 0, False
        while place < len(plan) and self._count < self._limit:
            fewer = plan[:place] + plan[place + size :]
            if fewer and await self._fails(fewer):
                plan, changed = fewer, True
            else:
                place += size
        return await self._without(plan, size) if changed and size == 1 else plan

    async def _fails(self, plan: Sequence[str]) -> bool:
        return (await self.run(Faults(plan=plan))).error is not None

    def _not_repeatable(self, run: _Run) -> str:
        return (
            f"{self._name} failed with {run.faults!r}, and passes with the same faults again: it depends on something "
            f"else, such as time or data of an earlier run:\n{_shown(run.injected.values())}"
        )

    async def fail_with(self, plan: Sequence[str], found: _Run) -> None:
        """Run again with output, and raise `AssertionError`."""
        run = await self.run(Faults(plan=plan))
        if run.error is None:
            raise AssertionError(self._not_repeatable(found)) from found.error
        shown = [{**found.injected, **run.injected}[line] for line in plan]
        limit = "" if self._count <= self._limit else " (fewer may do, but that would take more runs)"
        of = f"{len(plan)} of the {len(found.injected)} faults that {found.faults!r} injected"
        text = f"{self._name} fails with {of}; found in {self._count} runs{limit}:"
        raise AssertionError(f"{text}\n{_shown(shown)}") from run.error


def _shown(lines: Iterable[str]) -> str:
    return "\n".join(plan_text(lines))


def _is_failure(error: BaseException) -> bool:
    """Whether an error is one of the test: that of ``pytest.fail`` is no `Exception`, and nor is that of a skip."""
    return isinstance(error, Exception) or type(error).__name__ == "Failed"


@contextmanager
def _quiet() -> Generator[None]:
    """Drop what Diator logs: of all the runs only the last is worth reading."""
    logger = logging.getLogger("diator")

    def drop(_: logging.LogRecord) -> bool:
        return False

    logger.addFilter(drop)
    try:
        yield
    finally:
        logger.removeFilter(drop)
