"""``diator run``: a real process, which handles what it publishes to itself."""

import json
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.prompt import run_script, write
from tests.cli.test_cli_program import SCRIPT
from tests.cli.workers import WorkerProcess, get, running

FED = """
import asyncio, logging, os, sys, threading, time, warnings
from diator.brokers import MemoryBroker

class Fed(MemoryBroker):
    '''Publishes one event as soon as there is a subscription to get it.'''
    opened = False
    async def connect(self):
        if os.path.exists("away"):
            raise BrokerUnavailableError("connection refused")
        await super().connect()
        self.opened = True
    async def apply(self, *arguments):
        if not self.opened:
            await self.connect()
        return await super().apply(*arguments)
    async def subscribe(self, subscription, /):
        receiver = await super().subscribe(subscription)
        self.task = asyncio.ensure_future(app.publish(Joined(1)))
        return receiver

app = Diator("meetings", broker=Fed(), retry=Retry(attempts=1))

@contract("meetings.joined")
@dataclass
class Joined(NotificationEvent):
    number: int
"""

QUICK = FED + '@app.on_event\nasync def note(event: Joined) -> None: print("handled", event.number)\n'
SLOW = FED + (
    "@app.on_event\n"
    "async def note(event: Joined) -> None:\n"
    "    print('began')\n"
    "    await asyncio.sleep(float(os.environ['NAP']))\n"
    "    print('finished')\n"
)
STUCK = FED + "@app.on_event\nasync def note(event: Joined) -> None:\n    print('began')\n    time.sleep(60)\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_tells_what_it_consumes_and_ends_well_after_a_signal(tmp_path: Path, number: int) -> None:
    write(tmp_path, QUICK)
    with running(tmp_path) as worker:
        worker.wait_for("handled 1")
        worker.signal(number)
        assert worker.ended() == 0
    assert worker.out[1].split("  ")[0] == " Subscription"
    cells = [cell.strip() for cell in worker.out[3].split("  ") if cell.strip()]
    assert cells == ["meetings.note", "meetings.joined", "meetings.joined", "10", "1 attempt", "300 s", "none"]
    assert "only this process can publish to it" in worker.wait_for("in the memory of this process")
    assert signal.Signals(number).name in worker.wait_for("receiving no more messages")
    assert worker.err[-1].endswith("INFO diator: stopped")


def test_what_runs_may_finish_within_the_grace_time(tmp_path: Path) -> None:
    write(tmp_path, SLOW)
    with running(tmp_path, "--grace", "15", NAP="1") as worker:
        worker.wait_for("began")
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 0
    assert "finished" in worker.out
    assert not [line for line in worker.err if "did not finish" in line]


def test_after_the_grace_time_what_runs_is_given_back(tmp_path: Path) -> None:
    write(tmp_path, SLOW)
    with running(tmp_path, "--grace", "0.5", NAP="60") as worker:
        worker.wait_for("began")
        began = time.monotonic()
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 0
    assert 0.4 < time.monotonic() - began < 10
    assert "finished" not in worker.out
    assert "did not finish in time, and is released" in worker.wait_for("is released")


def test_a_second_signal_cancels_at_once(tmp_path: Path) -> None:
    write(tmp_path, SLOW)
    with running(tmp_path, "--grace", "60", NAP="60") as worker:
        worker.wait_for("began")
        worker.signal(signal.SIGTERM)
        worker.wait_for("receiving no more messages")
        worker.signal(signal.SIGINT)
        assert worker.ended() == 0
    assert "SIGINT again" in worker.wait_for("are cancelled, and their messages released")


def test_a_third_signal_ends_a_process_whose_event_loop_is_blocked(tmp_path: Path) -> None:
    write(tmp_path, STUCK)
    with running(tmp_path, "--grace", "60") as worker:
        worker.wait_for("began")
        for _ in range(2):
            worker.signal(signal.SIGINT)
            time.sleep(0.5)
        assert worker.process.poll() is None
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 128 + signal.SIGTERM


def test_a_process_ends_after_one_signal_even_if_its_event_loop_is_blocked(tmp_path: Path) -> None:
    write(tmp_path, STUCK)
    with running(tmp_path, "--grace", "0") as worker:
        worker.wait_for("began")
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 128 + signal.SIGTERM
    assert "SIGTERM came 10 s ago" in worker.wait_for("the process ends now")


