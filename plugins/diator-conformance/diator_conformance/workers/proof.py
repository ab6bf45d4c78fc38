"""Faults, while events flow. See `prove_workers`."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from itertools import count, islice
from pathlib import Path

from diator import Diator, PublishError
from diator.delivery.operations import OpenedDeadLetter, Operations
from diator_conformance.workers.evidence import Evidence, WorkerFindings
from diator_conformance.workers.shop import ADDRESS, FOLDER, MAX_DELIVERIES, app_at, sold

_WORKERS = 3
_BETWEEN = 40
"""Events that are published during each fault."""
_PATIENCE = 120.0
"""Seconds after which something that must happen counts as missing, on a machine that has much else to do."""


async def prove_workers(
    address: str,
    folder: Path,
    faults: Mapping[str, Callable[[], object]],
    *,
    times: int,
    seed: int,
    freeze: float,
    max_deliveries: int = 5,
) -> WorkerFindings:
    """Run three ``diator run`` processes, disturb them while events flow, and check what they have done.

    Workers are killed and frozen in turn with the faults that are passed. The app has two subscriptions to one topic,
    one of them ordered by key; some events need a second attempt, and some become dead letters. Afterwards each
    confirmed event was handled by both or is a dead letter with its reason, of each key nothing was handled late for
    the first time, nothing is left at the broker, and the workers end on SIGTERM.

    Args:
        address: The broker's address with its settings, for the workers and for the publisher.
        folder: An empty folder, where the workers write what they do, and their logs.
        faults: What else goes wrong, by name, such as ``{"cut": proxy.cut, "server": server.restart}``. They are
            called in a thread, one at a time.
        times: How many faults there are; the kinds take turns.
        seed: Which workers are killed and frozen.
        freeze: Seconds for which a worker is frozen, longer than a lease; 0: none is.
        max_deliveries: The option of the app; raise it if at your broker a fault counts as a delivery of messages that
            no handler has had.

    Returns:
        What was counted. Check what differs from broker to broker: how many runs and dead letters were repeated.

    Raises:
        AssertionError: A guarantee was broken.
    """
    evidence, chance = Evidence(folder), random.Random(seed)  # noqa: S311 - hides nothing
    workers = _Workers(
        folder, {**os.environ, ADDRESS: address, FOLDER: str(folder), MAX_DELIVERIES: str(max_deliveries)}
    )
    kinds = ["kill", *(["freeze"] if freeze else []), *faults]
    numbers = count()

    async def disturb(kind: str) -> None:
        at = chance.randrange(_WORKERS)
        if kind == "kill":
            await workers.kill(at)
        elif kind == "freeze":
            await workers.freeze(at, freeze)
        else:
            await asyncio.to_thread(faults[kind])

    app = app_at(address, folder, max_deliveries)
    try:
        async with app, app.operations() as operations:
            await operations.apply()
            await workers.start()
            for time_ in range(times):
                some = list(islice(numbers, _BETWEEN))
                await asyncio.gather(_publish(app, some, evidence), disturb(kinds[time_ % len(kinds)]))
            recovery = await _until_handled(evidence)
            letters = await _until_dead(evidence, operations)
            await _until_empty(operations)
            await workers.end()
            await _until_empty(operations)
    finally:
        workers.close()
    return evidence.check(letters, times, recovery)


async def _publish(app: Diator, numbers: list[int], evidence: Evidence) -> None:
    """Publish one after the other, so that the order of a key is known, each until it is not surely unsent."""
    end = time.monotonic() + _PATIENCE
    for number in numbers:
        while number not in evidence.confirmed | evidence.in_doubt:
            try:
                await app.publish(sold(number))
                evidence.confirmed.add(number)
            except PublishError as error:
                if time.monotonic() > end:
                    raise AssertionError(f"event {number} can't be published") from error
                evidence.in_doubt |= {number for _ in error.unknown}
                await asyncio.sleep(0.05)


async def _until_handled(evidence: Evidence) -> float:
    """Wait as long as something is handled now and then; return how many seconds that took."""
    began = since = time.monotonic()
    before = -1
    while left := evidence.unhandled():
        if len(left) != before:
            before, since = len(left), time.monotonic()
        assert time.monotonic() < since + _PATIENCE, f"{before} events are not handled, such as {sorted(left)[:20]}"
        await asyncio.sleep(0.2)
    return time.monotonic() - began


async def _until_dead(evidence: Evidence, operations: Operations) -> list[OpenedDeadLetter]:
    """Wait for all dead letters, while the workers still run: one may have been killed in the middle of an attempt."""
    end = time.monotonic() + _PATIENCE
    while True:
        letters = [letter async for letter in operations.dead_letters()]
        left = evidence.undead(letters)
        if not left:
            return letters
        assert time.monotonic() < end, f"these events did not become dead letters: {sorted(left)}"
        await asyncio.sleep(0.2)


async def _until_empty(operations: Operations) -> None:
    """Wait until nothing is left at the broker, of what was in doubt neither."""
    end = time.monotonic() + _PATIENCE
    while left := [status for _, status in await operations.status() if status.backlog]:
        assert time.monotonic() < end, f"this is left at the broker: {left}"
        await asyncio.sleep(0.2)


class _Workers:
    """Worker processes. One that is killed is started again."""

    _COMMAND = (sys.executable, "-m", "diator", "run", "diator_conformance.workers.shop:make_app")

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._log, self._environment = folder / "log", environment
        self._starts = 0
        self._running: list[subprocess.Popen[bytes]] = []

    async def start(self) -> None:
        self._running += [self._launch() for _ in range(_WORKERS)]
        await self._until_started()

    def _launch(self) -> "subprocess.Popen[bytes]":
        self._starts += 1
        with self._log.open("ab") as log:
            return subprocess.Popen(self._COMMAND, env=self._environment, stdout=log, stderr=log)  # noqa: S603 - our own

    async def _until_started(self) -> None:
        """Wait until all run: before, a signal ends one while it imports."""
        end = time.monotonic() + _PATIENCE
        while self._written().count("the worker has started") < self._starts:
            assert time.monotonic() < end, f"a worker does not start:\n{self._written()[-3000:]}"
            await asyncio.sleep(0.1)

    def _written(self) -> str:
        return self._log.read_text(errors="replace")

    async def kill(self, at: int) -> None:
        await self._until_started()
        self._running[at].kill()
        self._running[at].wait()
        self._running[at] = self._launch()

    async def freeze(self, at: int, seconds: float) -> None:
        self._running[at].send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        self._running[at].send_signal(signal.SIGCONT)

    async def end(self) -> None:
        await self._until_started()
        for process in self._running:
            process.send_signal(signal.SIGTERM)
        codes = await asyncio.gather(*(asyncio.to_thread(process.wait, 60) for process in self._running))
        assert not any(codes), f"workers ended with {codes}:\n{self._written()[-3000:]}"

    def close(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()
