"""``diator run --workers``: real processes over a real broker, which are killed, hang, and end together."""

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from diator_redis.testing import RedisServer

from diator import Diator, NotificationEvent, contract
from tests.cli.prompt import run, run_script, write
from tests.cli.test_cli_metrics import scraped
from tests.cli.test_cli_program import SCRIPT
from tests.cli.workers import WorkerProcess, get, running

pytestmark = pytest.mark.once

APP = """
import asyncio, os, time
from contextlib import asynccontextmanager

@asynccontextmanager
async def lifespan(app):
    if os.path.exists("broken"):
        os._exit(7)
    if os.path.exists("unfit"):
        raise BrokerError("no access")
    yield
    if os.path.exists("lingers"):
        say("lingering")
        time.sleep(60)

app = Diator("meetings", broker=os.environ["REDIS"], lifespan=lifespan)

def say(text: str) -> None:
    print(text + "\\n", end="")  # one write: the workers share the pipe

@app.readiness
async def database() -> None:
    if os.path.exists(f"down-{os.getpid()}"):
        raise ConnectionError("connection refused")

@contract("meetings.joined")
@dataclass
class Joined(NotificationEvent):
    number: int

@app.on_event(concurrency=1)
async def note(event: Joined) -> None:
    say(f"began {event.number} in {os.getpid()}")
    if str(event.number) == os.environ.get("HANGS"):
        time.sleep(60)
    await asyncio.sleep(1 if str(event.number) == os.environ.get("SLOW") else 0.05)
    say(f"handled {event.number} in {os.getpid()}")
"""


@contract("meetings.joined")
@dataclass
class Joined(NotificationEvent):
    number: int


@pytest.fixture(scope="module")
def server() -> Generator[RedisServer]:
    with RedisServer() as server:
        yield server


@contextmanager
def workers(folder: Path, server: RedisServer, *options: str, **environment: str) -> Generator[WorkerProcess]:
    """Run two workers on a broker of their own."""
    write(folder, APP)
    broker = f"{server.url}?prefix={folder.name}"
    with running(folder, "--workers", "2", *options, REDIS=broker, TMPDIR=str(folder), **environment) as parent:
        try:
            yield parent
        finally:
            parent.process.kill()
            for pid in pids(parent).values():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def pids(parent: WorkerProcess) -> dict[int, int]:
    """The process of each worker, as the log has it last."""
    return {int(n): int(pid) for n, pid in re.findall(r"worker (\d+) is process (\d+)", "\n".join(parent.err))}


def started(parent: WorkerProcess, *, times: int = 2) -> None:
    """Wait until workers consume, so many times in all."""
    until(lambda: sum("consuming meetings.note" in line for line in parent.err) >= times, parent)


def until(holds: Callable[[], bool], parent: WorkerProcess) -> None:
    ends = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < ends, (parent.out, parent.err)
        time.sleep(0.05)


def port_of(parent: WorkerProcess) -> int:
    return int(parent.wait_for("answering probes on").rpartition(" ")[2])


def publish(folder: Path, server: RedisServer, *numbers: int) -> None:
    async def published() -> None:
        async with Diator("web", broker=f"{server.url}?prefix={folder.name}") as web:
            await web.publish(*map(Joined, numbers))

    asyncio.run(published())


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_workers_share_messages_and_one_signal_ends_them_all(tmp_path: Path, server: RedisServer) -> None:
    with workers(tmp_path, server) as parent:
        started(parent)
        children = pids(parent)
        until(lambda: _all_have_handled(tmp_path, server, parent, set(children.values())), parent)
        parent.signal(signal.SIGTERM)
        assert parent.ended() == 0
    assert not any(map(is_alive, children.values()))
    assert "SIGTERM: stopping 2 workers" in parent.wait_for("stopping 2")
    assert parent.err[-1].endswith("INFO diator: all workers have stopped")
    assert {line.partition("[worker ")[2][0] for line in parent.err if "attempt 1, in" in line} == {"1", "2"}
    assert sum(line.startswith(" Subscription") for line in parent.out) == 1


