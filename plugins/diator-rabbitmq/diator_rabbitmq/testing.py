"""For tests: a private RabbitMQ server that may be killed, stopped and started again.

::

    with RabbitServer() as server:
        app = Diator("shop", broker=server.url)
        ...
        server.restart()
"""

import atexit
import contextlib
import functools
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
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

if sys.version_info >= (3, 11):
    from typing import Self
else:
    from typing_extensions import Self

SERVER_VARIABLE = "DIATOR_TEST_RABBITMQ_SERVER"
"""An environment variable with the path of a ``rabbitmq-server`` program."""
REQUIRED_VARIABLE = "DIATOR_TEST_BROKERS"
"""An environment variable: if it is set, tests fail instead of being skipped where no server is installed."""
MISSING = (
    "no rabbitmq-server was found: install one, such as with apt-get install --no-install-recommends rabbitmq-server, "
    f"or set {SERVER_VARIABLE} to the path of the program"
)

# Not /usr/sbin/rabbitmq-server of Debian, which switches to another user and insists on folders of the system.
_PLACES = ("/usr/lib/rabbitmq/bin/rabbitmq-server", "/opt/homebrew/opt/rabbitmq/sbin/rabbitmq-server")
_START_TIMEOUT = 120.0
_STARTED = "completed with"
"""What it says once it has started: it accepts connections before."""
_QUIET = "+sbwt none +sbwtdcpu none +sbwtdio none"
"""Makes idle schedulers of Erlang sleep, instead of using a processor."""


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


class RabbitServer:
    """A RabbitMQ server of one's own, which keeps what it has when it is killed.

    Args:
        config: More lines of its ``rabbitmq.conf``, such as ``{"heartbeat": "5"}``.
    """

    def __init__(self, config: Mapping[str, str] | None = None) -> None:
        program = find_server()
        if program is None:
            raise FileNotFoundError(MISSING)
        self._program = program
        self._folder = tempfile.mkdtemp(prefix="diator-rabbitmq-")
        self._process: subprocess.Popen[bytes] | None = None
        self.port, self._nodes_port = _free_port(), _free_port()
        lines = {**(config or {}), "log.file.level": "warning"}
        Path(self._folder, "rabbit.conf").write_text("".join(f"{name} = {value}\n" for name, value in lines.items()))
        Path(self._folder, "enabled").write_text("[].")
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it accepts connections and has all of its queues."""
        starts = self.log().count(_STARTED)
        with Path(self._folder, "out").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the program that was found
                [self._program],
                cwd=self._folder,  # where a crash dump goes
                env=os.environ | self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        ends = time.monotonic() + _START_TIMEOUT
        while self.log().count(_STARTED) == starts or not self._answers():
            if self._process.poll() is not None or time.monotonic() > ends:
                raise RuntimeError(f"rabbitmq-server did not start: {self.log()[-2000:]}")
            time.sleep(0.05)

    def _environment(self) -> dict[str, str]:
        folder = self._folder
        return {
            "HOME": folder,  # has the cookie of Erlang
            "RABBITMQ_NODENAME": f"diator{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._nodes_port),
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbit.conf",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _QUIET,
        }

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                return connection.recv(1) == b"\x01"
        except OSError:
            return False

    def log(self) -> str:
        """Return what the server wrote."""
        written = Path(self._folder, "out")
        return written.read_text(errors="replace") if written.exists() else ""

    def kill(self) -> None:
        """Kill it at once, as a crash does."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Kill it and start it again, at the same address."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Stop its processes: it keeps its connections, and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it continue."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)  # a script, Erlang, and its helpers

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


def _free_port() -> int:
    """Return a port that no client takes while the server is stopped: systems give clients those from 32,768 on."""
    while True:
        port = random.randrange(22_000, 30_000)  # noqa: S311 - hides nothing
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


class Proxy:
    """Passes TCP connections on to a server, and cuts them when told to."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """The address of the proxy."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}"

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
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                _close(client)
                continue
            pair = (client, server)
            self._pairs.add(pair)
            for source, target in (pair, pair[::-1]):
                threading.Thread(target=self._pass_on, args=(source, target, pair), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, pair: tuple[socket.socket, socket.socket]) -> None:
        with contextlib.suppress(OSError):  # also where it was cut by now
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := source.recv(65_536):
                target.sendall(data)
        self._end(pair)

    def _end(self, pair: tuple[socket.socket, socket.socket]) -> None:
        self._pairs.discard(pair)
        for one in pair:
            _close(one)

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


def _close(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
