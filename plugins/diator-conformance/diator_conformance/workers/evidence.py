"""What was published and what the workers have written, compared with what they must have done."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import msgspec

from diator.delivery.operations import OpenedDeadLetter
from diator_conformance.workers.shop import (
    ERROR,
    ORDERED,
    SUBSCRIPTIONS,
    Sold,
    attempts_of,
    customer_of,
    fails_always,
)


class WorkerFindings(NamedTuple):
    """What `prove_workers` has counted."""

    faults: int
    confirmed: int
    """Events that were published."""
    in_doubt: int
    """Events of which the broker could not say whether it has stored them."""
    runs: int
    """Calls of a handler."""
    repeated: int
    """Those beyond the attempts that the events take without faults."""
    dead_letters: int
    repeated_dead_letters: int
    """Dead letters of an event that has another one in the same subscription."""
    recovery: float
    """Seconds after the last fault until all that was confirmed was handled."""


class _Run(NamedTuple):
    at: int
    subscription: str
    number: int
    how: str


class Evidence:
    """What happened."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.confirmed: set[int] = set()
        self.in_doubt: set[int] = set()

    def _runs(self) -> list[_Run]:
        lines = [line for path in self._folder.glob("*.runs") for line in path.read_text().splitlines(keepends=True)]
        words = [line.split() for line in lines if line.endswith("\n")]
        return sorted(_Run(int(at), subscription, int(number), how) for at, subscription, number, how in words)

    def unhandled(self) -> set[tuple[str, int]]:
        """Return what was confirmed and not handled yet, by subscription, without what is to become dead letters."""
        ended = {(run.subscription, run.number) for run in self._runs() if run.how == "ended"}
        return {(name, n) for name in SUBSCRIPTIONS for n in self.confirmed if not fails_always(n)} - ended

    def undead(self, letters: Sequence[OpenedDeadLetter]) -> set[tuple[str, int]]:
        """Return what was confirmed, has to become dead letters, and is not among these."""
        wanted = {(name, n) for name in SUBSCRIPTIONS for n in self.confirmed if fails_always(n)}
        return wanted - {_what(letter) for letter in letters}

    def check(self, letters: Sequence[OpenedDeadLetter], faults: int, recovery: float) -> WorkerFindings:
        """Compare, once the workers have ended. Raises `AssertionError`."""
        runs = self._runs()
        self._check_order(runs)
        self._check_dead_letters(letters)
        began = Counter((run.subscription, run.number) for run in runs if run.how == "began")
        repeated = sum(max(0, count - attempts_of(number)) for (_, number), count in began.items())
        different = {_what(letter) for letter in letters}
        return WorkerFindings(
            faults=faults,
            confirmed=len(self.confirmed),
            in_doubt=len(self.in_doubt),
            runs=began.total(),
            repeated=repeated,
            dead_letters=len(letters),
            repeated_dead_letters=len(letters) - len(different),
            recovery=recovery,
        )

    @staticmethod
    def _check_order(runs: Sequence[_Run]) -> None:
        """Check that of each key nothing is handled for the first time after a later event."""
        handled: dict[int, dict[int, None]] = defaultdict(dict)
        for run in runs:
            if run.subscription == ORDERED and run.how == "ended":
                handled[customer_of(run.number)].setdefault(run.number)
        out_of_order = [(one, two) for numbers in handled.values() for one, two in pairwise(numbers) if one > two]
        assert not out_of_order, f"handled in the wrong order: {out_of_order}"

    def _check_dead_letters(self, letters: Sequence[OpenedDeadLetter]) -> None:
        wrong = {number for _, number in map(_what, letters)} - {
            n for n in self.confirmed | self.in_doubt if fails_always(n)
        }
        assert not wrong, f"became dead letters, though their handlers succeed: {sorted(wrong)}"
        for letter in letters:
            failure = letter.dead.failure
            assert failure.reason == "exhausted after 3 attempts"
            assert failure.error == f"builtins.ValueError: {ERROR}"
            assert "Traceback" in (failure.traceback or ""), f"without a traceback: {failure}"


def _what(letter: OpenedDeadLetter) -> tuple[str, int]:
    assert letter.envelope is not None, f"can't be read: {letter.dead}"
    return letter.config.name, msgspec.json.decode(letter.envelope.data, type=Sold).number