def _all_have_handled(folder: Path, server: RedisServer, parent: WorkerProcess, expected: set[int]) -> bool:
    """Publish some more, and see who has handled any: on a busy machine one may be much quicker."""
    publish(folder, server, *range(20))
    return {int(line.split(" in ")[1]) for line in list(parent.out) if line.startswith("handled")} == expected


def test_a_ctrl_c_reaches_handlers_once_so_that_they_finish(tmp_path: Path, server: RedisServer) -> None:
    with workers(tmp_path, server, "--json-logs") as parent:
        until(lambda: sum("the worker has started" in line for line in parent.err) == 2, parent)
        assert os.getpgid(parent.process.pid) not in map(os.getpgid, pids(parent).values())
        parent.signal(signal.SIGINT)
        assert parent.ended() == 0
    assert {record.get("diator_worker") for record in parent.records()} == {None, 1, 2}
    assert not [record for record in parent.records() if "SIGTERM again" in record["message"]]


def test_a_worker_that_is_killed_is_replaced_and_counters_go_on(tmp_path: Path, server: RedisServer) -> None:
    with workers(tmp_path, server, "--health", "127.0.0.1:0") as parent:
        started(parent)
        port = port_of(parent)
        joined = "meetings.note,meetings.joined"
        publish(tmp_path, server, *range(20))
        until(lambda: scraped(port)["diator_handled_total", joined] == 20, parent)
        before = pids(parent)
        os.kill(before[1], signal.SIGKILL)
        parent.wait_for("worker 1 has ended (killed by SIGKILL); restarting it in 1 s")
        started(parent, times=3)
        assert pids(parent)[1] != before[1]
        assert pids(parent)[2] == before[2]
        publish(tmp_path, server, *range(20, 25))
        until(lambda: scraped(port)["diator_handled_total", joined] >= 25, parent)  # one was perhaps not acknowledged
        found = scraped(port)
    assert found["diator_handler_duration_seconds_count", joined] >= 25
    assert found["diator_in_flight", "meetings.note"] == 0
    assert found["diator_broker_up", ""] == 1
    assert found["diator_waiting", "meetings.note"] >= 0


def test_what_a_killed_worker_had_in_flight_is_not_counted_any_longer(tmp_path: Path, server: RedisServer) -> None:
    with workers(tmp_path, server, "--health", "127.0.0.1:0", HANGS="3") as parent:
        started(parent)
        port = port_of(parent)
        publish(tmp_path, server, 3)
        pid = int(parent.wait_for("began 3").rpartition(" ")[2])
        hung = next(number for number, one in pids(parent).items() if one == pid)
        assert get(port, "/healthz") == (503, {"alive": False, "reasons": [f"worker {hung} does not answer"]})
        status, body = get(port, "/readyz")
        assert (status, body["reasons"]) == (503, [f"worker {hung}: it does not answer"])
        assert scraped(port)["diator_in_flight", "meetings.note"] == 1
        os.kill(pid, signal.SIGKILL)
        until(lambda: scraped(port)["diator_in_flight", "meetings.note"] == 0, parent)


def test_readiness_is_red_if_one_worker_is_not_ready(tmp_path: Path, server: RedisServer) -> None:
    with workers(tmp_path, server, "--health", "127.0.0.1:0") as parent:
        started(parent)
        port = port_of(parent)
        assert get(port, "/readyz") == (200, {"ready": True, "reasons": []})
        assert get(port, "/healthz") == (200, {"alive": True})
        (tmp_path / f"down-{pids(parent)[2]}").touch()
        reason = "worker 2: the readiness check database fails (ConnectionError: connection refused)"
        assert get(port, "/readyz") == (503, {"ready": False, "reasons": [reason]})
        (tmp_path / "broken").touch()
        os.kill(pids(parent)[1], signal.SIGKILL)
        parent.wait_for("worker 1 has ended")
        until(lambda: any("worker 1: it has" in one for one in get(port, "/readyz")[1]["reasons"]), parent)
        assert get(port, "/healthz")[0] == 200


