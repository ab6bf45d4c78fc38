"""For tests: a private RabbitMQ server, which can be killed, suspended and restarted.

::

    with RabbitServer() as server:
        app = Diator("shop", broker=server.url)
        ...
        server.restart()
"""

import atexit
import functools
import os
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from diator.testing import servers

SERVER_VARIABLE = "DIATOR_TEST_RABBITMQ_SERVER"
"""An environment variable with the path of a ``rabbitmq-server`` program."""
REQUIRED_VARIABLE = "DIATOR_TEST_BROKERS"
"""An environment variable: if it is set, tests fail instead of being skipped if no server is installed."""
MISSING = (
    "no rabbitmq-server was found: install one, such as with apt-get install --no-install-recommends rabbitmq-server, "
    f"or set {SERVER_VARIABLE} to the path of the program"
)

# Not /usr/sbin/rabbitmq-server of Debian, which switches to another user and insists on folders of the system.
_PLACES = ("/usr/lib/rabbitmq/bin/rabbitmq-server", "/opt/homebrew/opt/rabbitmq/sbin/rabbitmq-server")
_PORTS = range(22_000, 30_000)
_STARTED = "completed with"
"""What it says once it has started: it accepts connections before."""
_QUIET = "+sbwt none +sbwtdcpu none +sbwtdio none"
"""Makes idle schedulers of Erlang sleep, instead of using a processor."""
_LATE = "-rabbit dead_letter_worker_publisher_confirm_timeout 10000"
"""Delivers retries that were due while the server restarted after 10 seconds, instead of three minutes."""


def find_server() -> str | None:
    """Return the path of a ``rabbitmq-server`` program, or ``None`` if there is none."""
    named = os.environ.get(SERVER_VARIABLE)
    if named:
        return named
    return next((place for place in _PLACES if Path(place).exists()), None)


def is_missing() -> bool:
    """Return whether tests that need a server must be skipped: none is installed, and none is required."""
    return find_server() is None and not os.environ.get(REQUIRED_VARIABLE)


@functools.cache
def shared_server() -> "RabbitServer":
    """Return a server that the tests of this process share. It ends with the process."""
    server = RabbitServer()
    atexit.register(server.close)
    return server


class RabbitServer(servers.Server):
    """A private RabbitMQ server, whose data survives when it is killed.

    Args:
        config: Additional lines of its ``rabbitmq.conf``, such as ``{"heartbeat": "5"}``.
    """

    def __init__(self, config: Mapping[str, str] | None = None) -> None:
        program = find_server()
        if program is None:
            raise FileNotFoundError(MISSING)
        super().__init__("rabbitmq")
        self._program = Path(program)
        self.port = servers.free_port(_PORTS)
        lines = {**(config or {}), "log.file.level": "warning"}
        (self.folder / "rabbit.conf").write_text("".join(f"{name} = {value}\n" for name, value in lines.items()))
        (self.folder / "enabled").write_text("[].")
        self._environment = os.environ | {
            "HOME": str(self.folder),  # has the cookie of Erlang
            "RABBITMQ_NODENAME": f"diator{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(servers.free_port(_PORTS)),
            "RABBITMQ_MNESIA_BASE": f"{self.folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{self.folder}/logs",
            "RABBITMQ_PID_FILE": f"{self.folder}/pid",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{self.folder}/enabled",
            "RABBITMQ_CONFIG_FILE": f"{self.folder}/rabbit.conf",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{_QUIET} {_LATE}",
        }
        self._starts = 0
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}"

    def ctl(self, *arguments: str) -> str:
        """Run ``rabbitmqctl`` on the server; return what it prints.

        Raises `subprocess.CalledProcessError` if it fails.
        """
        command = [str(self._program.with_name("rabbitmqctl")), *arguments]
        return subprocess.run(command, env=self._environment, check=True, capture_output=True, text=True).stdout  # noqa: S603 - beside the program that was found

    def _launch(self) -> "subprocess.Popen[bytes]":
        self._starts = self.log().count(_STARTED)
        # The folder is where a crash dump goes.
        return self._run([str(self._program)], cwd=self.folder, env=self._environment)

    def _answers(self) -> bool:
        """Return whether it accepts connections and has all of its queues."""
        if self.log().count(_STARTED) == self._starts:
            return False
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                return connection.recv(1) == b"\x01"
        except OSError:
            return False


class Proxy(servers.Proxy):
    """Forwards TCP connections to a server, and can cut them."""

    @property
    def url(self) -> str:
        """The address of the proxy."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}"
