"""``diator run --workers``: worker processes that are started, watched, started again and ended together.

The parent process handles no messages. Each worker answers probes and scrapes at a socket of its own, where the parent
asks; counters add up in files that prometheus-client shares between processes, and outlive a worker that is killed.
"""

import asyncio
import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from diator.cli.health import Address, Answer, ask, json_answer
from diator.cli.service import CLOSE_TIMEOUT, listen, readiness, signals

logger = logging.getLogger("diator")

_MAX_DELAY = 30.0
"""Seconds between two starts of a worker that ends soon after each."""
_STABLE = 30.0
"""A worker that has run for so many seconds did not fail because of its start."""
_KILL_AFTER = CLOSE_TIMEOUT + 2.0
"""Seconds after the grace period until a worker that has not ended by itself is killed."""
_ANSWER_TIMEOUT = 4.0
"""Seconds that a worker may take to answer: shorter than the parent's own probes wait."""
_UNFIT = (1, 2)
"""The exit codes of a worker that can't run, and could not if it were started again; see ``diator run``."""


class WorkerProcess(NamedTuple):
    """Which of several workers this process is."""

    number: int
    folder: Path
    """Where the sockets and the counters of all workers are."""

    @property
    def socket(self) -> Path:
        """Where it answers its parent."""
        return self.folder / f"{self.number}.sock"

    @classmethod
    def read(cls, text: str) -> "WorkerProcess":
        """Read what ``str`` gives."""
        number, _, folder = text.partition(":")
        return cls(int(number), Path(folder))

    def __str__(self) -> str:
        return f"{self.number}:{self.folder}"


def end_with_parent(worker: WorkerProcess, grace: float) -> None:
    """End this process when its parent has ended, even if that was killed: the pipe that is its stdin closes then."""

    def watch() -> None:
        os.read(0, 1)
        shutil.rmtree(worker.folder, ignore_errors=True)  # what is open there goes on; each worker may be the first
        logger.warning("the parent process has ended without stopping this worker, which stops now")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace + _KILL_AFTER)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, name="diator parent", daemon=True).start()


class Supervisor:
    """Keeps the workers of an app running until a signal ends them."""

    def __init__(self, arguments: Sequence[str], count: int, *, grace: float, health: Address | None) -> None:
        self._arguments = arguments
        self._count = count
        self._grace = grace
        self._health = health
        self._children: list[_Child] = []

    async def run(self) -> int:
        """Run; return the exit code: that of a worker that can't run, or 0 after a signal."""
        stopping = self._stopping = asyncio.Event()
        with TemporaryDirectory(prefix="diator-") as folder, signals(self._on_signal, self._grace + _KILL_AFTER + 1.0):
            self._children = [
                _Child(WorkerProcess(number, Path(folder)), self._arguments, stopping)
                for number in range(1, self._count + 1)
            ]
            async with AsyncExitStack() as stack:
                routes = {"/healthz": self._is_alive, "/readyz": self._is_ready, "/metrics": self._metrics}
                await listen(stack, self._health, routes)
                logger.info("starting %d workers; stop them with SIGTERM or SIGINT", self._count)
                running = [asyncio.ensure_future(child.run()) for child in self._children]
                waiting = asyncio.ensure_future(stopping.wait())
                await asyncio.wait([waiting, *running], return_when=asyncio.FIRST_COMPLETED)
                stopping.set()
                await self._end(running)
        logger.info("all workers have stopped")
        return max(task.result() for task in running)

    def _on_signal(self, received: signal.Signals, number: int) -> None:
        if number == 1:
            logger.info("%s: stopping %d workers; they have %g s to finish", received.name, self._count, self._grace)
            self._stopping.set()
        else:
            self._terminate()

    def _terminate(self) -> None:
        for child in self._children:
            child.terminate()

    async def _end(self, running: Sequence["asyncio.Task[int]"]) -> None:
        self._terminate()
        _, still = await asyncio.wait(running, timeout=self._grace + _KILL_AFTER)
        if still:
            for child in self._children:
                child.kill()
            await asyncio.wait(still)

    async def _is_alive(self) -> Answer:
        """Answer 503 where an event loop hangs: nothing else would end such a worker."""
        hung = await asyncio.gather(*(child.is_hung() for child in self._children))
        names = [child.name for child, hangs in zip(self._children, hung, strict=True) if hangs]
        if not names:
            return json_answer(HTTPStatus.OK, {"alive": True})
        reasons = [f"{name} does not answer" for name in names]
        return json_answer(HTTPStatus.SERVICE_UNAVAILABLE, {"alive": False, "reasons": reasons})

    async def _is_ready(self) -> Answer:
        if self._stopping.is_set():
            return readiness(["it is stopping"])
        found = await asyncio.gather(*(child.not_ready_reasons() for child in self._children))
        return readiness([reason for reasons in found for reason in reasons])

    async def _metrics(self) -> Answer:
        """Answer a scrape through any worker: each has the counters of all."""
        for child in self._children:
            with suppress(OSError, asyncio.TimeoutError):
                return await child.ask("/metrics")
        return json_answer(HTTPStatus.SERVICE_UNAVAILABLE, {"error": "no worker answers"})