def test_a_worker_that_ends_at_once_is_started_less_and_less_often(tmp_path: Path, server: RedisServer) -> None:
    (tmp_path / "broken").touch()
    with workers(tmp_path, server, "--health", "127.0.0.1:0") as parent:
        parent.wait_for("worker 2 has ended (exit code 7); restarting it in 1 s")
        parent.wait_for("worker 2 has ended (exit code 7), 2 times soon after its start; restarting it in 2 s")
        assert get(port_of(parent), "/readyz")[0] == 503
        (tmp_path / "broken").unlink()
        started(parent)
        parent.signal(signal.SIGTERM)
        assert parent.ended() == 0


def test_a_worker_that_can_never_run_ends_all_with_its_exit_code(tmp_path: Path, server: RedisServer) -> None:
    (tmp_path / "unfit").touch()
    with workers(tmp_path, server) as parent:
        assert parent.ended() == 1
    assert "so all workers stop" in parent.wait_for("can't run (exit code 1)")
    assert not any(map(is_alive, pids(parent).values()))


def test_a_worker_that_does_not_stop_in_time_ends_by_itself_and_is_killed_if_it_can_not(
    tmp_path: Path, server: RedisServer
) -> None:
    (tmp_path / "lingers").touch()
    with workers(tmp_path, server, "--grace", "0") as parent:
        started(parent)
        os.kill(pids(parent)[1], signal.SIGSTOP)
        parent.signal(signal.SIGTERM)
        parent.wait_for("lingering")
        assert parent.ended() == 0
    assert len([line for line in parent.err if "SIGTERM came 10 s ago, and something still hangs" in line]) == 1
    assert len([line for line in parent.err if "worker 1 did not stop in time and is killed" in line]) == 1
    assert not any(map(is_alive, pids(parent).values()))


def test_workers_finish_and_leave_no_files_when_their_parent_is_killed(tmp_path: Path, server: RedisServer) -> None:
    with workers(tmp_path, server, "--health", "127.0.0.1:0", SLOW="3") as parent:
        started(parent)
        children = pids(parent)
        assert len(list(tmp_path.glob("diator-*"))) == 1
        publish(tmp_path, server, 3)
        parent.wait_for("began 3")
        parent.process.kill()
        parent.wait_for("handled 3")
        until(lambda: not any(map(is_alive, children.values())), parent)
    assert not list(tmp_path.glob("diator-*"))
    ended = "the parent process has ended without stopping this worker, which stops now"
    assert sum(ended in line for line in parent.err) == 2
    assert not [line for line in parent.err if "Traceback" in line or " ERROR " in line]


def test_a_broker_in_memory_takes_one_worker_only(tmp_path: Path) -> None:
    write(tmp_path, APP)
    done = run_script(tmp_path, SCRIPT, "run", "meetings:app", "--workers", "2", REDIS="memory://")
    assert done.code == 1
    assert "the broker of <Diator 'meetings'> is in the memory of one process" in done.stderr
    assert "leave out --workers, or use a broker such as redis://" in done.stderr


def test_reloading_is_for_one_worker(tmp_path: Path) -> None:
    done = run(tmp_path, "run", "meetings:app", "--workers", "2", "--reload")
    assert (done.code, done.stderr) == (2, "Error: --reload is for one worker; leave out --workers, or --reload\n")


def test_on_windows_it_says_what_to_do_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    done = run(tmp_path, "run", "meetings:app", "--workers", "2")
    assert done.code == 2
    assert "--workers needs signals that Windows does not have" in done.stderr
