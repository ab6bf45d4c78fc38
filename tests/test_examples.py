"""Each example as a user runs it; what a script can't show is tested in process. The first has a file of its own."""

import asyncio
import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import dishka
import httpx
import punq
import pytest
from diator_rabbitmq.testing import MISSING, is_missing
from diator_redis.testing import RedisServer

from diator import Diator

EXAMPLES = Path(__file__).parent.parent / "examples"


def output_of(*arguments: str, cwd: Path = EXAMPLES) -> str:
    done = run_example(*arguments, cwd=cwd)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def logged_of(*arguments: str) -> list[str]:
    """The lines of an example that also logs what fails."""
    done = run_example(*arguments, cwd=EXAMPLES)
    assert done.returncode == 0, done.stderr
    assert "attempt 1" in done.stderr
    return done.stdout.splitlines()


def run_example(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-W", "error", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, cwd=cwd)


def test_the_readme_lists_every_example_in_reading_order() -> None:
    listed = re.findall(r"^\| \[`([^`]+)`\]\(([^)]+)\)", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    present = sorted(path.name for path in EXAMPLES.glob("[0-9][0-9]_*"))
    assert [name for name, _ in listed] == [link for _, link in listed] == present


def test_events_are_handled_in_the_order_that_the_example_tells() -> None:
    assert output_of("02_events.py").splitlines() == [
        "join_meeting: user 8 is in",
        "announce: welcome, user 8",
        "count: one more in meeting 1",
        "keep_minutes: UserJoined(meeting_id=1, user_id=8)",
        "warn: user 8, please be on time",
        "keep_minutes: UserWarned(user_id=8)",
    ]


def test_middlewares_log_try_again_and_refuse() -> None:
    output = re.sub(r"\d+\.\d ms", "N ms", output_of("03_middleware.py"))
    assert output.splitlines() == [
        "busy, once more",
        "diator: EndMeeting handled after N ms",
        "meeting 1 has ended",
        "diator: EndMeeting failed after N ms: PermissionError",
        "refused: Bob is not the host of meeting 2",
    ]


def test_class_handlers_publish_what_is_in_their_events() -> None:
    assert output_of("04_class_handlers.py").splitlines() == [
        "user 7 joined meeting 1",
        "user 8 joined meeting 1",
        "user 8 was warned for being late",
    ]


def test_a_stream_ends_its_handler_with_the_block() -> None:
    assert output_of("05_queries_and_streaming.py").splitlines() == [
        "found: Retrospective",
        "row: Retrospective",
        "the handler has ended",
    ]


def test_events_over_a_broker_reach_handlers_that_publish_too() -> None:
    assert output_of("10_events_over_a_broker.py").splitlines() == [
        "join_meeting: user 8 is in",
        "meetings.greet: welcome, user 8",
        "meetings.keep-minutes: user 8 was greeted",
    ]


def test_a_failing_handler_is_tried_again_alone_then_kept_and_replayed() -> None:
    told = logged_of("11_retries_and_dead_letters.py")
    assert [line for line in told if line.startswith("count")] == ["count: order 1", "count: order 2"]
    assert [line for line in told if not line.startswith("count")] == [
        "confirm: order 1, attempt 1: the mail server is away",
        "confirm: order 1, attempt 2: the mail server is away",
        "confirm: order 1, attempt 3: the mail server is away",
        "dead letter: rejected: 'nobody' is no address (diator.errors.Reject: 'nobody' is no address)",
        "dead letter: exhausted after 3 attempts (builtins.ConnectionError: the mail server is away)",
        "confirm: order 1, attempt 1: sent",
    ]


def test_a_retry_holds_back_its_own_key_and_no_other() -> None:
    told = logged_of("12_ordered_by_key.py")
    assert [line for line in told if line.startswith("ann")] == [
        "ann: +50 makes 50, as it should: 50",
        "ann: -20 fails once, and what follows of ann waits",
        "ann: -20 makes 30, as it should: 30",
        "ann: +70 makes 100, as it should: 100",
    ]
    assert told.index("bob: +5 makes 15, as it should: 15") < told.index("ann: -20 makes 30, as it should: 30")


def test_the_larger_application_runs_from_its_folder() -> None:
    assert output_of("06_larger_application").splitlines() == [
        "user 7: welcome to meeting 1",
        "user 8: welcome to meeting 1",
        "user 8: meeting 1 has begun without you",
        "refused: no free seat in meeting 1",
        "attendees: 2",
    ]


def test_the_contracts_of_the_larger_application_import_nothing_of_it() -> None:
    script = "import sys, conference.contracts; print(*(name for name in sys.modules if 'conference' in name))"
    imported = output_of("-c", script, cwd=EXAMPLES / "06_larger_application")
    assert imported.split() == ["conference", "conference.contracts"]


@pytest.mark.parametrize(("command", "found"), [("check", "no errors, no warnings"), ("graph", "note_attendance")])
def test_the_command_line_reads_the_larger_application(command: str, found: str) -> None:
    folder = EXAMPLES / "06_larger_application"
    assert found in output_of("-m", "diator", command, "conference.app:app", cwd=folder)


def test_the_example_of_tests_passes() -> None:
    assert re.search("^4 passed in ", output_of("07_testing.py"), re.MULTILINE)


def test_a_handler_that_is_not_idempotent_is_told_from_one_that_is() -> None:
    lines = output_of("17_idempotent_handlers.py").splitlines()
    assert re.match("hasty_points fails with 1 of the . faults", lines[0])
    assert lines[4] == "because: expected 50 points, found 60"
    assert re.match(r"careful_points passed 50 runs with \d+ faults", lines[5])


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import an example anew."""
    spec = importlib.util.spec_from_file_location("example", EXAMPLES / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "example", module)
    spec.loader.exec_module(module)
    return module


def punq_with(service: type) -> object:
    container = punq.Container()
    container.register(service)
    return container


def dishka_with(service: type) -> object:
    provider = dishka.Provider(scope=dishka.Scope.REQUEST)
    provider.provide(service)
    return dishka.make_async_container(provider)


@pytest.mark.parametrize("container_with", [punq_with, dishka_with])
async def test_handlers_are_the_same_whatever_the_container(
    container_with: Callable[[type], object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example = load("01_commands.py", monkeypatch)
    app = Diator(container=container_with(example.MeetingApi))
    app.add_command(example.join_meeting)
    async with app:
        await app.send(example.JoinMeeting(meeting_id=1, user_id=8, is_late=True))
    assert capsys.readouterr().out == "user 8 joined meeting 1\nuser 8 was warned for being late\n"


@pytest.fixture
def fastapi_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("DATABASE_URL", f"sqlite+aiosqlite:///{tmp_path / 'meetings.db'}")
    return load("08_fastapi.py", monkeypatch)


@pytest.fixture
async def client(fastapi_example: ModuleType) -> AsyncIterator[httpx.AsyncClient]:
    web = fastapi_example.web
    transport = httpx.ASGITransport(web, raise_app_exceptions=False)
    async with (
        web.router.lifespan_context(web),
        httpx.AsyncClient(transport=transport, base_url="http://meetings", headers={"X-User": "ann"}) as client,
    ):
        yield client


async def test_commands_and_queries_go_through_http(client: httpx.AsyncClient) -> None:
    opened = await client.post("/meetings", json={"seats": 2})
    assert (opened.status_code, opened.json()) == (201, 1)
    joined = await client.post("/meetings/1/attendees")
    assert (joined.status_code, joined.content) == (204, b"")
    listed = await client.get("/meetings/1/attendees")
    assert (listed.status_code, listed.json()) == (200, ["ann"])


async def test_what_is_no_command_is_refused_by_the_web_framework(client: httpx.AsyncClient) -> None:
    no_seats = await client.post("/meetings", json={"seats": 0})
    nobody = await client.post("/meetings", json={"seats": 1}, headers={"X-User": ""})
    assert (no_seats.status_code, no_seats.json()["detail"][0]["loc"]) == (422, ["body", "seats"])
    assert (nobody.status_code, nobody.json()["detail"][0]["loc"]) == (422, ["header", "x-user"])


async def test_errors_of_handlers_have_the_status_that_they_are_given(client: httpx.AsyncClient) -> None:
    await client.post("/meetings", json={"seats": 2})
    await client.post("/meetings/1/attendees")
    unknown = await client.post("/meetings/2/attendees")
    twice = await client.post("/meetings/1/attendees")
    assert (unknown.status_code, unknown.json()) == (404, {"detail": "there is no meeting 2"})
    assert (twice.status_code, twice.json()) == (409, {"detail": "ann is in meeting 1 already"})


async def test_what_an_event_handler_refuses_is_rolled_back_with_its_command(client: httpx.AsyncClient) -> None:
    await client.post("/meetings", json={"seats": 1})
    await client.post("/meetings/1/attendees")
    full = await client.post("/meetings/1/attendees", headers={"X-User": "bob"})
    assert (full.status_code, full.json()) == (409, {"detail": "meeting 1 is full"})
    assert (await client.get("/meetings/1/attendees")).json() == ["ann"]


async def test_requests_at_the_same_time_have_sessions_of_their_own(client: httpx.AsyncClient) -> None:
    await client.post("/meetings", json={"seats": 3})
    users = [f"user-{number}" for number in range(8)]
    answers = await asyncio.gather(*(client.post("/meetings/1/attendees", headers={"X-User": user}) for user in users))
    accepted = [user for user, answer in zip(users, answers, strict=True) if answer.status_code == 204]
    assert sorted(answer.status_code for answer in answers) == [204] * 3 + [409] * 5
    assert (await client.get("/meetings/1/attendees")).json() == accepted


@contextmanager
def served(tmp_path: Path) -> Generator[tuple["subprocess.Popen[str]", str]]:
    """Run the FastAPI example as a script, at a port that is free; give its process and its address."""
    settings = {"PORT": "0", "DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path / 'meetings.db'}"}
    command = [sys.executable, str(EXAMPLES / "08_fastapi.py")]
    with subprocess.Popen(command, env=os.environ | settings, stderr=subprocess.PIPE, text=True) as process:
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        try:
            assert process.stderr is not None
            found = (re.search(r"running on (http://\S+)", line) for line in process.stderr)
            yield process, next(match[1] for match in found if match)
        finally:
            watchdog.cancel()
            process.kill()


def test_a_real_server_serves_it_and_shuts_down_cleanly(tmp_path: Path) -> None:
    with served(tmp_path) as (process, address), httpx.Client(base_url=address, headers={"X-User": "ann"}) as client:
        assert client.post("/meetings", json={"seats": 1}).json() == 1
        assert client.post("/meetings/1/attendees").status_code == 204
        assert client.post("/meetings/1/attendees", headers={"X-User": "bob"}).status_code == 409
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
    assert "Application shutdown complete" in log
    assert "Traceback" not in log

    with served(tmp_path) as (_, address):  # what was committed is still there
        assert httpx.get(f"{address}/meetings/1/attendees").json() == ["ann"]


TWO_PROCESSES = EXAMPLES / "13_web_api_and_worker_on_redis"


@contextmanager
def running(*command: str, url: str, wait_for: str) -> Generator[tuple["subprocess.Popen[str]", "re.Match[str]"]]:
    """Run a part of the example of two processes until it says that it is there; give what it said."""
    arguments = [sys.executable, "-m", *command]
    settings = {"REDIS_URL": url, "COLUMNS": "200"}
    with subprocess.Popen(
        arguments,
        cwd=TWO_PROCESSES,
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        try:
            assert process.stdout is not None
            found = (re.search(wait_for, line) for line in process.stdout)
            yield process, next(match for match in found if match)
        finally:
            watchdog.cancel()
            process.kill()


def stopped(process: "subprocess.Popen[str]") -> str:
    """End a process as its supervisor does; give the rest of what it said."""
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=30)
    assert "Traceback" not in rest
    return rest


def welcomed(client: httpx.Client, expected: list[str]) -> bool:
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        if client.get("/meetings/1").json()["welcomed"] == expected:
            return True
        time.sleep(0.05)
    return False


def test_a_web_api_and_a_worker_meet_over_redis() -> None:
    web, worker = ("uvicorn", "meetings.web:web", "--port", "0"), ("diator", "run", "meetings.worker:app")
    running_on, ready = r"running on (http://\S+)", "meetings.welcome"
    with RedisServer() as server:
        applied = subprocess.run(
            [sys.executable, "-m", "diator", "subscriptions", "apply", "meetings.worker:app"],
            cwd=TWO_PROCESSES,
            env=os.environ | {"REDIS_URL": server.url},
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "meetings.welcome" in applied.stdout
        with (
            running(*web, url=server.url, wait_for=running_on) as (api, address),
            httpx.Client(base_url=address[1]) as client,
        ):
            first = client.post("/meetings/1/attendees/ann")  # no worker is there yet: it waits
            assert (first.status_code, first.json()) == (201, {"attendees": ["ann"], "welcomed": []})
            with running(*worker, url=server.url, wait_for=ready) as (process, _):
                assert welcomed(client, ["ann"])
                client.post("/meetings/1/attendees/nobody")
                client.post("/meetings/1/attendees/bob")
                assert welcomed(client, ["ann", "bob"])
                said = stopped(process)
            assert process.returncode == 0
            assert "welcome to meeting 1, bob (attempt 1)" in said
            assert "becomes a dead letter: rejected: there is nobody to welcome" in said
            assert "Application shutdown complete" in stopped(api)


def test_service_bus_keeps_the_order_of_a_key_and_the_dead_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SERVICEBUS_CONNECTION_STRING", raising=False)
    told = logged_of("14_azure_service_bus.py")
    assert [line for line in told if line.startswith("book: ann")] == [
        "book: ann +50 fails once, and what follows of ann waits",
        "book: ann +50",
        "book: ann -20",
    ]
    assert {"book: bob +10", "mail: ann +50", "mail: ann -20"} < set(told)
    assert told[-3:] == [
        "queue diator-example.bank.book: 0 wait, 0 dead letters",
        "queue diator-example.bank.mail: 0 wait, 1 dead letters",
        "bank.mail: a dead letter: diator.errors.Reject: bob has no address",
    ]


@pytest.mark.skipif(is_missing(), reason=MISSING)
@pytest.mark.once
def test_rabbitmq_keeps_the_order_of_a_key_and_the_dead_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RABBITMQ_URL", raising=False)
    told = logged_of("19_rabbitmq.py")
    assert [line for line in told if line.startswith("book: ann")] == [
        "book: ann +50 fails once, and what follows of ann waits",
        "book: ann +50",
        "book: ann -20",
    ]
    assert {"book: bob +10", "mail: ann +50", "mail: ann -20"} < set(told)
    assert told[-1] == "bank.mail: a dead letter: diator.errors.Reject: bob has no address"


@pytest.mark.once
def test_nats_keeps_the_order_of_a_key_the_dead_letters_and_what_is_due_later() -> None:
    assert logged_of("20_nats.py") == [
        "ann: 10, attempt 2",
        "ann: 20, attempt 1",
        "ann: 30, attempt 1",
        "a dead letter of bank.book: rejected: nothing was moved",
    ]


@pytest.mark.once
def test_an_application_that_is_killed_loses_no_order_and_bills_none_twice() -> None:
    assert output_of("15_outbox_survives_kill.py").splitlines() == ["killed 2 times", "30 orders were billed once"]


def test_one_trace_goes_from_the_request_to_the_statement_in_another_process() -> None:
    assert output_of("16_tracing_across_processes.py").splitlines() == [
        "web     POST /meetings/{meeting_id}/members/{user_id}",
        "web       create meetings.user-joined",
        "worker      process meetings.user-joined",
        "worker        CREATE",
        "worker        INSERT",
        "web       send meetings.user-joined",
    ]


def test_a_worker_waits_for_its_mail_server_and_counts_what_it_does() -> None:
    labels = '{subscription="shop.confirm",type="shop.order-placed"}'
    assert output_of("18_operating_a_worker.py").splitlines() == [
        "503; shop.confirm is paused; the readiness check mail-server fails",
        "3 orders are placed, and wait",
        "the mail server is up, and gets 3 mails, such as: thank you for order 1",
        "200 ready",
        f"diator_dead_lettered_total{labels} 0.0",
        f"diator_handled_total{labels} 3.0",
        "shop_mails_total 3.0",
        "worker: the last message is settled",
        "it ended with 0",
    ]


SCRIPTS = sorted(path.name for path in EXAMPLES.glob("[0-9][0-9]_*.py"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_app_of_an_example_passes_its_check(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    apps = [value for value in vars(load(name, monkeypatch)).values() if isinstance(value, Diator)]
    assert [(app, problem) for app in apps for problem in app.check()] == []
