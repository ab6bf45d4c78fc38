"""`prove_workers` judges what its worker processes have written: each wrong outcome is found."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diator_conformance.workers.evidence import Evidence
from diator_conformance.workers.shop import app_at, sold

from diator.brokers import MoveToDeadLetters
from diator.delivery.operations import OpenedDeadLetter

COUNT = 30
FAILING = {7}


async def run(folder: Path) -> tuple[Evidence, list[OpenedDeadLetter]]:
    """Have the app of the processes handle everything, over a broker in memory."""
    app, evidence = app_at("memory://", folder, 5), Evidence(folder)
    async with app, app.operations() as operations:
        await operations.apply()
        for number in range(COUNT):
            await app.publish(sold(number))
            evidence.confirmed.add(number)
        async with app.worker():
            while True:
                letters = [letter async for letter in operations.dead_letters()]
                if not evidence.unhandled() and not evidence.undead(letters):
                    return evidence, letters
                await asyncio.sleep(0.05)


def rewrite(folder: Path, change: Callable[[list[str]], list[str]]) -> None:
    (written,) = folder.glob("*.runs")
    written.write_text("".join(change(written.read_text().splitlines(keepends=True))))


async def test_runs_without_faults_are_accepted_and_counted(tmp_path: Path) -> None:
    evidence, letters = await run(tmp_path)
    found = evidence.check(letters, 0, 0.0)
    assert (found.confirmed, found.runs, found.repeated) == (COUNT, 2 * (COUNT + 2 + 2), 0)
    assert (found.dead_letters, found.repeated_dead_letters) == (2, 0)


async def test_an_event_that_was_not_handled_is_named(tmp_path: Path) -> None:
    evidence, _ = await run(tmp_path)
    rewrite(tmp_path, lambda lines: [line for line in lines if " shop.mail 12 ended" not in line])
    assert evidence.unhandled() == {("shop.mail", 12)}


async def test_a_line_that_a_kill_cut_off_does_not_count(tmp_path: Path) -> None:
    evidence, _ = await run(tmp_path)

    def cut_off(lines: list[str]) -> list[str]:
        last = next(line for line in lines if " shop.mail 12 ended" in line)
        return [*(line for line in lines if line != last), last.rstrip("\n")]

    rewrite(tmp_path, cut_off)
    assert evidence.unhandled() == {("shop.mail", 12)}


async def test_a_dead_letter_that_is_missing_is_named(tmp_path: Path) -> None:
    evidence, letters = await run(tmp_path)
    assert evidence.undead(letters[1:]) == {("shop.mail", 7)}


async def test_events_of_a_key_that_were_handled_in_another_order_are_found(tmp_path: Path) -> None:
    evidence, letters = await run(tmp_path)

    def swap(lines: list[str]) -> list[str]:
        return [
            line.replace(" shop.book 14 ", " shop.book 26 ")
            if " 14 " in line
            else line.replace(" shop.book 26 ", " shop.book 14 ")
            for line in lines
        ]

    rewrite(tmp_path, swap)
    assert not evidence.unhandled()
    with pytest.raises(AssertionError, match=r"wrong order: \[\(26, 14\)"):
        evidence.check(letters, 0, 0.0)


async def test_an_event_that_is_handled_again_counts_as_repeated(tmp_path: Path) -> None:
    evidence, letters = await run(tmp_path)
    again = (f"{10**30 + at} shop.book 0 {how}\n" for at, how in enumerate(("began", "ended")))
    rewrite(tmp_path, lambda lines: [*lines, *again])
    assert evidence.check(letters, 0, 0.0).repeated == 1


@pytest.mark.parametrize("change", ["reason", "error", "traceback"])
async def test_a_dead_letter_with_another_failure_is_found(change: str, tmp_path: Path) -> None:
    evidence, letters = await run(tmp_path)
    first = letters[0]
    fields: dict[str, Any] = {**first.dead.failure._asdict(), change: "other"}
    failure = MoveToDeadLetters(**fields)
    with pytest.raises(AssertionError, match="other"):
        evidence.check([first._replace(dead=first.dead._replace(failure=failure)), *letters[1:]], 0, 0.0)


async def test_a_dead_letter_of_an_event_that_can_be_handled_is_found(tmp_path: Path) -> None:
    evidence, letters = await run(tmp_path)
    evidence.confirmed -= FAILING
    with pytest.raises(AssertionError, match=r"their handlers succeed: \[7\]"):
        evidence.check(letters, 0, 0.0)
