"""Servers for tests of plugins, which can be killed, paused and restarted, and a proxy that cuts connections.

They need Unix signals.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from typing_extensions import Self

__all__ = ["Proxy", "Server", "free_port"]

_START_TIMEOUT = 120.0
"""Seconds in which a server answers: it reads its files first, on a machine that may have much else to do."""
_MAX_PORTS_TRIED = 20
_PORTS = range(15_000, 30_000)
"""Systems give clients ports from 32,768 on: none of them takes the port of a server that is stopped."""


def free_port(ports: range = _PORTS) -> int:
    """Return a free port that is not in the range for clients."""
    while True:
        port = random.choice(ports)  # noqa: S311 - hides nothing
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


class _Closing(ABC):
    """Closes itself at the end of a ``with`` block."""

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Server(_Closing):
    """A private server: a process with a temporary folder, whose contents survive when it is killed.

    Subclasses implement how it is started, and whether it answers. ``name`` becomes part of the folder's name.
    """

    port = 0
    """Its port, unless it listens at a socket in its folder."""

    def __init__(self, name: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"diator-{name}-"))
        """The folder of its data and its log."""
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def _launch(self) -> "subprocess.Popen[bytes]":
        """Start the process, with `_run`."""

    @abstractmethod
    def _answers(self) -> bool:
        """Return whether it is ready for clients."""

    def _run(
        self,
        command: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> "subprocess.Popen[bytes]":
        """Run a command whose output goes to the log."""
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - a program that was found
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=cwd,
                env=env,
                user=user,
                start_new_session=True,
            )

    def _start_at_free_port(self, in_use: str, ports: range = _PORTS) -> None:
        """Start it at a port that it can bind; its log has the text ``in_use`` where another program was first."""
        for _ in range(_MAX_PORTS_TRIED):
            self.port = free_port(ports)
            try:
                return self.start()
            except RuntimeError:
                if in_use not in self.log():
                    self.close()
                    raise
                (self.folder / "log").unlink()
        self.close()
        raise RuntimeError(f"{type(self).__name__} did not start: {_MAX_PORTS_TRIED} ports were in use")

    def start(self) -> None:
        """Start it, and wait until it answers. Raises `RuntimeError` with its log if it does not."""
        ends = time.monotonic() + _START_TIMEOUT
        self._process = self._launch()
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > ends:
                self.kill()
                raise RuntimeError(f"{type(self).__name__} did not start: {self.log()[-2000:]}")
            time.sleep(0.02)

    def log(self) -> str:
        """Return what the server wrote."""
        written = self.folder / "log"
        return written.read_text(errors="replace") if written.exists() else ""

    def kill(self) -> None:
        """Kill it immediately, like a crash."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Kill it and start it again, at the same address."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Suspend its processes: it keeps its connections, but answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it continue."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)  # such as a script, and what it has started

    def close(self) -> None:
        """Kill it, and delete its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Proxy(_Closing):
    """Forwards TCP connections to a port of this machine, and can cut them."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.refuses = False
        """Whether new connections are closed immediately."""
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Cut all connections."""
        for pair in list(self._pairs):
            self._end(pair)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                if self.refuses:
                    raise ConnectionRefusedError
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                _close(client)
                continue
            pair = (client, server)
            self._pairs.add(pair)  # from now on it may be cut at any moment
            for source, target in (pair, pair[::-1]):
                threading.Thread(target=self._pass_on, args=(source, target, pair), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, pair: tuple[socket.socket, socket.socket]) -> None:
        with contextlib.suppress(OSError):
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := source.recv(65_536):
                self._send(data, target, from_client=source is pair[0])
        self._end(pair)

    def _send(self, data: bytes, target: socket.socket, *, from_client: bool) -> None:  # noqa: ARG002 - for subclasses
        """Pass on what one side has sent."""
        target.sendall(data)

    def _end(self, pair: tuple[socket.socket, socket.socket]) -> None:
        self._pairs.discard(pair)
        for one in pair:
            _close(one)

    def close(self) -> None:
        """Cut all connections, and stop listening."""
        _close(self._listener)
        self.cut()


def _close(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