class _Child:
    """One worker: a process, and another one whenever it has ended."""

    def __init__(self, worker: WorkerProcess, arguments: Sequence[str], stopping: asyncio.Event) -> None:
        self.name = f"worker {worker.number}"
        self._worker = worker
        self._command = (sys.executable, "-m", "diator", "run", "--as-worker", str(worker), *arguments)
        self._environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(worker.folder)}
        self._stopping = stopping
        self._process: Process | None = None
        self._ended = ""
        self._short_runs = 0

    async def run(self) -> int:
        """Keep it running until all stop; return its exit code if it can't run, and 0 otherwise."""
        while not self._stopping.is_set():
            began = time.monotonic()
            code = await self._run_once()
            if self._stopping.is_set():
                break
            if code in _UNFIT:
                logger.critical("%s can't run (%s), so all workers stop", self.name, self._ended)
                self._stopping.set()
                return code
            self._short_runs = 0 if time.monotonic() - began > _STABLE else self._short_runs + 1
            await self._wait()
        return 0

    async def _run_once(self) -> int | None:
        self._worker.socket.unlink(missing_ok=True)
        try:
            # In a session of its own a Ctrl+C at the terminal reaches the parent alone, which then ends all.
            process = await asyncio.create_subprocess_exec(
                *self._command, stdin=PIPE, env=self._environment, start_new_session=True
            )
        except OSError as error:
            self._ended = f"could not be started: {error}"
            return None
        self._process = process
        logger.info("%s is process %d", self.name, process.pid)
        if self._stopping.is_set():
            process.terminate()
        code = await process.wait()
        self._process = None
        self._forget_gauges(process.pid)
        self._ended = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return code

    async def _wait(self) -> None:
        """Wait before the next start: the longer the more often it has ended soon after its start."""
        delay = min(2.0 ** max(0, self._short_runs - 1), _MAX_DELAY)
        again = f", {self._short_runs} times soon after its start" if self._short_runs > 1 else ""
        logger.error("%s has ended (%s)%s; restarting it in %g s", self.name, self._ended, again, delay)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), delay)

    def _forget_gauges(self, pid: int) -> None:
        """Take what a process had in flight out of the metrics; its counters stay."""
        with suppress(ImportError):  # an extra
            from prometheus_client import multiprocess  # noqa: PLC0415 - see above

            multiprocess.mark_process_dead(pid, str(self._worker.folder))  # type: ignore[no-untyped-call]  # the library's

    def terminate(self) -> None:
        """Ask it to end."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.terminate()

    def kill(self) -> None:
        """End it on the spot."""
        if self._process is not None:
            logger.error("%s did not stop in time and is killed; its messages are redelivered", self.name)
            with suppress(ProcessLookupError):
                self._process.kill()

    async def ask(self, path: str) -> Answer:
        """Ask it what it answers probes with. Raises `OSError` if it does not listen, `asyncio.TimeoutError`."""
        return await asyncio.wait_for(ask(self._worker.socket, path), _ANSWER_TIMEOUT)

    async def is_hung(self) -> bool:
        """Whether it listens, and does not answer."""
        try:
            await self.ask("/healthz")
        except asyncio.TimeoutError:
            return True
        except OSError:
            return False  # it is starting, or has ended
        return False

    async def not_ready_reasons(self) -> list[str]:
        """Why it is not ready; nothing where it is."""
        if self._process is None:
            return [f"{self.name}: it has ended ({self._ended}), and is started again"]
        try:
            answer = await self.ask("/readyz")
        except asyncio.TimeoutError:
            return [f"{self.name}: it does not answer"]
        except OSError:
            return [f"{self.name}: it has not started yet"]
        return [f"{self.name}: {reason}" for reason in json.loads(answer.body)["reasons"]]
