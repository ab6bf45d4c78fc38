"""`minimize` finds the fewest faults that break a test, and says what it has done where there are none."""

import asyncio
import logging
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest

from diator import ConfigurationError, Diator, NotificationEvent, contract
from diator.testing import Faults, minimize

app = Diator("shop", broker="memory://")
paid: list[int] = []
mailed: set[int] = set()


@contract("shop.paid")
@dataclass(frozen=True)
class Paid(NotificationEvent):
    order: int


@contract("shop.mailed")
@dataclass(frozen=True)
class Mailed(NotificationEvent):
    order: int


@app.on_event
async def book(event: Paid) -> None:
    paid.append(event.order)


@app.on_event
async def mail(event: Mailed) -> None:
    mailed.add(event.order)


async def play(faults: Faults) -> None:
    paid.clear()
    async with app.testing(faults=faults) as session:
        await session.publish(*(Mailed(order) for order in range(8)))
        await session.publish(*(Paid(order) for order in range(8)))
        await session.settled()


async def booked_once(faults: Faults) -> None:
    await play(faults)
    assert paid.count(5) == 1


async def one_of_two_booked_once(faults: Faults) -> None:
    await play(faults)
    assert 1 in (paid.count(5), paid.count(6))


async def never_fails(faults: Faults) -> None:
    await play(faults)


Test = Callable[[Faults], Coroutine[Any, Any, None]]


def counting(test: Test) -> tuple[Test, list[Faults]]:
    """The same test, and the faults that it has got, run by run."""
    runs: list[Faults] = []

    async def counted(faults: Faults) -> None:
        runs.append(faults)
        await test(faults)

    return counted, runs


@pytest.mark.parametrize("seed", range(5))
async def test_one_fault_of_many_is_found(seed: int) -> None:
    with pytest.raises(AssertionError) as found:
        await minimize(booked_once, faults=Faults(seed=seed, duplicates=0.6, crashes=0.6))
    kind = "duplicate" if '"duplicate: ' in str(found.value) else "crash"
    assert str(found.value).splitlines()[1:] == [
        "  Faults(plan=[",
        f'      "{kind}: shop.paid #6 at shop.book",  # Paid(order=5)',
        "  ])",
    ]
    assert re.match(
        r"booked_once fails with 1 of the \d+ faults that Faults\(.*\) injected; found in \d+ runs:", str(found.value)
    )
    assert isinstance(found.value.__cause__, AssertionError)
    assert "assert 2 == 1" in str(found.value.__cause__) or "assert 3 == 1" in str(found.value.__cause__)


async def test_the_plan_that_is_printed_breaks_the_test() -> None:
    with pytest.raises(AssertionError) as found:
        await minimize(one_of_two_booked_once, faults=Faults(duplicates=1.0))
    _, _, source = str(found.value).partition("\n")
    plan: Faults = eval(f"({source})")
    assert plan.plan is not None
    assert len(plan.plan) == 2
    with pytest.raises(AssertionError):
        await one_of_two_booked_once(plan)
    for line in plan.plan:
        await one_of_two_booked_once(Faults(plan=[line]))


async def test_it_is_found_in_the_same_runs_each_time() -> None:
    (first, runs), (second, again) = counting(one_of_two_booked_once), counting(one_of_two_booked_once)
    for counted in (first, second):
        with pytest.raises(AssertionError):
            await minimize(counted, faults=Faults(seed=1, duplicates=0.5))
    assert runs == again
    assert runs[:2] == [Faults(plan=()), Faults(seed=1, duplicates=0.5)]


async def test_seeds_are_tried_until_one_fails() -> None:
    counted, runs = counting(booked_once)
    with pytest.raises(AssertionError, match=r"that Faults\(seed=\d+, duplicates=0.05"):
        await minimize(counted, faults=Faults(duplicates=0.05, crashes=0.0, reorder=False), runs=200)
    seeds = [faults.seed for faults in runs if faults.plan is None]
    assert seeds == [*range(len(seeds))]
    assert len(seeds) > 1


async def test_the_number_of_runs_is_limited() -> None:
    counted, runs = counting(one_of_two_booked_once)
    with pytest.raises(AssertionError, match=r"found in 9 runs \(fewer may do, but that would take more runs\):"):
        await minimize(counted, faults=Faults(duplicates=1.0), runs=8)
    assert len(runs) == 9  # the last one is to be seen


async def test_a_test_that_never_fails_is_printed_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    counted, runs = counting(never_fails)
    await minimize(counted, faults=Faults(seed=5, duplicates=1.0, crashes=0.0, reorder=False), runs=10)
    assert len(runs) == 6
    assert capsys.readouterr().out == (
        "counted passed 5 runs with 80 faults, from Faults(seed=5, duplicates=1.0, crashes=0.0, reorder=False, "
        "broker_outages=0.0) on\n"
    )


async def test_a_test_that_fails_without_faults_is_no_matter_of_faults() -> None:
    async def broken(faults: Faults) -> None:
        raise ValueError("broken anyway")

    with pytest.raises(AssertionError, match="broken fails without any fault; fix that first") as found:
        await minimize(broken)
    assert isinstance(found.value.__cause__, ValueError)


async def test_a_test_that_does_not_pass_its_faults_on_shows_nothing() -> None:
    async def forgetful(faults: Faults) -> None:
        await play(Faults(plan=[]))

    with pytest.raises(
        AssertionError, match=r"no fault was injected in 50 runs of forgetful.*testing\(faults=faults\)"
    ):
        await minimize(forgetful)


@pytest.mark.parametrize("failing", [{2}, {2, 3}])
async def test_a_test_that_passes_with_the_same_faults_again_is_reported(failing: set[int]) -> None:
    runs = 0

    async def flaky(faults: Faults) -> None:
        nonlocal runs
        runs += 1
        await play(faults)
        assert runs not in failing

    with pytest.raises(AssertionError, match=r"(?s)passes with the same faults again.*\n  Faults\(plan=\["):
        await minimize(flaky)


async def test_failures_of_pytest_count_and_skips_do_not() -> None:
    async def failing(faults: Faults) -> None:
        await play(faults)
        if len(paid) > 8:
            pytest.fail("booked twice")

    async def skipping(faults: Faults) -> None:
        pytest.skip("not here")

    with pytest.raises(AssertionError, match=r"failing fails with 1 of"):
        await minimize(failing)
    with pytest.raises(pytest.skip.Exception):
        await minimize(skipping)


async def test_only_the_last_run_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def refused(faults: Faults) -> None:
        async with app.testing(faults=faults) as session:
            await session.publish(Paid(1))
            await session.settled()
            logging.getLogger("diator").warning("one run")
            assert len(session.handled) == 1

    with pytest.raises(AssertionError, match=r"refused fails with 1 of"):
        await minimize(refused)
    assert caplog.text.count("one run") == 1


async def test_a_cancel_ends_it() -> None:
    began = asyncio.Event()

    async def endless(faults: Faults) -> None:
        began.set()
        await asyncio.Event().wait()

    running = asyncio.ensure_future(minimize(endless))
    await began.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.mark.parametrize(("given", "expected"), [({"runs": 0}, "runs=0"), ({"faults": 0.2}, "faults=0.2")])
async def test_wrong_options_are_rejected(given: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigurationError, match=f"minimize got {expected}"):
        await minimize(never_fails, **given)


async def test_what_is_no_async_function_is_rejected() -> None:
    def plain(faults: Faults) -> None: ...

    with pytest.raises(ConfigurationError, match="expected an async function that takes a Faults"):
        await minimize(plain)  # type: ignore[arg-type]  # wrong on purpose