def test_a_signal_during_the_start_ends_it(tmp_path: Path) -> None:
    slow_start = (
        "async def connect(self):\n        print('connecting'); await asyncio.sleep(60)\n    async def away(self):"
    )
    write(tmp_path, QUICK.replace("async def connect(self):", slow_start))
    with running(tmp_path) as worker:
        worker.wait_for("connecting")
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 0
    assert "SIGTERM: ending before the worker has started" in worker.wait_for("SIGTERM")


def test_only_some_subscriptions_may_be_consumed_and_the_concurrency_replaced(tmp_path: Path) -> None:
    write(tmp_path, QUICK + '@app.on_event\nasync def mail(event: Joined) -> None: print("mailed", event.number)\n')
    with running(tmp_path, "--subscription", "meetings.mail", "--concurrency", "3") as worker:
        worker.wait_for("mailed 1")
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 0
    assert "handled 1" not in worker.out
    rows = [line.split() for line in worker.out if line.startswith(" meetings.")]
    assert [(row[0], row[3]) for row in rows] == [("meetings.mail", "3")]


# Logs


def test_json_logs_are_one_object_a_line_whatever_is_logged(tmp_path: Path) -> None:
    write(
        tmp_path,
        FED
        + """
log = logging.getLogger("meetings")
def thread(): raise KeyError("in a thread")
@app.on_event
async def note(event: Joined) -> None:
    circle = []; circle.append(circle)
    odd = {"nan": float("nan"), "key": {(1, 2): 3}, "circle": circle, "thing": object()}
    log.info("two\\nlines %s", "ü", extra={"meeting": 1, "level": "mine", **odd})
    log.info("%d", "no number")
    warnings.warn("old", DeprecationWarning)
    warnings.warn("beware")
    started = threading.Thread(target=thread); started.start(); started.join()
    raise ValueError("no such meeting")
""",
    )
    with running(tmp_path, "--json-logs", "--log-level", "info") as worker:
        worker.wait_for("dead letter")
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 0
    records = worker.records()
    assert worker.out == []
    for record in records:
        assert list(record)[:4] == ["time", "level", "logger", "message"]
    of = {record["message"]: record for record in records}
    consuming = next(record for record in records if "subscription" in record)
    assert (consuming["subscription"], consuming["topics"]) == ("meetings.note", ["meetings.joined"])
    two_lines = of["two\nlines ü"]
    assert (two_lines["meeting"], two_lines["level"], two_lines["level_"]) == ("1", "info", "'mine'")
    assert (two_lines["nan"], two_lines["circle"]) == ("nan", "[[...]]")
    assert "%d ('no number',)" in of
    assert any("beware" in message for message in of)
    thread = next(record for record in records if "KeyError" in record.get("exception", ""))
    assert (thread["level"], thread["message"]) == ("error", "the thread Thread-1 (thread) has failed")
    parked = next(record for record in records if "becomes a dead letter" in record["message"])
    assert parked["level"] == "error"
    assert "ValueError: no such meeting" in parked["exception"]


LOGGED = (
    FED
    + """
log = logging.getLogger("meetings")
left = 2
@app.on_event(retry=Retry(attempts=2, delay=0.01))
async def note(event: Joined) -> None:
    global left
    left -= 1
    log.info("my own line")
    if left:
        raise ValueError("not yet")
"""
)


def test_each_run_of_a_handler_is_a_line_with_what_is_known_as_fields(tmp_path: Path) -> None:
    write(tmp_path, LOGGED)
    with running(tmp_path, "--json-logs") as worker:
        worker.wait_for("attempt 2, in")
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 0
    records = {record["message"].partition(" 0.0")[0]: record for record in worker.records()}
    ids = {"diator_message_id", "diator_correlation_id"}
    failed = next(record for name, record in records.items() if "failed on" in name)
    handled = next(record for name, record in records.items() if "attempt 2, in" in name)
    own = [record for record in worker.records() if record["message"] == "my own line"]
    assert (failed["level"], failed["diator_outcome"], failed["diator_attempt"]) == ("warning", "retried", 1)
    assert "ValueError: not yet" in failed["exception"]
    assert (handled["level"], handled["logger"], handled["diator_outcome"]) == ("info", "diator.handled", "handled")
    assert (handled["diator_subscription"], handled["diator_message_type"]) == ("meetings.note", "meetings.joined")
    assert handled["message"].startswith(
        f"meetings.note handled {handled['diator_message_id']} (meetings.joined), attempt 2"
    )
    assert 0 < handled["diator_duration_seconds"] < 20
    assert [record["diator_attempt"] for record in own] == [1, 2]
    for record in (failed, *own):
        assert {name: record[name] for name in ids} == {name: handled[name] for name in ids}
        assert (record["diator_subscription"], record["diator_message_type"]) == ("meetings.note", "meetings.joined")


