"""Workers as operators run them: processes of their own, with signals, probes and logs."""

import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PATIENCE = 60.0


@dataclass
class WorkerProcess:
    """A ``diator run`` that runs; what it prints is kept."""

    process: "subprocess.Popen[str]"
    out: list[str] = field(default_factory=list[str])
    err: list[str] = field(default_factory=list[str])

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait for the end, and give the exit code."""
        code = self.process.wait(_PATIENCE)
        for reader in self.readers:
            reader.join()
        return code

    def wait_for(self, text: str) -> str:
        """Wait for a line with this text, on either stream, and give it."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            for line in (*self.out, *self.err):
                if text in line:
                    return line
            time.sleep(0.02)
        raise AssertionError(f"{text!r} did not come; there were {self.out} and {self.err}")

    def records(self) -> list[dict[str, Any]]:
        """The JSON logs."""
        return [json.loads(line) for line in self.err]

    def __post_init__(self) -> None:
        streams = ((self.process.stdout, self.out), (self.process.stderr, self.err))
        self.readers = [threading.Thread(target=_read, args=stream, daemon=True) for stream in streams]
        for reader in self.readers:
            reader.start()


def _read(stream: Any, lines: list[str]) -> None:
    lines.extend(line.rstrip("\n") for line in stream)


@contextmanager
def running(
    folder: Path, *options: str, target: str = "meetings:app", command: str = "run", **environment: str
) -> Generator[WorkerProcess]:
    """Start ``diator run``, or another command, and see to it that it ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "diator", command, target, *options],
        cwd=folder,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    worker = WorkerProcess(process)
    try:
        yield worker
    finally:
        process.kill()
        worker.ended()
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()


def get(port: int, path: str, method: str = "GET") -> tuple[int, Any]:
    """Ask a probe, and give the status and the JSON of the answer."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)