def test_the_lines_of_handled_messages_can_be_switched_off(tmp_path: Path) -> None:
    write(tmp_path, QUICK)
    with running(tmp_path, "--no-log-handled") as worker:
        worker.wait_for("handled 1")
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 0
    assert not [line for line in worker.err if "attempt 1" in line]
    assert [line for line in worker.err if "INFO" in line]


def test_the_log_level_says_how_much_is_logged(tmp_path: Path) -> None:
    write(tmp_path, QUICK)
    with running(tmp_path, "--log-level", "error") as worker:
        worker.wait_for("handled 1")
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 0
    assert worker.err == []


CHATTY = QUICK + (
    "for name in ('azure.servicebus._pyamqp', 'redis', 'elsewhere', 'meetings.parts'):\n"
    "    for level in ('debug', 'info', 'warning'):\n"
    "        getattr(logging.getLogger(name), level)('%s says %s', name, level)\n"
)


@pytest.mark.parametrize(
    ("level", "of_drivers", "of_others"),
    [
        ("debug", ["debug", "info", "warning"], ["debug", "info", "warning"]),
        ("info", ["warning"], ["info", "warning"]),
        ("warning", ["warning"], ["warning"]),
        ("error", [], []),
    ],
)
def test_drivers_of_brokers_are_quieter_than_the_app(
    tmp_path: Path, level: str, of_drivers: list[str], of_others: list[str]
) -> None:
    write(tmp_path, CHATTY)
    with running(tmp_path, "--log-level", level) as worker:
        worker.wait_for("handled 1")
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 0
    for name in ("azure.servicebus._pyamqp", "redis", "elsewhere", "meetings.parts"):
        said = [line.rpartition(" ")[2] for line in worker.err if f"{name} says" in line]
        assert said == (of_others if name in ("elsewhere", "meetings.parts") else of_drivers), name


# Probes


def port_of(worker: WorkerProcess) -> int:
    return int(worker.wait_for("answering probes on").rpartition(" ")[2])


def test_probes_are_answered(tmp_path: Path) -> None:
    write(tmp_path, QUICK)
    with running(tmp_path, "--health", "127.0.0.1:0") as worker:
        port = port_of(worker)
        worker.wait_for("handled 1")
        assert get(port, "/healthz") == (200, {"alive": True})
        assert get(port, "/readyz") == (200, {"ready": True, "reasons": []})
        assert get(port, "/readyz?verbose=1")[0] == 200
        assert get(port, "/elsewhere") == (404, {"error": "Not Found", "paths": ["/healthz", "/readyz", "/metrics"]})
        assert get(port, "/healthz", "POST") == (405, {"error": "Method Not Allowed"})
        assert _raw(port, b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")
        assert _raw(port, b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 10_000).startswith(b"HTTP/1.1 431 ")
        assert get(port, "/healthz")[0] == 200
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 0


def test_a_readiness_check_that_fails_is_named(tmp_path: Path) -> None:
    checks = """
@app.readiness
async def database() -> None:
    if os.path.exists("down"):
        raise ConnectionError("connection refused")

@app.readiness(name="mail-server")
async def mail() -> None:
    pass
"""
    write(tmp_path, QUICK + checks)
    with running(tmp_path, "--health", "127.0.0.1:0") as worker:
        port = port_of(worker)
        worker.wait_for("handled 1")
        assert get(port, "/readyz") == (200, {"ready": True, "reasons": []})
        (tmp_path / "down").touch()
        assert get(port, "/readyz") == (
            503,
            {"ready": False, "reasons": ["the readiness check database fails (ConnectionError: connection refused)"]},
        )
        assert get(port, "/healthz")[0] == 200


def _raw(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request)
        return connection.recv(1000)


def test_a_probe_that_says_nothing_does_not_keep_the_worker_from_ending(tmp_path: Path) -> None:
    write(tmp_path, QUICK)
    with running(tmp_path, "--health", "127.0.0.1:0") as worker:
        with socket.create_connection(("127.0.0.1", port_of(worker)), timeout=10) as connection:
            worker.wait_for("handled 1")
            worker.signal(signal.SIGTERM)
            assert worker.ended() == 0
            assert connection.recv(100) == b""
    assert not [line for line in worker.err if "Traceback" in line or "ERROR" in line]


def test_while_it_stops_it_is_not_ready(tmp_path: Path) -> None:
    write(tmp_path, SLOW)
    with running(tmp_path, "--health", "127.0.0.1:0", NAP="60") as worker:
        port = port_of(worker)
        worker.wait_for("began")
        worker.signal(signal.SIGTERM)
        worker.wait_for("receiving no more messages")
        assert get(port, "/readyz") == (503, {"ready": False, "reasons": ["it is stopping"]})
        assert get(port, "/healthz")[0] == 200


def test_a_broker_that_is_away_at_the_start_is_waited_for(tmp_path: Path) -> None:
    write(tmp_path, QUICK)
    (tmp_path / "away").touch()
    with running(tmp_path, "--health", "127.0.0.1:0") as worker:
        port = port_of(worker)
        worker.wait_for("retrying until it can")
        status, body = get(port, "/readyz")
        assert (status, body["ready"]) == (503, False)
        away = "(BrokerUnavailableError: connection refused)"
        assert body["reasons"][0] == f"the broker can't create subscriptions for the worker {away}"
        assert "meetings.note" in body["reasons"][1]
        assert get(port, "/healthz")[0] == 200
        assert not [line for line in worker.err if "consuming" in line]
        (tmp_path / "away").unlink()
        worker.wait_for("consuming meetings.note")
        worker.wait_for("handled 1")
        worker.wait_for("the broker has recovered")
        assert get(port, "/readyz")[0] == 200
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 0
    assert len([line for line in worker.err if "connection refused" in line]) == 2  # by the app, and by the worker


LEAVING = """
class Leaving(MemoryBroker):
    async def subscribe(self, subscription, /):
        receiver = await super().subscribe(subscription)
        plain = receiver.receive
        async def receive(limit, /):
            while True:
                if os.path.exists("away"):
                    raise BrokerUnavailableError("connection lost")
                with contextlib.suppress(asyncio.TimeoutError):
                    return await asyncio.wait_for(plain(limit), 0.05)
        receiver.receive = receive
        return receiver
"""


def test_a_broker_that_goes_away_later_is_waited_for_too(tmp_path: Path) -> None:
    source = QUICK.replace("app = Diator", f"import contextlib{LEAVING}app = Diator").replace("Fed()", "Leaving()")
    write(tmp_path, source)
    with running(tmp_path, "--health", "127.0.0.1:0") as worker:
        port = port_of(worker)
        wait_until(lambda: get(port, "/readyz")[0] == 200)
        (tmp_path / "away").touch()
        worker.wait_for("connection lost")
        why = "the broker can't receive messages for meetings.note (BrokerUnavailableError: connection lost)"
        assert get(port, "/readyz") == (503, {"ready": False, "reasons": [why]})
        time.sleep(1)
        (tmp_path / "away").unlink()
        worker.wait_for("the broker has recovered")
        wait_until(lambda: get(port, "/readyz")[0] == 200)
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 0
    assert len([line for line in worker.err if "connection lost" in line]) == 1


def wait_until(come: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not come():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_port_that_is_taken_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, QUICK)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_script(tmp_path, SCRIPT, "run", "meetings:app", "--health", f"127.0.0.1:{port}")
    assert done.code == 1
    assert f"can't listen on 127.0.0.1, port {port}, for --health" in done.stderr


# Refusals


@pytest.mark.parametrize(
    ("source", "code", "text"),
    [
        ("app = Diator()\n", 1, "<Diator> has no message broker"),
        ('app = Diator("x", broker="memory://")\n', 1, "handles no events that come over a broker"),
        (QUICK + "@app.on_event\nasync def bad(event: Joined, x: int) -> None: ...\n", 1, "bad needs x: int"),
        ('app = Diator("x", broker="smoke://")\n', 1, "no broker plugin for 'smoke'"),
        ("raise OSError('no file')\n", 2, "OSError: no file"),
        (
            QUICK.replace("super().connect()", "nowhere"),
            1,
            "Fed.connect failed unexpectedly: NameError: name 'nowhere' is not defined; this is a bug in the plugin",
        ),
        (
            QUICK.replace("await super().connect()", "raise BrokerError('wrong password')"),
            1,
            "the broker rejects meetings:app: BrokerError: wrong password",
        ),
    ],
    ids=["no-broker", "no-handlers", "problems", "no-plugin", "module-raises", "faulty-plugin", "refused"],
)
@pytest.mark.parametrize("options", [(), ("--json-logs",)], ids=["plain", "json"])
def test_what_can_not_run_is_told_with_an_exit_code(
    tmp_path: Path, source: str, code: int, text: str, options: tuple[str, ...]
) -> None:
    write(tmp_path, source)
    with running(tmp_path, *options) as worker:
        assert worker.ended() == code
    shown = "\n".join(worker.err)
    if options:
        shown = "\n".join(f"{record['message']}\n{record.get('exception', '')}" for record in worker.records())
    assert text in shown


def test_json_logs_have_the_code_the_location_and_the_fix_of_a_problem(tmp_path: Path) -> None:
    write(tmp_path, QUICK + "@app.on_event\nasync def bad(event: Joined, x: int) -> None: ...\n")
    done = run_script(tmp_path, SCRIPT, "run", "meetings:app", "--json-logs")
    (record,) = map(json.loads, done.stderr.splitlines())
    assert (record["level"], record["code"]) == ("critical", "missing-dependency")
    assert record["location"].startswith(str(tmp_path / "meetings.py"))
    assert "container" in record["fix"]


def test_an_unknown_subscription_suggests_close_names(tmp_path: Path) -> None:
    write(tmp_path, QUICK)
    done = run_script(tmp_path, SCRIPT, "run", "meetings:app", "--subscription", "meetings.nite")
    assert (done.code, done.stdout) == (1, "")
    assert "did you mean 'meetings.note'?" in done.stderr


@pytest.mark.parametrize("text", ["", "x", "localhost:", "1:2:3", "127.0.0.1:70000", "[::1", ":::"])
def test_what_is_no_address_is_a_usage_error(tmp_path: Path, text: str) -> None:
    write(tmp_path, QUICK)
    done = run_script(tmp_path, SCRIPT, "run", "meetings:app", "--health", text)
    assert done.code == 2
    assert "--health" in done.stderr


# Reloading


def test_a_changed_file_starts_the_worker_again(tmp_path: Path) -> None:
    write(tmp_path, QUICK)
    with running(tmp_path, "--reload") as worker:
        worker.wait_for("handled 1")
        write(tmp_path, QUICK.replace("handled", "handled anew"))
        worker.wait_for("meetings.py: starting again")
        worker.wait_for("handled anew 1")
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 0
    assert len([line for line in worker.err if line.endswith("INFO diator: stopped")]) == 2


@pytest.mark.once
def test_a_signal_during_a_restart_ends_it_well(tmp_path: Path) -> None:
    write(tmp_path, SLOW)
    with running(tmp_path, "--reload", NAP="30") as worker:
        worker.wait_for("began")
        write(tmp_path, SLOW + "# changed\n")
        worker.wait_for("receiving no more messages")
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 0


def test_without_watchfiles_it_says_what_to_install(tmp_path: Path) -> None:
    write(tmp_path, QUICK)
    (tmp_path / "watchfiles.py").write_text("raise ImportError('not installed')")
    done = run_script(tmp_path, SCRIPT, "run", "meetings:app", "--reload", PYTHONPATH=str(tmp_path))
    assert (done.code, done.stderr) == (
        2,
        'Error: --reload needs watchfiles; install it: uv add "diator[reload]"\n',
    )
